"""Columns of numbers: each entry becomes a real position, whose law is known at knots."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa

from reversal.data.arrays import finite, numbers_of, plain, present
from reversal.data.column import Column, expected, in_row, number_of
from reversal.data.declared import Declared, field
from reversal.data.lattice import Lattice, digits
from reversal.data.peaks import Peaks, has_heavy_tails, peak, shown_peaks, spikes
from reversal.data.quantiles import Knots, cell_knots, sample_knots, spiked_knots

ROUND = "Round it, or say `decimals: null` in space.yaml."


@dataclass(frozen=True)
class Numeric(Column):
    """A column of real positions, NaN where missing; its law is known at knots.

    A position that is decoded is clamped to the least and the greatest number that was seen or
    declared: a sample never lies beyond.
    """

    knots: tuple[float, ...]
    normals: tuple[float, ...]
    lattice: Lattice | None

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest number that was seen or declared."""

    @abstractmethod
    def numbers(self, array: pa.Array) -> np.ndarray:
        """Return entries ``(B,)`` as numbers; what stands where one is missing means nothing.

        Raises:
            DataError: if an entry is not of this type.
        """

    @abstractmethod
    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the positions of numbers."""

    @abstractmethod
    def number(self, value: Any) -> int | float:
        """Return one value, given as this type or as text, as a number; it may lie anywhere.

        Raises:
            DataError: if it is none.
        """

    @abstractmethod
    def shown(self, number: float) -> str:
        """Return a number in the words of this type."""

    @property
    def spikes(self) -> tuple[float, ...]:
        """The numbers off a lattice that have a positive probability."""
        pairs = zip(self.knots, self.knots[1:], strict=False)
        return tuple(low for low, high in pairs if low == high)

    @property
    def unit(self) -> float:
        """How far apart neighbors are; 1 on the real line."""
        return self.lattice.unit if self.lattice else 1.0

    @property
    def width(self) -> float:
        """The width over which a position is dithered."""
        return 1.0 if self.lattice else 0.0

    @property
    def measure(self) -> str:
        """The reference measure of the column's law."""
        if self.lattice:
            return "counting"
        at = ", ".join(f"{spike:g}" for spike in self.spikes[:4])
        more = ", ..." if len(self.spikes) > 4 else ""
        return f"Lebesgue, counting at {at}{more}" if self.spikes else "Lebesgue"

    def encode(self, array: pa.Array) -> np.ndarray:
        if array.null_count == len(array):
            return np.full(len(array), np.nan)
        positions = self.positions(self.numbers(array))
        return np.where(array.is_null().to_numpy(zero_copy_only=False), np.nan, positions)


@final
@dataclass(frozen=True)
class Integer(Numeric):
    """Whole numbers, of an integer type or of a float type whose entries are all whole."""

    lattice: Lattice
    peaks: Peaks = ()
    heavy: bool = False

    kind: ClassVar[str] = "integer"

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        if pa.types.is_integer(array.type):
            return True
        if not (pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
            return False
        found = digits(present(array))
        return found is not None and found[1] == 0

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        entries = finite(name, numbers_of(name, array, cls.kind))
        _check_varies(name, entries)
        _check_whole(name, entries.fill_null(0).to_numpy(zero_copy_only=False))
        numbers = present(entries)
        whole = numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64)
        _check_range(name, entries, declared)
        least, greatest = field(declared, "least"), field(declared, "greatest")
        lattice = Lattice.through(whole).widened(least, greatest)
        rate = array.null_count / len(array)
        found = peak(whole)
        knots = lattice_knots(lattice, whole)
        return cls(name, rate, *knots, lattice, found, has_heavy_tails(whole, found))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**_read(config))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.lattice.low, self.lattice.low + self.lattice.step * self.lattice.last

    @property
    def detail(self) -> str:
        return _detail(self)

    def declare(self) -> dict[str, Any]:
        return {"least": int(self.bounds[0]), "greatest": int(self.bounds[1])}

    def numbers(self, array: pa.Array) -> np.ndarray:
        entries = finite(self.name, numbers_of(self.name, array, self.kind))
        return entries.fill_null(0).to_numpy(zero_copy_only=False)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        _check_whole(self.name, numbers)
        return self.lattice.positions(numbers)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        return pa.array(self.lattice.numbers(values), mask=missing)

    def number(self, value: Any) -> int | float:
        return _number(self, value)

    def shown(self, number: float) -> str:
        return f"{number:.10g}"

    def parse(self, value: Any) -> pa.Array:
        return _parse(self, value)


@final
@dataclass(frozen=True)
class Real(Numeric):
    """Real numbers, rounded where a lattice says so, and spikes where they are not."""

    low: float
    high: float
    peaks: Peaks = ()
    heavy: bool = False

    kind: ClassVar[str] = "real"

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        return pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        entries = finite(name, numbers_of(name, array, cls.kind))
        _check_varies(name, entries)
        _check_range(name, entries, declared)
        numbers = present(entries)
        low, high = field(declared, "least"), field(declared, "greatest")
        low = float(numbers.min()) if low is None else float(low)
        high = float(numbers.max()) if high is None else float(high)
        found = _declared_digits(name, entries, declared)
        rate = array.null_count / len(array)
        if found is None:
            peaks = spikes(numbers, field(declared, "spikes"))
            knots = spiked_knots(numbers, np.array([p[0] for p in peaks])) if peaks else ()
            knots = knots or sample_knots(numbers)
            heavy = has_heavy_tails(numbers, peaks)
            return cls(name, rate, *knots, None, low, high, peaks, heavy)
        lattice = Lattice.through(*found).widened(low, high)
        peaks = peak(numbers)
        knots, heavy = lattice_knots(lattice, numbers), has_heavy_tails(numbers, peaks)
        return cls(name, rate, *knots, lattice, low, high, peaks, heavy)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**_read(config))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def detail(self) -> str:
        return _detail(self)

    def declare(self) -> dict[str, Any]:
        decimals = self.lattice.decimals if self.lattice else None
        fields = {"least": self.low, "greatest": self.high, "decimals": decimals}
        return fields if self.lattice else fields | {"spikes": list(self.spikes)}

    def numbers(self, array: pa.Array) -> np.ndarray:
        entries = finite(self.name, numbers_of(self.name, array, self.kind))
        return entries.fill_null(0).to_numpy(zero_copy_only=False)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return self.lattice.positions(numbers) if self.lattice else numbers.astype(np.float64)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        numbers = self.lattice.numbers(values) if self.lattice else values.clip(self.low, self.high)
        return pa.array(numbers.astype(np.float64), mask=missing)

    def number(self, value: Any) -> int | float:
        return _number(self, value)

    def shown(self, number: float) -> str:
        return f"{number:.10g}"

    def parse(self, value: Any) -> pa.Array:
        return _parse(self, value)


def lattice_knots(lattice: Lattice, numbers: np.ndarray) -> Knots:
    """Return the knots of numbers in terms of their positions."""
    return cell_knots(*np.unique(lattice.positions(numbers).round(), return_counts=True))


def numeric_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a numeric column from plain JSON types."""
    lattice = config["lattice"] and Lattice(**config["lattice"])
    knots, normals = tuple(config["knots"]), tuple(config["normals"])
    return config | {"knots": knots, "normals": normals, "lattice": lattice}


def _read(config: dict[str, Any]) -> dict[str, Any]:
    peaks = tuple((value, share) for value, share in config.get("peaks", ()))
    return numeric_fields(config) | {"peaks": peaks}


def _detail(column: Integer | Real) -> str:
    by = f" by {column.unit:g}" if column.lattice and column.unit != 1 else ""
    low, high = map(column.shown, column.bounds)
    words = [f"{low} to {high}{by}"]
    words += shown_peaks(column.peaks)
    return ", ".join(words + ["heavy tails"] * column.heavy)


def _number(column: Integer | Real, value: Any) -> int | float:
    number = number_of(value)
    if math.isnan(number):
        least, most = map(column.shown, column.bounds)
        cure = "Write a number."
        raise column.expected(f"a number from {least} to {most}", repr(value), cure)
    return number


def _parse(column: Integer | Real, value: Any) -> pa.Array:
    least, most = column.bounds
    number = column.number(value)
    if not least <= number <= most:
        what = f"a number from {column.shown(least)} to {column.shown(most)}"
        cure = "Nothing was learned beyond: choose a number within."
        raise column.expected(what, repr(value), cure)
    whole = isinstance(number, float) and number.is_integer()
    known = int(number) if whole and abs(number) < 2**53 else number
    is_large = isinstance(known, int) and known >= 2**63
    return pa.array([known], pa.uint64() if is_large else None)


def _check_whole(name: str, numbers: np.ndarray) -> None:
    wrong = np.flatnonzero(numbers != np.rint(numbers))
    if len(wrong):
        got = f"{numbers[wrong[0]]} in row {wrong[0]} (counting from 0)"
        raise expected(name, "whole numbers", got, "Round it, or fit again on such numbers.")


def _check_varies(name: str, entries: pa.Array) -> None:
    if len(plain(entries).unique().drop_null()) < 2:
        cure = "Say `type: constant` in space.yaml, or leave its type out."
        raise expected(name, "numbers that vary", "one value or none", cure)


def _check_range(name: str, entries: pa.Array, declared: Declared | None) -> None:
    """Refuse numbers beyond the range that was declared."""
    ends = {"from": field(declared, "least"), "to": field(declared, "greatest")}
    low = -math.inf if ends["from"] is None else ends["from"]
    high = math.inf if ends["to"] is None else ends["to"]
    numbers = plain(entries).fill_null(0).to_numpy(zero_copy_only=False)
    seen = entries.is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(seen & ((numbers < low) | (numbers > high)))
    if len(wrong):
        said = " ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)
        cure = "Widen `least` and `greatest` in space.yaml, or mend the entry."
        got = in_row(numbers[wrong[0]].item(), int(wrong[0]))
        raise expected(name, f"numbers {said}", got, cure)


def _declared_digits(
    name: str, entries: pa.Array, declared: Declared | None
) -> tuple[np.ndarray, int] | None:
    """Return numbers as integers and their decimals, found or declared; None if not rounded."""
    numbers = present(entries)
    if declared is None or "decimals" not in declared.model_fields_set:
        return None if field(declared, "spikes") else digits(numbers)
    decimals = field(declared, "decimals")
    if decimals is None:
        return None
    if field(declared, "spikes"):
        cure = "Say `decimals: null`, or take `spikes` out: a rounded number has its probability."
        raise expected(name, "spikes of numbers that are not rounded", "both fields", cure)
    if numbers.dtype.kind in "iu":
        return numbers * 10**decimals, decimals
    units = np.rint(entries.fill_null(0).to_numpy(zero_copy_only=False) * 10.0**decimals)
    back = (units / 10.0**decimals).astype(numbers.dtype)
    all_numbers = entries.fill_null(0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(back != all_numbers)
    if len(wrong):
        got = in_row(all_numbers[wrong[0]].item(), int(wrong[0]))
        raise expected(name, f"numbers of at most {decimals} decimals", got, ROUND)
    seen = entries.is_valid().to_numpy(zero_copy_only=False)
    if np.abs(units).max() >= 2**53:
        got = f"numbers up to {np.abs(all_numbers).max():g}"
        raise expected(name, f"numbers that float64 holds to {decimals} decimals", got, ROUND)
    return units[seen].astype(np.int64), decimals
