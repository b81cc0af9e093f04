r"""The last step of a chain on R^d: from x at the first time of a grid to the data.

As a density it is normal around the clean estimate. Data that are numbered levels have
probabilities, which are its integrals over the cells of the levels,

.. math:: p(x_0 | x_{t_1}) = \prod_i \int_{\delta_-(x_0^i)}^{\delta_+(x_0^i)}
   N(x; \mu^i, v^i)\, dx ,

with the first and the last cell extended to infinity. Source: Ho et al. (2020), eq. (13).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from reversal.errors import SpaceError
from reversal.processes.gaussian import NormalKernel
from reversal.processes.variances import LargeVariance, SmallVariance, StepVariance

_OFF: Final = 1e-3


@final
@dataclass(frozen=True)
class Levels:
    """Integers 0 to count - 1 as equally spaced real numbers.

    Args:
        count: how many, at least 2; 256 for 8-bit images.
        low: the number of the first.
        high: the number of the last.
    """

    count: int = 256
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.count, int) and self.count >= 2 and self.low < self.high):
            raise SpaceError(
                f"Expected at least 2 levels from a low to a higher number, got {self}. "
                f"Levels() are those of 8-bit images in [-1, 1]."
            )

    @property
    def spacing(self) -> float:
        """The distance of two neighbors, which is the width of a cell."""
        return (self.high - self.low) / (self.count - 1)

    def encode(self, codes: Tensor) -> Tensor:
        """Integers as real numbers, float32.

        Raises:
            SpaceError: for numbers that are no integers of the range.
        """
        whole = not codes.is_floating_point() and codes.dtype != torch.bool
        if not whole or bool(((codes < 0) | (codes >= self.count)).any()):
            raise SpaceError(
                f"Expected integers from 0 to {self.count - 1}, got {codes.dtype} values. Give "
                f"the images as they are stored, or Levels of another count."
            )
        return (self.low + codes.double() * self.spacing).float()

    def decode(self, x: Tensor) -> Tensor:
        """The nearest integers, int64."""
        return self._position(x).round().clamp(0, self.count - 1).long()

    def check(self, x: Tensor) -> None:
        """Raise ``SpaceError`` unless every number is a level, up to rounding; reads values."""
        position = self._position(x)
        off = (position - position.round()).abs() > _OFF * self.count**0.5
        outside = (position.round() < 0) | (position.round() > self.count - 1)
        if bool((off | outside).any()):
            found = x[off | outside].flatten()[:4].tolist()
            raise SpaceError(
                f"Expected every number to be one of {self.count} levels from {self.low:g} to "
                f"{self.high:g}, got {found}. Encode integers by levels.encode(codes), or leave "
                f"out the decoder for a density."
            )

    def _position(self, x: Tensor) -> Tensor:
        return (x.double() - self.low) / self.spacing


class Decoder(ABC):
    """A law of the data around the last mean; ``measure`` and ``law`` say what is scored.

    ``variance`` is that of the other steps under which such data leave no gap as steps grow.
    """

    measure: str
    law: str
    variance: StepVariance

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Raise ``SpaceError`` for data that this law cannot draw."""

    @abstractmethod
    def log_prob(self, law: NormalKernel, x_0: Tensor) -> Tensor:
        """log p(x_0 | x_t) of every entry."""


@final
@dataclass(frozen=True)
class DensityDecoder(Decoder):
    """The normal law itself: a density with respect to Lebesgue measure."""

    measure = "Lebesgue"
    law = ""
    variance = LargeVariance()

    def check(self, x: Tensor) -> None:
        """Everything is legal."""

    def log_prob(self, law: NormalKernel, x_0: Tensor) -> Tensor:
        """The log-density."""
        return law.site_log_prob(x_0)


@final
@dataclass(frozen=True)
class DiscretizedDecoder(Decoder):
    """Probabilities of levels, which sum to one: the equation of this module."""

    levels: Levels = Levels()
    measure = "counting"
    variance = SmallVariance()

    @property
    def law(self) -> str:
        """Whose probability it is."""
        return f"{self.levels.count} levels, discretized normal decoder"

    def check(self, x: Tensor) -> None:
        """Levels."""
        self.levels.check(x)

    def log_prob(self, law: NormalKernel, x_0: Tensor) -> Tensor:
        """The log-probability of the level that is x_0."""
        codes, std = self.levels.decode(x_0), torch.as_tensor(law.std).double()
        center = self.levels.low + codes.double() * self.levels.spacing - law.mean.double()
        high = torch.where(codes == self.levels.count - 1, torch.inf, self._at(center, 0.5) / std)
        low = torch.where(codes == 0, -torch.inf, self._at(center, -0.5) / std)
        return log_normal_interval(low, high).to(x_0)

    def _at(self, center: Tensor, cells: float) -> Tensor:
        return center + cells * self.levels.spacing


def log_normal_interval(low: Tensor, high: Tensor) -> Tensor:
    """The log-probability that a standard normal variable lies in [low, high], in any tail."""
    flipped = low > 0
    a = torch.where(flipped, -high, low)
    b = torch.where(flipped, -low, high)
    top, bottom = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    gap = (bottom - top).clamp(max=-torch.finfo(top.dtype).tiny)
    return top + torch.log(-torch.expm1(gap))
