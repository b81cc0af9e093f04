r"""Rounded numbers and the lattice on which they lie.

With integers low, step and last, a number and its position j are

.. math:: x = (\text{low} + \text{step}\, j)\, 10^{-\text{decimals}}, \quad j = 0, ..., \text{last},

and what comes back from a position is exact to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

ENOUGH_FOR_A_STEP = 20
MAX_DECIMALS = 9


@final
@dataclass(frozen=True)
class Lattice:
    """Equally spaced numbers ``(low + step j) / 10^decimals``, j = 0, ..., last; all integers."""

    low: int
    step: int
    last: int
    decimals: int = 0

    @classmethod
    def through(cls, units: np.ndarray, decimals: int = 0) -> Lattice:
        """Return the widest lattice that holds all of ``units / 10^decimals``, units integers.

        A step of more than one unit needs 20 of them as evidence.
        """
        distinct = np.unique(units)
        gaps = np.diff(distinct.astype(np.uint64))
        step = int(np.gcd.reduce(gaps)) if len(units) >= ENOUGH_FOR_A_STEP and len(gaps) else 1
        low = int(distinct[0])
        return cls(low, step, (int(distinct[-1]) - low) // step, decimals)

    def widened(self, least: float | None, greatest: float | None) -> Lattice:
        """Return this lattice, gone on to the last members within a wider range."""
        scale, top = 10**self.decimals, self.low + self.step * self.last
        below = 0 if least is None else max(0, (self.low - _units(least, scale)) // self.step)
        above = 0 if greatest is None else max(0, (_units(greatest, scale) - top) // self.step)
        return replace(self, low=self.low - self.step * below, last=self.last + below + above)

    @property
    def unit(self) -> float:
        """The distance of neighbors."""
        return self.step / 10**self.decimals

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return j of numbers, float64; between two members it is a fraction."""
        if numbers.dtype.kind not in "iu" or self.decimals:
            return (numbers.astype(np.float64) * 10.0**self.decimals - self.low) / self.step
        low, wrapped = np.uint64(self.low % 2**64), numbers.astype(np.uint64)
        above = (wrapped - low).astype(np.float64)
        return np.where(numbers >= self.low, above, -(low - wrapped).astype(np.float64)) / self.step

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Return the members nearest to positions: integers, or float64 if there are decimals."""
        last = float(self.last)
        j = np.rint(positions).clip(0, min(last, 2.0**64 - 2048)).astype(np.uint64)
        j = np.where(positions >= last, np.uint64(self.last), j)
        units = np.uint64(self.low % 2**64) + np.uint64(self.step) * j
        signed = self.low + self.step * self.last < 2**63
        units = units.astype(np.int64) if signed else units
        return units / 10.0**self.decimals if self.decimals else units


def _units(number: float, scale: int) -> int:
    return number * scale if isinstance(number, int) else round(number * scale)


def digits(numbers: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return floats as integers of the fewest decimals that reproduce them bit for bit."""
    wide = numbers.astype(np.float64)
    largest = float(np.abs(wide).max())
    for decimals in range(MAX_DECIMALS + 1):
        if largest * 10**decimals >= 2.0 ** (np.finfo(numbers.dtype).nmant - 1):
            return None
        units = np.rint(wide * 10**decimals)
        if np.array_equal((units / 10**decimals).astype(numbers.dtype), numbers):
            return units.astype(np.int64), decimals
    return None
