"""A table in a file that is too large for memory: read batch by batch, as often as asked for.

Each batch is an Arrow table of the same types, of at most some rows; no more is in memory at once.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa
from pyarrow import csv, parquet

from reversal.data import frames
from reversal.data.csv_types import CsvTypes
from reversal.errors import DataError

LARGE: Final = 2**28
"""From how many bytes a file is streamed: those of a CSV file, or those that a Parquet file unfolds
to, of which a cell counts 8 at least."""
BATCH_CELLS: Final = 2**19
BUFFER: Final = 2**20  # bytes of a file that are read at once
ROW: Final = re.compile(r"in row (\d+) \(counting from 0\)")


class TableFile(ABC):
    """A table in a file, batch by batch.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """How much memory the table takes at least, as far as that is known before it is read."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The names and Arrow types of the columns, the same in every batch."""

    @property
    @abstractmethod
    def is_pandas(self) -> bool:
        """Whether `read` would return a pandas frame."""

    @abstractmethod
    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows in their order, some at a time.

        Raises:
            DataError: if the file cannot be read to its end.
        """

    def rows(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows without an index, some at a time, after the number of the first of them."""
        for first, batch in self.indexed_rows():
            yield first, batch.drop_columns(frames.index_columns(batch.schema))

    def indexed_rows(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows as they stand in the file, some at a time, after the number of the first.

        Raises:
            DataError: if the file has no rows, or cannot be read to its end.
        """
        first = 0
        for batch in self.batches():
            if batch.num_rows:
                yield first, batch
            first += batch.num_rows
        frames.check_rows(self.path, first, len(self.schema))

    def frame(self, table: pa.Table) -> Any:
        """Return some rows as the frame that `read` would return of all."""
        return table.to_pandas() if self.is_pandas else table


@final
class ParquetTable(TableFile):
    """A Parquet file."""

    @cached_property
    def _file(self) -> parquet.ParquetFile:
        try:
            return parquet.ParquetFile(self.path, buffer_size=BUFFER)
        except (pa.ArrowException, OSError) as error:
            raise frames.not_parquet(self.path, error) from error

    @property
    def num_bytes(self) -> int:
        about = self._file.metadata
        groups = (about.row_group(k).total_byte_size for k in range(about.num_row_groups))
        return max(sum(groups), 8 * about.num_rows * about.num_columns)

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    @property
    def is_pandas(self) -> bool:
        return frames.is_pandas(self.schema)

    def batches(self) -> Iterator[pa.Table]:
        rows = max(1, BATCH_CELLS // max(1, len(self.schema)))
        try:
            for batch in self._file.iter_batches(rows):
                yield pa.Table.from_batches([batch], self.schema)
        except (pa.ArrowException, OSError) as error:
            raise frames.not_parquet(self.path, error) from error


@final
class CsvTable(TableFile):
    """A CSV file. Its types are those that hold in every row, see `csv_types`."""

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def _types(self) -> CsvTypes:
        return CsvTypes.of(self.path)

    @property
    def schema(self) -> pa.Schema:
        return self._types.schema

    @property
    def is_pandas(self) -> bool:
        return True

    def batches(self) -> Iterator[pa.Table]:
        try:
            with csv.open_csv(self.path, **self._types.options()) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise frames.not_csv(self.path, error) from error


TABLES: dict[str, Callable[[Path], TableFile]] = {".csv": CsvTable, ".parquet": ParquetTable}


@contextmanager
def counted_from(first: int) -> Iterator[None]:
    """Let an error in rows of a file name the row by its number in the file."""
    try:
        yield
    except DataError as error:
        shifted = ROW.sub(lambda m: f"in row {int(m[1]) + first} (counting from 0)", str(error))
        raise DataError(shifted) from error


def open_table(path: str | os.PathLike[str], copies: int = 1) -> Any:
    """Return what a path holds as `frames.read` does, or a `TableFile` where that is too large.

    Args:
        path: of a file, or of a folder of pictures.
        copies: how often its rows are in memory at once.

    Raises:
        DataError: if the file is missing, empty, malformed or without rows; a `TableFile` says
            the last two when its rows are read.
    """
    path = Path(path)
    if path.is_dir():
        return frames.read(path)
    file = frames.chosen(path, TABLES)(path)
    return file if copies * file.num_bytes > LARGE else frames.read(path)
