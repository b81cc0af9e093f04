"""The types of columns, one object each: what of a column is modelled, and how it comes back.

A numeric column becomes real positions (on a `Lattice` where numbers are rounded), a discrete one
codes 0, ..., n - 1, a constant one nothing. A new type is a new leaf of `Numeric`, of `Discrete`
or of `Column`, and one more entry of `LEAVES`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data.arrays import flat, is_number, is_plain, is_text, plain
from reversal.data.column import Column
from reversal.data.frames import near
from reversal.data.numeric import Integer, Real
from reversal.errors import DataError


@dataclass(frozen=True)
class Discrete(Column):
    """A column of codes 0, ..., n - 1, and -1 where missing."""

    @property
    @abstractmethod
    def cardinality(self) -> int:
        """The number n of codes."""


@final
@dataclass(frozen=True)
class Category(Discrete):
    """Unordered values, in the order of the caller's categories, or sorted where he gave none."""

    categories: tuple[Any, ...]

    kind: ClassVar[str] = "category"

    @staticmethod
    def accepts(array: pa.Array) -> bool:
        inner = plain(array.slice(0, 0)).type
        return is_text(inner) or (pa.types.is_dictionary(array.type) and is_plain(inner))

    @classmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        if pa.types.is_dictionary(array.type):
            values = plain(array.dictionary).drop_null()
        else:
            values = plain(array).unique().drop_null().sort()
        return cls(name, array.null_count / len(array), tuple(values.to_pylist()))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "categories": tuple(config["categories"])})

    @property
    def cardinality(self) -> int:
        return len(self.categories)

    @cached_property
    def values(self) -> pa.Array:
        """The categories as an Arrow array without dictionary."""
        return plain(pa.array(self.categories))

    @property
    def detail(self) -> str:
        few = ", ".join(str(category)[:20] for category in self.categories[:4])
        return f"{self.cardinality}: {few}{', ...' if self.cardinality > 4 else ''}"

    def encode(self, array: pa.Array) -> np.ndarray:
        entries = self._same_type(array)
        found = pc.index_in(entries, value_set=self.values)  # pyright: ignore
        codes = found.fill_null(-1).to_numpy().astype(np.int64)
        unseen = np.flatnonzero((codes < 0) & entries.is_valid().to_numpy(zero_copy_only=False))
        if len(unseen):
            value = str(entries[unseen[0]].as_py())
            got = f"{value!r} in row {unseen[0]} (counting from 0)"
            raise self.expected("a known category", got, near(value, map(str, self.categories)))
        return codes

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        codes = pa.array(values.astype(np.int32), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, self.values)

    def parse(self, value: Any) -> pa.Array:
        by_text = {str(category): category for category in self.categories}
        if str(value) not in by_text:
            raise self.expected("a known category", repr(value), near(str(value), by_text))
        return pa.array([by_text[str(value)]], self.values.type)

    def _same_type(self, array: pa.Array) -> pa.Array:
        try:
            return plain(array).cast(self.values.type)
        except pa.ArrowException as error:
            cure = "Convert the column, or fit again."
            raise self.expected(f"categories of {self.values.type}", array.type, cure) from error


@final
@dataclass(frozen=True)
class Boolean(Discrete):
    """False and true, coded 0 and 1."""

    kind: ClassVar[str] = "boolean"

    @staticmethod
    def accepts(array: pa.Array) -> bool:
        return pa.types.is_boolean(array.type)

    @classmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        return cls(name, array.null_count / len(array))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    @property
    def cardinality(self) -> int:
        return 2

    @property
    def detail(self) -> str:
        return "false, true"

    def encode(self, array: pa.Array) -> np.ndarray:
        entries = plain(array)
        if is_number(entries.type):
            numbers = entries.fill_null(0).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
            if len(wrong):
                got = f"{numbers[wrong[0]]} in row {wrong[0]} (counting from 0)"
                raise self.expected("true or false, or 1 or 0", got, "Mend it, or fit again.")
        try:
            codes = entries.cast(pa.bool_()).cast(pa.int64())
        except pa.ArrowException as error:
            cure = "Convert it to booleans, or fit again."
            raise self.expected("true or false", array.type, cure) from error
        return codes.fill_null(-1).to_numpy()

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        return pa.array(values.astype(bool), mask=missing)

    def parse(self, value: Any) -> pa.Array:
        known = {"true": True, "1": True, "false": False, "0": False}
        if str(value).lower() not in known:
            raise self.expected("true or false", repr(value), "Ask for one of them.")
        return pa.array([known[str(value).lower()]])


@final
@dataclass(frozen=True)
class Constant(Column):
    """One value, or none at all: not modelled, and written back as it is."""

    value: Any
    categories: tuple[Any, ...] = ()

    kind: ClassVar[str] = "constant"

    @staticmethod
    def accepts(array: pa.Array) -> bool:
        return is_plain(plain(array.slice(0, 0)).type) and len(_distinct(array)) <= 1

    @classmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        value = next(iter(_distinct(array)), None)
        is_coded = pa.types.is_dictionary(array.type)
        declared = plain(array.dictionary).drop_null().to_pylist() if is_coded else ()
        return cls(name, array.null_count / len(array), value, tuple(declared))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "categories": tuple(config["categories"])})

    @property
    def detail(self) -> str:
        return "all missing" if self.value is None else f"always {self.value}"

    def encode(self, array: pa.Array) -> np.ndarray:
        for value in _distinct(array):
            if value != self.value:
                raise self.expected(self.detail, repr(value), "Fit again on data that vary.")
        return np.zeros(len(array))

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        if not self.categories:
            return pa.array([self.value] * len(values), mask=missing)
        code = None if self.value is None else self.categories.index(self.value)
        codes = pa.array([code] * len(values), pa.int32(), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, plain(pa.array(self.categories)))

    def parse(self, value: Any) -> pa.Array:
        if str(value) != str(self.value):
            raise self.expected(self.detail, repr(value), "Drop the condition.")
        return pa.array([self.value])


def _distinct(array: pa.Array) -> list[Any]:
    return plain(array).unique().drop_null().to_pylist()


LEAVES: tuple[type[Column], ...] = (Constant, Boolean, Integer, Real, Category)


def infer(name: str, array: pa.ChunkedArray) -> Column:
    """Return the first type of column in `LEAVES` that accepts an array.

    Raises:
        DataError: if none does, or the column holds what its type cannot.
    """
    entries = flat(array)
    for leaf in LEAVES:
        if leaf.accepts(entries):
            return leaf.infer(name, entries)
    raise DataError(
        f"Column {name!r}: expected numbers, text, booleans or categories, got {array.type}. "
        f"Convert it to one of them, or drop it."
    )


def column_from_config(config: dict[str, Any]) -> Column:
    """Return the column that `Column.to_config` described.

    Raises:
        DataError: if its type is unknown.
    """
    known = {leaf.kind: leaf for leaf in LEAVES}
    rest = {key: value for key, value in config.items() if key != "type"}
    if config.get("type") not in known:
        raise DataError(
            f"Column {config.get('name')!r}: expected a known type of column, got "
            f"{config.get('type')!r}; {near(str(config.get('type')), known)}"
        )
    return known[config["type"]].from_config(rest)
