"""Dates, times and durations as whole numbers of the unit in which they are stored, and back."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data.arrays import is_text, plain
from reversal.data.lattice import Lattice

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
STEPS = {
    "day": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "min": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
}
DAY = STEPS["day"]


def is_moment(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds dates, times or durations."""
    return pa.types.is_temporal(kind) and not pa.types.is_interval(kind)


def nanoseconds(kind: pa.DataType) -> int:
    """Return how long the unit of a type is."""
    if pa.types.is_date32(kind):
        return DAY
    return NANOSECONDS["ms" if pa.types.is_date64(kind) else kind.unit]


def integers(array: pa.Array) -> pa.Array:
    """Return moments as int64, in units of their type."""
    narrow = array.type.bit_width == 32
    return array.view(pa.int32()).cast(pa.int64()) if narrow else array.view(pa.int64())


def moments(numbers: np.ndarray, kind: pa.DataType, missing: np.ndarray | None = None) -> pa.Array:
    """Return whole numbers as moments of a type."""
    array = pa.array(numbers.astype(np.int64), mask=missing)
    return array.cast(pa.int32()).view(kind) if kind.bit_width == 32 else array.view(kind)


def as_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return moments, or their text, as a type that holds them exactly.

    Raises:
        ValueError: if it does not, or one has a time zone and the other none.
    """
    array = plain(array)
    if is_text(array.type) or pa.types.is_null(array.type):
        return array.cast(kind)
    zones = [getattr(part, "tz", None) is None for part in (array.type, kind)]
    if zones[0] != zones[1] or not is_moment(array.type):
        raise pa.ArrowInvalid(f"{array.type} is not {kind}")
    return array.cast(kind)


def lattice_of(numbers: np.ndarray, kind: pa.DataType) -> Lattice:
    """Return the lattice of moments: by days, hours, minutes, ... where all are that far apart.

    Other steps need the evidence that `Lattice.through` asks of numbers.
    """
    found = Lattice.through(numbers)
    gap = int(np.gcd.reduce(np.diff(np.unique(numbers).astype(np.uint64))))
    unit = nanoseconds(kind)
    for length in STEPS.values():
        natural = length // unit
        if length % unit == 0 and natural > 1 and gap % natural == 0:
            if natural > found.step:
                top = found.low + found.step * found.last
                return Lattice(found.low, natural, (top - found.low) // natural)
            break
    return found


def shown(number: int, kind: pa.DataType) -> str:
    """Return a moment in words; what is midnight or zero is left out."""
    value = moments(np.array([number]), kind)[0]
    if pa.types.is_duration(kind):
        return duration(number * nanoseconds(kind))
    text = str(value.as_py())
    return text.removesuffix(" 00:00:00")


def duration(length: int) -> str:
    """Return nanoseconds in the greatest units of which they are a few: ``3 day 4 h``."""
    words, rest = [], abs(length)
    for name, size in [*STEPS.items(), ("ns", 1)]:
        count, rest = divmod(rest, size)
        words += [f"{count} {name}"] if count else []
    return ("-" if length < 0 else "") + (" ".join(words) or "0 s")


def read(value: Any, kind: pa.DataType) -> pa.Array:
    """Return one moment, given as an object of Python, NumPy or pandas or as text, as an array.

    Text without a zone is local time where the type has one.

    Raises:
        ValueError: if it is no moment of this type.
    """
    if isinstance(value, str):
        return _from_text(value.strip(), kind)
    if isinstance(value, bool | float | int) or value is None:
        raise ValueError(f"{value!r} is no text")
    if pa.types.is_date(kind) and isinstance(value, datetime.datetime):
        value = value.date()
    if isinstance(value, np.datetime64 | np.timedelta64):
        whole = value.astype("datetime64[D]") if pa.types.is_date(kind) else value
        return as_type(pa.array(np.array([whole])), kind)
    isoformat = getattr(value, "isoformat", None)
    array = pa.array([isoformat() if isoformat else value])
    if is_text(array.type):
        return _from_text(array[0].as_py(), kind)
    return as_type(array, kind)


def _from_text(text: str, kind: pa.DataType) -> pa.Array:
    if pa.types.is_duration(kind):
        import pandas as pd

        length = pd.Timedelta(text).as_unit("ns").value
        if length % nanoseconds(kind):
            raise ValueError(f"{text!r} is no whole number of {kind.unit}")
        return moments(np.array([length // nanoseconds(kind)]), kind)
    if pa.types.is_time(kind):
        time = pa.array([datetime.time.fromisoformat(text)], pa.time64("us"))
        return time.cast(kind)
    zone = getattr(kind, "tz", None)
    if zone is None:
        return pa.array([text]).cast(kind)
    try:
        naive = pa.array([text]).cast(pa.timestamp(kind.unit))
    except pa.ArrowException:
        return pa.array([text]).cast(kind)
    return localized(naive, kind)


def localized(naive: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return local times as instants: the first of two that a clock shows, none left out."""
    return pc.assume_timezone(  # pyright: ignore[reportAttributeAccessIssue]
        naive, kind.tz, ambiguous="earliest", nonexistent="earliest"
    )
