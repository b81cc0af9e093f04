"""Schedules that neither keep the variance nor the signal: sub-variance-preserving, rectified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from reversal.grids import RUNNING_MAX
from reversal.schedules.signal import Signal, SignalSchedule, check_positive


@final
@dataclass(frozen=True)
class Rectified(SignalSchedule):
    r"""Straight lines: :math:`x_t = (1 - t) x_0 + t \epsilon`, so :math:`g_t^2 = 2t/(1 - t)`.

    Source: Lipman et al. (2023), Liu et al. (2023), with time reversed: t = 0 is data.
    """

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t; drift and diffusion are evaluated before t = 1."""
        left, one = 1 - t.clamp(max=RUNNING_MAX), torch.ones_like(t)
        return Signal(1 - t, t, -one, one, -1 / left, 2 * t / left)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log(1 - t)."""
        return torch.log1p(-t)

    def diffused(self, t: Tensor) -> Tensor:
        """-2 (t + log(1 - t))."""
        return -2 * (t + torch.log1p(-t))


@final
@dataclass(frozen=True)
class SubVariancePreserving(SignalSchedule):
    r"""Less noise than ``VariancePreserving`` at the same signal.

    .. math:: \sigma_t = 1 - \alpha_t^2, \qquad g_t^2 = \beta_t (1 - \alpha_t^4), \qquad
       \beta_t = \beta_0 + (\beta_1 - \beta_0) t .

    Source: Song et al. (2021), eq. (29) in appendix B.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.beta_min <= self.beta_max)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t."""
        log_alpha, beta = self.log_alpha(t), self.beta_min + (self.beta_max - self.beta_min) * t
        alpha, sigma = log_alpha.exp(), -torch.expm1(2 * log_alpha)
        diffusion = -beta * torch.expm1(4 * log_alpha)
        return Signal(alpha, sigma, -beta * alpha / 2, beta * alpha**2, -beta / 2, diffusion)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus half the integral of beta."""
        return -(self.beta_min + (self.beta_max - self.beta_min) * t / 2) * t / 2

    def diffused(self, t: Tensor) -> Tensor:
        """The integral of beta, less (1 - alpha^4) / 2."""
        log_alpha = self.log_alpha(t)
        return -2 * log_alpha + torch.expm1(4 * log_alpha) / 2
