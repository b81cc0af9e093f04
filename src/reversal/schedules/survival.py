r"""Survival schedules: :math:`\alpha_t = P(\text{not yet corrupted})`, with rate -d log alpha / dt.

Rates that are infinite at t = 1 are evaluated at the last float32 before it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from reversal.grids import RUNNING_MAX
from reversal.schedules.signal import check_positive


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
        check_positive(self, self.total > 0)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus the rate times t."""
        return -self.total * t

    def rate(self, t: Tensor) -> Tensor:
        """The constant rate."""
        return torch.full_like(t, self.total)

    def inverse(self, alpha: Tensor) -> Tensor:
        """-log(alpha) over the rate."""
        return -alpha.log() / self.total
