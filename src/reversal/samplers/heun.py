r"""Two calls per step, order 2: Heun on drifts, the theta-trapezoidal rule on jumps.

With node theta, an intermediate time :math:`\rho = t - \theta h` and
:math:`a = 1 / (2 \theta (1 - \theta))`, :math:`b = a - 1`:

.. math:: x_s = x_t - h \big[(1 - \tfrac{1}{2\theta}) u_t + \tfrac{1}{2\theta} u_\rho\big], \qquad
   \Lambda = (1 - \theta) h\, [a\, \mu_\rho(x_\rho) - b\, \mu_t(x_t)]_+ ,

where the jumps of the first stage, over theta h at rates mu_t, lead to x_rho. A site that jumped in
the first stage leaves at the rate a mu_rho alone: the two-jump paths of one site then have the
right mass. Ordered states take Poisson numbers of jumps in both stages, and keep the formula as it
stands. Drifts alone take theta = 1 (Heun); any jump in a product makes it 1/2 for all factors,
so that they stay coupled at order 2. Source: Karras et al. (2022), Algorithm 1; Anderson and
Mattingly (2011); Ren et al. (2025), theta-trapezoidal method.

With churn gamma a step first goes back to more noise, to the time at which sigma/alpha is 1 + gamma
times what it is at t, and starts there: Karras et al. (2022), Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Kind, Path, Sampler
from reversal.errors import CapabilityError
from reversal.grids import Tick
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.samplers.euler import drift, needs_bridge
from reversal.samplers.needs import require
from reversal.schedules import SignalSchedule
from reversal.state import Tree


@final
@dataclass(frozen=True, repr=False)
class Heun(Sampler):
    """Second order along the probability flow and, weakly, on jumps; the last step is a bridge.

    On jumps the order is 2 where no jump of one site brings a rate of another below half; elsewhere
    the cut at zero leaves an error of order 1, smaller than Euler's.

    Args:
        gamma: how much noise a step adds before it starts, as a share of sigma/alpha; no time goes
            above 1. Gaussian factors alone; factors that share their clock go back to one time.
        least: the smallest sigma/alpha at which noise is added.
        most: the largest.
        inflation: what the added noise is multiplied by.
    """

    gamma: float = 0.0
    least: float = 0.0
    most: float = math.inf
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and 0 <= self.least <= self.most and self.inflation > 0):
            raise CapabilityError(
                f"Expected gamma >= 0, 0 <= least <= most and inflation > 0, got {self.gamma}, "
                f"{self.least}, {self.most} and {self.inflation}. Heun.edm(steps) has theirs."
            )

    def __repr__(self) -> str:
        values = f"{self.gamma}, {self.least}, {self.most}, {self.inflation}" if self.gamma else ""
        return f"Heun({values})"

    @classmethod
    def edm(
        cls,
        steps: int,
        churn: float = 40.0,
        least: float = 0.05,
        most: float = 50.0,
        inflation: float = 1.003,
    ) -> Heun:
        """S_churn, S_min, S_max and S_noise of Karras et al. (2022), table 5, ImageNet-64."""
        return cls(min(churn / steps, 2**0.5 - 1), least, most, inflation)

    def check(self, path: Path) -> None:
        """A velocity on real spaces, a generator on finite sets."""
        if path.is_coupled:
            raise CapabilityError(
                f"Expected parts that are noised on their own for {self}, got {path}, whose "
                f"generator reads the whole state. Use Euler()."
            )
        if self.gamma and not isinstance(path, Gaussian):
            raise CapabilityError(
                f"Expected Gaussian noise to add, for {self}, got {path}. Use Heun() there."
            )
        needed = {Capability.VELOCITY} if path.space.is_real else {Capability.GENERATOR}
        require(self, path, needed, "Use Ancestral(), which needs a bridge alone.")

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
        """Predict, look again, correct; take the bridge where a step ends at 0."""
        parts = denoiser.process.parts
        if self.gamma:
            x_t, t, s = self._raised(parts, x_t, t, s, stop, generator)
        theta = 1.0 if all(path.space.is_real for path in state.leaves(parts)) else 0.5
        first = denoiser(x_t, t, cond)
        ends = state.map(_ends, parts, t, s)
        if all(end is True for end in state.leaves(ends)):
            return state.map(partial(_finish, generator), parts, ends, x_t, x_t, t, s, first)
        nodes = state.map(partial(_nodes, theta), parts, t, s)
        t, rho, s = (state.map(itemgetter(k), nodes) for k in range(3))
        followed = state.map(_followed, parts, first)
        x_rho = state.map(partial(_predict, generator), parts, stop, x_t, t, rho, followed)
        second = denoiser(x_rho, rho, cond)
        correct = partial(_correct, generator, theta)
        moved = state.map(correct, parts, x_t, x_rho, t, rho, s, followed, second)
        return state.map(partial(_finish, generator), parts, ends, moved, x_t, t, s, first)

    def _raised(
        self, parts: Any, x_t: Any, t: Any, s: Any, stop: Tree, generator: Randomness
    ) -> tuple[Any, Any, Any]:
        """Go back to more noise: the state there, that time, and s."""
        clocked = parts if state.branches(t) else next(state.leaves(parts))
        times = state.map(self._lifted, clocked, t, s)
        hat, t, s = (state.map(itemgetter(k), times) for k in range(3))
        held = state.complete(stop, parts) if state.branches(parts) else stop
        add = partial(_noised, self.inflation, generator)
        return state.map(add, parts, x_t, t, hat, held), hat, s

    def _lifted(self, path: Any, t: Any, s: Any) -> tuple[Any, ...]:
        rule = _Raise(path.schedule, self.gamma, self.least, self.most)
        return t.raised(s, rule) if isinstance(t, Tick) else (rule(t.double())[0].to(t), t, s)


@final
@dataclass(frozen=True)
class _Raise:
    """The time at which sigma/alpha is 1 + gamma times that at t, where it is within bounds."""

    schedule: SignalSchedule
    gamma: float
    least: float
    most: float

    def __call__(self, t: Tensor) -> tuple[Tensor]:
        signal = self.schedule.signal(t)
        ratio = signal.sigma / signal.alpha
        inside = (ratio >= self.least) & (ratio <= self.most) & (t > 0) & (t < 1)
        up = self.schedule.time_of(-(ratio * (1 + self.gamma)).log())
        return (torch.where(inside, torch.maximum(up, t), t),)


def _noised(
    inflation: float, generator: Randomness, path: Any, x_t: Tensor, t: Any, hat: Any, stop: Any
) -> Tensor:
    if hat is t:
        return x_t
    kernel = path.transition(x_t, t, hat)
    x_hat = replace(kernel, std=inflation * kernel.std).sample(generator)
    return state.hold(stop, x_t, x_hat, len(path.space.sites))


def _ends(path: Any, t: Any, s: Any) -> Any:
    return needs_bridge(path, t, s, starts=not path.space.is_real)


def _nodes(theta: float, path: Any, t: Any, s: Any) -> tuple[Any, Any, Any]:
    """The times t, rho and s; ticks move to the grid that holds the nodes in between."""
    if theta == 1:
        return t, s, s
    if isinstance(t, Tick) and isinstance(s, Tick):
        return t.refined(s, theta)
    return t, t - theta * (t - s), s


def _followed(path: Any, first: Any) -> Any:
    """The estimate as the velocity that both stages read, on real spaces."""
    return first.to(Kind.VELOCITY) if path.space.is_real else first


def _predict(
    generator: Randomness, path: Any, stop: Any, x_t: Tensor, t: Any, rho: Any, first: Any
) -> Tensor:
    if path.space.is_real:
        x_rho = drift(path, x_t, t, rho, first.read(Kind.VELOCITY))
    else:
        x_rho = path.noisy_space.jump(x_t, _rates(path, x_t, t, rho, first), generator)
    return state.hold(stop, x_t, x_rho, len(path.space.sites))


def _correct(
    generator: Randomness,
    theta: float,
    path: Any,
    x_t: Tensor,
    x_rho: Tensor,
    t: Any,
    rho: Any,
    s: Any,
    first: Any,
    second: Any,
) -> Tensor:
    if path.space.is_real:
        mean = first.read(Kind.VELOCITY).lerp(second.read(Kind.VELOCITY), 1 / (2 * theta))
        return drift(path, x_t, t, s, mean)
    rates = trapezoid(path, theta, x_t, x_rho, t, rho, s, first, second)
    return path.noisy_space.jump(x_rho, rates, generator)


def trapezoid(
    path: Any,
    theta: float,
    x_t: Tensor,
    x_rho: Tensor,
    t: Any,
    rho: Any,
    s: Any,
    first: Any,
    second: Any,
) -> Tensor:
    """The rates of the second stage of the theta-trapezoidal rule, from x_rho.

    A jump in the first stage has changed what a column means, unless the states are ordered.
    """
    a = 1 / (2 * theta * (1 - theta))
    late = _rates(path, x_rho, rho, s, second)
    early = _rates(path, x_t, t, rho, first) * ((1 - theta) / theta)
    same = (x_t == x_rho)[..., None] | path.noisy_space.is_ordered
    return (a * late - torch.where(same, (a - 1) * early, 0.0)).clamp_min(0)


def _rates(path: Any, x: Tensor, t: Any, s: Any, estimate: Any) -> Tensor:
    return path.increment(x, t, s).reversal(estimate.read(Kind.SCORE)).rates


def _finish(
    generator: Randomness,
    path: Any,
    ends: Any,
    moved: Tensor,
    x_t: Tensor,
    t: Any,
    s: Any,
    first: Any,
) -> Tensor:
    if ends is False:
        return moved
    eta = 0.0 if path.space.is_real else 1.0
    bridged = path.ancestor(x_t, t, s, first, eta).sample(generator)
    return bridged if ends is True else state.hold(~ends, moved, bridged, len(path.space.sites))
