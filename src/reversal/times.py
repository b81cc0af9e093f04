"""Laws of single times: where on (0, 1) a network is trained, and how often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from reversal import noise
from reversal.errors import ClockError
from reversal.grids import RUNNING_MAX
from reversal.noise import BatchShare, BrownianPath, ItemNoise, Randomness
from reversal.schedules import SignalSchedule


class Times(ABC):
    """A law of single times on (0, 1)."""

    @abstractmethod
    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n times."""


@final
@dataclass(frozen=True)
class LowDiscrepancy(Times):
    r"""One uniform number, spread: :math:`t_{\pi(i)} = (u + i/n) \bmod 1`.

    Under ``ItemNoise`` or ``BrownianPath`` the times are independent.

    Source: Kingma et al. (2021), appendix I.1.
    """

    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n times, in random order."""
        if isinstance(generator, BatchShare):
            (total,) = generator.wide((n,))
            return self.sample(total, like, generator.whole)[generator.rows]
        u = noise.uniform((n,), like, generator)
        if isinstance(generator, ItemNoise | BrownianPath) or n == 0:
            return u
        order = noise.uniform((n,), like, generator).argsort()
        return (u[:1] + order.to(u) / n) % 1


@final
@dataclass(frozen=True)
class OnGrid(Times):
    """The times k/T for k = 1 .. T, alike: what a chain is trained and by default stepped on."""

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ClockError(f"Expected a number of grid steps >= 1, got {self.steps}. Give T.")

    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n grid times."""
        spread = LowDiscrepancy().sample(n, like, generator)
        return ((spread * self.steps).floor() + 1).clamp(max=self.steps) / self.steps


@final
@dataclass(frozen=True)
class LogNormalTimes(Times):
    r"""Times at which :math:`\log(\sigma_t/\alpha_t) \sim N(m, s^2)`: most at middling noise.

    Under ``KarrasWeighting`` it is EDM's training. Ratios beyond the ends of the schedule fall on
    the ends. Source: Karras et al. (2022), table 1.

    Args:
        schedule: of the Gaussian noise.
        mean: m.
        std: s > 0.

    Cost: a search of 60 evaluations of the schedule.
    """

    schedule: SignalSchedule
    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ClockError(f"Expected std > 0, got {self.std}. EDM's is 1.2.")

    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n times, spread evenly over the law."""
        spread = LowDiscrepancy().sample(n, like, generator).double()
        ratio = self.mean + self.std * torch.special.ndtri(spread.clamp(1e-12, 1 - 1e-12))
        return self.schedule.time_of(-ratio).clamp(1e-9, RUNNING_MAX).to(like)
