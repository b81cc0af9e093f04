"""Schedules that keep the variance of unit data: alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from reversal.schedules.signal import TINY, Signal, SignalSchedule, check_positive


class Preserving(SignalSchedule):
    r"""Schedules with :math:`\alpha^2 + \sigma^2 = 1`, given by log alpha and its derivative."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """The noise rate -2 d log alpha / dt."""

    @final
    def signal(self, t: Tensor) -> Signal:
        log_alpha, beta = self.log_alpha(t), self.beta(t)
        alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
        sigma_dot = alpha**2 * beta / (2 * sigma.clamp_min(TINY))
        return Signal(alpha, sigma, -beta * alpha / 2, sigma_dot, -beta / 2, beta)

    @final
    def diffused(self, t: Tensor) -> Tensor:
        return -2 * self.log_alpha(t)


@final
@dataclass(frozen=True)
class VariancePreserving(Preserving):
    r"""Linear beta: :math:`\beta_t = \beta_0 + (\beta_1 - \beta_0) t`.

    Source: Ho et al. (2020) in the continuous time of Song et al. (2021), eq. (32).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.beta_min <= self.beta_max)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate, linear in t."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus half the integral of beta."""
        return -(self.beta_min + (self.beta_max - self.beta_min) * t / 2) * t / 2


@final
@dataclass(frozen=True)
class QuadraticBeta(Preserving):
    r"""Quadratic beta: :math:`\beta_t = (\sqrt{\beta_0} + (\sqrt{\beta_1} - \sqrt{\beta_0}) t)^2`.

    Source: Song, Meng and Ermon (2021), appendix D; the "scaled linear" schedule of Rombach et al.
    (2022).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.beta_min <= self.beta_max)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate, quadratic in t."""
        return (self.beta_min**0.5 + self._slope * t) ** 2

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus half the integral of beta."""
        first, slope = self.beta_min**0.5, self._slope
        return -t / 2 * (first**2 + first * slope * t + slope**2 * t**2 / 3)

    @property
    def _slope(self) -> float:
        return self.beta_max**0.5 - self.beta_min**0.5


@final
@dataclass(frozen=True)
class Cosine(Preserving):
    r"""Signal :math:`\alpha_t = \cos(\theta_1 t^p)`, with :math:`\cos \theta_1` left at t = 1.

    An exponent p > 1 dwells at little noise. Source: Nichol and Dhariwal (2021), eq. (17),
    p = 1; deviation: no offset at 0, and an end where the rate is finite (they clip beta at 0.999).
    """

    last_alpha: float = 0.01
    exponent: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, 0 < self.last_alpha < 1 and self.exponent >= 1)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate, 2 theta p t^(p - 1) tan(theta t^p)."""
        rate = math.acos(self.last_alpha) * self.exponent * t ** (self.exponent - 1)
        return 2 * rate * torch.tan(math.acos(self.last_alpha) * t**self.exponent)

    def log_alpha(self, t: Tensor) -> Tensor:
        """The logarithm of the cosine."""
        angle = math.acos(self.last_alpha) * t**self.exponent
        return torch.log1p(-2 * torch.sin(angle / 2) ** 2)


@final
@dataclass(frozen=True)
class OrnsteinUhlenbeck(Preserving):
    r"""Constant beta: :math:`dx = -x\,d\tau + \sqrt 2\,dW` for :math:`\tau = T t`, T the horizon.

    The theory's own process (Benton et al. 2024, section 2). A horizon of 5 leaves a signal of
    0.007.
    """

    horizon: float = 5.0

    def __post_init__(self) -> None:
        check_positive(self, self.horizon > 0)

    def beta(self, t: Tensor) -> Tensor:
        """Twice the horizon."""
        return torch.full_like(t, 2 * self.horizon)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus the time that has passed."""
        return -self.horizon * t
