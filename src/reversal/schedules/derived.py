"""Schedules made of what you have: two functions of time, or a part of another schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from reversal.errors import ClockError
from reversal.grids import RUNNING_MAX
from reversal.schedules.signal import TINY, Signal, SignalSchedule, check_positive

FIRST = 2.0**-40


@final
@dataclass(frozen=True)
class Signals(SignalSchedule):
    r"""A schedule of your own, from two functions of time.

    .. math:: \text{drift} = \frac{d \log \alpha}{dt}, \qquad
       g^2 = 2 \sigma^2 \frac{d}{dt} (\log \sigma - \log \alpha) .

    Args:
        log_signal: t -> log alpha_t, 0 at t = 0.
        noise: t -> sigma_t, 0 at t = 0 alone.

    Both map float64 tensors elementwise and are differentiated by torch, so write them in torch.

    Raises:
        ClockError: unless they begin at 0 and the log-ratio decreases.

    Cost: a signal takes two forward derivatives, a step of Euler 2 x 64 more evaluations.
    """

    log_signal: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        fine = torch.linspace(0, 1, 1025, dtype=torch.float64)
        start = torch.stack([self.log_signal(fine), self.noise(fine)])[:, 0]
        falls = bool((self.log_ratio(fine[1:]).diff() < 0).all())
        if not (falls and float(start.abs().max()) < TINY):
            raise ClockError(
                f"Expected log alpha and sigma to be 0 at t = 0 and their log-ratio to decrease, "
                f"got {start.tolist()} at 0 and a log-ratio that "
                f"{'decreases' if falls else 'does not'}. Write e.g. Signals(lambda t: -2 * t, "
                f"lambda t: (-torch.expm1(-4 * t)).sqrt())."
            )

    def __repr__(self) -> str:
        names = (getattr(f, "__name__", type(f).__name__) for f in (self.log_signal, self.noise))
        return f"Signals({', '.join(names)})"

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t; what is infinite at an end is evaluated a float32 inside."""
        inside = t.clamp(FIRST, RUNNING_MAX)
        drift, sigma_dot = _slope(self.log_signal, inside), _slope(self.noise, inside)
        alpha, sigma, early = self.log_signal(t).exp(), self.noise(t), self.noise(inside)
        diffusion = 2 * early * (sigma_dot - early * drift)
        return Signal(alpha, sigma, drift * alpha, sigma_dot, drift, diffusion)

    def log_alpha(self, t: Tensor) -> Tensor:
        """As it was given."""
        return self.log_signal(t)

    def diffused(self, t: Tensor) -> Tensor:
        r"""sigma^2 - 2 int f sigma^2, by Gauss and Legendre's rule of 64 nodes."""
        nodes, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(64))
        at = t[..., None] * (1 + nodes.to(t)) / 2
        inner = _slope(self.log_signal, at.clamp(FIRST, RUNNING_MAX)) * self.noise(at) ** 2
        return self.noise(t) ** 2 - t * (inner @ weights.to(t))


@final
@dataclass(frozen=True)
class Shortened(SignalSchedule):
    """The first part of a schedule, up to its time ``last``, spread over [0, 1].

    What starts without any signal, as ``Rectified``, then starts with some.
    """

    schedule: SignalSchedule
    last: float

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.last <= 1)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t, per unit of the new time."""
        at = self.schedule.signal(self.last * t)
        rates = (self.last * rate for rate in at[2:])
        return Signal(at.alpha, at.sigma, *rates)

    def log_alpha(self, t: Tensor) -> Tensor:
        """That of the schedule at the earlier time."""
        return self.schedule.log_alpha(self.last * t)

    def diffused(self, t: Tensor) -> Tensor:
        """That of the schedule at the earlier time."""
        return self.schedule.diffused(self.last * t)


def _slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]
