r"""Signal schedules: how much signal and how much noise there is at time t.

.. math:: x_t = \alpha_t x_0 + \sigma_t \epsilon, \qquad f_t = \frac{\dot\alpha_t}{\alpha_t}, \qquad
   g_t^2 = \frac{d\sigma_t^2}{dt} - 2 f_t \sigma_t^2, \qquad
   \lambda_t = \log \frac{\alpha_t}{\sigma_t} .

Only the ratio tells one schedule from another, up to time and scale (Kingma et al. 2021, section
5.1). Rates that are infinite at t = 1 are evaluated at the last float32 before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from reversal.errors import ClockError

TINY = 1e-12


def check_positive(schedule: object, is_sound: bool) -> None:
    """Refuse parameters that make no schedule."""
    if not is_sound:
        raise ClockError(
            f"Expected a schedule with positive parameters in increasing order, got {schedule}. "
            f"Leave them out for the defaults."
        )


class Signal(NamedTuple):
    """Coefficients at one time."""

    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor
    drift: Tensor
    diffusion: Tensor


class Step(NamedTuple):
    """Coefficients of a step between t and s < t.

    ``fraction`` is the share of the noise at t that was added since s, and ``decay`` and
    ``diffusion`` are the integrals of f and g^2 over [s, t].
    """

    alpha_t: Tensor
    sigma_t: Tensor
    alpha_s: Tensor
    sigma_s: Tensor
    fraction: Tensor
    decay: Tensor
    diffusion: Tensor


class SignalSchedule(ABC):
    """The signal and noise levels of a Gaussian process."""

    @abstractmethod
    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t, each finite."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha_t; minus infinity is legal at t = 1."""

    @abstractmethod
    def diffused(self, t: Tensor) -> Tensor:
        """The integral of g^2 over [0, t]; infinity is legal at t = 1."""

    @cached_property
    def starts_singular(self) -> bool:
        """Whether no signal is left at t = 1, where the drift is then infinite."""
        return bool(self.log_alpha(torch.ones((), dtype=torch.float64)) == -torch.inf)

    @final
    def log_ratio(self, t: Tensor) -> Tensor:
        """lambda_t = log(alpha_t / sigma_t), decreasing; infinity is legal at both ends."""
        return self.log_alpha(t) - self.signal(t).sigma.log()

    @final
    @torch.no_grad()
    def time_of(self, log_ratio: Tensor) -> Tensor:
        """The time at which ``log_ratio`` is reached, 0 or 1 where it is not.

        By bisection, to 2^-60: about 60 evaluations of the schedule.
        """
        low, high = torch.zeros_like(log_ratio), torch.ones_like(log_ratio)
        for _ in range(60):
            middle = (low + high) / 2
            is_early = self.log_ratio(middle) > log_ratio
            low, high = torch.where(is_early, middle, low), torch.where(is_early, high, middle)
        at_end = log_ratio <= self.log_ratio(torch.ones_like(log_ratio))
        return torch.where(at_end, 1.0, low)

    @final
    def step(self, t: Tensor, s: Tensor) -> Step:
        """All coefficients of the step from t down to s."""
        at, to = self.signal(t), self.signal(s)
        decay = self.log_alpha(t) - self.log_alpha(s)
        kept = (decay.exp() * to.sigma / at.sigma.clamp_min(TINY)) ** 2
        return Step(
            at.alpha,
            at.sigma,
            to.alpha,
            to.sigma,
            (1 - kept).clamp(0, 1),
            decay,
            self.diffused(t) - self.diffused(s),
        )
