r"""Operators from local characteristics: a drift, a covariance and jump rates at every state.

.. math:: L f = \sum_i \Big[f_i \cdot \nabla_i f + \tfrac12 a_i : \nabla_i^2 f
   + \sum_y R_i(x \to y) (f(y) - f(x))\Big]

over the factors i of a product, each of which may read the whole state, and

.. math:: L^* g = \sum_i \Big[-\nabla_i \cdot (f_i g)
   + \tfrac12 \nabla_i \cdot \nabla_i \cdot (a_i g)
   + \sum_y \big(R_i(y \to x) g(y) - R_i(x \to y) g(x)\big)\Big] .

Exact by default, by automatic differentiation and by a visit to every neighbor: a tool for small
dimensions, in which the theory is checked. With ``Traces(probes, jumps)`` both are drawn, at a cost
that does not depend on the dimension: L f, L* g, and with them the reversal, the implicit objective
and Phi, which are linear in what is drawn, are unbiased. Training reads the local characteristics
themselves.
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
from reversal.operators.derivatives import Field, Function, Tangent, inner
from reversal.operators.neighbors import Neighbors
from reversal.operators.operator import Operator
from reversal.operators.traces import Traces

Characteristics = Callable[[Any], Any]
"""States to their ``Generator``; on a product to a dict of them."""


@final
class Local(Operator):
    """The operator of local characteristics.

    Args:
        space: where the states live; on finite sets the noisy space.
        characteristics: ``x -> Generator``, or a dict of them on a product. A covariance that
            depends on the state may leave ``divergence`` out: it is found by differentiation.
        traces: how traces and sums over neighbors are taken; in full by default.

    Cost: with D directions (the tangent dimension, or the probes), D + 1 backward passes for L f on
    a real factor and D + 1 for L* g, 2 D more where the covariance depends on the state; on a
    finite one, a call of f per site and jump, or per jump that is drawn, and for L* g as many of
    the characteristics, unless they hold the rates into x.
    """

    def __init__(
        self, space: Any, characteristics: Characteristics, traces: Traces = Traces()
    ) -> None:
        self.space, self._given, self.traces = space, characteristics, traces

    @classmethod
    def of(cls, process: Process, t: float | Tensor, traces: Traces = Traces()) -> Local:
        """The generator of a process at time t, a number or one time per item, ``(B,)``."""

        def at(x: Any) -> Any:
            clock = torch.as_tensor(t, dtype=torch.float64, device=state.like(x).device)
            return process.forward(x, clock.expand(state.batch_size(x)))

        return cls(process.noisy_space, at, traces)

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
            return inner(_drift(law), tangent.gradient(f, x))
        slope, bend = tangent.second(f, x, law.pull, self.traces)
        return bend / 2 if law.drift is None else inner(law.drift, slope) + bend / 2

    def _backward(self, name: str, g: Function, x: Any) -> Tensor:
        """Minus the divergence of the flux f g - div(a g) / 2."""
        part = state.take(self.space.parts, name)
        if isinstance(part, JumpSpace):
            return self._inward(name, g, x)
        tangent, spread = Tangent(self.space, name), self.divergence_of_covariance(name)

        def flux(y: Any) -> Tensor:
            law, value = self._at(name, y), state.trail(g(y), len(part.tangent_shape))
            if law.covariance is None:
                return -_drift(law) * value
            flow = (law.pull(tangent.gradient(g, y)) + spread(y) * value) / 2
            return flow if law.drift is None else flow - law.drift * value

        return tangent.divergence(flux, x, self.traces)

    def divergence_of_covariance(self, name: str = "") -> Field:
        """The field div a of one real factor."""
        tangent = Tangent(self.space, name)

        def field(x: Any) -> Tensor:
            given = self._at(name, x).divergence
            if given is not None:
                return given
            return tangent.rows(lambda y: self._at(name, y).pull, x, self.traces)

        return field

    def _outward(self, name: str, f: Function, x: Any) -> Tensor:
        here = f(x)
        return self.traces.visit(
            Neighbors(self.space, name), x, self._at(name, x).rates, lambda _, k, y: f(y) - here
        )

    def _inward(self, name: str, g: Function, x: Any) -> Tensor:
        law = self._at(name, x)
        into = self.traces.visit(
            Neighbors(self.space, name), x, self._into(name, law, x), lambda _, k, y: g(y)
        )
        return into - state.sum_sites(law.rates.sum(-1)) * g(x)

    def _into(self, name: str, law: Generator, x: Any) -> Tensor:
        """The rates into x: visited to be exact, and read from the law where it holds them."""
        unknown = isinstance(law.jumps, DenseJumps) and law.jumps.back is None
        if self.traces.jumps is None or unknown or law.jumps is None:
            return self.rates_into(name, x)
        return law.jumps.into

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
