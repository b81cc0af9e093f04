"""A question about states: which sites are scored, which are given, which are not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import spread
from reversal.core import Denoiser
from reversal.noise import Randomness
from reversal.questions import Question, ask
from reversal.state import Tree


@final
@dataclass(frozen=True)
class Posed:
    """States x with a denoiser, of which the running sites are scored.

    Args:
        denoiser: an estimate of the reversal.
        x: states of the data space; any legal value where an entry is missing.
        cond: handed to the denoiser.
        question: the known and the dropped sites.
        generator: where randomness comes from.
    """

    denoiser: Denoiser
    x: Any
    cond: Any
    question: Question
    generator: Randomness

    @classmethod
    def of(
        cls, denoiser: Denoiser, x: Any, given: Any, observed: Any, cond: Any, generator: Randomness
    ) -> Posed:
        """Read ``given`` (masks of what is conditioned on) and ``observed`` (what is present).

        Raises:
            SpaceError: if x does not lie in the space.
            ClockError: if the question lies outside the clock law.
        """
        space, n = denoiser.process.space, state.batch_size(x)
        evidence = given
        if isinstance(given, Mapping):
            evidence = {name: (x[name], mask) for name, mask in state.flatten(given).items()}
        elif given is not None:
            evidence = (x, given)
        missing = None if observed is None else state.map(_absent, observed)
        question = ask(space, n, evidence, missing, state.like(x))
        denoiser.clocks.refuse(space, question)
        return cls(denoiser, x, cond, question, generator)

    @property
    def path(self) -> Any:
        """What is reversed."""
        return self.denoiser.process

    @property
    def size(self) -> int:
        """The number of items."""
        return state.batch_size(self.x)

    @property
    def like(self) -> Tensor:
        """The device, in float64."""
        return state.like(self.x).double()

    def look(self, t: Tensor) -> tuple[Any, Any, Any]:
        """Noise the running sites to t, ``(B,)``, and ask: the kernel, x_t and the estimate."""
        kernel = self.path.kernel(self.x, t)
        x_t = self.held(kernel.sample(self.generator))
        return kernel, x_t, self.denoiser(x_t, self.clock(t), self.cond)

    def held(self, x_t: Any) -> Any:
        """The states with the known sites at their values and prior draws at the dropped ones."""
        q = self.question
        if q.stop is None:
            return x_t
        fresh = x_t
        if any(mask is not None for mask in state.leaves(q.dropped)):
            fresh = self.path.prior.sample(self.size, self.generator, state.like(self.x))
        return state.map(_place, self.path.space.parts, x_t, self.x, fresh, q.known, q.dropped)

    def clock(self, t: Tensor) -> Any:
        """The clock of every site: t where it runs, 0 where it is known, 1 where it is dropped."""
        q = self.question
        if q.stop is None:
            return t
        return state.map(_stand, self.path.space.parts, t, q.known, q.dropped)

    def running(self, values: Tree) -> Tensor:
        """Sum values ``(B, *sites)`` over the running sites, in float64."""
        kept = state.map(
            lambda v, m: v if m is None else torch.where(m, 0.0, v), values, self.question.stop
        )
        return state.total(state.map(state.sum_sites, kept)).double()


def _absent(mask: Any) -> Any:
    return None if mask is None else ~mask


def _place(space: Any, x_t: Tensor, x: Tensor, fresh: Tensor, known: Any, dropped: Any) -> Tensor:
    sites = len(space.sites)
    return state.hold(dropped, fresh, state.hold(known, x, x_t, sites), sites)


def _stand(space: Any, t: Tensor, known: Any, dropped: Any) -> Tensor:
    clock = spread(space, t)
    clock = clock if known is None else torch.where(known, 0.0, clock)
    return clock if dropped is None else torch.where(dropped, 1.0, clock)
