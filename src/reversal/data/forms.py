r"""What a caller's frame looks like beyond its values, so that the same comes back.

An Arrow table is the common ground. A `Form` knows library, dtypes, labels and index:

.. math:: \text{form.frame}(\text{form.table}(\text{frame})) = \text{frame} .

Nothing heavy is imported before a frame is touched.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

from reversal.errors import DataError, listed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


# Arrow types as text


def type_of(text: str) -> pa.DataType:
    """Return the Arrow type that `str(type)` wrote."""
    import pyarrow as pa

    if match := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", text):
        return pa.dictionary(type_of(match[2]), type_of(match[1]), match[3] == "1")
    if match := re.fullmatch(r"(decimal\d+)\((\d+), (-?\d+)\)", text):
        return getattr(pa, match[1])(int(match[2]), int(match[3]))
    if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", text):
        return pa.timestamp(match[1], match[2])
    return pa.type_for_alias(text)


# Forms


@dataclass(frozen=True)
class Form(ABC):
    """What a frame looks like beyond its values: column names and Arrow types, in order."""

    names: tuple[str, ...]
    types: tuple[str, ...]

    # what is said column by column; of the types too, the word for nothing said
    by_column: ClassVar[tuple[str, ...]] = ("names", "types")
    unsaid: ClassVar[dict[str, str]] = {"types": "null"}

    @classmethod
    @abstractmethod
    def of(cls, frame: Any, table: pa.Table) -> Self:
        """Return the form of a frame, of which `table` has made a table."""

    @staticmethod
    @abstractmethod
    def table(frame: Any) -> pa.Table:
        """Return a frame's columns as an Arrow table; the index is left out.

        Raises:
            DataError: if a column mixes types or has a type that Arrow does not know.
        """

    @abstractmethod
    def frame(self, table: pa.Table, like: Any = None) -> Any:
        """Return a table, cast to this form's types, as a frame.

        Args:
            table: columns of these names and types, in this order.
            like: a frame of the same form; where it has as many rows, they lend their index.
        """

    def cast(self, table: pa.Table) -> pa.Table:
        """Return the columns of this form, in its order and types; nothing is lost silently."""
        import pyarrow as pa

        arrays = [recast(name, table[name], type_of(to)) for name, to in self._fields]
        return pa.Table.from_arrays(arrays, names=list(self.names))

    def adopt(self, other: Form, names: Collection[str]) -> Form:
        """Return this form with the types that another has for some columns.

        A form of another library says nothing of them: they come in the type that they have.
        """
        changes = {}
        for field, nothing in self.unsaid.items():
            known = dict(zip(other.names, getattr(other, field, ()), strict=False))
            values = zip(self.names, getattr(self, field), strict=True)
            lent = known if type(other) is type(self) else {}
            changes[field] = tuple(
                lent.get(name, nothing) if name in names else value for name, value in values
            )
        return replace(self, **changes)

    def keep(self, names: Collection[str]) -> Self:
        """Return the form of some of the columns."""
        places = [j for j, name in enumerate(self.names) if name in names]
        changes = {part: tuple(getattr(self, part)[j] for j in places) for part in self.by_column}
        return replace(self, **changes)

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types from which `form_from_config` rebuilds this form."""
        return {"library": type(self).__name__, **asdict(self)}

    @property
    def _fields(self) -> list[tuple[str, str]]:
        return list(zip(self.names, self.types, strict=True))


def recast(name: str, array: pa.ChunkedArray, to: pa.DataType) -> pa.ChunkedArray:
    """Return an array in another type that holds its values; the null type says nothing.

    Raises:
        DataError: if the type cannot hold them.
    """
    import pyarrow as pa

    if pa.types.is_null(to):
        return array
    try:
        if pa.types.is_dictionary(array.type) and not pa.types.is_dictionary(to):
            array = array.cast(array.type.value_type)
        return array.cast(to)
    except pa.ArrowException as error:
        raise DataError(
            f"Column {name!r}: expected values that fit {to}, got {array.type}: {error}. "
            "Convert the column before, or drop it."
        ) from error


def _schema(table: pa.Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and the types of a table, as text."""
    return tuple(table.column_names), tuple(str(field.type) for field in table.schema)


@final
@dataclass(frozen=True)
class ArrowForm(Form):
    """A `pyarrow.Table`."""

    @classmethod
    def of(cls, frame: pa.Table, table: pa.Table) -> Self:
        return cls(*_schema(table))

    @staticmethod
    def table(frame: pa.Table) -> pa.Table:
        return frame

    def frame(self, table: pa.Table, like: Any = None) -> pa.Table:
        return self.cast(table)


@final
@dataclass(frozen=True)
class PolarsForm(Form):
    """A `polars.DataFrame`; among its types only `Enum` reaches Arrow as an ordered dictionary."""

    @classmethod
    def of(cls, frame: Any, table: pa.Table) -> Self:
        return cls(*_schema(table))

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


@final
@dataclass(frozen=True)
class PandasForm(Form):
    """A `pandas.DataFrame`: its dtypes, its labels as they are, and the kind of its index.

    New rows have none of the old identities: they are numbered, in the dtype of the index where
    that can hold numbers.
    """

    dtypes: tuple[str, ...]
    labels: tuple[Any, ...]
    index: tuple[Any, str]

    by_column: ClassVar[tuple[str, ...]] = ("names", "types", "dtypes", "labels")
    unsaid: ClassVar[dict[str, str]] = {"types": "null", "dtypes": ""}

    @classmethod
    def of(cls, frame: pd.DataFrame, table: pa.Table) -> Self:
        labels = tuple(_plain(label) for label in frame.columns)
        dtypes = tuple(_dtype_name(dtype) for dtype in frame.dtypes)
        return cls(*_schema(table), dtypes, labels, _index_kind(frame.index))

    @staticmethod
    def table(frame: pd.DataFrame) -> pa.Table:
        import pyarrow as pa

        names = [str(label) for label in frame.columns]
        arrays = [_arrow(name, frame.iloc[:, j]) for j, name in enumerate(names)]
        return pa.Table.from_arrays(arrays, names=names)

    def frame(self, table: pa.Table, like: pd.DataFrame | None = None) -> pd.DataFrame:
        import pandas as pd

        arrays = (column.combine_chunks() for column in self.cast(table).itercolumns())
        series = [_series(array, dtype) for array, dtype in zip(arrays, self.dtypes, strict=True)]
        frame = pd.DataFrame(dict(enumerate(series)))
        frame.columns = pd.Index(list(self.labels))
        lent = None if like is None or len(like) != len(frame) else like.index
        frame.index = self._numbers(len(frame)) if lent is None else lent
        return frame

    def _numbers(self, n: int) -> pd.Index:
        import pandas as pd

        name, dtype = self.index
        numbers = pd.RangeIndex(n, name=name)
        return numbers.astype(dtype) if dtype else numbers


def _plain(label: Any) -> Any:
    """Return a column label as a plain JSON type; a tuple stands for several levels."""
    if isinstance(label, tuple):
        return tuple(_plain(part) for part in label)
    label = label.item() if hasattr(label, "item") else label
    if label is None or isinstance(label, str | int | float | bool):
        return label
    raise DataError(
        f"Column {str(label)!r}: expected a label of text or numbers, got "
        f"{type(label).__name__}. Rename it: `frame.columns = frame.columns.astype(str)`."
    )


def _index_kind(index: pd.Index) -> tuple[Any, str]:
    """Return the name of an index, and its dtype where that can hold row numbers."""
    import pandas as pd

    numbers = not isinstance(index, pd.RangeIndex | pd.MultiIndex)
    numbers = numbers and pd.api.types.is_any_real_numeric_dtype(index.dtype)
    text = isinstance(index.dtype, pd.StringDtype)
    name = index.name if isinstance(index.name, str | int) else None
    return name, _dtype_name(index.dtype) if numbers or text else ""


def _dtype_name(dtype: Any) -> str:
    """Return text that names a pandas dtype; `_series` reads it."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return f"category of {_dtype_name(dtype.categories.dtype)}"
    if isinstance(dtype, pd.ArrowDtype):
        return "arrow"
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        return f"string[{dtype.storage}]"
    return str(dtype)


def _arrow(name: str, series: pd.Series) -> pa.ChunkedArray:
    """Return a pandas column as an Arrow array."""
    import pyarrow as pa

    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(_misfit(name, series)) from error
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _misfit(name: str, series: pd.Series) -> str:
    """Say why a pandas column is no Arrow array: two values of different types, or its type."""
    present = series.reset_index(drop=True).dropna()
    firsts = {type(value): (row, value) for row, value in reversed(list(present.items()))}
    shown = [f"{value!r} ({kind.__name__}) in row {row}" for kind, (row, value) in firsts.items()]
    cure = f"Make it one type, for instance `frame[{name!r}] = frame[{name!r}].astype(str)`, or "
    if series.dtype == object and len(shown) > 1:
        return f"Column {name!r}: expected one type, got {' and '.join(shown[-2:])}. {cure}drop it."
    kind = next(iter(firsts)).__name__ if series.dtype == object and firsts else series.dtype
    wanted = "numbers, text, booleans, categories, dates or times"
    return f"Column {name!r}: expected {wanted}, got {kind}. {cure}drop it."


def _series(array: pa.Array, dtype: str) -> pd.Series:
    """Return an Arrow array as a pandas column of a named dtype, or of its own if there is no name.

    Missing entries turn a NumPy integer into float64 and a NumPy boolean into object, as pandas
    does itself.
    """
    import pandas as pd

    if not dtype:
        return array.to_pandas()
    if dtype == "arrow":
        return pd.Series(pd.arrays.ArrowExtensionArray(array))  # pyright: ignore
    if dtype.startswith("category of "):
        inner = _series(array.dictionary, dtype.removeprefix("category of "))
        codes = array.indices.fill_null(-1).to_numpy()
        return pd.Series(
            pd.Categorical.from_codes(codes, categories=pd.Index(inner), ordered=array.type.ordered)
        )
    if dtype == "object":
        return pd.Series(array.to_pylist(), dtype=object)
    target = pd.api.types.pandas_dtype(dtype)
    if hasattr(target, "__from_arrow__"):
        return pd.Series(target.__from_arrow__(array))  # pyright: ignore
    values = array.to_numpy(zero_copy_only=False)
    return pd.Series(values if array.null_count and target.kind in "iub" else values.astype(target))


FORMS: dict[str, type[Form]] = {form.__name__: form for form in (PandasForm, PolarsForm, ArrowForm)}


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
    }
    for form, test in tests.items():
        if test(frame):
            return form
    raise DataError(
        "Expected a table in memory (pandas.DataFrame, polars.DataFrame or pyarrow.Table), got "
        f"{type(frame).__name__}. A lazy frame is computed by `.collect()`, a dict becomes a table "
        "by `pandas.DataFrame(data)`, a file by `reversal.data.read(path)`."
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
