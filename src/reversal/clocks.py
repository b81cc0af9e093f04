r"""Laws of clocks: which times a denoiser is trained on, and so which questions it may be asked.

A running site has a time in (0, 1); a known site stands at 0; a dropped site stands at 1. A network
is right only on clocks that its training law visits with positive probability, so a law has atoms
at 0 and 1 for the patterns that will be asked, and refuses the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Path, Space
from reversal.errors import ClockError
from reversal.grids import Grid, Tick
from reversal.noise import Randomness
from reversal.questions import Question
from reversal.times import GridTimes, ImportanceTimes, LowDiscrepancy, OnGrid, Times


class Clock(NamedTuple):
    """A draw: ``time`` is a tree of tensors, ``running`` a tree of bool masks, None if all run.

    Where ``times`` are of importance, one per item, they have a weight for every loss.
    """

    time: Any
    running: Any = None
    times: ImportanceTimes | None = None

    def weigh(self, losses: Tensor) -> Tensor:
        """The losses ``(B,)``, with the mean that they have under uniform times."""
        return losses if self.times is None else self.times.weigh(self.time, losses)


class ClockLaw(ABC):
    """What clocks a denoiser knows."""

    @abstractmethod
    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw the clocks of n items."""

    @abstractmethod
    def refuse(self, space: Space, question: Question) -> None:
        """Raise ``ClockError`` if the question lies outside this law."""

    @abstractmethod
    def grid(self, path: Path, steps: int) -> Any:
        """The time grid a sampler takes by default: one ``Grid`` or one per factor."""

    @abstractmethod
    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """The clock as the network sees it: ``(B,)``, or ``(B, *sites)``, or a dict of those."""


@final
@dataclass(frozen=True)
class SharedClock(ClockLaw):
    """One time for all sites of an item; nothing can be given, dropped or missing."""

    times: Times = LowDiscrepancy()

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw one time per item."""
        weights = self.times if isinstance(self.times, ImportanceTimes) else None
        return Clock(self.times.sample(n, like, generator), None, weights)

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse all evidence."""
        if question.stop is not None:
            raise ClockError(
                "Expected a question inside the clock law, but SharedClock never trained a "
                "known or dropped site. Train with SiteClocks() or FactorClocks(), or ask "
                "without `given`."
            )

    def grid(self, path: Path, steps: int) -> Grid:
        """The path's own grid; on a product the mean of the factors' grids; of times on a grid."""
        if isinstance(self.times, OnGrid):
            return Grid.respaced(self.times.steps, steps)
        if isinstance(self.times, GridTimes):
            return self.times.grid
        own = path.grid(steps)
        return Grid.mean(list(own.values())) if isinstance(own, Mapping) else own

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Tensor:
        """The common time, ``(B,)``."""
        if not state.branches(t):
            return tensor(t, n, like)
        parts = list(state.leaves(t))
        if any(part is not parts[0] for part in parts[1:]):
            raise ClockError(
                "Expected one common clock, got one per factor, which SharedClock never trained. "
                "Pass one grid for all factors, or train with FactorClocks()."
            )
        return tensor(parts[0], n, like)


@final
@dataclass(frozen=True)
class FactorClocks(ClockLaw):
    """One independent time per factor of a product, each known or dropped with some probability.

    One factor, drawn uniformly for each item, runs in any case; the probabilities are the others'.

    Args:
        known: the probability that a factor stands at 0.
        dropped: the probability that a factor stands at 1.
        times: the law of the running times.
    """

    known: float = 0.25
    dropped: float = 0.1
    times: Times = LowDiscrepancy()

    def __post_init__(self) -> None:
        _check_shares(self, 1)
        refuse_weights(self.times)

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw one time per factor; at least one factor runs where any could."""
        parts = space.parts if isinstance(space.parts, Mapping) else {"": space}
        u = noise.uniform((n, len(parts)), like, generator)
        spared = noise.uniform((n, len(parts)), like, generator).argmax(1, keepdim=True)
        u = u.scatter(1, spared, 1.0)
        stop_known, stop_any = u < self.known, u < self.known + self.dropped
        time, running = {}, {}
        for column, (name, part) in enumerate(parts.items()):
            now = self.times.sample(n, like, generator)
            stopped = torch.where(stop_known[:, column], 0.0, 1.0).to(now)
            time[name] = torch.where(stop_any[:, column], stopped, now)
            runs = ~stop_any[:, column]
            running[name] = state.trail(runs, len(part.sites)).expand(n, *part.sites)
        plain = not isinstance(space.parts, Mapping)
        return Clock(time[""], running[""]) if plain else Clock(time, running)

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse evidence on a part of a factor, and patterns of probability zero."""
        for mask in (*state.leaves(question.known), *state.leaves(question.dropped)):
            if mask is not None and not bool(
                ((rows := mask[..., None].flatten(1)).all(1) == rows.any(1)).all()
            ):
                raise ClockError(
                    "Expected whole factors to be given or dropped, got a part of one, which "
                    "FactorClocks never trained. Train with SiteClocks(), or give whole factors."
                )
        _refuse_impossible(self, question)

    def grid(self, path: Path, steps: int) -> Any:
        """Every factor's own grid."""
        return path.grid(steps)

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """One time per factor, ``(B,)`` each."""

        def one(part: Space, at: Any) -> Tensor:
            clock = tensor(at, n, like)
            return clock if clock.ndim == 1 else clock.flatten(1)[:, 0]

        return state.map(one, space.parts, t)


@final
@dataclass(frozen=True)
class SiteClocks(ClockLaw):
    """Random sites known or dropped, the others running: any part given any part.

    With probability ``known`` an item has known sites, each with its own random share; likewise for
    ``dropped`` among the sites that are not known.

    Args:
        known: the probability that an item has known sites.
        dropped: the probability that an item has dropped sites.
        times: the law of the running time.
        common: whether the factors of an item share their running time.
    """

    known: float = 0.5
    dropped: float = 0.1
    times: Times = LowDiscrepancy()
    common: bool = True

    def __post_init__(self) -> None:
        _check_shares(self, 2)
        refuse_weights(self.times)

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw the running times and the pattern of stopped sites."""
        share_known = self._share(self.known, n, like, generator)
        share_dropped = self._share(self.dropped, n, like, generator)
        shared = self.times.sample(n, like, generator) if self.common else None

        def one(part: Space) -> tuple[Tensor, Tensor]:
            shape = (n, *part.sites)
            at = self.times.sample(n, like, generator) if shared is None else shared
            is_known = noise.uniform(shape, like, generator) < state.trail(
                share_known, len(part.sites)
            )
            lost = noise.uniform(shape, like, generator) < state.trail(
                share_dropped, len(part.sites)
            )
            lost = lost & ~is_known
            time = torch.where(
                is_known, 0.0, torch.where(lost, 1.0, state.trail(at, len(part.sites)))
            )
            return time.to(at), ~(is_known | lost)

        drawn = state.map(one, space.parts)
        return Clock(state.map(lambda d: d[0], drawn), state.map(lambda d: d[1], drawn))

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse patterns of probability zero."""
        _refuse_impossible(self, question)

    def grid(self, path: Path, steps: int) -> Any:
        """A common grid if the factors share their time, else each factor's own."""
        own = path.grid(steps)
        return Grid.mean(list(own.values())) if self.common and isinstance(own, Mapping) else own

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """One time per site, ``(B, *sites)`` for every factor."""
        return state.map(lambda part, at: spread(part, tensor(at, n, like)), space.parts, t)

    def _share(self, prob: float, n: int, like: Tensor, generator: Randomness) -> Tensor:
        has = noise.uniform((n,), like, generator) < prob
        return torch.where(has, noise.uniform((n,), like, generator), 0.0)


@final
class MixedClocks(ClockLaw):
    """A mixture: every item's clock comes from one of several laws, shown site by site.

    Args:
        laws: pairs (law, weight); the first sets the sampler's grid.
    """

    def __init__(self, laws: Sequence[tuple[ClockLaw, float]]) -> None:
        self.laws = tuple(laws)
        sound = all(isinstance(law, ClockLaw) and weight > 0 for law, weight in self.laws)
        if not self.laws or not sound:
            raise ClockError(
                f"Expected pairs of a clock law and a positive weight, got {laws!r}. Write "
                f"MixedClocks([(SiteClocks(), 0.6), (FactorClocks(), 0.4)])."
            )
        for law, _ in self.laws:
            refuse_weights(getattr(law, "times", None))

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw from each law, then choose item by item."""
        weights = torch.tensor([weight for _, weight in self.laws], dtype=torch.float64)
        chosen = noise.categorical(weights.to(like.device).expand(n, -1), generator)
        draws = [_by_site(space, law.sample(space, n, like, generator)) for law, _ in self.laws]
        time, running = draws[0][:2]
        for row, draw in enumerate(draws[1:], start=1):
            pick = chosen == row
            time = state.map(lambda new, old, p=pick: _choose(p, new, old), draw.time, time)
            running = state.map(
                lambda new, old, p=pick: _choose(p, new, old), draw.running, running
            )
        return Clock(time, running)

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse what every law refuses."""
        refusals: list[ClockError] = []
        for law, _ in self.laws:
            try:
                law.refuse(space, question)
            except ClockError as refusal:
                refusals.append(refusal)
        if len(refusals) == len(self.laws):
            raise refusals[0]

    def grid(self, path: Path, steps: int) -> Any:
        """The first law's grid."""
        return self.laws[0][0].grid(path, steps)

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """One time per site."""
        return state.map(lambda part, at: spread(part, tensor(at, n, like)), space.parts, t)


@final
@dataclass(frozen=True)
class AnyClock(ClockLaw):
    """No limits: what an exact denoiser knows. Each factor keeps its own grid."""

    def sample(self, space: Space, n: int, like: Tensor, generator: Randomness = None) -> Clock:
        """Draw one common time per item."""
        return Clock(LowDiscrepancy().sample(n, like, generator))

    def refuse(self, space: Space, question: Question) -> None:
        """Refuse nothing."""

    def grid(self, path: Path, steps: int) -> Any:
        """Every factor's own grid."""
        return path.grid(steps)

    def show(self, space: Space, t: Any, n: int, like: Tensor) -> Any:
        """The clocks as they are."""
        return state.map(lambda at: tensor(at, n, like), t)


def _check_shares(law: FactorClocks | SiteClocks, most: float) -> None:
    """Raise unless known and dropped are probabilities, with a sum of at most ``most``."""
    known, dropped = law.known, law.dropped
    if not (0 <= known <= 1 and 0 <= dropped <= 1 and known + dropped <= most):
        raise ClockError(
            f"Expected known and dropped to be probabilities with a sum of at most {most:g}, got "
            f"{known} and {dropped}. Give e.g. known=0.25, dropped=0.1."
        )


def refuse_weights(times: Times | None) -> None:
    """Raise ``ClockError`` for times that weigh a loss, where a loss has many."""
    if isinstance(times, ImportanceTimes):
        raise ClockError(
            "Expected times without weights where sites have their own, got ImportanceTimes. Use "
            "SharedClock(ImportanceTimes()), or LowDiscrepancy() here."
        )


def tensor(t: Any, n: int, like: Tensor) -> Tensor:
    """Return a time as a tensor: a tick shows its clock."""
    return t.clock(n, like) if isinstance(t, Tick) else t


def spread(space: Space, clock: Tensor) -> Tensor:
    """Return a clock ``(B,)`` or ``(B, *sites)`` as ``(B, *sites)``."""
    return space.align(clock).expand(len(clock), *space.sites)


def _by_site(space: Space, clock: Clock) -> Clock:
    time = state.map(spread, space.parts, clock.time)
    running = state.map(lambda at: torch.ones_like(at, dtype=torch.bool), time)
    return Clock(time, running if clock.running is None else clock.running)


def _choose(pick: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(state.trail(pick, new.ndim - 1), new, old)


def _refuse_impossible(law: FactorClocks | SiteClocks, question: Question) -> None:
    for word, prob, masks in (
        ("known", law.known, question.known),
        ("dropped", law.dropped, question.dropped),
    ):
        asked = any(mask is not None and bool(mask.any()) for mask in state.leaves(masks))
        if asked and prob == 0:
            raise ClockError(
                f"Expected a question inside the clock law, but {law} never trained a {word} site. "
                f"Train with {word} > 0."
            )
