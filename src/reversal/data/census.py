"""The codec of a table that is never in memory: from a sample, and what the whole must add to it.

One pass counts rows and gaps, keeps a uniform sample (`reservoir`) and of each column the entries
that the sample may have missed (`evidence`). A file of fewer rows than the sample holds has the
codec that it would have in memory. Of a larger one knots, spikes and tails are those of the sample,
types, ranges, categories, decimals, steps and the shares of gaps those of all rows. Whether texts
or numbers are all different is judged by the sample.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self, final

import pyarrow as pa

from reversal.data import frames
from reversal.data.arrays import flat, plain
from reversal.data.columns import Column, infer
from reversal.data.declared import Declared
from reversal.data.evidence import Witness, with_share, witness_of
from reversal.data.forms import Form, form_class, to_table
from reversal.data.reservoir import Reservoir
from reversal.data.schema import Schema
from reversal.data.table import TableCodec
from reversal.data.table_file import TableFile
from reversal.errors import DataError

ROW = re.compile(r" in row \d+ \(counting from 0\)")


@final
@dataclass(frozen=True)
class Census:
    """What one pass over a file found.

    Args:
        file: the table.
        rows: how many it has.
        missing: how many entries of each column are missing.
        witnesses: what each column has that a sample may lack.
        sample: rows of the file.
        is_whole: whether these are all.
        declared: what a caller declared, by column.
    """

    file: TableFile
    rows: int
    missing: dict[str, int]
    witnesses: dict[str, Witness]
    sample: pa.Table
    is_whole: bool
    declared: dict[str, Declared]

    @classmethod
    def of(cls, file: TableFile, declared: dict[str, Declared]) -> Self:
        """Read a file once.

        Raises:
            DataError: if it has no rows, or cannot be read to its end.
        """
        fields = list(to_table(file.schema.empty_table()).schema)
        missing = {field.name: 0 for field in fields}
        found = {f.name: witness_of(f.name, f.type, declared.get(f.name)) for f in fields}
        reservoir = Reservoir(len(fields))
        for batch in file.batches():
            reservoir.add(batch)
            for name, witness in found.items():
                entries = flat(batch[name])
                missing[name] += entries.null_count
                witness.see(entries)
        frames.check_rows(file.path, reservoir.seen, len(fields))
        sample = reservoir.table()
        return cls(file, reservoir.seen, missing, found, sample, reservoir.is_whole, declared)

    def form(self) -> Form:
        """Return the form of the frame of all rows: gaps anywhere count for its dtypes."""
        gaps = {name: pa.nulls(1, self.sample[name].type) for name, n in self.missing.items() if n}
        row = self.sample.slice(0, 1)
        for place, name in enumerate(row.column_names):
            if name in gaps:
                row = row.set_column(place, row.field(place).with_nullable(True), gaps[name])
        frame = self.file.frame(pa.concat_tables([self.sample, row], promote_options="permissive"))
        return form_class(frame).of(frame, to_table(frame))

    def column(self, name: str, declared: Declared | None) -> Column:
        """Return a column as the sample, and what it missed, show it.

        Raises:
            DataError: if it is none, or not as was declared.
        """
        witness, chunks = self.witnesses[name], self.sample[name]
        beyond = witness.beyond(_plain(chunks)) if len(witness.kept) else witness.kept
        entries = _with(chunks, beyond)
        table = pa.table({name: entries})
        try:
            column = infer(name, to_table(self.file.frame(table))[name], declared)
        except DataError as error:
            raise DataError(ROW.sub("", str(error))) from error
        column = with_share(column, self.missing[name] / self.rows)
        return witness.settled(column, flat(chunks), self.rows, declared is not None)


def infer_codec(data: Any, schema: Schema | None = None) -> TableCodec:
    """Return the codec of a frame or of a file, see `TableCodec.infer`."""
    if not isinstance(data, TableFile):
        return TableCodec.infer(data, schema)
    census = Census.of(data, {} if schema is None else dict(schema.columns))
    if census.is_whole:
        return TableCodec.infer(data.frame(census.sample), schema)
    return TableCodec.inferred(census.form(), schema, census.column)


def _plain(chunks: pa.ChunkedArray) -> pa.Array:
    return plain(flat(chunks))


def _with(chunks: pa.ChunkedArray, beyond: pa.Array) -> pa.ChunkedArray:
    """Return entries and more of them as one column."""
    if not len(beyond):
        return chunks
    kind = chunks.type
    if pa.types.is_dictionary(kind):
        index = pa.array(range(len(beyond)), kind.index_type)
        values = beyond.cast(kind.value_type)
        more = pa.DictionaryArray.from_arrays(index, values, ordered=kind.ordered)
        return pa.chunked_array([*chunks.chunks, more]).unify_dictionaries()
    if pa.types.is_decimal(kind):
        kind = beyond.type
    return pa.chunked_array([*chunks.cast(kind).chunks, beyond.cast(kind)])
