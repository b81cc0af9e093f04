"""Whole numbers of few values: each is modelled on its own, as a category that keeps its order.

Counts of rooms and flags 0 and 1 have laws that lumps on a line describe badly, and what goes with
them, such as years of school with a degree, is often exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa

from reversal.data.arrays import finite, numbers_of, present
from reversal.data.column import expected, in_row, number_of
from reversal.data.declared import MOST_LEVELS, Declared, field
from reversal.data.labels import Discrete, with_unseen
from reversal.data.lattice import Lattice
from reversal.data.numeric import Integer

MOST = 32
"""How many values a column has at most that is taken for levels."""
ENOUGH = 20
"""How many entries a value needs on average."""


@final
@dataclass(frozen=True)
class Levels(Discrete):
    """Whole numbers in increasing order; codes count them.

    Those that a caller lists, or else equally spaced ones from the least to the greatest that was
    seen. Of a column that is taken for levels each of them was seen; of one that is declared so,
    those that were not are drawn as rarely as the model learns.
    """

    values: tuple[int, ...]

    kind: ClassVar[str] = "levels"

    @property
    def is_ordered(self) -> bool:
        return True

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        if not Integer.accepts(name, array):
            return False
        numbers = present(array)
        distinct = np.unique(numbers)
        if len(distinct) > MOST or len(numbers) < ENOUGH * len(distinct) or not _is_exact(distinct):
            return False
        return _through(numbers).last + 1 == len(distinct)

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        rate, wanted = array.null_count / len(array), field(declared, "values")
        if wanted is None:
            return with_unseen(cls(name, rate, _spaced(name, array)), array)
        column = cls(name, rate, tuple(sorted(wanted)))
        if pa.types.is_integer(array.type):
            _check_fits(name, column.values, array.type)
        column._coded(array, "Add it to `values` in space.yaml, or mend the entry.")
        return with_unseen(column, array)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        name, missing, unseen = config["name"], config["missing"], config.get("unseen", ())
        is_spaced = "lattice" in config  # as runs had it before levels could be listed
        values = _members(Lattice(**config["lattice"])) if is_spaced else config["values"]
        return cls(name, missing, tuple(values), unseen=tuple(unseen))

    @property
    def labels(self) -> tuple[Any, ...]:
        return self.values

    @cached_property
    def _codes(self) -> dict[int, int]:
        return {value: code for code, value in enumerate(self.values)}

    @property
    def detail(self) -> str:
        return f"{self.cardinality}: {_span(self.values)}{self.unseen_shown}"

    @property
    def members(self) -> str:
        """One of the levels, in words."""
        span = _span(self.values)
        return f"{'a whole number from' if ' to ' in span else 'one of'} {span}"

    def declare(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def place(self, value: Any) -> float:
        number = self.number(value)
        return self._codes.get(number, bisect_left(self.values, number) - 0.5)  # pyright: ignore

    def number(self, value: Any) -> int | float:
        """Return one value, given as a number or as text, as a number; it may lie anywhere.

        Raises:
            DataError: if it is none.
        """
        number = number_of(value)
        if math.isnan(number):
            raise self.expected(self.members, repr(value), "Write a number.")
        return int(number) if isinstance(number, float) and number.is_integer() else number

    def encode(self, array: pa.Array) -> np.ndarray:
        cure = "Mend it, or fit again, with `type: integer` in space.yaml if others may come."
        return self._coded(array, cure)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        kind = np.uint64 if self.values[-1] >= 2**63 else np.int64
        return pa.array(np.array(self.values, kind)[values.astype(np.int64)], mask=missing)

    def parse(self, value: Any) -> pa.Array:
        number = self.number(value)
        if number not in self._codes:
            raise self.expected(self.members, repr(value), "Ask for one of them.")
        return pa.array([number], pa.uint64() if number >= 2**63 else pa.int64())

    def _coded(self, array: pa.Array, cure: str) -> np.ndarray:
        """Return the codes of entries; the cure is for one that is no level."""
        if array.null_count == len(array):
            return np.full(len(array), -1)
        entries = finite(self.name, numbers_of(self.name, array, "whole"))
        is_missing = array.is_null().to_numpy(zero_copy_only=False)
        numbers = entries.fill_null(0).to_numpy(zero_copy_only=False)
        distinct, places = np.unique(numbers, return_inverse=True)
        found = np.array([self._codes.get(number, -1) for number in distinct.tolist()])
        codes = found[places]
        wrong = np.flatnonzero((codes < 0) & ~is_missing)
        if len(wrong):
            row = int(wrong[0])
            raise self.expected(self.members, in_row(numbers[row].item(), row), cure)
        return np.where(is_missing, -1, codes)


def _spaced(name: str, array: pa.Array) -> tuple[int, ...]:
    """Return equally spaced whole numbers from the least to the greatest of an array."""
    lattice = Integer.infer(name, array).lattice
    if lattice.last >= MOST_LEVELS:
        top = lattice.low + lattice.step * lattice.last
        got = f"{lattice.last + 1:,}, a whole number from {lattice.low} to {top}"
        cure = "Say `type: integer` in space.yaml."
        raise expected(name, f"at most {MOST_LEVELS:,} levels", got, cure)
    return _members(lattice)


def _members(lattice: Lattice) -> tuple[int, ...]:
    return tuple(lattice.low + lattice.step * j for j in range(lattice.last + 1))


def _span(values: Sequence[int]) -> str:
    """Return levels in words: a range where they are equally spaced."""
    steps = {high - low for low, high in pairwise(values)}
    if len(steps) == 1:
        step = steps.pop()
        return f"{values[0]} to {values[-1]}" + (f" by {step}" if step != 1 else "")
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) < 9 else [*shown[:6], "...", shown[-1]])


def _check_fits(name: str, values: Sequence[int], kind: pa.DataType) -> None:
    """Refuse declared levels that the type of the column does not hold."""
    for value in (values[0], values[-1]):
        try:
            pa.scalar(value, kind)
        except (pa.ArrowException, OverflowError) as error:
            cure = "Take it out of `values` in space.yaml, or widen the dtype of the column."
            raise expected(name, f"levels that {kind} holds", value, cure) from error


def _is_exact(numbers: np.ndarray) -> bool:
    return numbers.dtype.kind in "iu" or bool((np.abs(numbers) < 2.0**53).all())


def _through(numbers: np.ndarray) -> Lattice:
    return Lattice.through(numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64))
