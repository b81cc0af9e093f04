"""Tables under one schema: what is compared, what is left out and why, and the rows as arrays.

What a metric would look at in vain is left out with the reason: a column with one value, an
identifier, a nested type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np

from reversal.errors import DataError, listed
from reversal.metrics.columns import Discrete, Numeric, misfit, plain_values

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_IDENTIFIERS = 20
"""How many rows it takes before values that never repeat are believed to be names of rows."""


@final
@dataclass(frozen=True)
class Schema:
    """The columns that are compared, and those that are not with the reason why."""

    columns: tuple[Numeric | Discrete, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def place(self, name: str) -> int:
        """Return the place of a column.

        Raises:
            DataError: if no such column is compared.
        """
        names = [column.name for column in self.columns]
        if name not in names:
            why = f" ({self.left_out[name]})" if name in self.left_out else ""
            raise DataError(
                f"Expected a column that can be compared, got {name!r}{why}. "
                f"Choose from {listed(names[:12])}{' and others' if len(names) > 12 else ''}."
            )
        return names.index(name)


@final
@dataclass(frozen=True)
class Rows:
    """A table under a schema: one array ``(n,)`` per column."""

    schema: Schema
    values: tuple[np.ndarray, ...]
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[self.schema.place(name)]

    def take(self, index: np.ndarray | slice) -> Rows:
        """Return some of the rows, in the order of the index."""
        values = tuple(part[index] for part in self.values)
        return Rows(self.schema, values, len(np.arange(self.num_rows)[index]))

    def draw(self, n: int, seed: int = 0) -> Rows:
        """Return n rows at random without replacement; all of them, as they are, if fewer."""
        if n >= self.num_rows:
            return self
        order = np.random.default_rng(seed).permutation(self.num_rows)
        return self.take(np.sort(order[:n]))

    def missing(self, name: str) -> np.ndarray:
        """Return where a column has gaps, bool ``(n,)``."""
        place = self.schema.place(name)
        return self.schema.columns[place].missing(self.values[place])


def aligned(*frames: Any, leave_out: Mapping[str, str] | None = None) -> tuple[Rows, ...]:
    """Return tables under one schema; the first says which columns there are and of what type.

    Args:
        frames: pandas, polars or Arrow tables with the same columns in any order; or `Rows` of
            one schema, which are returned as they are.
        leave_out: columns that are not looked at, and the reason.

    Raises:
        DataError: if a table lacks a column or has another one, or a column is of another type.
    """
    from reversal.data.forms import to_table

    rows = [frame for frame in frames if isinstance(frame, Rows)]
    if rows and len(rows) == len(frames) and all(r.schema is rows[0].schema for r in rows):
        return tuple(rows)
    if rows:
        raise DataError(
            "Expected frames, or rows that were aligned together, got some of either. "
            "Call aligned(first, second, ...) once for all."
        )
    tables = [to_table(frame) for frame in frames]
    for number, table in enumerate(tables[1:], 1):
        _same_names(tables[0].column_names, table.column_names, number)
    schema = _schema([_arrays(table) for table in tables], leave_out or {})
    return tuple(
        Rows(schema, tuple(c.read(_entries(table[c.name])) for c in schema.columns), len(table))
        for table in tables
    )


def _entries(column: pa.ChunkedArray) -> pa.Array:
    from reversal.data.arrays import flat

    return flat(column)


def _arrays(table: pa.Table) -> dict[str, pa.Array]:
    return {name: _entries(table[name]) for name in table.column_names}


def _schema(tables: Sequence[Mapping[str, pa.Array]], leave_out: Mapping[str, str]) -> Schema:
    columns, left_out = [], {}
    for name, first in tables[0].items():
        reason = leave_out.get(name) or _in_vain(first)
        if reason:
            left_out[name] = reason
        else:
            columns.append(_column(name, [table[name] for table in tables]))
    return Schema(tuple(columns), left_out)


def _same_names(first: Sequence[str], other: Sequence[str], number: int) -> None:
    absent, extra = set(first) - set(other), set(other) - set(first)
    if absent or extra:
        said = [f"without {listed(map(repr, absent))}"] if absent else []
        said += [f"with {listed(map(repr, extra))} besides"] if extra else []
        raise DataError(
            f"Expected tables of the same columns, got table {number} (counting from 0) "
            f"{' and '.join(said)}. Rename or drop columns so that they agree."
        )


def _column(name: str, arrays: Sequence[pa.Array]) -> Numeric | Discrete:
    """Return a column of all tables; one that is all gaps in a table has any type there."""
    known = [array for array in arrays if len(array) > array.null_count]
    is_numeric = [_is_numeric(array.type) for array in known]
    if is_numeric[0] and not all(is_numeric):
        raise misfit(name, known[0].type, known[is_numeric.index(False)].type)
    return Numeric.over(name, known) if is_numeric[0] else Discrete.over(name, known)


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow as pa

    from reversal.data.arrays import is_number

    return is_number(kind) or pa.types.is_temporal(kind)


def _in_vain(array: pa.Array) -> str:
    """Return why a column is not worth comparing, or nothing."""
    import pyarrow as pa

    if pa.types.is_nested(array.type):
        return f"of type {array.type}"
    present = plain_values(array).drop_null()
    distinct = len(present.unique())
    if distinct < 2:
        return "one value" if distinct else "all missing"
    if distinct < max(LEAST_IDENTIFIERS, len(present)):
        return ""
    if not _is_numeric(present.type):
        return "an identifier: every row has a value of its own"
    if pa.types.is_integer(present.type):
        numbers = present.to_numpy(zero_copy_only=False)
        if int(numbers.max()) - int(numbers.min()) == len(numbers) - 1:
            return "an identifier: it numbers the rows"
    return ""
