"""Columns as conditions see them: numbers in steps of a lattice, positions on a line, or codes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from reversal.data.column import Column
from reversal.data.columns import Constant, Discrete
from reversal.data.conditions import Between, Condition
from reversal.data.numeric import Numeric
from reversal.data.quantiles import QuantileMap
from reversal.restrictions.allowed import Codes, Intervals, neighbor

ROUNDING = 1e-6
"""How far from a member of a lattice a number may be and still be meant as that member."""


class ColumnScale(ABC):
    """What sets of a column's values are."""

    column: Any

    @abstractmethod
    def point(self, value: Any) -> Any:
        """Return the set of one value."""

    @abstractmethod
    def span(self, between: Between) -> Any:
        """Return the set of what lies between two values."""

    @abstractmethod
    def holds(self, allowed: Any, array: pa.Array) -> np.ndarray:
        """Return which entries lie in a set, bool ``(n,)``; a missing one does not."""

    @abstractmethod
    def within(self, allowed: Any, array: pa.Array) -> pa.Array:
        """Return entries moved into a set; those that lie in it stay as they are."""

    @abstractmethod
    def refuse_null(self, allowed: Any) -> None:
        """Refuse a set of which nothing can have been learned.

        Raises:
            DataError: if its probability is zero whatever the law is, or no row had its values.
        """

    def resolve(self, condition: Condition) -> Any:
        """Return the set of values for which a condition holds.

        Raises:
            DataError: if there is none, or nothing can have been learned of it.
        """
        allowed = condition.allowed(self)
        if allowed.is_empty:
            cure = "Look at the bounds and at what excludes what."
            raise self.column.expected("conditions that some value meets", "none that does", cure)
        self.refuse_null(allowed)
        return allowed


@final
@dataclass(frozen=True)
class NumericScale(ColumnScale):
    """Positions: whole numbers 0, ..., last on a lattice, real numbers elsewhere.

    Args:
        column: of numbers.
        is_clamped: whether the ends of what was seen stand for all beyond, as in draws; entries of
            a caller may lie beyond.
    """

    column: Numeric
    is_clamped: bool = True

    @property
    def step(self) -> float:
        """The distance of neighbors: 1 on a lattice, 0 on the line."""
        return self.column.width

    def point(self, value: Any) -> Intervals:
        position = float(self.column.encode(self.column.parse(value))[0])
        if self.step and abs(position - round(position)) > ROUNDING:
            cure = "Nothing else was seen: choose one of them, or a range."
            raise self.column.expected(f"a multiple of {self.column.unit:g}", repr(value), cure)
        position = float(round(position)) if self.step else position
        return self._stretched(position, position)

    def span(self, between: Between) -> Intervals:
        low = -math.inf if between.low is None else self._low(between.low, between.excludes_low)
        high = (
            math.inf
            if between.high is None
            else -self._low(between.high, between.excludes_high, -1)
        )
        first, last = self._ends
        if low > high:
            cure = "No value of the column lies in it: look at its ends."
            raise self.column.expected("a range with values", repr(str(between)), cure)
        if low > last or high < first:
            least, most = map(self.column.shown, self.column.bounds)
            cure = "Nothing was learned beyond: choose a range that meets it."
            what = f"a range with values from {least} to {most}"
            raise self.column.expected(what, repr(str(between)), cure)
        return self._stretched(low, high)

    def refuse_null(self, allowed: Intervals) -> None:
        if not self.step and not any(
            low < high or low in self.spikes for low, high in allowed.ends
        ):
            cure = "Ask for a range, `rv.between(low, high)`, or for one value."
            got = "single numbers, of probability zero"
            raise self.column.expected("a range of real numbers", got, cure)

    @property
    def spikes(self) -> tuple[float, ...]:
        """The numbers off a lattice that have a positive probability."""
        return self.column.spikes

    def latent(self, allowed: Intervals) -> Intervals:
        """Return the image of a set among normal quantiles, in which it has a law close to N(0, 1).

        A number on a lattice is its cell. A spike is an interval there: it is taken as a whole.
        """
        quantiles = QuantileMap.pack([(self.column.knots, self.column.normals)])

        def outward(positions: np.ndarray) -> np.ndarray:
            least, greatest = quantiles.ends(torch.from_numpy(positions).reshape(-1, 1))
            return torch.stack([least[::2, 0], greatest[1::2, 0]], 1).numpy()

        return allowed.widened(self.column.width / 2).mapped(outward)

    def holds(self, allowed: Intervals, array: pa.Array) -> np.ndarray:
        positions, known = self._seen(array)
        positions = positions.clip(*self._ends) if self.is_clamped else positions
        return allowed.contains(positions) & known

    def within(self, allowed: Intervals, array: pa.Array) -> pa.Array:
        positions, known = self._seen(array)
        moved = self.column.decode(allowed.nearest(positions).clip(*self._ends), ~known)
        stays = self.holds(allowed, array) | ~known
        return pc.if_else(pa.array(stays), array, moved.cast(array.type))  # pyright: ignore

    def _seen(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of entries, and which of them are known."""
        known = array.is_valid().to_numpy(zero_copy_only=False)
        positions = np.where(known, self.column.encode(array), 0.0)
        return positions.round() if self.step else positions, known

    @property
    def _ends(self) -> tuple[float, float]:
        """The least and the greatest position that was seen."""
        low, high = self.column.bounds
        return self._position(low), self._position(high)

    def _position(self, number: float) -> float:
        """Return the position of a number, wherever it lies."""
        lattice = self.column.lattice
        return float(lattice.positions(np.array([number]))[0]) if lattice else float(number)

    def _low(self, value: Any, is_excluded: bool, sign: int = 1) -> float:
        """Return the least position above a bound; with sign -1, minus the greatest below it.

        Of real numbers, float32 tells an excluded bound from its neighbor.
        """
        at = sign * self._position(self.column.number(value))
        if math.isinf(at):
            return at
        if self.step:
            return math.floor(at + ROUNDING) + 1 if is_excluded else math.ceil(at - ROUNDING)
        if not is_excluded:
            return at
        return neighbor(at) if self.is_clamped else float(np.nextafter(at, math.inf))

    def _stretched(self, low: float, high: float) -> Intervals:
        """Let an interval that reaches an end of what was seen go on: draws are clamped there."""
        if not self.is_clamped:
            return Intervals.of([(low, high)], self.step)
        first, last = self._ends
        return Intervals.of(
            [(-math.inf if low <= first else low, math.inf if high >= last else high)], self.step
        )


@final
@dataclass(frozen=True)
class CodeScale(ColumnScale):
    """The codes of a discrete column, in the order of its values."""

    column: Discrete

    def point(self, value: Any) -> Codes:
        return self._between(Between(value, value))

    def span(self, between: Between) -> Codes:
        if not self.column.is_ordered:
            cure = "Name the values, `rv.one_of('a', 'b')`, or declare an order."
            raise self.column.expected("an ordered column for a range", self.column.kind, cure)
        return self._between(between)

    def refuse_null(self, allowed: Codes) -> None:
        self.column.refuse_unseen(np.flatnonzero(allowed.members))

    def holds(self, allowed: Codes, array: pa.Array) -> np.ndarray:
        return np.append(allowed.members, False)[self.column.encode(array)]

    def within(self, allowed: Codes, array: pa.Array) -> pa.Array:
        return array

    def _between(self, between: Between) -> Codes:
        place, codes = self.column.place, np.arange(self.column.cardinality)
        low = -math.inf if between.low is None else place(between.low)
        high = math.inf if between.high is None else place(between.high)
        above = codes > low if between.excludes_low else codes >= low
        below = codes < high if between.excludes_high else codes <= high
        return Codes(tuple((above & below).tolist()))


@final
@dataclass(frozen=True)
class ConstantScale(ColumnScale):
    """The one value of a constant column: a condition on it holds or does not."""

    column: Constant

    def point(self, value: Any) -> Codes:
        return Codes((str(self.column.comparable(value)) == str(self.column.value),))

    def span(self, between: Between) -> Codes:
        value = self.column.value
        low, high = map(self.column.comparable, (between.low, between.high))
        try:
            above = low is None or (low < value if between.excludes_low else low <= value)
            below = high is None or (value < high if between.excludes_high else value <= high)
        except TypeError:
            cure = "Drop the condition."
            raise self.column.expected(self.column.detail, repr(str(between)), cure) from None
        return Codes((above and below,))

    def refuse_null(self, allowed: Codes) -> None:
        pass

    def holds(self, allowed: Codes, array: pa.Array) -> np.ndarray:
        self.column.encode(array)
        known = array.is_valid().to_numpy(zero_copy_only=False)
        return known & all(allowed.members)

    def within(self, allowed: Codes, array: pa.Array) -> pa.Array:
        return array


def scale_of(column: Column, is_clamped: bool = True) -> ColumnScale:
    """Return the scale of a column.

    Args:
        column: of a table.
        is_clamped: whether its numbers are draws, which do not go beyond what was seen.

    Raises:
        DataError: if the column is not modelled.
    """
    if isinstance(column, Numeric):
        return NumericScale(column, is_clamped)
    if isinstance(column, Discrete):
        return CodeScale(column)
    if isinstance(column, Constant):
        return ConstantScale(column)
    what = f"no condition on an {column.kind}, of which nothing was learned"
    raise column.expected(what, "one", "Ask for other columns.")
