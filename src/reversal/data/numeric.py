"""Columns of numbers: each entry becomes a real position, whose law is known at knots."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa

from reversal.data.arrays import finite, is_number, plain, present
from reversal.data.column import Column
from reversal.data.lattice import Lattice, digits
from reversal.data.quantiles import Knots, cell_knots, sample_knots


@dataclass(frozen=True)
class Numeric(Column):
    """A column of real positions, NaN where missing; its law is known at knots."""

    knots: tuple[float, ...]
    normals: tuple[float, ...]
    lattice: Lattice | None

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest number that was seen."""

    @abstractmethod
    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the positions of numbers."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        lattice = config["lattice"] and Lattice(**config["lattice"])
        knots, normals = tuple(config["knots"]), tuple(config["normals"])
        return cls(**config | {"knots": knots, "normals": normals, "lattice": lattice})

    @property
    def unit(self) -> float:
        """How far apart neighbors are; 1 on the real line."""
        return self.lattice.unit if self.lattice else 1.0

    @property
    def width(self) -> float:
        """The width over which a position is dithered."""
        return 1.0 if self.lattice else 0.0

    @property
    def detail(self) -> str:
        by = f" by {self.unit:g}" if self.lattice and self.unit != 1 else ""
        return f"{self.bounds[0]:.10g} to {self.bounds[1]:.10g}{by}"

    def encode(self, array: pa.Array) -> np.ndarray:
        if not is_number(plain(array).type) and array.null_count < len(array):
            cure = "Convert it to numbers, or fit again."
            raise self.expected(f"numbers ({self.kind})", array.type, cure)
        if array.null_count == len(array):
            return np.full(len(array), np.nan)
        array = finite(self.name, array)
        positions = self.positions(array.fill_null(0).to_numpy(zero_copy_only=False))
        return np.where(array.is_null().to_numpy(zero_copy_only=False), np.nan, positions)

    def parse(self, value: Any) -> pa.Array:
        least, most = self.bounds
        number = self.number(value)
        if not least <= number <= most:
            cure = "Nothing was learned beyond: choose a number within."
            raise self.expected(f"a number from {least:.10g} to {most:.10g}", repr(value), cure)
        whole = isinstance(number, float) and number.is_integer()
        value = int(number) if whole and abs(number) < 2**53 else number
        is_large = isinstance(value, int) and value >= 2**63
        return pa.array([value], pa.uint64() if is_large else None)

    def number(self, value: Any) -> int | float:
        """Return a value, given as a number or as text, as a number; it may lie anywhere.

        Raises:
            DataError: if it is none.
        """
        try:
            number = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            number = np.nan
        if number != number:
            least, most = self.bounds
            cure = "Write a number."
            raise self.expected(f"a number from {least:.10g} to {most:.10g}", repr(value), cure)
        return number


@final
@dataclass(frozen=True)
class Integer(Numeric):
    """Whole numbers, of an integer type or of a float type whose entries are all whole."""

    lattice: Lattice

    kind: ClassVar[str] = "integer"

    @staticmethod
    def accepts(array: pa.Array) -> bool:
        if pa.types.is_integer(array.type):
            return True
        if not (pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
            return False
        found = digits(present(array))
        return found is not None and found[1] == 0

    @classmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        numbers = present(finite(name, array))
        whole = numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64)
        lattice = Lattice.through(whole)
        return cls(name, array.null_count / len(array), *_lattice_knots(lattice, whole), lattice)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.lattice.low, self.lattice.low + self.lattice.step * self.lattice.last

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        wrong = np.flatnonzero(numbers != np.rint(numbers))
        if len(wrong):
            got = f"{numbers[wrong[0]]} in row {wrong[0]} (counting from 0)"
            raise self.expected("whole numbers", got, "Round it, or fit again on such numbers.")
        return self.lattice.positions(numbers)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        return pa.array(self.lattice.numbers(values), mask=missing)


@final
@dataclass(frozen=True)
class Real(Numeric):
    """Real numbers, rounded where a lattice says so; clamped to what was seen when they return."""

    low: float
    high: float

    kind: ClassVar[str] = "real"

    @staticmethod
    def accepts(array: pa.Array) -> bool:
        return pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)

    @classmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        numbers = present(finite(name, array))
        found = digits(numbers)
        lattice = Lattice.through(*found) if found else None
        knots = _lattice_knots(lattice, numbers) if lattice else sample_knots(numbers)
        bounds = float(numbers.min()), float(numbers.max())
        return cls(name, array.null_count / len(array), *knots, lattice, *bounds)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return self.lattice.positions(numbers) if self.lattice else numbers.astype(np.float64)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        numbers = self.lattice.numbers(values) if self.lattice else values.clip(self.low, self.high)
        return pa.array(numbers.astype(np.float64), mask=missing)


def _lattice_knots(lattice: Lattice, numbers: np.ndarray) -> Knots:
    """Return the knots of numbers in terms of their positions."""
    return cell_knots(*np.unique(lattice.positions(numbers).round(), return_counts=True))
