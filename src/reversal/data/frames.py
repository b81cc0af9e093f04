"""Tables in files, pictures in folders, and what is said when one is not as it should be.

A CSV file is read as a pandas frame, a Parquet file as what wrote it (pandas or Arrow); either is
written whole or not at all. Nothing heavy is imported before a file is touched.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reversal.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def near(word: str, options: Iterable[str]) -> str:
    """Return the cure for an unknown name: the options closest to it, or else the first few."""
    lowered = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), lowered, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(lowered[match]) for match in close)}?"
    first = ", ".join(repr(option) for option in list(lowered.values())[:6])
    more = len(lowered) - 6
    return f"choose from {first}" + (f" and {more} more." if more > 0 else ".")


def read(path: str | os.PathLike[str]) -> Any:
    """Read a table: a pandas frame from ``.csv``, pandas or Arrow from ``.parquet``.

    A folder of PNG files is read as `Pictures`.

    Empty cells and the usual words for them (``NA``, ``NaN``, ``null``) are missing. A Parquet
    file that pandas wrote comes back as a pandas frame with its index, another as an Arrow table.

    Raises:
        DataError: if the file is missing, empty, malformed or without rows, or its extension is
            none of these.
    """
    path = Path(path)
    if path.is_dir():
        from reversal.data.pictures import read_pictures

        return read_pictures(path)
    table = read_arrow(path)
    return table.to_pandas() if path.suffix.lower() == ".csv" or is_pandas(table.schema) else table


def read_arrow(path: Path) -> pa.Table:
    """Read a file as an Arrow table, in which whole numbers with gaps stay whole.

    Raises:
        DataError: as `read` does.
    """
    table = chosen(path, READERS)(path)
    check_rows(path, table.num_rows, table.num_columns)
    return table


def write(frame: Any, path: str | os.PathLike[str]) -> None:
    """Write a frame to ``.csv`` or ``.parquet``, or pictures to a folder, whole or not at all.

    A CSV file has no index; a Parquet file keeps that of a pandas frame. A CSV file has no
    durations either: they are whole numbers of their unit in it.

    Raises:
        DataError: if the extension is neither, or the folder cannot be written to.
    """
    path = Path(path)
    if isinstance(frame, Mapping):
        from reversal.data.pictures import FACTOR, write_pictures

        told = {name: values for name, values in frame.items() if name != FACTOR}
        return write_pictures(frame[FACTOR], path, told)
    writer = _format(path, WRITERS, "write")
    with replacing(path) as file:
        writer(frame, file)


@contextmanager
def appending(path: str | os.PathLike[str]) -> Iterator[Callable[[pa.Table], None]]:
    """Open a table for more rows than memory holds, written whole or not at all.

    Columns in which pandas has put an index are in a Parquet file, and not in a CSV file.

    Yields:
        What writes the next rows, an Arrow table of the same columns each time; the types are those
        of the first.

    Raises:
        DataError: as `write` does, or if rows do not fit the types of the first ones.
    """
    opened = _format(Path(path), APPENDERS, "write")
    with replacing(path) as file, opened(file) as append:
        yield append


def chosen(path: Path, readers: Mapping[str, Callable[[Path], Any]]) -> Callable[[Path], Any]:
    """Return what reads a file of this extension.

    Raises:
        DataError: if the extension is unknown, or the file is missing or empty.
    """
    reader = _format(path, readers, "read")
    if not path.is_file():
        raise DataError(f"Expected a file, found none at {str(path)!r}: {_neighbors(path)}")
    if path.stat().st_size == 0:
        raise DataError(f"Expected a table in {str(path)!r}, got an empty file. Save it again.")
    return reader


def check_rows(path: Path, num_rows: int, num_columns: int) -> None:
    """Refuse a file without rows."""
    if num_rows == 0:
        raise DataError(
            f"Expected rows in {str(path)!r}, got {num_columns} column names and no row. "
            "Add at least one row."
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` when the block ends without an error.

    It is written in the same folder and renamed, so that a reader sees the old file or the new.

    Raises:
        DataError: if the folder is missing or cannot be written to, or the disk is full.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise DataError(
            f"Expected to write {str(path)!r}, got: {error.strerror or error}. "
            "Choose a folder that exists, may be written to and has room."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _format(path: Path, known: Mapping[str, Callable[..., Any]], verb: str) -> Callable[..., Any]:
    """Return what reads or writes files of this extension."""
    if path.suffix.lower() not in known:
        raise DataError(
            f"Expected a file to {verb} that ends in {' or '.join(known)}, got {path.name!r}. "
            "Convert it, or mend its extension."
        )
    return known[path.suffix.lower()]


def _neighbors(path: Path) -> str:
    """Return the cure for a path that leads to no file."""
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}."
    files = [file.name for file in path.parent.iterdir() if file.suffix.lower() in READERS]
    return near(path.name, sorted(files)) if files else "its folder holds no table."


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        table = _parsed(path)
        if table.num_columns == 1:  # an empty line is a gap
            table = _parsed(path, keep_empty=True)
    except (pa.ArrowException, OSError) as error:
        raise not_csv(path, error) from error
    if table.num_columns == 1:
        check_marks(path)
    check_text(path, table.schema)
    for field in table.schema:
        if pa.types.is_float64(field.type) and _is_large(table[field.name]):
            check_digits(path, field.name, _parsed(path, texts=[field.name])[field.name])
    return table


def not_csv(path: Path, error: Exception) -> DataError:
    """Return the error that a file is no CSV file, or has other marks between its cells."""
    check_marks(path)
    return DataError(
        f"Expected comma-separated text in {str(path)!r}, got: {error}. "
        "Each row needs as many cells as the first line has names."
    )


def not_parquet(path: Path, error: Exception) -> DataError:
    """Return the error that a file is no Parquet file."""
    said = " ".join(str(error).split()).rstrip(" .")
    return DataError(
        f"Expected a Parquet file at {str(path)!r}, got: {said}. It may be cut short: "
        "write it again."
    )


def check_text(path: Path, schema: pa.Schema) -> None:
    """Refuse columns of bytes, which a CSV file that is not in UTF-8 has."""
    import pyarrow as pa

    for field in schema:
        if pa.types.is_binary(field.type):
            raise DataError(
                f"Column {field.name!r} of {str(path)!r}: expected UTF-8 text, got other bytes. "
                "Save the file in UTF-8."
            )


def _parsed(path: Path, keep_empty: bool = False, texts: Collection[str] = ()) -> pa.Table:
    """Read a CSV file; the columns in ``texts`` stay text."""
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.string() for name in texts}
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(skip_rows=lines_before(path) if keep_empty else 0),
        parse_options=csv.ParseOptions(ignore_empty_lines=not keep_empty),
        convert_options=csv.ConvertOptions(strings_can_be_null=True, column_types=types),
    )


def lines_before(path: Path) -> int:
    """Return the number of empty lines above the first line that is not."""
    with open(path, "rb") as file:
        return next((k for k, line in enumerate(file) if line.strip(b"\r\n")), 0)


def check_marks(path: Path) -> None:
    """Refuse a file whose first line has no comma, but another mark between cells."""
    with open(path, encoding="utf-8", errors="replace") as file:
        line = file.readline().rstrip("\r\n")
    marks = [mark for mark in ";\t|" if mark in line]
    if marks and "," not in line:
        raise DataError(
            f"Expected cells separated by commas in {str(path)!r}, got the first line {line!r}. "
            f"Save it with commas in the place of {marks[0]!r}, and with points in decimals."
        )


def _is_large(array: pa.ChunkedArray) -> bool:
    """Whether all numbers are whole and some are so large that float64 leaves others out."""
    numbers = array.drop_null().to_numpy()
    return bool((abs(numbers) >= 2**53).any() and (numbers == numbers.round()).all())


def check_digits(path: Path, name: str, texts: pa.ChunkedArray, first: int = 0) -> None:
    """Refuse whole numbers that float64 does not hold; ``first`` is the number of the first row."""
    for row, text in enumerate(texts.to_pylist(), first):
        digits = (text or "").strip()
        if digits.lstrip("+-").isdecimal() and int(digits) != int(float(digits)):
            raise DataError(
                f"Column {name!r} of {str(path)!r}: expected whole numbers below 2**63, got "
                f"{digits} in row {row} (counting from 0), which would be rounded. If it is a "
                "label, write it as text with a letter before it; otherwise drop the column."
            )


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise not_parquet(path, error) from error


def is_pandas(schema: pa.Schema) -> bool:
    """Whether pandas wrote a Parquet file."""
    return b"pandas" in (schema.metadata or {})


def index_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a Parquet file in which pandas has put its index."""
    said = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    return [name for name in said.get("index_columns", ()) if isinstance(name, str)]


def _write_csv(frame: Any, file: IO[bytes]) -> None:
    from reversal.data.forms import to_table

    with _appending_csv(file) as append:
        append(to_table(frame).replace_schema_metadata())


@contextmanager
def _appending_csv(file: IO[bytes]) -> Iterator[Callable[[pa.Table], None]]:
    from pyarrow import csv

    is_first = True

    def append(table: pa.Table) -> None:
        nonlocal is_first
        table = table.drop_columns(index_columns(table.schema))
        arrays = [_in_seconds(column) for column in table.itercolumns()]
        short = table.from_arrays(arrays, names=table.column_names)
        csv.write_csv(short, file, csv.WriteOptions(include_header=is_first))
        is_first = False

    yield append


def _in_seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times in whole seconds where they are, as a CSV file that was read had them."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_time(kind):
        short = pa.time32("s")
    elif pa.types.is_timestamp(kind):
        short = pa.timestamp("s", kind.tz)
    else:
        return column
    try:
        return column.cast(short)
    except pa.ArrowException:
        return column


def _write_parquet(frame: Any, file: IO[bytes]) -> None:
    import pyarrow as pa
    from narwhals.dependencies import is_pandas_dataframe
    from pyarrow import parquet

    from reversal.data.forms import to_table

    table = pa.Table.from_pandas(frame) if is_pandas_dataframe(frame) else to_table(frame)
    parquet.write_table(table, file)


@contextmanager
def _appending_parquet(file: IO[bytes]) -> Iterator[Callable[[pa.Table], None]]:
    from contextlib import ExitStack

    from pyarrow import parquet

    from reversal.data.form import recast

    with ExitStack() as stack:
        writers: list[parquet.ParquetWriter] = []

        def append(table: pa.Table) -> None:
            if not writers:
                writers.append(stack.enter_context(parquet.ParquetWriter(file, table.schema)))
            schema = writers[0].schema
            arrays = [recast(part.name, table[part.name], part.type) for part in schema]
            writers[0].write_table(table.from_arrays(arrays, schema=schema))

        yield append


READERS: dict[str, Callable[[Path], Any]] = {".csv": _read_csv, ".parquet": _read_parquet}
WRITERS: dict[str, Callable[[Any, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
APPENDERS: dict[str, Callable[..., Any]] = {
    ".csv": _appending_csv,
    ".parquet": _appending_parquet,
}
