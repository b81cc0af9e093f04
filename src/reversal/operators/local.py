r"""Operators from local characteristics: a drift, a covariance and jump rates at every state.

.. math:: L f = \sum_i \Big[f_i \cdot \nabla_i f + \tfrac12 a_i : \nabla_i^2 f
   + \sum_y R_i(x \to y) (f(y) - f(x))\Big]

over the factors i of a product, each of which may read the whole state, and

.. math:: L^* g = \sum_i \Big[-\nabla_i \cdot (f_i g)
   + \tfrac12 \nabla_i \cdot \nabla_i \cdot (a_i g)
   + \sum_y \big(R_i(y \to x) g(y) - R_i(x \to y) g(x)\big)\Big] .

Exact, by automatic differentiation and by a visit to every neighbor: a tool for small dimensions,
in which the theory is checked. Training reads the local characteristics themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import DenseJumps, Generator, JumpSpace, Process
from reversal.errors import CapabilityError
from reversal.operators.derivatives import Field, Function, Tangent
from reversal.operators.neighbors import Neighbors
from reversal.operators.operator import Operator

Characteristics = Callable[[Any], Any]
"""States to their ``Generator``; on a product to a dict of them."""


@final
class Local(Operator):
    """The operator of local characteristics.

    Args:
        space: where the states live; on finite sets the noisy space.
        characteristics: ``x -> Generator``, or a dict of them on a product. A covariance that
            depends on the state may leave ``divergence`` out: it is found by differentiation.

    Cost: on a real factor of T tangent dimensions, T + 1 backward passes for L f, up to T^2 more
    for L* g; on a finite one, a call of f per site and jump.
    """

    def __init__(self, space: Any, characteristics: Characteristics) -> None:
        self.space, self._given = space, characteristics

    @classmethod
    def of(cls, process: Process, t: float | Tensor) -> Local:
        """The generator of a process at time t, a number or one time per item, ``(B,)``."""

        def at(x: Any) -> Any:
            clock = torch.as_tensor(t, dtype=torch.float64, device=state.like(x).device)
            return process.forward(x, clock.expand(state.batch_size(x)))

        return cls(process.noisy_space, at)

    def characteristics(self, x: Any) -> Any:
        """The local characteristics, with the shape of the space and without jumps onto x itself.

        Raises:
            CapabilityError: for rates below 0.
        """
        return state.map(_cleaned, self.space.parts, self._given(x), x)

    def apply(self, f: Function) -> Function:
        """L f."""
        return lambda x: self._total(x, [self._forward(name, f, x) for name in self._names()])

    def adjoint(self, g: Function) -> Function:
        """L* g, with respect to Lebesgue, counting or uniform measure, factor by factor."""
        return lambda x: self._total(x, [self._backward(name, g, x) for name in self._names()])

    def _names(self) -> list[str]:
        return list(self.space.factors) if self.space.factors else [""]

    def _at(self, name: str, x: Any) -> Generator:
        return state.take(self.characteristics(x), name)

    def _total(self, x: Any, terms: list[Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0).expand(state.batch_size(x))

    def _forward(self, name: str, f: Function, x: Any) -> Tensor:
        part = state.take(self.space.parts, name)
        if isinstance(part, JumpSpace):
            return self._outward(name, f, x)
        law, tangent = self._at(name, x), Tangent(self.space, name)
        if law.covariance is None:
            return _inner(_drift(law), tangent.gradient(f, x))
        slope, bend = tangent.hessian(f, x)
        drift = 0.0 if law.drift is None else _inner(law.drift, slope)
        return drift + _contract(law, bend, part) / 2

    def _backward(self, name: str, g: Function, x: Any) -> Tensor:
        part = state.take(self.space.parts, name)
        if isinstance(part, JumpSpace):
            return self._inward(name, g, x)
        law, tangent = self._at(name, x), Tangent(self.space, name)
        terms = []
        if law.drift is not None:
            terms += [-_inner(law.drift, tangent.gradient(g, x))]
            terms += [-g(x) * tangent.divergence(lambda y: _drift(self._at(name, y)), x)]
        if law.covariance is not None:
            slope, bend = tangent.hessian(g, x)
            spread = self.divergence_of_covariance(name)
            terms += [_contract(law, bend, part) / 2, _inner(spread(x), slope)]
            terms += [g(x) * tangent.divergence(spread, x) / 2]
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0)

    def divergence_of_covariance(self, name: str = "") -> Field:
        """The field div a of one real factor."""
        part, tangent = state.take(self.space.parts, name), Tangent(self.space, name)

        def columns(x: Any) -> Tensor:
            law = self._at(name, x)
            own = state.take(x, name)
            units = torch.eye(tangent.dimension, dtype=own.dtype, device=own.device)
            pulled = [
                law.pull(unit.view(part.tangent_shape).expand(len(own), *part.tangent_shape))
                for unit in units
            ]
            return torch.stack(pulled, 1).flatten(1)

        def field(x: Any) -> Tensor:
            given = self._at(name, x).divergence
            if given is not None:
                return given
            size = tangent.dimension
            slopes = tangent.jacobian(columns, x).unflatten(1, (size, size))
            return slopes.diagonal(dim1=1, dim2=3).sum(-1).unflatten(1, part.tangent_shape or (1,))

        return field

    def _outward(self, name: str, f: Function, x: Any) -> Tensor:
        neighbors, here = Neighbors(self.space, name), f(x)
        rates = self._at(name, x).rates.flatten(1).unbind(1)
        visits = (
            torch.where(rate > 0, rate * (f(y) - here), 0.0)
            for rate, (_, _, y) in zip(rates, neighbors.every(x), strict=True)
        )
        return sum(visits, torch.zeros_like(here))

    def _inward(self, name: str, g: Function, x: Any) -> Tensor:
        neighbors, leaving = Neighbors(self.space, name), self._at(name, x).rates
        back = self.rates_into(name, x).flatten(1).unbind(1)
        visits = (
            torch.where(rate > 0, rate * g(y), 0.0)
            for rate, (_, _, y) in zip(back, neighbors.every(x), strict=True)
        )
        return sum(visits, -leaving.flatten(1).sum(1) * g(x))

    def rates_into(self, name: str, x: Any) -> Tensor:
        """Rates into x from every neighbor of one jumping factor, ``(B, *sites, N)``."""
        return Neighbors(self.space, name).into(x, lambda y: self._at(name, y).rates)


def _cleaned(part: Any, law: Generator, x: Tensor) -> Generator:
    if not isinstance(part, JumpSpace):
        lift = len(part.tangent_shape) - len(part.sites)
        return law if law.lift == lift else replace(law, lift=lift)
    if not isinstance(law.jumps, DenseJumps):
        return law
    landed = [part.hop(x, torch.full_like(x, k)) for k in range(part.num_jumps)]
    moves = torch.stack([y != x for y in landed], -1)
    rates = torch.where(moves, law.rates, 0.0)
    if rates.device.type == "cpu" and bool((rates < 0).any()):
        raise CapabilityError(
            f"Expected rates of at least 0, got {rates.min().item():g}. Give the rates of the "
            f"jumps from x, as (B, *sites, {part.num_jumps})."
        )
    back = law.jumps.back
    back = None if back is None else torch.where(moves, back, 0.0)
    return Generator(jumps=DenseJumps(rates, back))


def _drift(law: Generator) -> Tensor:
    if law.drift is None:
        raise CapabilityError(
            "Expected a generator with a drift, a covariance or jumps, got one without any. "
            "Write Generator(drift=...), Generator(covariance=...) or Generator(jumps=...)."
        )
    return law.drift


def _inner(v: Tensor, w: Tensor) -> Tensor:
    return (v.flatten(1) * w.flatten(1)).sum(1)


def _contract(law: Generator, bend: Tensor, part: Any) -> Tensor:
    """a : H, ``(B,)``."""
    rows = bend.unflatten(2, part.tangent_shape or (1,)).unbind(1)
    pulled = torch.stack([law.pull(_shaped(row, part)).flatten(1) for row in rows], 1)
    return pulled.diagonal(dim1=1, dim2=2).sum(-1)


def _shaped(row: Tensor, part: Any) -> Tensor:
    return row if part.tangent_shape else row.squeeze(-1)
