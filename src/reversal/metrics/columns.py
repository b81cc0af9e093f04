"""A column of several tables, read alike: numbers as float64, all else as codes of one vocabulary.

The type of a column is its Arrow type: numbers, dates, times and durations are numeric; text,
booleans and categories are discrete, whatever they hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from reversal.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column(ABC):
    """A named column of every table that is compared."""

    name: str

    is_discrete: ClassVar[bool]

    @classmethod
    @abstractmethod
    def over(cls, name: str, arrays: Sequence[pa.Array]) -> Self:
        """Return the column that the arrays of all tables share; the first one leads.

        Raises:
            DataError: if an array is of another type than the first.
        """

    @abstractmethod
    def read(self, array: pa.Array) -> np.ndarray:
        """Return the entries ``(n,)`` of an array as numbers."""

    @abstractmethod
    def missing(self, values: np.ndarray) -> np.ndarray:
        """Return where entries are missing, bool ``(n,)``."""


@final
@dataclass(frozen=True)
class Numeric(Column):
    """Numbers, float64, NaN where missing; times count in the units of the first table's type."""

    kind: pa.DataType

    is_discrete: ClassVar[bool] = False

    @classmethod
    def over(cls, name: str, arrays: Sequence[pa.Array]) -> Numeric:
        import pyarrow as pa

        kind = arrays[0].type
        for array in arrays[1:]:
            if pa.types.is_temporal(array.type) != pa.types.is_temporal(kind):
                raise misfit(name, kind, array.type)
        return cls(name, kind)

    @property
    def is_time(self) -> bool:
        """Whether it holds dates, times or durations."""
        import pyarrow as pa

        return pa.types.is_temporal(self.kind)

    def read(self, array: pa.Array) -> np.ndarray:
        import pyarrow as pa

        if self.is_time:
            array = array.cast(self.kind, safe=False)
            array = array.cast(pa.int32() if self.kind.bit_width == 32 else pa.int64())
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values)

    def label(self, value: float) -> str:
        """Return a number as a person writes it: ``12,500``, ``0.31`` or ``2024-02-29``."""
        import pyarrow as pa

        if self.is_time:
            width = pa.int32() if self.kind.bit_width == 32 else pa.int64()
            moment = str(pa.scalar(int(value), width).cast(self.kind).as_py())
            return moment.removesuffix(" 00:00:00").split(".")[0]
        whole = float(value).is_integer() and abs(value) < 1e7
        if whole:
            return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
        return f"{value:,.4g}"


@final
@dataclass(frozen=True)
class Discrete(Column):
    """Codes 0, ..., n - 1 of the values that any of the tables has, int64, -1 where missing."""

    labels: tuple[Any, ...]

    is_discrete: ClassVar[bool] = True

    @classmethod
    def over(cls, name: str, arrays: Sequence[pa.Array]) -> Discrete:
        kind, seen = arrays[0].type, {}
        for array in arrays:
            try:
                values = plain_values(array).unique().cast(plain_values(arrays[0]).type)
            except (ValueError, NotImplementedError) as error:
                raise misfit(name, kind, array.type) from error
            seen |= dict.fromkeys(values.to_pylist())
        return cls(name, tuple(sorted(value for value in seen if value is not None)))

    def read(self, array: pa.Array) -> np.ndarray:
        import pyarrow as pa

        if not self.labels:
            return np.full(len(array), -1)
        labels = pa.array(self.labels)
        encoded = plain_values(array).cast(labels.type).dictionary_encode()
        codes = {label: code for code, label in enumerate(self.labels)}
        table = np.array([*(codes[value] for value in encoded.dictionary.to_pylist()), -1])
        return table[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    def missing(self, values: np.ndarray) -> np.ndarray:
        return values < 0

    def label(self, code: int) -> str:
        """Return a value as text."""
        return str(self.labels[code])


def plain_values(array: pa.Array) -> pa.Array:
    """Return an array without dictionary; text of one type."""
    from reversal.data.arrays import plain

    return plain(array)


def misfit(name: str, wanted: pa.DataType, got: pa.DataType) -> DataError:
    """Return the error that a column is of two types."""
    return DataError(
        f"Column {name!r}: expected one type in all tables, got {wanted} and {got}. "
        "Convert the column in one of them."
    )
