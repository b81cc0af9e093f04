r"""Where a vector of parameters lives, as an increasing map of every entry to the real line.

.. math:: z = T(\theta), \qquad \log p(\theta) = \log p(z) + \sum_i \log T_i'(\theta_i) .

On a box, :math:`T_i(\theta) = \Phi^{-1}((\theta_i - l_i) / (h_i - l_i))` with the normal quantile
function: a uniform prior becomes the standard normal law, which is also what the noise ends in, and
no draw leaves the box. Computed in float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from reversal.errors import DataError

EDGE = 1e-12
"""How near to an end of a box, in shares of its width, a parameter is told from the end."""


class Support(ABC):
    """The set that parameters ``(..., d)`` lie in, and its map to the real line.

    Attributes:
        length: d.
    """

    length: int

    @abstractmethod
    def contains(self, theta: Tensor) -> Tensor:
        """Whether parameters ``(..., d)`` lie in it, bool ``(...)``."""

    @abstractmethod
    def to_real(self, theta: Tensor) -> Tensor:
        """Return z, float64."""

    @abstractmethod
    def from_real(self, z: Tensor) -> Tensor:
        """Return the parameters of z, float64."""

    @abstractmethod
    def log_slope(self, theta: Tensor) -> Tensor:
        """Return the log-determinant of the map, the sum of log T', ``(...)``."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return it in plain JSON types: its type, and the arguments of that."""


@final
class Box(Support):
    """The box of all low <= theta <= high.

    Args:
        low: the lower ends, ``(d,)``.
        high: the upper ends, ``(d,)``.

    Raises:
        DataError: if they are not finite numbers in order.
    """

    def __init__(self, low: Sequence[float] | Tensor, high: Sequence[float] | Tensor) -> None:
        ends = [torch.as_tensor(end, dtype=torch.float64) for end in (low, high)]
        self.low, self.high = ends
        self.width = self.high - self.low if ends[0].shape == ends[1].shape else torch.zeros(())
        if self.width.ndim != 1 or not bool((self.width > 0).all() & self.width.isfinite().all()):
            raise DataError(
                f"Expected two rows of finite numbers with low < high, got low={low} and "
                f"high={high}. Give one lower and one upper end per parameter."
            )
        self.length = len(self.width)

    def contains(self, theta: Tensor) -> Tensor:
        return ((theta >= self.low) & (theta <= self.high)).all(-1)

    def to_real(self, theta: Tensor) -> Tensor:
        share = (theta.double() - self.low) / self.width
        return torch.special.ndtri(share.clamp(EDGE, 1 - EDGE))

    def from_real(self, z: Tensor) -> Tensor:
        inside = self.low + self.width * torch.special.ndtr(z.double())
        return torch.clamp(inside, self.low, self.high)

    def log_slope(self, theta: Tensor) -> Tensor:
        z = self.to_real(theta)
        return (z**2 / 2 + math.log(2 * math.pi) / 2 - self.width.log()).sum(-1)

    def to_config(self) -> dict[str, Any]:
        return {"type": "Box", "low": self.low.tolist(), "high": self.high.tolist()}


@final
class Line(Support):
    """All real vectors, in units of a mean and a standard deviation.

    Args:
        mean: ``(d,)``.
        deviation: ``(d,)``, positive.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean.double(), deviation.double()
        self.length = len(mean)

    @classmethod
    def of(cls, theta: Tensor) -> Self:
        """Return the line in the units of a sample ``(N, d)``.

        Raises:
            DataError: if an entry is the same everywhere.
        """
        deviation = theta.double().std(0)
        if not bool((deviation > 0).all()):
            raise DataError(
                f"Expected parameters that vary, got standard deviations {deviation.tolist()}. "
                f"Leave out what is the same in every simulation."
            )
        return cls(theta.double().mean(0), deviation)

    def contains(self, theta: Tensor) -> Tensor:
        return theta.isfinite().all(-1)

    def to_real(self, theta: Tensor) -> Tensor:
        return (theta.double() - self.mean) / self.deviation

    def from_real(self, z: Tensor) -> Tensor:
        return self.mean + self.deviation * z.double()

    def log_slope(self, theta: Tensor) -> Tensor:
        return -self.deviation.log().sum().expand(theta.shape[:-1])

    def to_config(self) -> dict[str, Any]:
        ends = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return {"type": "Line", **ends}


TYPES: dict[str, Callable[..., Support]] = {"Box": Box, "Line": Line}


def support_from_config(config: Mapping[str, Any]) -> Support:
    """Return the support that ``to_config`` described.

    Raises:
        KeyError: if it is of a type that this version does not know.
    """
    rows = {name: row for name, row in config.items() if name != "type"}
    given = {name: torch.tensor(row, dtype=torch.float64) for name, row in rows.items()}
    return TYPES[config["type"]](**given)
