r"""RePaint: known sites on a model that was never trained to be given any.

Known sites follow the noising of their values, the others a sampler, and every block of steps is
walked several times, noised back in between, so that the two agree:

.. math:: x_s^{known} \sim q(x_s | x_0), \quad x_s^{rest} \sim p(x_s | x_t); \qquad
   x_t \sim q(x_t | x_s) \text{ and again} .

Not exact, however often it is repeated: known sites are drawn without a look at the rest. A model
whose clock law has known sites is conditioned exactly, by ``given``, for the price of one walk.
Source: Lugmayr et al. (2022), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Path, Process, Sampler
from reversal.errors import CapabilityError
from reversal.grids import Grid, Tick
from reversal.noise import Randomness
from reversal.questions import ask
from reversal.samplers.ancestral import Ancestral
from reversal.state import Tree


@final
@dataclass(frozen=True, eq=False)
class RePaint(Sampler):
    """A sampler of a sampler, with known sites.

    Args:
        given: what is known, as ``sample(given=)`` takes it elsewhere: ``(values, known)``, or a
            dict over factors; bit-identical in the result.
        repeats: how often a block of steps is walked; 1 replaces the known sites and no more.
        jump: the steps in a block; ``steps`` counts blocks, each divided evenly.
        sampler: what walks.

    Cost: ``steps * jump * repeats`` steps of the inner sampler.
    """

    given: Any
    repeats: int = 10
    jump: int = 1
    sampler: Sampler = field(default_factory=Ancestral)

    def __post_init__(self) -> None:
        for name, count in (("repeats", self.repeats), ("jump", self.jump)):
            if not isinstance(count, int) or count < 1:
                raise CapabilityError(f"Expected {name} >= 1, got {count!r}. Give e.g. 10.")
        if isinstance(self.sampler, RePaint) or not isinstance(self.sampler, Sampler):
            raise CapabilityError(
                f"Expected a sampler that walks, got {self.sampler!r}. Give e.g. Ancestral()."
            )

    def check(self, path: Path) -> None:
        """Transitions, and what the inner sampler needs."""
        self.sampler.check(path)
        if not isinstance(path, Process):
            raise CapabilityError(
                f"Expected a process with transitions to noise states again, got {path}. Train "
                f"with clocks that have known sites, and pass given=."
            )

    def advance(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Any,
        s: Any,
        cond: Any,
        stop: Tree,
        generator: Randomness,
    ) -> Any:
        """Walk a block and noise it back, again and again; end with the known sites in place."""
        process, n = denoiser.process, state.batch_size(x_t)
        known = ask(process.space, n, self.given, None, denoiser.like)
        ticks = self._ticks(t, s)
        for turn in range(self.repeats):
            for at, to in pairwise(ticks):
                x_s = self.sampler.step(denoiser, x_t, at, to, cond, stop, generator)
                x_t = _replaced(process, known, x_s, to, generator)
            if turn + 1 < self.repeats:
                back = process.transition(x_t, _clocks(s, n, denoiser), _clocks(t, n, denoiser))
                x_t = _held(process.space, stop, x_t, back.sample(generator))
        return x_t

    def _ticks(self, t: Any, s: Any) -> list[Any]:
        """The times of a block, per factor."""
        if self.jump == 1:
            return [t, s]
        if not state.branches(t):
            return list(_divided(t, s, self.jump))
        columns = {name: _divided(t[name], state.take(s, name), self.jump) for name in t}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _held(space: Any, stop: Tree, old: Any, new: Any) -> Any:
    if stop is None:
        return new
    parts = space.parts
    return state.map(
        lambda part, mask, a, b: state.hold(mask, a, b, len(part.sites)),
        parts,
        state.complete(stop, parts),
        old,
        new,
    )


def _divided(t: Any, s: Any, jump: int) -> list[Any]:
    if isinstance(t, Tick):
        return list(Grid.uniform(jump, t.time, float(s)).ticks(t.pattern, t.running))
    return [t + (s - t) * (k / jump) for k in range(jump + 1)]


def _clocks(t: Any, n: int, denoiser: Denoiser) -> Any:
    """The running time of every item, whatever is stopped."""

    def one(at: Any) -> Tensor:
        shown = denoiser.like.new_zeros(n, dtype=torch.float64)
        return shown + at.time if isinstance(at, Tick) else at

    return state.map(one, t)


def _replaced(process: Any, known: Any, x_s: Any, s: Any, generator: Randomness) -> Any:
    """Put the values of the known sites, noised to s, in their place; themselves at 0."""

    def one(path: Any, x: Tensor, at: Any, values: Any, mask: Any) -> Tensor:
        if mask is None:
            return x
        ends = isinstance(at, Tick) and at.time == 0
        noisy = values if ends else path.kernel(values, at).sample(generator)
        return torch.where(state.trail(mask, path.space.lift), noisy, x)

    return state.map(one, process.parts, x_s, s, known.values, known.known)
