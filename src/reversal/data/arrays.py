"""Arrow arrays in few types: one chunk, NaN as missing, text and decimals of one kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.errors import DataError

LARGEST = 1e300  # R and C write a missing number as 1.8e308


def flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return an array as one chunk with one dictionary, in which NaN is missing too."""
    if isinstance(array, pa.ChunkedArray):
        array = array.unify_dictionaries().combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
    if pa.types.is_floating(array.type):
        missing = array.is_null(nan_is_null=True)
        return pc.if_else(missing, pa.scalar(None, array.type), array)  # pyright: ignore
    return array


def plain(array: pa.Array) -> pa.Array:
    """Return the values of an array without dictionary; decimals as float64, text as one type."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type) or pa.types.is_float16(array.type):
        return array.cast(pa.float64())
    return array.cast(pa.large_string()) if is_text(array.type) else array


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text."""
    types = pa.types
    return any(f(kind) for f in (types.is_string, types.is_large_string, types.is_string_view))


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds numbers."""
    types = pa.types
    return any(f(kind) for f in (types.is_integer, types.is_floating, types.is_decimal))


def is_plain(kind: pa.DataType) -> bool:
    """Whether an Arrow type, after `plain`, holds what a JSON file can hold."""
    return is_text(kind) or is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def present(array: pa.Array) -> np.ndarray:
    """Return the numbers of an array that are not missing."""
    return plain(array).drop_null().to_numpy(zero_copy_only=False)


def numbers_of(name: str, array: pa.Array, kind: str) -> pa.Array:
    """Return an array of numbers without dictionary; text that is a number is read as one.

    Raises:
        DataError: if an entry is no number.
    """
    entries = plain(array)
    if is_number(entries.type):
        return entries
    wanted = f"Column {name!r}: expected numbers ({kind}), got"
    if not is_text(entries.type):
        raise DataError(f"{wanted} {array.type}. Convert it to numbers, or fit again.")
    for to in (pa.int64(), pa.float64()):
        try:
            return flat(entries.cast(to))
        except pa.ArrowException:
            continue
    row = next(k for k, text in enumerate(entries.to_pylist()) if not _is_number(text))
    raise DataError(
        f"{wanted} {entries[row].as_py()!r} in row {row} (counting from 0). "
        "Mend it, convert the column to numbers, or fit again."
    )


def _is_number(text: str | None) -> bool:
    try:
        pa.array([text]).cast(pa.float64())
    except pa.ArrowException:
        return False
    return True


def finite(name: str, array: pa.Array) -> pa.Array:
    """Return a numeric array without dictionary, after a look at its size.

    Raises:
        DataError: if an entry is infinite, or so large that it cannot be meant as a number.
    """
    array = plain(array)
    if pa.types.is_floating(array.type):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(
            ~np.isfinite(numbers) | (np.abs(numbers.astype(np.float64)) > LARGEST)
        )
        if len(wrong):
            raise DataError(
                f"Column {name!r}: expected finite numbers below {LARGEST}, got "
                f"{numbers[wrong[0]]} in row {wrong[0]} (counting from 0), {len(wrong)} in all. "
                "Replace them, for instance by missing values: "
                "`frame.replace([numpy.inf, -numpy.inf], numpy.nan)`."
            )
    return array
