r"""The probability flow to a tolerance: Dormand-Prince 5(4), with a step of each row's own.

.. math:: \frac{dx}{du} = (s - t)\, u_{t + u (s - t)}(x), \qquad u \in [0, 1] ,

site by site, so that every clock is legal: one for all, one per factor, one per site. A step that
ends at 0 is integrated down to the noise-to-signal ratio ``last`` and finished by the bridge around
the clean estimate, as in the other samplers. Source: Song et al. (2021), section 4.3; the pair and
the row-wise control are those of :mod:`reversal.ode`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Kind, Path, Sampler
from reversal.errors import CapabilityError
from reversal.grids import Tick
from reversal.noise import Randomness
from reversal.ode import integrate, require_chart
from reversal.samplers.needs import require
from reversal.schedules import VarianceSchedule
from reversal.state import Tree


@final
@dataclass(frozen=True)
class Adaptive(Sampler):
    """As many calls as the tolerance needs; a row changes no other row's steps.

    Without a grid it walks one interval, from 1 to 0; with one, it returns to a tolerance at every
    time of it. ``calls`` holds how many calls each row needed in the last step.

    Args:
        rtol: the relative tolerance of an inner step.
        atol: the absolute tolerance of an inner step.
        last: the noise-to-signal ratio, or the standard deviation on a manifold, at which a step to
            0 is handed to the bridge. What it leaves is of order last^2 for data with a density.

    Raises, in a step: ``ConvergenceError``, if an inner step underflows.

    Cost: 6 calls an inner step, 2 more a step; as many as the slowest row needs, and a wait for
    the device in each.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
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

    def check(self, path: Path) -> None:
        """A velocity, on a space whose exponential chart is known."""
        cure = "Use Heun(), which takes jumps too, or Ancestral()."
        require(self, path, {Capability.VELOCITY}, cure)
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
        """Integrate, then take the bridge where the step ends at 0."""
        parts, like = denoiser.process.parts, state.like(x_t).double()
        start, end = clocks(t, s, like)
        until = stop_early(start, end, parts, self.last)
        held = state.complete(stop, parts) if state.branches(parts) else stop

        def velocity(y: Any, u: Tensor) -> Any:
            clock = between(u, start, until)
            estimate = denoiser(y, clock, cond)
            return state.map(_rate, parts, estimate, start, until, held)

        zero = like.new_zeros(len(like))
        spaces = denoiser.process.space.parts
        found = integrate(velocity, x_t, zero, zero + 1, self.rtol, self.atol, spaces)
        self._tally["calls"] = found.calls
        return finish(denoiser, found.x, start, until, end, cond, generator)


def clocks(t: Any, s: Any, like: Tensor) -> tuple[Any, Any]:
    """The ends of a step as tensors: ``(B,)``, or ``(B, *sites)`` with stopped sites."""

    def clock(at: Any) -> Tensor:
        return at.clock(len(like), like) if isinstance(at, Tick) else at.double()

    return state.map(clock, t), state.map(clock, s)


def stop_early(start: Any, end: Any, parts: Any, last: float) -> Any:
    """The end of a step, or the time at which one to 0 is handed to the bridge.

    That of a clock which the factors share is the latest of theirs.
    """
    early = state.map(partial(_early, last), parts)
    if not state.branches(start):
        early = max(state.leaves(early))

    def stop(at: Tensor, to: Tensor, time: float) -> Tensor:
        return torch.where(to == 0, at.clamp(max=time), to)

    return state.map(stop, start, end, early)


def between(u: Tensor, start: Any, until: Any) -> Any:
    """The clocks after a share u of every row's step; those that stand keep every bit."""

    def clock(at: Tensor, to: Tensor) -> Tensor:
        share = state.trail(u, at.ndim - 1)
        return torch.where(at == to, at, torch.lerp(at, to, share))

    return state.map(clock, start, until)


def finish(
    denoiser: Denoiser, x: Any, start: Any, until: Any, end: Any, cond: Any, generator: Randomness
) -> Any:
    """Take the bridge around the clean estimate where a step ends at 0."""
    ends = state.map(lambda at, to: (at != to) & (to == 0), start, end)
    if not any(bool(part.any()) for part in state.leaves(ends)):
        return x
    estimate = denoiser(x, until, cond)
    bridge = partial(_bridged, generator)
    return state.map(bridge, denoiser.process.parts, ends, x, until, end, estimate)


def _early(last: float, path: Any) -> float:
    """The time at which a step to 0 is handed to the bridge; 0 where there is none."""
    if Capability.BRIDGE not in path.provides:
        return 0.0
    fine = torch.logspace(-9, 0, 4097, dtype=torch.float64)
    return float(fine[(_noise(path.schedule, fine) >= last).int().argmax()])


def _noise(schedule: Any, t: Tensor) -> Tensor:
    """sigma / alpha, or the standard deviation of a Brownian motion."""
    if isinstance(schedule, VarianceSchedule):
        return schedule.variance(t).variance.sqrt()
    signal = schedule.signal(t)
    return signal.sigma / signal.alpha


def _rate(path: Any, estimate: Any, start: Tensor, until: Tensor, held: Any) -> Tensor:
    velocity, sites = estimate.read(Kind.VELOCITY), len(path.space.sites)
    length = path.space.align(until) - path.space.align(start)
    moved = state.trail(length.to(velocity), velocity.ndim - 1 - sites) * velocity
    return state.hold(held, torch.zeros_like(moved), moved, sites)


def _bridged(
    generator: Randomness, path: Any, ends: Tensor, x: Tensor, t: Tensor, s: Tensor, estimate: Any
) -> Tensor:
    if Capability.BRIDGE not in path.provides:
        return x
    bridged = path.ancestor(x, t, s, estimate, 0.0).sample(generator)
    sites = len(path.space.sites)
    return state.hold(~state.trail(ends, 1 + sites - ends.ndim), x, bridged, sites)
