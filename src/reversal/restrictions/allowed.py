"""Sets of numbers and of codes, closed under union, intersection and complement.

Two real numbers are told apart as float32 does: the complement of [a, b] ends at its neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True)
class Intervals:
    """A union of closed intervals, in increasing order and apart from one another.

    Args:
        ends: pairs (low, high), low <= high; infinite ends are legal.
        step: 1 if the members are whole numbers, 0 if they are real.
    """

    ends: tuple[tuple[float, float], ...]
    step: float = 0.0

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]], step: float = 0.0) -> Intervals:
        """Return the union of intervals in any order; those without a member are left out."""
        merged: list[tuple[float, float]] = []
        for low, high in sorted(pairs):
            if low > high or low == math.inf or high == -math.inf:
                continue
            if merged and low <= merged[-1][1] + step:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return cls(tuple(merged), step)

    @property
    def is_empty(self) -> bool:
        """Whether there is no member."""
        return not self.ends

    @property
    def is_everything(self) -> bool:
        """Whether every number is a member."""
        return self.ends == ((-math.inf, math.inf),)

    def meet(self, other: Intervals) -> Intervals:
        """The numbers in both sets."""
        both = ((max(a, c), min(b, d)) for a, b in self.ends for c, d in other.ends)
        return Intervals.of(both, self.step)

    def join(self, other: Intervals) -> Intervals:
        """The numbers in either set."""
        return Intervals.of(self.ends + other.ends, self.step)

    def rest(self) -> Intervals:
        """The other numbers."""
        edges = [-math.inf]
        for low, high in self.ends:
            edges += [self.below(low), self.above(high)]
        edges.append(math.inf)
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return Intervals.of(pairs, self.step)

    def below(self, number: float) -> float:
        """The next member of the line or lattice below a number."""
        return number - self.step if self.step else -neighbor(-number)

    def above(self, number: float) -> float:
        """The next one above."""
        return number + self.step if self.step else neighbor(number)

    def widened(self, by: float) -> Intervals:
        """Every interval longer by a number at both ends; those that touch stay apart."""
        return Intervals(tuple((low - by, high + by) for low, high in self.ends))

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> Intervals:
        """The image under a strictly increasing function of arrays; infinite ends stay."""
        ends = np.array(self.ends)
        image = np.where(np.isinf(ends), ends, function(np.where(np.isinf(ends), 0.0, ends)))
        return Intervals(tuple((float(a), float(b)) for a, b in image))

    def contains(self, numbers: np.ndarray) -> np.ndarray:
        """Whether each number is a member, bool of the same shape."""
        return np.any([(low <= numbers) & (numbers <= high) for low, high in self.ends], axis=0)

    def nearest(self, numbers: np.ndarray) -> np.ndarray:
        """The member that is nearest to each number; of two equally near the lower."""
        choices = np.stack([numbers.clip(low, high) for low, high in self.ends])
        best = np.abs(choices - numbers).argmin(axis=0)
        return np.take_along_axis(choices, best[None], axis=0)[0]


def neighbor(number: float) -> float:
    """Return the least float32 above a number."""
    if math.isinf(number):
        return number
    beside = np.float32(min(number, float(np.finfo(np.float32).max)))
    while float(beside) <= number and np.isfinite(beside):
        beside = np.nextafter(beside, np.float32(math.inf))
    return float(beside)


@final
@dataclass(frozen=True)
class Codes:
    """A set of codes: whether each of 0, ..., K - 1 is a member."""

    members: tuple[bool, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no member."""
        return not any(self.members)

    @property
    def is_everything(self) -> bool:
        """Whether every code is a member."""
        return all(self.members)

    def meet(self, other: Codes) -> Codes:
        """The codes in both sets."""
        return Codes(tuple(a and b for a, b in zip(self.members, other.members, strict=True)))

    def join(self, other: Codes) -> Codes:
        """The codes in either set."""
        return Codes(tuple(a or b for a, b in zip(self.members, other.members, strict=True)))

    def rest(self) -> Codes:
        """The other codes."""
        return Codes(tuple(not a for a in self.members))
