"""The types of the columns of a CSV file that is never in memory.

A reader of the whole file takes, for each column, the first type on a ladder that every cell can be
read as: whole numbers, booleans, dates, times, datetimes, real numbers, text, bytes. A streaming
reader would take what the first block shows, and fail at a later one. Here every block says which
rung it needs; the highest is tried on the file, and where a cell does not fit it, the next one. So
the types are those of the whole file, at the cost of another pass, or of a few where a column mixes
kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from reversal.data import frames
from reversal.data.forms import to_table
from reversal.errors import DataError

BLOCK: Final = 2**22
"""The bytes that are read at once; no line may be longer."""
LADDER: Final = (
    pa.null(),
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
    pa.string(),
    pa.binary(),
)
MISFIT: Final = re.compile(r"In CSV column #(\d+)")


@final
@dataclass(frozen=True)
class CsvTypes:
    """The names and types of the columns of a file.

    Args:
        schema: names and types.
        skipped: how many empty lines stand above the names.
        keeps_empty: whether an empty line is a row: so it is in a file of one column.
    """

    schema: pa.Schema
    skipped: int = 0
    keeps_empty: bool = False

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file once or more, and return its types.

        Raises:
            DataError: if it is no CSV file, or holds bytes that are no text.
        """
        try:
            types = cls._first(path)
            for block in _blocks(path, types):
                types = types._joined(block)
            while (wrong := types._misfit(path)) is not None:
                types = types._promoted(wrong)
        except (pa.ArrowException, OSError) as error:
            raise frames.not_csv(path, error) from error
        frames.check_text(path, types.schema)
        return types

    @classmethod
    def _first(cls, path: Path) -> Self:
        """Return names alone, no cell having been read."""
        with csv.open_csv(path, csv.ReadOptions(block_size=BLOCK)) as reader:
            names = reader.schema.names
        if len(names) == 1:
            frames.check_marks(path)
        nothing = pa.schema([(name, pa.null()) for name in names])
        to_table(nothing.empty_table())
        return cls(nothing, frames.lines_before(path), len(names) == 1)

    def options(self, texts: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return how to open the file; only the columns in ``texts``, as text, where given."""
        types = {field.name: field.type for field in self.schema}
        if texts is not None:
            types = dict.fromkeys(texts, pa.string())
        skipped = self.skipped if self.keeps_empty else 0
        return {
            "read_options": csv.ReadOptions(block_size=BLOCK, skip_rows=skipped),
            "parse_options": csv.ParseOptions(ignore_empty_lines=not self.keeps_empty),
            "convert_options": csv.ConvertOptions(
                strings_can_be_null=True, column_types=types, include_columns=list(types)
            ),
        }

    def read(self, block: bytes) -> pa.Table:
        """Read whole lines that follow the names, and let Arrow say their types."""
        return csv.read_csv(
            pa.BufferReader(block),
            csv.ReadOptions(column_names=self.schema.names, block_size=len(block) + 1),
            self.options()["parse_options"],
            csv.ConvertOptions(strings_can_be_null=True),
        )

    def _joined(self, block: bytes) -> Self:
        seen = self.read(block).schema.types
        rungs = [max(map(_rung, pair)) for pair in zip(self.schema.types, seen, strict=True)]
        return self._of([LADDER[rung] for rung in rungs])

    def _misfit(self, path: Path) -> int | None:
        """Return the first column that holds what its type cannot."""
        large = dict.fromkeys((f.name for f in self.schema if pa.types.is_float64(f.type)), False)
        whole = dict.fromkeys(large, True)
        try:
            with csv.open_csv(path, **self.options()) as reader:
                for batch in reader:
                    for name in large:
                        numbers = batch[name].drop_null().to_numpy(zero_copy_only=False)
                        large[name] |= bool((np.abs(numbers) >= 2**53).any())
                        whole[name] = whole[name] and bool((numbers == np.rint(numbers)).all())
        except pa.ArrowInvalid as error:
            if (found := MISFIT.search(str(error))) is None:
                raise
            return int(found[1])
        self._check_digits(path, [name for name in large if large[name] and whole[name]])
        return None

    def _check_digits(self, path: Path, names: list[str]) -> None:
        """Refuse whole numbers that float64 does not hold."""
        for name in names:
            row = 0
            with csv.open_csv(path, **self.options((name,))) as reader:
                for batch in reader:
                    frames.check_digits(path, name, pa.chunked_array([batch[name]]), row)
                    row += batch.num_rows

    def _promoted(self, place: int) -> Self:
        types = list(self.schema.types)
        types[place] = LADDER[min(_rung(types[place]) + 1, len(LADDER) - 1)]
        return self._of(types)

    def _of(self, types: list[pa.DataType]) -> Self:
        pairs = zip(self.schema.names, types, strict=True)
        return type(self)(pa.schema(list(pairs)), self.skipped, self.keeps_empty)


def _rung(kind: pa.DataType) -> int:
    return LADDER.index(kind)


def _blocks(path: Path, types: CsvTypes) -> Iterator[bytes]:
    """Yield the lines after the names, some whole ones at a time.

    Raises:
        DataError: if a line is longer than a block.
    """
    with open(path, "rb") as file:
        for _ in range(types.skipped + 1):
            file.readline()
        rest = b""
        while block := file.read(BLOCK):
            end = block.rfind(b"\n") + 1
            if not end and len(block) == BLOCK:
                raise DataError(
                    f"Expected lines of fewer than {BLOCK:,} bytes in {str(path)!r}, got a longer "
                    "one. Each row is a line that ends in a newline: save the file anew."
                )
            if end:
                yield rest + block[:end]
                rest = b""
            rest += block[end:]
        if rest:
            yield rest
