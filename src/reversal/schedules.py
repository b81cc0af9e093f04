r"""Schedules: how much signal, or how many sites, or how little variance is left at time t.

Three types, evaluated in float64 on tensors of times. A signal schedule gives
:math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`, whose noising process has

.. math:: f_t = \frac{\dot\alpha_t}{\alpha_t}, \qquad
   g_t^2 = \frac{d\sigma_t^2}{dt} - 2 f_t \sigma_t^2 .

A survival schedule gives :math:`\alpha_t = P(\text{not yet corrupted})` and the corruption rate
:math:`-\dot\alpha_t / \alpha_t`. A variance schedule gives the operational time of a Brownian
motion. Rates that are infinite at t = 1 are evaluated at the last float32 before it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from reversal.errors import ClockError
from reversal.grids import RUNNING_MAX

_TINY = 1e-12


def _positive(schedule: object, is_sound: bool) -> None:
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
    def step(self, t: Tensor, s: Tensor) -> Step:
        """All coefficients of the step from t down to s."""
        at, to = self.signal(t), self.signal(s)
        decay = self.log_alpha(t) - self.log_alpha(s)
        kept = (decay.exp() * to.sigma / at.sigma.clamp_min(_TINY)) ** 2
        return Step(
            at.alpha,
            at.sigma,
            to.alpha,
            to.sigma,
            (1 - kept).clamp(0, 1),
            decay,
            self.diffused(t) - self.diffused(s),
        )


class _Preserving(SignalSchedule):
    r"""Schedules with :math:`\alpha^2 + \sigma^2 = 1`, given by log alpha and its derivative."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """The noise rate -2 d log alpha / dt."""

    @final
    def signal(self, t: Tensor) -> Signal:
        log_alpha, beta = self.log_alpha(t), self.beta(t)
        alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
        sigma_dot = alpha**2 * beta / (2 * sigma.clamp_min(_TINY))
        return Signal(alpha, sigma, -beta * alpha / 2, sigma_dot, -beta / 2, beta)

    @final
    def diffused(self, t: Tensor) -> Tensor:
        return -2 * self.log_alpha(t)


@final
@dataclass(frozen=True)
class VariancePreserving(_Preserving):
    r"""Linear beta: :math:`\beta_t = \beta_0 + (\beta_1 - \beta_0) t`.

    Source: Ho et al. (2020) in the continuous time of Song et al. (2021), eq. (32).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _positive(self, 0 < self.beta_min <= self.beta_max)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate, linear in t."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus half the integral of beta."""
        return -(self.beta_min + (self.beta_max - self.beta_min) * t / 2) * t / 2


@final
@dataclass(frozen=True)
class Cosine(_Preserving):
    r"""Signal :math:`\alpha_t = \cos(\theta_1 t^p)`, with :math:`\cos \theta_1` left at t = 1.

    An exponent p > 1 dwells at little noise. Source: Nichol and Dhariwal (2021), eq. (17),
    p = 1; deviation: no offset at 0, and an end where the rate is finite (they clip beta at 0.999).
    """

    last_alpha: float = 0.01
    exponent: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, 0 < self.last_alpha < 1 and self.exponent >= 1)

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
class VarianceExploding(SignalSchedule):
    r"""Noise :math:`\sigma_t^2 = \sigma_{\min}^2 ((\sigma_{\max}/\sigma_{\min})^{2t} - 1)`.

    Source: Song et al. (2021), eq. (30) and its exact start, sigma_0 = 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _positive(self, 0 < self.sigma_min < self.sigma_max)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        variance = self.diffused(t)
        sigma, rate = variance.sqrt(), growth * (variance + self.sigma_min**2)
        zero = torch.zeros_like(t)
        return Signal(zero + 1, sigma, zero, rate / (2 * sigma.clamp_min(_TINY)), zero, rate)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Zero: the signal is kept."""
        return torch.zeros_like(t)

    def diffused(self, t: Tensor) -> Tensor:
        """sigma_t^2."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        return self.sigma_min**2 * torch.expm1(growth * t)


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


class Survival(NamedTuple):
    """Coefficients at one time; ``log_alpha`` and ``rate`` are evaluated before t = 1."""

    alpha: Tensor
    lost: Tensor
    log_alpha: Tensor
    log_lost: Tensor
    rate: Tensor


class Renewal(NamedTuple):
    """Survival at t, at s, and from s to t."""

    alpha_t: Tensor
    lost_t: Tensor
    alpha_s: Tensor
    lost_s: Tensor
    alpha_between: Tensor
    lost_between: Tensor


class SurvivalSchedule(ABC):
    """The probability that a site is not yet corrupted."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha_t; minus infinity is legal at t = 1."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """-d log alpha / dt; infinity is legal at t = 1."""

    @abstractmethod
    def inverse(self, alpha: Tensor) -> Tensor:
        """The time at which the survival is ``alpha``."""

    @cached_property
    def starts_singular(self) -> bool:
        """Whether nothing survives to t = 1, where the rate is then infinite."""
        return bool(self.log_alpha(torch.ones((), dtype=torch.float64)) == -torch.inf)

    @final
    def survival(self, t: Tensor) -> Survival:
        """All coefficients at t."""
        exact, early = self.log_alpha(t), t.clamp(max=RUNNING_MAX)
        lost = -torch.expm1(exact)
        return Survival(exact.exp(), lost, self.log_alpha(early), lost.log(), self.rate(early))

    @final
    def renewal(self, t: Tensor, s: Tensor) -> Renewal:
        """All coefficients of the step from t down to s."""
        log_t, log_s = self.log_alpha(t), self.log_alpha(s)
        between = torch.where(s < t, log_t - log_s, 0.0)
        return Renewal(
            log_t.exp(),
            -torch.expm1(log_t),
            log_s.exp(),
            -torch.expm1(log_s),
            between.exp(),
            -torch.expm1(between),
        )


@final
@dataclass(frozen=True)
class LinearSurvival(SurvivalSchedule):
    r"""Survival :math:`\alpha_t = 1 - t`: equal steps lose equally many sites.

    Source: the log-linear schedule of Lou et al. (2024) and Sahoo et al. (2024), without its cut.
    """

    def log_alpha(self, t: Tensor) -> Tensor:
        """log(1 - t)."""
        return torch.log1p(-t)

    def rate(self, t: Tensor) -> Tensor:
        """1 / (1 - t)."""
        return 1 / (1 - t)

    def inverse(self, alpha: Tensor) -> Tensor:
        """1 - alpha."""
        return 1 - alpha


@final
@dataclass(frozen=True)
class CosineSurvival(SurvivalSchedule):
    r"""Survival :math:`\alpha_t = 1 - \sin(\pi t / 2)`: most sites go early; nothing is left at 1.

    Source: Shi et al. (2024), the cosine masking schedule.
    """

    def log_alpha(self, t: Tensor) -> Tensor:
        """log(1 - sin(pi t / 2))."""
        return torch.log1p(-torch.sin(math.pi / 2 * t))

    def rate(self, t: Tensor) -> Tensor:
        """pi/2 cot(pi/4 (1 - t))."""
        return math.pi / 2 / torch.tan(math.pi / 4 * (1 - t))

    def inverse(self, alpha: Tensor) -> Tensor:
        """2/pi arcsin(1 - alpha)."""
        return 2 / math.pi * torch.asin(1 - alpha)


@final
@dataclass(frozen=True)
class ExponentialSurvival(SurvivalSchedule):
    r"""Constant rate: :math:`\alpha_t = e^{-\lambda t}`.

    It suits priors of full support; a mask must end at survival 0. Source: Campbell et al. (2022),
    constant rate.
    """

    total: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, self.total > 0)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus the rate times t."""
        return -self.total * t

    def rate(self, t: Tensor) -> Tensor:
        """The constant rate."""
        return torch.full_like(t, self.total)

    def inverse(self, alpha: Tensor) -> Tensor:
        """-log(alpha) over the rate."""
        return -alpha.log() / self.total


class Variance(NamedTuple):
    """Operational time and its rate at one time."""

    variance: Tensor
    rate: Tensor


class VarianceStep(NamedTuple):
    """Operational times of a step from t down to s."""

    at: Tensor
    to: Tensor


class VarianceSchedule(ABC):
    """The operational time v(t) of a Brownian motion."""

    @abstractmethod
    def variance(self, t: Tensor) -> Variance:
        """v(t) and its derivative."""

    @final
    def step(self, t: Tensor, s: Tensor) -> VarianceStep:
        """v(t) and v(s)."""
        return VarianceStep(self.variance(t).variance, self.variance(s).variance)


@final
@dataclass(frozen=True)
class QuadraticVariance(VarianceSchedule):
    r"""Operational time :math:`v(t) = V t^2`: equal steps in t are equal steps in :math:`\sqrt v`.

    V = 9 leaves at most 2e-4 nats per site between q_1 and the uniform law, on the circle and on
    SO(3). The spacing in sqrt(v) needs about eight times fewer steps than equal steps in v.
    """

    total: float = 9.0

    def __post_init__(self) -> None:
        _positive(self, self.total > 0)

    def variance(self, t: Tensor) -> Variance:
        """V t^2 and 2 V t."""
        return Variance(self.total * t**2, 2 * self.total * t)
