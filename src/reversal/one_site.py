"""The clock law of a chain of conditionals: one site runs, the others are known or dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.clocks import Clock, ClockLaw, SharedClock, refuse_weights, spread, tensor
from reversal.core import Path, Space
from reversal.errors import ClockError
from reversal.noise import Randomness
from reversal.questions import Question
from reversal.times import LowDiscrepancy, Times


@final
@dataclass(frozen=True)
class OneSite(ClockLaw):
    """One random site runs; each of the others is known, with a random share, or else dropped.

    It trains p(x^j | x^A) for any site j and sites A, one site at a time: what a chain of
    conditionals asks, and so the law of restricted sites.

    Args:
        times: the law of the running time.
    """

    times: Times = LowDiscrepancy()

    def __post_init__(self) -> None:
        refuse_weights(self.times)

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw the site that runs, its time, and which of the others are known."""
        parts = space.parts if isinstance(space.parts, Mapping) else {"": space}
        sizes = [torch.Size(part.sites).numel() for part in parts.values()]
        u = noise.uniform((n, sum(sizes)), like, generator)
        runs = u == u.amax(1, keepdim=True)
        share = noise.uniform((n, 1), like, generator)
        known = noise.uniform((n, sum(sizes)), like, generator) < share
        now = self.times.sample(n, like, generator)[:, None].to(like)
        time = torch.where(runs, now, torch.where(known, 0.0, 1.0))
        split = zip(parts.items(), time.split(sizes, 1), runs.split(sizes, 1), strict=True)
        drawn = {
            name: (at.reshape(n, *part.sites), run.reshape(n, *part.sites))
            for (name, part), at, run in split
        }
        plain = not isinstance(space.parts, Mapping)
        times, running = ({name: pair[k] for name, pair in drawn.items()} for k in range(2))
        return Clock(times[""], running[""]) if plain else Clock(times, running)

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse questions in which not exactly one site runs."""
        pairs = _masks(space, question.stop)
        device = next((mask.device for _, mask in pairs if mask is not None), None)
        stopped = [
            torch.zeros(1, torch.Size(part.sites).numel(), dtype=torch.bool, device=device)
            if mask is None
            else mask[..., None].flatten(1)
            for part, mask in pairs
        ]
        rows = math.prod({len(mask) for mask in stopped} - {1})  # one row broadcasts
        running = torch.cat([~mask.expand(rows, -1) for mask in stopped], 1).sum(1)
        if not bool((running == 1).all()):
            raise ClockError(
                f"Expected one running site, got {int(running.max())}: OneSite never trained more. "
                f"Mix it with another law, MixedClocks([(SiteClocks(), 0.8), (OneSite(), 0.2)])."
            )

    def grid(self, path: Path, steps: int) -> Any:
        """A common grid, the mean of the factors'."""
        return SharedClock().grid(path, steps)

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """One time per site, ``(B, *sites)`` for every factor."""
        return state.map(lambda part, at: spread(part, tensor(at, n, like)), space.parts, t)


def _masks(space: Space, stop: Any) -> list[tuple[Any, Any]]:
    """Pair every factor with its mask, or None."""
    if not isinstance(space.parts, Mapping):
        return [(space, stop)]
    return [(part, None if stop is None else stop.get(k)) for k, part in space.parts.items()]
