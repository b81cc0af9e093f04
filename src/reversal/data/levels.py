"""Whole numbers of few values: each is modelled on its own, as a category that keeps its order.

Counts of rooms and flags 0 and 1 have laws that lumps on a line describe badly, and what goes with
them, such as years of school with a degree, is often exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa

from reversal.data.arrays import finite, numbers_of, present
from reversal.data.column import in_row, number_of
from reversal.data.declared import Declared
from reversal.data.labels import Discrete
from reversal.data.lattice import Lattice
from reversal.data.numeric import Integer

MOST = 32
"""How many values a column has at most."""
ENOUGH = 20
"""How many entries a value needs on average."""


@final
@dataclass(frozen=True)
class Levels(Discrete):
    """Equally spaced whole numbers from the least to the greatest that was seen; codes count them.

    Of a column that is taken for levels each of them was seen; of one that is declared so, those
    that were not are drawn as rarely as the model learns.
    """

    lattice: Lattice

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
        integer = Integer.infer(name, array)
        column = cls(name, integer.missing, integer.lattice)
        if column.lattice.last >= MOST**2:
            cure = "Say `type: integer` in space.yaml."
            got = f"{column.lattice.last + 1:,}, {column.members}"
            raise column.expected(f"at most {MOST**2:,} levels", got, cure)
        return column

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "lattice": Lattice(**config["lattice"])})

    @cached_property
    def labels(self) -> tuple[Any, ...]:
        return tuple(self.lattice.numbers(np.arange(self.lattice.last + 1.0)).tolist())

    @property
    def detail(self) -> str:
        return f"{len(self.labels)}: {self._span}"

    @property
    def members(self) -> str:
        """One of the levels, in words."""
        return f"a whole number from {self._span}"

    @property
    def _span(self) -> str:
        by = f" by {self.lattice.unit:g}" if self.lattice.unit != 1 else ""
        low = self.lattice.low
        return f"{low} to {low + self.lattice.step * self.lattice.last}{by}"

    def declare(self) -> dict[str, Any]:
        return {}

    def place(self, value: Any) -> float:
        return float(self.lattice.positions(np.array([self.number(value)]))[0])

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
        if array.null_count == len(array):
            return np.full(len(array), -1)
        entries = finite(self.name, numbers_of(self.name, array, "whole"))
        is_missing = array.is_null().to_numpy(zero_copy_only=False)
        numbers = entries.fill_null(0).to_numpy(zero_copy_only=False)
        codes = np.where(is_missing, 0.0, self.lattice.positions(numbers))
        wrong = np.flatnonzero((codes != codes.round()) | (codes < 0) | (codes > self.lattice.last))
        if len(wrong):
            row = int(wrong[0])
            cure = "Mend it, or fit again, with `type: integer` in space.yaml if others may come."
            raise self.expected(self.members, in_row(numbers[row].item(), row), cure)
        return np.where(is_missing, -1, codes).astype(np.int64)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        return pa.array(self.lattice.numbers(values), mask=missing)

    def parse(self, value: Any) -> pa.Array:
        number = self.number(value)
        if number not in self.labels:
            raise self.expected(self.members, repr(value), "Ask for one of them.")
        return pa.array([number], pa.uint64() if number >= 2**63 else pa.int64())


def _is_exact(numbers: np.ndarray) -> bool:
    return numbers.dtype.kind in "iu" or bool((np.abs(numbers) < 2.0**53).all())


def _through(numbers: np.ndarray) -> Lattice:
    return Lattice.through(numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64))
