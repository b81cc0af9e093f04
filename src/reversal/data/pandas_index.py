"""The index that pandas keeps in a Parquet file, carried over to other rows of Arrow.

pandas writes an index as columns, or as the start and step of a range, and says so in the metadata
of the schema. Source: pandas developer documentation, "Storing pandas DataFrame objects in Apache
Parquet format".
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

KEY = b"pandas"


def with_index(filled: pa.Table, rows: pa.Table, first: int) -> pa.Table:
    """Return a table with the index that pandas gave as many rows of a file, if it gave one.

    Args:
        filled: columns without an index.
        rows: rows of the file as they stand in it.
        first: the number of the first of these.
    """
    said = json.loads((rows.schema.metadata or {}).get(KEY, b"{}"))
    if not said.get("index_columns"):
        return filled
    about = {entry.get("field_name", entry["name"]): entry for entry in said["columns"]}
    known = [about[name] for name in filled.column_names if name in about]
    fields: list[str] = []
    for place, level in enumerate(said["index_columns"]):
        entry, array = _level(level, rows, first, about)
        field = _field(entry["name"], place, filled.column_names)
        filled = filled.append_column(field, array)
        fields.append(field)
        known.append({**entry, "field_name": field})
    told = {**said, "index_columns": fields, "column_indexes": [], "columns": known}
    return filled.replace_schema_metadata({KEY: json.dumps(told).encode()})


def _level(
    level: Any, rows: pa.Table, first: int, about: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], Any]:
    """Return what is said of a level of an index, and its entries."""
    if isinstance(level, str):
        return about[level], rows[level]
    numbers = level["start"] + level["step"] * np.arange(first, first + rows.num_rows)
    kinds = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    return {"name": level["name"], **kinds}, pa.array(numbers, pa.int64())


def _field(name: str | None, place: int, taken: Collection[str]) -> str:
    """Return the column in which pandas puts a level of an index."""
    return f"__index_level_{place}__" if name is None or name in taken else name
