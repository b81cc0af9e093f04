r"""What a caller's frame looks like beyond its values, so that the same comes back.

An Arrow table is the common ground. A `Form` knows library, dtypes, labels and index:

.. math:: \text{form.frame}(\text{form.table}(\text{frame})) = \text{frame} .

Nothing heavy is imported before a frame is touched.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from reversal.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


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

    @staticmethod
    @abstractmethod
    def stacked(frames: Sequence[Any], label: str) -> Any:
        """Return frames one above the other, after a first column that numbers them from 0."""

    @staticmethod
    @abstractmethod
    def of_columns(columns: Mapping[str, np.ndarray], like: Any) -> Any:
        """Return columns of numbers as a frame of the library of another, with its index."""

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
        if pa.types.is_decimal(to) and pa.types.is_integer(array.type):
            array = array.cast(pa.decimal256(76, to.scale))
        return array.cast(to)
    except pa.ArrowException as error:
        raise DataError(
            f"Column {name!r}: expected values that fit {to}, got {array.type}: {error}. "
            "Convert the column before, or drop it."
        ) from error


def schema(table: pa.Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and the types of a table, as text."""
    return tuple(table.column_names), tuple(str(field.type) for field in table.schema)


def stacked_frames(frames: Sequence[Any], label: str) -> Any:
    """Return frames that narwhals knows one above the other, numbered in a first column."""
    import narwhals as nw

    known = [nw.from_native(frame, eager_only=True) for frame in frames]
    numbered = [
        frame.select(nw.lit(number, nw.Int64).alias(label), nw.all())
        for number, frame in enumerate(known)
    ]
    return nw.to_native(nw.concat(numbered))


def frame_of_columns(columns: Mapping[str, np.ndarray], like: Any) -> Any:
    """Return columns of numbers as a frame of a library that narwhals knows."""
    import narwhals as nw

    backend = nw.from_native(like, eager_only=True).implementation
    return nw.to_native(nw.from_dict(dict(columns), backend=backend))
