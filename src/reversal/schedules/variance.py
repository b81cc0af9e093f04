"""Variance schedules: the operational time of a Brownian motion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, final

from torch import Tensor

from reversal.schedules.signal import check_positive


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
        check_positive(self, self.total > 0)

    def variance(self, t: Tensor) -> Variance:
        """V t^2 and 2 V t."""
        return Variance(self.total * t**2, 2 * self.total * t)
