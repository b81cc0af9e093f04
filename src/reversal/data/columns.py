"""The types of columns: which of them data show, and which a stored one is.

A numeric column becomes real positions (on a `Lattice` where numbers are rounded), a discrete one
codes 0, ..., n - 1, a constant and an identifier nothing. A new type is a new leaf of `Numeric`, of
`Discrete` or of `Column`, and one more entry of `LEAVES`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pyarrow as pa

from reversal.data.arrays import flat
from reversal.data.column import Column
from reversal.data.declared import Declared, field
from reversal.data.frames import near
from reversal.data.labels import Boolean, Category, Discrete
from reversal.data.levels import Levels
from reversal.data.numeric import Integer, Real
from reversal.data.temporal import CLOCKS, Moment
from reversal.data.unmodelled import Constant, Identifier
from reversal.errors import DataError

__all__ = [
    "KINDS",
    "LEAVES",
    "Boolean",
    "Category",
    "Column",
    "Constant",
    "Discrete",
    "Identifier",
    "Integer",
    "Levels",
    "Moment",
    "Real",
    "column_from_config",
    "infer",
]

LEAVES: tuple[type[Column], ...] = (
    Constant,
    Boolean,
    Identifier,
    Levels,
    Integer,
    Real,
    Moment,
    Category,
)
KINDS: dict[str, type[Column]] = {
    **{leaf.kind: leaf for leaf in LEAVES if leaf not in (Category, Moment)},
    **dict.fromkeys(Category.KINDS, Category),
    **{clock.kind: Moment for clock in CLOCKS},
}


def infer(name: str, array: pa.ChunkedArray, declared: Declared | None = None) -> Column:
    """Return the column of the type that was declared, or the first in `LEAVES` that accepts it.

    Raises:
        DataError: if none does, or the column holds what its type cannot.
    """
    entries = flat(array)
    if declared is not None:
        return KINDS[field(declared, "type")].infer(name, entries, declared)
    for leaf in LEAVES:
        if leaf.accepts(name, entries):
            return leaf.infer(name, entries)
    raise DataError(
        f"Column {name!r}: expected numbers, text, booleans, categories, dates or times, got "
        f"{array.type}. Convert it to one of them, or drop it."
    )


def column_from_config(config: dict[str, Any]) -> Column:
    """Return the column that `Column.to_config` described.

    Raises:
        DataError: if its type is unknown.
    """
    if config.get("type") not in KINDS:
        raise DataError(
            f"Column {config.get('name')!r}: expected a known type of column, got "
            f"{config.get('type')!r}; {near(str(config.get('type')), KINDS)}"
        )
    leaf = KINDS[config["type"]]
    rest = {key: value for key, value in config.items() if key != "type"}
    if any(part.name == "kind" for part in fields(leaf)):
        rest["kind"] = config["type"]
    return leaf.from_config(rest)
