r"""Ancestral steps around a clean estimate that leans on the last one: order 2 for one call a step.

With :math:`\lambda = \log(\alpha/\sigma)`, the estimates d at the last time r and at t, and the
bridge q(x_s | x_t, x_0) of the Gaussian process,

.. math:: \tilde d = d_t + \frac{\lambda_s - \lambda_t}{2 (\lambda_t - \lambda_r)}\,(d_t - d_r),
   \qquad x_s \sim q_\eta(x_s \mid x_t, x_0 = \tilde d) ,

which is the estimate extrapolated linearly in lambda to the middle of the step. Source: Lu et al.
(2022), DPM-Solver++(2M) at eta 0 and SDE-DPM-Solver++(2M) at eta 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Estimate, Kind, Path, Sampler
from reversal.errors import CapabilityError
from reversal.grids import Time, evaluate
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.samplers.needs import require
from reversal.schedules import SignalSchedule
from reversal.state import Tree


class Past(NamedTuple):
    """The last step: where it began, where it ended, and its estimates per factor."""

    start: Any
    end: Any
    estimate: Any


@final
@dataclass(unsafe_hash=True)
class Multistep(Sampler):
    """One call per step, order 2 on Gaussian factors; finite sets and manifolds step as Ancestral.

    The first step and one that ends at 0 are of order 1, which leaves the order of the whole. It
    remembers its last step: `sample` has a memory of its own for each call, and a `step` that does
    not begin where the last one ended, at the very same time object, begins anew. By hand, walk one
    batch at a time, or give each a sampler of its own.

    Args:
        order: 1, which is `Ancestral`, or 2.
        eta: in [0, 1], the share of the bridge's noise on real spaces; 0 is the probability flow.

    Cost: one network call per step, and the memory of one estimate.
    """

    order: int = 2
    eta: float = 1.0
    _past: Past | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise CapabilityError(f"Expected order 1 or 2, got {self.order!r}. Choose 2.")
        if not 0 <= self.eta <= 1:
            raise CapabilityError(f"Expected eta in [0, 1], got {self.eta}. 0 is the flow.")

    def check(self, path: Path) -> None:
        """A bridge, and a real space where eta is not 1."""
        require(self, path, {Capability.BRIDGE}, "Use Heun(), which follows a velocity.")
        if self.eta != 1 and not path.space.is_real:
            raise CapabilityError(
                f"Expected a real space for eta={self.eta}, got {path}, whose jumps have no noise "
                f"to scale. Use Multistep() with eta=1."
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
        """Lean on the last estimate, then draw from the bridge."""
        estimate, parts = denoiser(x_t, t, cond), denoiser.process.parts
        past = self._past if self._past is not None and self._past.end is t else None
        self._past = Past(t, s, estimate) if self.order == 2 else None
        leaning = estimate
        if past is not None:
            leaning = state.map(_leaned, parts, past.start, t, s, past.estimate, estimate)
        draw = partial(_drawn, self.eta, generator)
        return state.map(draw, parts, x_t, t, s, leaning)


def _leaned(path: Any, r: Any, t: Any, s: Any, last: Estimate, now: Estimate) -> Estimate:
    """The clean estimate, extrapolated to the middle of the step in log signal-to-noise."""
    if not isinstance(path, Gaussian) or last.x_t.shape != now.x_t.shape:
        return now
    weight = evaluate(_Lean(path.schedule), *map(path.space.align, (r, t, s)), dtype=now.x_t.dtype)[
        0
    ]
    clean = now.read(Kind.CLEAN)
    leaned = clean + weight * (clean - last.read(Kind.CLEAN))
    return Estimate(path, now.x_t, now.t, Kind.CLEAN, leaned)


def _drawn(
    eta: float, generator: Randomness, path: Any, x_t: Tensor, t: Time, s: Time, estimate: Any
) -> Tensor:
    return path.ancestor(x_t, t, s, estimate, eta).sample(generator)


@final
@dataclass(frozen=True)
class _Lean:
    """(lambda_s - lambda_t) / (2 (lambda_t - lambda_r)), and 0 where a lambda is infinite."""

    schedule: SignalSchedule

    def __call__(self, r: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor]:
        first, second, third = map(self.schedule.log_ratio, (r, t, s))
        weight = (third - second) / (2 * (second - first))
        return (torch.where(weight.isfinite(), weight, 0.0),)
