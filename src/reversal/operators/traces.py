r"""How sums over directions and over neighbors are taken: in full, or by random draws.

With the axes e of a tangent space, or with random signs z in their place,

.. math:: \operatorname{tr} A = \sum_i e_i^T A e_i = E[z^T A z], \qquad
   \sum_y R(x \to y) h(y) = R(x)\, E[h(Y)], \quad Y \sim R(x \to \cdot) / R(x) .

Both are unbiased, and so is all that is linear in them. A function of an estimate that is not
linear, such as its logarithm, its square or the exponential of its integral, is biased. Source:
Hutchinson (1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal import noise
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.operators.neighbors import Neighbors

AT_ONCE: Final = 2**14
"""The size of a batch of backward passes: small ones gain tenfold by it, large ones nothing."""

Visit = Callable[[Tensor, Tensor, Any], Tensor]
"""The number of every item, ``(B,)``, at the site, the jump and the state that it leads to."""


@final
@dataclass(frozen=True)
class Traces:
    """How the terms that look around x are found; in full by default.

    Args:
        probes: random signs per trace (Hutchinson), or None for every axis.
        jumps: jumps that are drawn per item in place of a visit to every neighbor, or None.
        generator: where the draws come from.

    Cost: a backward pass per probe or axis, a call per jump or neighbor.
    """

    probes: int | None = None
    jumps: int | None = None
    generator: Randomness = None

    def __post_init__(self) -> None:
        for name, count in (("probes", self.probes), ("jumps", self.jumps)):
            if count is not None and not (isinstance(count, int) and count >= 1):
                raise CapabilityError(
                    f"Expected {name} to be a number of draws of at least 1, or None for the exact "
                    f"value, got {count!r}."
                )

    def directions(self, v: Tensor) -> Iterator[Tensor]:
        r"""Yield directions z like v, ``(B, *tangent_shape)``, with :math:`E \sum z z^T = 1`."""
        if self.probes is None:
            for axis in torch.eye(math.prod(v.shape[1:]), dtype=v.dtype, device=v.device):
                yield axis.view(v.shape[1:]).expand_as(v)
            return
        for _ in range(self.probes):
            signs = 1 - 2 * (noise.uniform(v.shape, v.detach(), self.generator) < 0.5).to(v)
            yield signs / self.probes**0.5

    def trace(self, output: Tensor, v: Tensor) -> Tensor:
        """The trace of d output / d v, item by item, ``(B,)``; it may be differentiated again."""
        total = output.new_zeros(len(v))
        directions = self.directions(v)
        while some := list(islice(directions, _chunk(v))):
            total = total + forms(output, v, torch.stack(some), again=True).sum(0)
        return total

    def visit(self, neighbors: Neighbors, x: Any, rates: Tensor, value: Visit) -> Tensor:
        """The sum of rates times values over the neighbors of x, ``(B,)``.

        Args:
            neighbors: of one jumping factor.
            x: the states.
            rates: of every jump, ``(B, *sites, N)``; values where they are 0 are not read.
            value: what is summed.
        """
        rates = rates.flatten(1)
        look = self._every if self.jumps is None else self._drawn
        return look(neighbors, x, rates, value)

    def _every(self, neighbors: Neighbors, x: Any, rates: Tensor, value: Visit) -> Tensor:
        terms = []
        for rate, (site, k, y) in zip(rates.unbind(1), neighbors.every(x), strict=True):
            at = torch.full((len(rates),), site, device=rates.device)
            terms.append(torch.where(rate > 0, rate * value(at, torch.full_like(at, k), y), 0.0))
        return torch.stack(terms).sum(0)

    def _drawn(self, neighbors: Neighbors, x: Any, rates: Tensor, value: Visit) -> Tensor:
        """Weights of 1 whose derivative is that of the law of the draw."""
        size, drawn, total = neighbors.part.num_jumps, [], rates.detach().sum(1)
        for _ in range(self.jumps or 1):
            choice = noise.categorical(rates.detach(), self.generator)
            rate = rates.gather(1, choice[:, None]).squeeze(1)
            weight = rate / rate.detach().clamp_min(torch.finfo(rate.dtype).tiny)
            site, k = choice // size, choice % size
            found = weight * value(site, k, neighbors.hop(x, site, k))
            drawn.append(torch.where(total > 0, found, 0.0))
        return total * torch.stack(drawn).mean(0)


def trace(output: Tensor, v: Tensor, again: bool = False) -> Tensor:
    """The trace of d output / d v, ``(B, T)`` each, item by item, ``(B, 1)``; T backward passes.

    ``again`` says whether it may be differentiated in its turn.
    """
    total = output.new_zeros(len(v))
    axes = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
    for some in axes.split(_chunk(v)):
        total = total + forms(output, v, some[:, None].expand(len(some), *v.shape), again).sum(0)
    return total[:, None]


def probed(output: Tensor, v: Tensor, signs: Tensor, again: bool = False) -> Tensor:
    """The quadratic form of every sign vector ``(B, K, T)``, ``(B, K)``; K backward passes."""
    parts = [forms(output, v, z, again) for z in signs.transpose(0, 1).split(_chunk(v))]
    return torch.cat(parts).T


def forms(output: Tensor, v: Tensor, z: Tensor, again: bool = False) -> Tensor:
    """z^T J z, J = d output / d v, for each of K directions z ``(K, *v.shape)``: ``(K, B)``.

    ``again`` says whether they may be differentiated in their turn.
    """
    if not output.requires_grad:
        return z.new_zeros(z.shape[:2])
    rows = _rows(output, v, z, again)
    return torch.stack([(row * own).flatten(1).sum(1) for row, own in zip(rows, z, strict=True)])


def _chunk(v: Tensor) -> int:
    return max(1, AT_ONCE // max(1, v.numel()))


def _rows(output: Tensor, v: Tensor, z: Tensor, again: bool) -> Iterator[Tensor] | Tensor:
    """J^T z: all at once where every operation of the network can be, else one by one."""
    options = {"retain_graph": True, "create_graph": again, "materialize_grads": True}
    if len(z) > 1:
        try:
            return torch.autograd.grad(output, v, z, is_grads_batched=True, **options)[0]
        except RuntimeError:  # an operation without a batched derivative
            pass
    return (torch.autograd.grad(output, v, own, **options)[0] for own in z)
