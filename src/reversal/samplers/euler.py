r"""Euler's step: Euler-Maruyama, the geodesic random walk and tau-leaping are one line.

.. math:: x_s = \exp_{x_t}\big(B + A^{1/2} z\big), \qquad
   P(\text{site jumps to } y) = (1 - e^{-\sum_y \Lambda_y})\, \Lambda_y / \sum_y \Lambda_y,

with drift B, covariance A and jump intensities Lambda of the reversal K_c, frozen at x_t and
integrated over the step. Where states are ordered, as counts are, jump y happens Poisson(Lambda_y)
times. At churn 0 a diffusion follows its velocity,
:math:`x_s = x_t - (t - s) u_t`, and so does an interpolant, which with noise takes any churn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Kind, Path, Sampler
from reversal.errors import CapabilityError
from reversal.grids import Tick
from reversal.noise import Randomness
from reversal.samplers.needs import require
from reversal.spaces import Euclidean
from reversal.state import Tree


@final
@dataclass(frozen=True)
class Euler(Sampler):
    """One call per step; weak order 1, on every space and every product.

    Args:
        churn: c >= 0 of the reversal K_c: 0 is the probability-flow ODE, 1 the reversal itself.

    A step that ends at 0, or starts where the rates are infinite, takes the bridge instead. Early
    steps of uniform noise jump at other rates than the exact reversal's however many there are, but
    between states that are noise alike: the paths differ, the law does not (decision 003).
    Source: Song et al. (2021), eq. (30) and (40); Campbell et al. (2022), section 4.1; De Bortoli
    et al. (2022), Algorithm 1.
    """

    churn: float = 1.0

    def __post_init__(self) -> None:
        if not self.churn >= 0:
            raise CapabilityError(
                f"Expected churn >= 0, got {self.churn}. 0 is the ODE, 1 the SDE."
            )

    def check(self, path: Path) -> None:
        """A generator, or noise to mix a flow with; at churn 0 a velocity will do."""
        needed = {Capability.GENERATOR, Capability.MIXING}
        needed |= {Capability.VELOCITY} if self.churn == 0 else set()
        require(self, path, needed, "Use Euler(churn=0) for a path, Ancestral() for a chain.")

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
        """Leap, walk or follow the velocity; take the bridge at the ends."""
        process, estimate = denoiser.process, denoiser(x_t, t, cond)
        ends = state.map(self._ends, process.parts, t, s)
        laws = process.increment(x_t, t, s) if process.is_coupled else None
        move = partial(self._move, generator)
        return state.map(move, process.parts, x_t, t, s, estimate, ends, laws)

    def _ends(self, path: Any, t: Any, s: Any) -> Any:
        return needs_bridge(path, t, s, starts=self.churn > 0 or not path.space.is_real)

    def _follows_velocity(self, path: Any) -> bool:
        has_flow = Capability.VELOCITY in path.provides
        return self.churn == 0 and path.space.is_real and has_flow

    def _move(
        self,
        generator: Randomness,
        path: Any,
        x_t: Tensor,
        t: Any,
        s: Any,
        estimate: Any,
        ends: Any,
        law: Any,
    ) -> Tensor:
        if ends is True:
            return path.ancestor(x_t, t, s, estimate).sample(generator)
        moved = self._inside(generator, path, x_t, t, s, estimate, law)
        if ends is False:
            return moved
        bridged = path.ancestor(x_t, t, s, estimate).sample(generator)
        return state.hold(~ends, moved, bridged, len(path.space.sites))

    def _inside(
        self, generator: Randomness, path: Any, x_t: Tensor, t: Any, s: Any, estimate: Any, law: Any
    ) -> Tensor:
        if self._follows_velocity(path):
            return drift(path, x_t, t, s, estimate.read(Kind.VELOCITY))
        if Capability.MIXING in path.provides:
            law = path.mixed(x_t, t, s, estimate, self.churn)
            return law.step(path.noisy_space, x_t, generator)
        law = path.increment(x_t, t, s) if law is None else law
        law = law.reversal(estimate.read(Kind.SCORE), self.churn)
        return law.step(path.noisy_space, x_t, generator)


def drift(path: Any, x_t: Tensor, t: Any, s: Any, velocity: Tensor) -> Tensor:
    """Follow a velocity from t down to s."""
    if isinstance(t, Tick) and isinstance(s, Tick):
        if isinstance(path.space, Euclidean):
            return torch.add(x_t, velocity, alpha=s.time - t.time)
        return path.space.move(x_t, (s.time - t.time) * velocity)
    length = (path.space.align(s) - path.space.align(t)).to(velocity)
    lift = velocity.ndim - 1 - len(path.space.sites)
    return path.space.move(x_t, state.trail(length, lift) * velocity)


def needs_bridge(path: Any, t: Any, s: Any, starts: bool) -> Any:
    """Tell which steps end at 0 or start where the rates are infinite: a bool, or one per site."""
    if Capability.BRIDGE not in path.provides:
        return False
    singular = starts and path.starts_singular
    if isinstance(t, Tick) and isinstance(s, Tick):
        return s.time == 0 or (singular and t.time == 1)
    t, s = path.space.align(t), path.space.align(s)
    return ((s == 0) | (t == 1) if singular else s == 0).expand(
        torch.broadcast_shapes(t.shape, s.shape)
    )
