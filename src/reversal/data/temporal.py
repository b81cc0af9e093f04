"""Columns of dates, datetimes, times of day and durations: numbers on a lattice of their steps.

A date is a whole number of days, another moment one of its unit (s, ms, us or ns); daily datetimes
lie on a lattice of days, and what comes back has the caller's unit and time zone. Days of a zone
whose clocks change are days of its local time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data import moments
from reversal.data.arrays import is_text, plain
from reversal.data.column import expected, in_row
from reversal.data.declared import Declared, field
from reversal.data.form import type_of
from reversal.data.lattice import Lattice
from reversal.data.numeric import Numeric, lattice_knots, numeric_fields

BEYOND = "Nothing was learned beyond: choose one within."


@final
@dataclass(frozen=True)
class Clock:
    """A type of moments: its name, the Arrow types that hold it, and the one of its text."""

    kind: str
    holds: Callable[[pa.DataType], bool]
    of_text: pa.DataType | None


CLOCKS = (
    Clock("date", pa.types.is_date, pa.date32()),
    Clock("datetime", pa.types.is_timestamp, pa.timestamp("us")),
    Clock("time", pa.types.is_time, None),
    Clock("duration", pa.types.is_duration, None),
)


@final
@dataclass(frozen=True)
class Moment(Numeric):
    """Dates, datetimes, times of day or durations.

    Args:
        kind: which of the four.
        storage: the Arrow type of the entries, as text.
        is_local: whether numbers are those of the zone's local time, which is so for days of it.
    """

    lattice: Lattice
    storage: str
    kind: str  # pyright: ignore[reportIncompatibleVariableOverride]
    is_local: bool = False

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the entries."""
        return type_of(self.storage)

    @property
    def counted(self) -> pa.DataType:
        """The Arrow type whose numbers are modelled."""
        return pa.timestamp(self.type.unit) if self.is_local else self.type

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        return moments.is_moment(array.type)

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        entries = _entries(name, plain(array), field(declared, "type"))
        local = _local_days(entries)
        counted = entries if local is None else local
        numbers = moments.integers(counted.drop_null()).to_numpy(zero_copy_only=False)
        if len(np.unique(numbers)) < 2:
            cure = "Say `type: constant` in space.yaml, or leave its type out."
            raise expected(name, "moments that vary", "one value or none", cure)
        ends = [_end(name, declared, end, counted.type) for end in ("least", "greatest")]
        _check_range(name, counted, *ends)
        lattice = moments.lattice_of(numbers, counted.type).widened(*ends)
        knots = lattice_knots(lattice, numbers)
        rate = array.null_count / len(array)
        kind = _clock(entries.type).kind
        return cls(
            name,
            rate,
            kind=kind,
            knots=knots[0],
            normals=knots[1],
            lattice=lattice,
            storage=str(entries.type),
            is_local=local is not None,
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**numeric_fields(config))

    @property
    def bounds(self) -> tuple[int, int]:
        return self.lattice.low, self.lattice.low + self.lattice.step * self.lattice.last

    @property
    def detail(self) -> str:
        low, high = map(self.shown, self.bounds)
        step = moments.duration(self.lattice.step * moments.nanoseconds(self.counted))
        zone = getattr(self.type, "tz", None)
        step = step.removeprefix("1 ") if step.count(" ") == 1 else step
        return f"{low} to {high} by {step}" + (f", {zone}" if zone else "")

    def declare(self) -> dict[str, Any]:
        low, high = map(self.shown, self.bounds)
        return {"least": low, "greatest": high}

    def numbers(self, array: pa.Array) -> np.ndarray:
        try:
            entries = moments.as_type(array, self.type)
        except (pa.ArrowException, ValueError) as error:
            cure = "Convert it to that type, or fit again."
            raise self.expected(f"{self.kind}s ({self.storage})", array.type, cure) from error
        counted = pc.local_timestamp(entries) if self.is_local else entries  # pyright: ignore
        return moments.integers(counted).fill_null(0).to_numpy(zero_copy_only=False)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return self.lattice.positions(numbers)

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        entries = moments.moments(self.lattice.numbers(values), self.counted, missing)
        return moments.localized(entries, self.type) if self.is_local else entries

    def number(self, value: Any) -> int:
        return int(self.numbers(self._read(value))[0])

    def shown(self, number: float) -> str:
        return moments.shown(int(number), self.counted)

    def parse(self, value: Any) -> pa.Array:
        entry = self._read(value)
        low, high = self.bounds
        if not low <= int(self.numbers(entry)[0]) <= high:
            raise self.expected(self._wanted, repr(value), BEYOND)
        return entry

    @property
    def _wanted(self) -> str:
        return f"a {self.kind} from {' to '.join(map(self.shown, self.bounds))}"

    def _read(self, value: Any) -> pa.Array:
        try:
            return moments.read(value, self.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            cure = "Write it as ISO 8601 does, for instance as one of these."
            raise self.expected(self._wanted, repr(value), cure) from error


def _clock(kind: pa.DataType) -> Clock:
    return next(clock for clock in CLOCKS if clock.holds(kind))


def _entries(name: str, array: pa.Array, wanted: str | None) -> pa.Array:
    """Return an array as moments of the type that was declared; text is read if that loses nothing.

    Raises:
        DataError: if the array holds another type.
    """
    if moments.is_moment(array.type) and wanted in (None, _clock(array.type).kind):
        return array
    clock = next(clock for clock in CLOCKS if clock.kind == wanted)
    cure = "Convert the column before, or leave its type out of space.yaml."
    if not is_text(array.type) or clock.of_text is None:
        raise expected(name, f"{wanted}s", array.type, cure)
    try:
        read = array.cast(clock.of_text)
    except pa.ArrowException:
        read = None
    if read is not None and read.cast(array.type).equals(array):
        return read
    row = next(k for k, text in enumerate(array.to_pylist()) if not _is_kept(text, clock.of_text))
    raise expected(
        name, f"{wanted}s as ISO 8601 writes them", in_row(array[row].as_py(), row), cure
    )


def _is_kept(text: str | None, kind: pa.DataType) -> bool:
    try:
        return pa.array([text], pa.string()).cast(kind).cast(pa.string())[0].as_py() == text
    except pa.ArrowException:
        return False


def _local_days(entries: pa.Array) -> pa.Array | None:
    """Return instants as local times, if they are days of these alone and none is ambiguous."""
    zone = getattr(entries.type, "tz", None)
    if zone is None:
        return None
    day = moments.DAY // moments.nanoseconds(entries.type)
    if _are_apart(entries, day):
        return None
    try:
        local = pc.local_timestamp(entries)  # pyright: ignore[reportAttributeAccessIssue]
        is_daily = _are_apart(local, day) and moments.localized(local, entries.type).equals(entries)
    except pa.ArrowException:  # no data base of time zones
        return None
    return local if is_daily else None


def _are_apart(entries: pa.Array, step: int) -> bool:
    numbers = moments.integers(entries.drop_null()).to_numpy(zero_copy_only=False)
    return len(np.unique(numbers % step)) <= 1


def _end(name: str, declared: Declared | None, end: str, kind: pa.DataType) -> int | None:
    """Return a declared end of the range as a number of the type's unit."""
    value = field(declared, end)
    if value is None:
        return None
    try:
        return int(moments.integers(moments.read(value, kind))[0].as_py())
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        cure = f"Mend `{end}` in space.yaml."
        raise expected(name, f"a {field(declared, 'type')}", repr(value), cure) from error


def _check_range(name: str, entries: pa.Array, least: int | None, greatest: int | None) -> None:
    numbers = moments.integers(entries).fill_null(0).to_numpy(zero_copy_only=False)
    seen = entries.is_valid().to_numpy(zero_copy_only=False)
    below = numbers < least if least is not None else np.zeros(len(numbers), bool)
    above = numbers > greatest if greatest is not None else np.zeros(len(numbers), bool)
    wrong = np.flatnonzero(seen & (below | above))
    if len(wrong):
        row = int(wrong[0])
        ends = [moments.shown(e, entries.type) for e in (least, greatest) if e is not None]
        got = f"{moments.shown(int(numbers[row]), entries.type)} in row {row} (counting from 0)"
        cure = "Widen `least` and `greatest` in space.yaml, or mend the entry."
        raise expected(name, f"moments within {' and '.join(ends)}", got, cure)
