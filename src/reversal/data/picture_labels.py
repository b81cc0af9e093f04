"""The table `labels.csv` of a folder of pictures: for each file what is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reversal.data import frames
from reversal.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = "labels.csv"
MOST = 256
"""How many labels a column has at most."""


def read_labels(path: Path, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what a table tells of files, in their order: arrays ``(N,)`` by column.

    Raises:
        DataError: unless it has one row for each file and a column besides their names, or if a
            column has no name, no value or too many labels, or its numbers are infinite or one.
    """
    from reversal.data.forms import to_table

    read = frames.read_arrow(path)
    _check_header(path, read.column_names, files)
    table = to_table(read)
    first, *others = table.column_names
    names = [str(name or "").removeprefix("./") for name in table[first].to_pylist()]
    _check_names(path, first, names, files)
    row = {name: number for number, name in enumerate(names)}
    ordered = table.take([row[file] for file in files])
    return {name: _told(path, name, ordered[name], files) for name in others}


def write_labels(path: Path, files: Sequence[str], told: Mapping[str, np.ndarray]) -> None:
    """Write what is told of files."""
    import pyarrow as pa

    first = "file"
    while first in told:
        first += "_"
    columns = {name: pa.array(values.tolist()) for name, values in told.items()}
    frames.write(pa.table({first: list(files), **columns}), path)


def _check_header(path: Path, names: Sequence[str], files: Collection[str]) -> None:
    """Refuse a first line that does not name the columns, or names too few."""
    if names[0].removeprefix("./") in files:
        raise DataError(
            f"Expected the names of the columns in the first line of {str(path)!r}, got the "
            f"picture {names[0]!r}. Put a line above it, such as `file,label`."
        )
    if len(names) < 2:
        raise DataError(
            f"Expected the names of the files and a column of labels in {str(path)!r}, got "
            f"{len(names)} column. Add one, or move the file to another folder."
        )
    blank = [number for number, name in enumerate(names[1:], 2) if not name.strip()]
    if blank:
        raise DataError(
            f"Expected a name for every column in the first line of {str(path)!r}, got none for "
            f"column {blank[0]} (counting from 1). Name it, or delete the column."
        )


def _check_names(path: Path, column: str, names: Sequence[str], files: Collection[str]) -> None:
    """Refuse names that are not those of the pictures, each of them once."""
    place = f"in the column {column!r} of {str(path)!r}"
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"Expected each file once {place}, got {twice[0]!r} twice. Delete a row.")
    known = set(files)
    extra = [name for name in names if name not in known]
    if extra:
        got = repr(extra[0]) if extra[0] else "an empty cell"
        raise DataError(
            f"Expected names of the folder's .png files {place}, got {got}; "
            f"{frames.near(extra[0], files)} Add the picture, or delete the row."
        )
    absent = sorted(known - set(names))
    if absent:
        raise DataError(
            f"Expected a row for every picture {place}, got none for {absent[0]!r}, {len(absent)} "
            "in all. Add it, with empty cells for what is not known, or take the picture out."
        )


def _told(path: Path, name: str, column: pa.ChunkedArray, files: Sequence[str]) -> np.ndarray:
    """Return a column as labels or numbers."""
    import pyarrow as pa

    from reversal.data.arrays import flat, is_number, is_text, plain

    place = f"Column {name!r} of {str(path)!r}: expected"
    if name == "image":
        raise DataError(f"{place} another name: it is the pictures' own. Rename it.")
    entries = plain(flat(column))
    distinct = len(entries.unique().drop_null())
    if not distinct:
        raise DataError(f"{place} at least one value, got none. Delete the column.")
    kind = entries.type
    is_number_ = is_number(kind)
    if not (is_number_ or is_text(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{place} text or numbers, got {kind}. Convert it, or delete the column.")
    if distinct <= MOST and not pa.types.is_floating(kind):
        return np.array(entries.to_pylist(), object)
    if not is_number_:
        raise DataError(
            f"{place} at most {MOST} labels, got {distinct}. Delete the column: nothing can be "
            "learned of what is another in nearly every picture."
        )
    numbers = entries.to_numpy(zero_copy_only=False)  # whole ones with gaps become float64
    _check_reals(place, numbers, files)
    return numbers


def _check_reals(place: str, numbers: np.ndarray, files: Sequence[str]) -> None:
    """Refuse numbers that are infinite or never vary."""
    from reversal.data.arrays import LARGEST

    wrong = np.flatnonzero(np.abs(numbers.astype(np.float64)) > LARGEST)
    if len(wrong):
        raise DataError(
            f"{place} finite numbers below {LARGEST:g}, got {numbers[wrong[0]]:g} for "
            f"{files[wrong[0]]!r}. Mend it, or leave the cell empty: that is a gap."
        )
    if np.nanmin(numbers) == np.nanmax(numbers):
        raise DataError(
            f"{place} numbers that vary, got {np.nanmin(numbers):g} everywhere. Delete the "
            "column: there is nothing to learn in it."
        )
