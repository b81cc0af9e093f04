"""The libraries whose frames are read and written, and which one a frame is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, final

from reversal.data.form import Form, frame_of_columns, schema, stacked_frames, type_of
from reversal.data.pandas_form import PandasForm
from reversal.data.record_form import RecordForm, is_record_array
from reversal.errors import DataError, listed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["ArrowForm", "Form", "PandasForm", "PolarsForm", "RecordForm", "type_of"]


@final
@dataclass(frozen=True)
class ArrowForm(Form):
    """A `pyarrow.Table`."""

    @classmethod
    def of(cls, frame: pa.Table, table: pa.Table) -> Self:
        return cls(*schema(table))

    @staticmethod
    def table(frame: pa.Table) -> pa.Table:
        return frame

    def frame(self, table: pa.Table, like: Any = None) -> pa.Table:
        return self.cast(table)

    @staticmethod
    def stacked(frames: Sequence[Any], label: str) -> Any:
        return stacked_frames(frames, label)

    @staticmethod
    def of_columns(columns: Mapping[str, np.ndarray], like: Any) -> Any:
        return frame_of_columns(columns, like)


@final
@dataclass(frozen=True)
class PolarsForm(Form):
    """A `polars.DataFrame`; among its types only `Enum` reaches Arrow as an ordered dictionary."""

    @classmethod
    def of(cls, frame: Any, table: pa.Table) -> Self:
        return cls(*schema(table))

    @staticmethod
    def table(frame: Any) -> pa.Table:
        return frame.to_arrow()

    def frame(self, table: pa.Table, like: Any = None) -> Any:
        import polars as pl
        import pyarrow as pa

        columns: dict[str, Any] = {}
        for name, array in zip(self.names, self.cast(table).itercolumns(), strict=True):
            columns[name] = pl.Series(name, pl.from_arrow(array))
            if pa.types.is_dictionary(array.type) and array.type.ordered:
                columns[name] = columns[name].cast(pl.Enum(array.chunk(0).dictionary.to_pylist()))
        return pl.DataFrame(columns)

    @staticmethod
    def stacked(frames: Sequence[Any], label: str) -> Any:
        return stacked_frames(frames, label)

    @staticmethod
    def of_columns(columns: Mapping[str, np.ndarray], like: Any) -> Any:
        return frame_of_columns(columns, like)


FORMS: dict[str, type[Form]] = {
    form.__name__: form for form in (PandasForm, PolarsForm, ArrowForm, RecordForm)
}


def form_class(frame: Any) -> type[Form]:
    """Return which form reads a frame.

    Raises:
        DataError: if it is no frame that is known.
    """
    from narwhals import dependencies as known

    tests = {
        PandasForm: known.is_pandas_dataframe,
        PolarsForm: known.is_polars_dataframe,
        ArrowForm: known.is_pyarrow_table,
        RecordForm: is_record_array,
    }
    for form, test in tests.items():
        if test(frame):
            return form
    raise DataError(
        "Expected a table in memory (pandas.DataFrame, polars.DataFrame, pyarrow.Table or a record "
        f"array), got {type(frame).__name__}. A lazy frame is computed by `.collect()`, a dict "
        "becomes a table by `pandas.DataFrame(data)`, a file by `reversal.data.read(path)`."
    )


def form_from_config(config: dict[str, Any]) -> Form:
    """Return the form that `Form.to_config` described."""
    fields = {key: _tuples(value) for key, value in config.items() if key != "library"}
    return FORMS[config["library"]](**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list | tuple) else value


def to_table(frame: Any) -> pa.Table:
    """Return a frame of any library as an Arrow table whose names are distinct.

    Raises:
        DataError: if it is no frame, two columns share a name, or a column mixes types.
    """
    table = form_class(frame).table(frame)
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError(
            f"Expected distinct column names, got {listed(map(repr, twice))} more than once. "
            "Rename or drop the copies."
        )
    return table
