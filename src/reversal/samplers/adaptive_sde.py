r"""The reversal itself to a tolerance: the stochastic improved Euler method, row by row.

With the drift b of the reversal integrated over a step at the score where it starts and at the one
where Euler's step ends, and one draw of the step's noise for both,

.. math:: x' = x + b(x) + a^{1/2} z, \qquad x'' = x + \tfrac12 (b(x) + b(x')) + a^{1/2} z ,

a row is accepted at x'' (extrapolation) where the root mean square of
:math:`(x'' - x') / (\text{atol} + \text{rtol} \max(|x|, |x'|))` is at most 1; its next step is
:math:`0.9\, E^{-0.9}` times this one. z is the increment of one Brownian path per row, so that a
step which is tried again meets the noise that refused it, cut into parts: to draw it anew would
leave out large noise. Source: Jolicoeur-Martineau et al. (2021), Algorithm 1. Deviations: the path;
f and g are integrated, as they are known; tolerances as of ``Adaptive``; on curved spaces the step
is carried out in the chart at x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Capability, Denoiser, Generator, Kind, Path, Sampler
from reversal.errors import CapabilityError, ConvergenceError
from reversal.noise import BrownianPath, Randomness
from reversal.ode import Rule, moved, pulled, require_chart, walk
from reversal.samplers.adaptive import between, clocks, finish, stop_early
from reversal.samplers.needs import require
from reversal.state import Tree

_FIRST: Final = 0.01
_MOST_STEPS: Final = 20_000


@final
@dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """As many calls as the tolerance needs along the reversal; a row changes no other row's steps.

    Without a grid it walks one interval, from 1 to 0. ``calls`` holds how many calls each row
    needed in the last step, ``rejected`` how many of its inner steps were tried again. A
    ``BrownianPath`` is walked as it is: to smaller tolerances a sample converges to the one to
    which ``Euler`` on finer grids converges. Any other ``generator`` draws the seeds of the paths.

    Args:
        rtol: the relative tolerance of an inner step.
        atol: the absolute tolerance of an inner step; the authors take one or two levels of an
            image of 256.
        last: the noise-to-signal ratio, or the standard deviation on a manifold, at which a step to
            0 is handed to the bridge; where no signal is left at 1, a step from there takes the
            bridge to the signal-to-noise ratio ``last``.

    Raises, in a step: ``ConvergenceError``, if an inner step underflows, or is shorter than what
    the Brownian path resolves.

    Cost: 2 calls an inner step, 1 or 2 more a step; as many as the slowest row needs, and a wait
    for the device in each.
    """

    rtol: float = 0.01
    atol: float = 0.01
    last: float = 1e-3
    own_steps = 1
    _tally: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol > 0 and 0 < self.last < 1):
            raise CapabilityError(
                f"Expected rtol >= 0, atol > 0 and last in (0, 1), got {self}. Leave them out for "
                f"the defaults."
            )

    @property
    def calls(self) -> Tensor | None:
        """The calls of each row in the last step, int64 ``(B,)``; None before the first."""
        return self._tally.get("calls")

    @property
    def rejected(self) -> Tensor | None:
        """The inner steps of each row that were tried again, int64 ``(B,)``; None at first."""
        return self._tally.get("rejected")

    def check(self, path: Path) -> None:
        """A generator of its own, on a space whose exponential chart is known."""
        cure = "Use Adaptive(), which follows a velocity, or Euler(), which takes jumps too."
        require(self, path, {Capability.GENERATOR}, cure)
        if path.is_coupled or not path.space.is_real:
            raise CapabilityError(
                f"Expected real parts that are noised on their own for {self}, got {path}. Use "
                f"Euler(), which takes jumps and coupled parts."
            )
        require_chart(path.space)

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
        """Start by the bridge where rates are infinite, walk, end by the bridge at 0."""
        parts, like = denoiser.process.parts, state.like(x_t).double()
        start, end = clocks(t, s, like)
        x_t, start = _begun(denoiser, x_t, t, start, end, cond, generator, self.last)
        until = stop_early(start, end, parts, self.last)
        held = state.complete(stop, parts) if state.branches(parts) else stop
        path = noise.path_of(generator, len(like), like)
        rule = _ImprovedEuler(denoiser, cond, held, start, until, path, self.rtol, self.atol)
        zero = like.new_zeros(len(like))
        found = walk(rule, x_t, zero, zero + 1, _MOST_STEPS)
        self._tally.update(calls=found.calls, rejected=found.rejected)
        return finish(denoiser, found.x, start, until, end, cond, generator)


@final
class _ImprovedEuler(Rule):
    """Steps in the share u of the way from ``start`` to ``until``, 0 to 1."""

    calls, power, most, smallest = 2, 0.9, 10.0, 1e-9

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Any,
        held: Tree,
        start: Any,
        until: Any,
        path: BrownianPath,
        rtol: float,
        atol: float,
    ) -> None:
        super().__init__(denoiser.process.space.parts, rtol, atol)
        self.denoiser, self.cond, self.held = denoiser, cond, held
        self.start, self.until, self.path = start, until, path

    def begin(self, x: Any, t: Tensor, total: Tensor) -> tuple[Any, Tensor]:
        """Nothing is carried over; the authors' first step."""
        return {}, _FIRST * total

    def trial(self, x: Any, t: Tensor, h: Tensor, known: Any) -> tuple[Any, Any, Tensor]:
        """Euler's step, the same with the score at its end, and their mean."""
        at, to = (between(u, self.start, self.until) for u in (t, t + h))
        source = self._noise(at, to)
        first = self._law(x, at, at, to)
        spread = state.map(partial(_spread, source), self.spaces, x, first, self.held)
        drift = state.map(_drift, self.spaces, first, self.held)
        step = state.map(torch.add, drift, spread)
        x_euler = state.map(moved, x, step, self.spaces)
        second = state.map(_drift, self.spaces, self._law(x_euler, to, at, to), self.held)
        gap = state.map(
            lambda u, a, b, part: (pulled(u, b, part) - a) / 2, step, drift, second, self.spaces
        )
        y = state.map(moved, x, state.map(torch.add, step, gap), self.spaces)
        return y, {}, self.norm(gap, x, x_euler)

    def _law(self, x: Any, clock: Any, at: Any, to: Any) -> Any:
        """The reversal over the step from ``at`` down to ``to``, at the score of the clock."""
        estimate = self.denoiser(x, clock, self.cond)
        return state.map(_reversal, self.denoiser.process.parts, x, at, to, estimate)

    def _noise(self, at: Any, to: Any) -> BrownianPath:
        """The path over the step of every row, at the latest of its running times."""
        t, s = (self._latest(clock) for clock in (at, to))
        short = (t > s) & ~self.path.resolves(t, s)
        if bool(short.any()):
            row = int(short.int().argmax())
            raise ConvergenceError(
                f"Expected steps that the Brownian path resolves, but row {row} needs one from "
                f"{float(t[row]):.9g} to {float(s[row]):.9g}, and a path of depth "
                f"{self.path.depth} knows one value there. Loosen the tolerances, or give "
                f"BrownianPath(seeds, depth={min(self.path.depth + 8, 30)})."
            )
        return self.path.over(t, s)

    def _latest(self, clock: Any) -> Tensor:
        running = state.map(_running, clock, self.start, self.until)
        return torch.stack(list(state.leaves(running))).amax(0)


def _running(clock: Tensor, start: Tensor, until: Tensor) -> Tensor:
    return torch.where(start == until, 0.0, clock).reshape(len(clock), -1).amax(1)


def _reversal(path: Any, x: Tensor, t: Any, s: Any, estimate: Any) -> Generator:
    return path.increment(x, t, s).reversal(estimate.read(Kind.SCORE))


def _drift(space: Any, law: Generator, held: Any) -> Any:
    drift = law.drift
    return state.hold(held, torch.zeros_like(drift), drift, len(space.sites))  # pyright: ignore[reportArgumentType]


def _spread(source: Randomness, space: Any, x: Tensor, law: Generator, held: Any) -> Tensor:
    z = noise.normal((len(x), *space.tangent_shape), x, source)
    return state.hold(held, torch.zeros_like(z), law.spread(z), len(space.sites))


def _begun(
    denoiser: Denoiser,
    x: Any,
    t: Any,
    start: Any,
    end: Any,
    cond: Any,
    generator: Randomness,
    last: float,
) -> tuple[Any, Any]:
    """Take the bridge from 1 to the time of a little signal, where none is left at 1."""
    parts = denoiser.process.parts
    late = state.map(partial(_late, last), parts)
    if not state.branches(start):
        late = min(state.leaves(late))
    after = state.map(_leave, start, end, late)
    if not any(
        bool((a != b).any()) for a, b in zip(*map(state.leaves, (start, after)), strict=True)
    ):
        return x, start
    estimate = denoiser(x, t, cond)
    bridged = partial(_bridged, generator)
    return state.map(bridged, parts, x, t, start, after, estimate), after


def _late(last: float, path: Any) -> float:
    """The time at which a step from 1 leaves the bridge; 1 where rates are finite."""
    if not path.starts_singular:
        return 1.0
    ratio = torch.tensor(last, dtype=torch.float64).log()
    return float(path.schedule.time_of(ratio))


def _leave(start: Tensor, end: Tensor, late: float) -> Tensor:
    return torch.where((start == 1) & (end < late), late, start)


def _bridged(
    generator: Randomness, path: Any, x: Tensor, t: Any, start: Tensor, after: Tensor, estimate: Any
) -> Tensor:
    bridged = path.ancestor(x, t, after, estimate).sample(generator)
    sites = len(path.space.sites)
    return state.hold(state.trail(start == after, 1 + sites - start.ndim), x, bridged, sites)
