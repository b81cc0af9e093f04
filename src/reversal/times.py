"""Laws of single times: where on (0, 1) a network is trained, and how often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from reversal import noise
from reversal.errors import ClockError
from reversal.grids import RUNNING_MAX, Grid
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
class GridTimes(Times):
    """The times of a grid but 0, alike: a finite set of noise levels.

    ``GridTimes(Grid.log_snr(process, L, least, most))`` has the geometric levels of Song and Ermon
    (2019); the grid is then the default of the samplers too.
    """

    grid: Grid

    def __post_init__(self) -> None:
        if not isinstance(self.grid, Grid):
            raise ClockError(
                f"Expected a grid of times, got {self.grid!r}. Write "
                f"GridTimes(Grid.log_snr(process, 10, 0.01, 1.0))."
            )

    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n times of the grid."""
        times = self.grid.times[self.grid.times > 0].to(like.device)
        spread = LowDiscrepancy().sample(n, like, generator).double()
        k = (spread * len(times)).long().clamp(max=len(times) - 1)
        return times[k].to(like)


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


@final
class ImportanceTimes(nn.Module, Times):
    r"""Times drawn in proportion to the size of the loss, which is divided by as much.

    .. math:: p_k \propto \sqrt{E[L^2 \mid t \in I_k]}, \qquad \ell = \frac{L}{K p_k},
       \quad t \in I_k = \Big[\tfrac{k}{K}, \tfrac{k + 1}{K}\Big),

    with the second moments of the last losses that each interval has seen, and alike until all have
    seen enough. Whatever they are, the mean of a loss is that under uniform times; its variance is
    least where p is exact. Source: Nichol and Dhariwal (2021), section 3.3.

    Args:
        bins: K.
        memory: how many losses an interval remembers.
        floor: the share of p that stays uniform.

    It learns from every loss that has a gradient. Its memory is a state of the ``NetworkDenoiser``
    that has ``SharedClock(ImportanceTimes())``, saved and resumed with the weights. Batches that
    several processes share are refused: each would learn from its own items.
    """

    squares: Tensor
    seen: Tensor

    def __init__(self, bins: int = 64, memory: int = 10, floor: float = 0.001) -> None:
        super().__init__()
        counts = all(isinstance(count, int) and count >= 1 for count in (bins, memory))
        if not (counts and 0 < floor <= 1):
            raise ClockError(
                f"Expected bins and memory >= 1 and a floor in (0, 1], got {bins}, {memory} and "
                f"{floor}. Leave them out for the defaults."
            )
        self.bins, self.memory, self.floor = bins, memory, floor
        # One interval more than there are takes what is not to be remembered.
        self.register_buffer("squares", torch.zeros(bins + 1, memory, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(bins + 1, dtype=torch.int64))

    def __repr__(self) -> str:
        return f"ImportanceTimes({self.bins}, {self.memory}, {self.floor})"

    @property
    def probs(self) -> Tensor:
        """p, ``(K,)``."""
        size = self.squares[:-1].double().mean(1).sqrt()
        total = size.sum()
        known = (self.seen[:-1] >= self.memory).all() & (total > 0)
        share = torch.where(known, size / total, 1 / self.bins)
        return (1 - self.floor) * share + self.floor / self.bins

    def sample(self, n: int, like: Tensor, generator: Randomness = None) -> Tensor:
        """Draw n times, spread evenly over the law.

        Raises:
            ClockError: for a batch that is shared among processes.
        """
        if isinstance(generator, BatchShare):
            raise ClockError(
                "Expected one process for ImportanceTimes, which learns from its losses, got a "
                "share of a batch. Train with LowDiscrepancy() there."
            )
        spread = LowDiscrepancy().sample(n, like, generator).double()
        probs = self.probs.to(like.device)
        ends = probs.cumsum(0)
        k = torch.searchsorted(ends, spread, right=True).clamp(max=self.bins - 1)
        inside = ((spread - ends[k] + probs[k]) / probs[k]).clamp(0, 1)
        return ((k + inside) / self.bins).clamp(1e-9, RUNNING_MAX).to(like)

    def weigh(self, t: Tensor, losses: Tensor) -> Tensor:
        """Return the losses at times t ``(B,)`` in proportion to 1/p, and learn from them."""
        k = (t.double() * self.bins).long().clamp(0, self.bins - 1)
        weighted = losses / (self.bins * self.probs.to(t.device)[k]).to(losses)
        if losses.requires_grad:
            self._learn(k.to(self.seen.device), losses.detach().to(self.squares))
        return weighted

    @torch.no_grad()
    def _learn(self, k: Tensor, losses: Tensor) -> None:
        """Put the last losses of each interval in the place of its oldest ones."""
        k = torch.where(losses.isfinite(), k, self.bins)
        k, order = k.sort(stable=True)
        sizes = torch.zeros_like(self.seen).scatter_add(0, k, torch.ones_like(k))
        rank = torch.arange(len(k), device=k.device) - (sizes.cumsum(0) - sizes)[k]
        slot = (self.seen[k] + rank) % self.memory
        row = torch.where(rank >= sizes[k] - self.memory, k, self.bins)
        self.squares[row, slot] = losses[order] ** 2
        self.squares[-1] = 0
        self.seen += sizes
