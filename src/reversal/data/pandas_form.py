"""Frames of pandas: NumPy, nullable and Arrow dtypes, labels and index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

from reversal.data.form import Form, frame_of_columns, schema, stacked_frames
from reversal.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


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
        return cls(*schema(table), dtypes, labels, _index_kind(frame.index))

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

    @staticmethod
    def stacked(frames: Sequence[pd.DataFrame], label: str) -> pd.DataFrame:
        return stacked_frames(frames, label)

    @staticmethod
    def of_columns(columns: Mapping[str, np.ndarray], like: pd.DataFrame) -> pd.DataFrame:
        frame = frame_of_columns(columns, like)
        frame.index = like.index
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
