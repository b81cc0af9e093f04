"""Schedules that keep the signal and let the noise explode: alpha = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from reversal.schedules.signal import TINY, Signal, SignalSchedule, check_positive


@final
@dataclass(frozen=True)
class VarianceExploding(SignalSchedule):
    r"""Noise :math:`\sigma_t^2 = \sigma_{\min}^2 ((\sigma_{\max}/\sigma_{\min})^{2t} - 1)`.

    Source: Song et al. (2021), eq. (30) and its exact start, sigma_0 = 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.sigma_min < self.sigma_max)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        variance = self.diffused(t)
        sigma, rate = variance.sqrt(), growth * (variance + self.sigma_min**2)
        zero = torch.zeros_like(t)
        return Signal(zero + 1, sigma, zero, rate / (2 * sigma.clamp_min(TINY)), zero, rate)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Zero: the signal is kept."""
        return torch.zeros_like(t)

    def diffused(self, t: Tensor) -> Tensor:
        """sigma_t^2."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        return self.sigma_min**2 * torch.expm1(growth * t)


@final
@dataclass(frozen=True)
class Karras(SignalSchedule):
    r"""Noise :math:`\sigma_t = \sigma_{\max} t^\rho`: equal steps in t are EDM's steps in sigma.

    A grid of N equal steps from t = 1 to :math:`(\sigma_{\min}/\sigma_{\max})^{1/\rho}`, and one
    to 0, is that of Karras et al. (2022), eq. (5).
    """

    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(self, self.sigma_max > 0 and self.rho >= 1)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t."""
        sigma = self.sigma_max * t**self.rho
        rate = self.sigma_max * self.rho * t ** (self.rho - 1)
        zero = torch.zeros_like(t)
        return Signal(zero + 1, sigma, zero, rate, zero, 2 * sigma * rate)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Zero: the signal is kept."""
        return torch.zeros_like(t)

    def diffused(self, t: Tensor) -> Tensor:
        """sigma_t^2."""
        return (self.sigma_max * t**self.rho) ** 2
