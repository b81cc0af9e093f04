"""NumPy record arrays: one dtype per field, and no word for a gap but NaN, NaT and None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from reversal.data.form import Form, schema
from reversal.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

HELD = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}  # units of time that Arrow has not


def is_record_array(frame: Any) -> bool:
    """Whether an object is a NumPy array with named fields."""
    return isinstance(frame, np.ndarray) and frame.dtype.names is not None


@final
@dataclass(frozen=True)
class RecordForm(Form):
    """A structured array of shape (B,), or a `numpy.recarray`."""

    dtypes: tuple[str, ...]
    is_aligned: bool
    is_recarray: bool

    by_column: ClassVar[tuple[str, ...]] = ("names", "types", "dtypes")
    unsaid: ClassVar[dict[str, str]] = {"types": "null", "dtypes": ""}

    @classmethod
    def of(cls, frame: np.ndarray, table: pa.Table) -> Self:
        dtypes = tuple(frame.dtype[name].str for name in table.column_names)
        is_recarray = isinstance(frame, np.recarray)
        return cls(*schema(table), dtypes, frame.dtype.isalignedstruct, is_recarray)

    @staticmethod
    def table(frame: np.ndarray) -> pa.Table:
        import pyarrow as pa

        if frame.ndim != 1 or isinstance(frame, np.ma.MaskedArray):
            kind = "a masked one" if frame.ndim == 1 else f"shape {frame.shape}"
            raise DataError(
                f"Expected a record array of shape (B,), got {kind}. "
                "Flatten it, and write gaps as NaN."
            )
        names = list(frame.dtype.names or ())
        return pa.table({name: _arrow(name, frame[name]) for name in names})

    def frame(self, table: pa.Table, like: Any = None) -> np.ndarray:
        columns = zip(self.names, self.dtypes, self.cast(table).itercolumns(), strict=True)
        fields = [(name, _field(name, array.combine_chunks(), of)) for name, of, array in columns]
        dtype = np.dtype([(name, values.dtype) for name, values in fields], align=self.is_aligned)
        result = np.empty(table.num_rows, dtype)
        for name, values in fields:
            result[name] = values
        return result.view(np.recarray) if self.is_recarray else result

    @staticmethod
    def stacked(frames: Sequence[np.ndarray], label: str) -> np.ndarray:
        rows = np.concatenate(frames)
        of = rows.dtype
        fields = [(label, np.dtype(np.int64)), *((name, of[name]) for name in of.names or ())]
        result = np.empty(len(rows), np.dtype(fields, align=of.isalignedstruct))
        result[label] = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
        for name in of.names or ():
            result[name] = rows[name]
        return result.view(np.recarray) if isinstance(frames[0], np.recarray) else result

    @staticmethod
    def of_columns(columns: Mapping[str, np.ndarray], like: np.ndarray) -> np.ndarray:
        rows = len(next(iter(columns.values())))
        result = np.empty(rows, [(name, values.dtype) for name, values in columns.items()])
        for name, values in columns.items():
            result[name] = values
        return result.view(np.recarray) if isinstance(like, np.recarray) else result


def _arrow(name: str, values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    of = values.dtype
    cure = "Convert the field, or drop it."
    if of.kind not in "biufUSMmO" or values.ndim > 1:
        shown = of if values.ndim == 1 else f"{of} of shape {values.shape[1:]} per row"
        wanted = "numbers, text, booleans, dates or times"
        raise DataError(f"Column {name!r}: expected {wanted}, got {shown}. {cure}")
    try:
        if of.kind == "S":
            values = np.char.decode(values, "utf-8")
        if of.kind in "Mm":
            unit = np.datetime_data(of)[0]
            values = values.astype(f"{of.kind}8[{HELD.get(unit, unit)}]")
        if of.kind == "f" and of.itemsize > 8:
            values = values.astype(np.float64)
        plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
        return pa.array(plain.tolist() if of.kind == "O" else plain)
    except (pa.ArrowException, UnicodeDecodeError, TypeError, OverflowError) as error:
        raise DataError(f"Column {name!r}: expected one type, got: {error}. {cure}") from error


def _field(name: str, array: pa.Array, dtype: str) -> np.ndarray:
    """Return an array in the dtype of a field, which may have no word for a gap."""
    of = np.dtype(dtype) if dtype else np.dtype(array.to_numpy(zero_copy_only=False).dtype)
    if of.kind == "O":
        return np.array([*array.to_pylist(), None], object)[:-1]
    if array.null_count and of.kind not in "fMm":
        raise DataError(
            f"Column {name!r}: expected entries everywhere, for {of} has no word for a gap, got "
            f"{array.null_count} gaps. Use a dtype of floats or objects, or sample without gaps."
        )
    if of.kind in "US":
        texts = np.array(array.to_pylist(), np.str_)
        encoded = np.char.encode(texts, "utf-8") if of.kind == "S" else texts
        if encoded.dtype.itemsize > of.itemsize:
            raise DataError(
                f"Column {name!r}: expected text that fits {of}, got {encoded.dtype}. "
                "Widen the dtype of the field."
            )
        return encoded.astype(of)
    return array.to_numpy(zero_copy_only=False).astype(of)
