"""Columns of which nothing is learned: one value everywhere, or another one in every row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data import keys, moments
from reversal.data.arrays import is_plain, is_text, plain
from reversal.data.column import Column, expected
from reversal.data.declared import Declared
from reversal.data.form import type_of

ENOUGH_FOR_A_KEY = 20
KEY_NAME = re.compile(r"(?:^|[^A-Za-z])(?i:id|key|uuid|guid)$|[a-z](?:Id|ID|Key)$")
MEASURED = (
    r"^\s*(?:[-+]?[0-9]*[.,][0-9]+(?:[eE][-+]?[0-9]+)?\s*%?"
    r"|[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[ T].*)?"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9.]+)?)\s*$"
)


@final
@dataclass(frozen=True)
class Constant(Column):
    """One value, or none at all: not modelled, and written back as it is.

    Args:
        value: a plain value, or a whole number of the unit of a moment.
        categories: those that the caller declared of a categorical column.
        storage: the Arrow type of a moment; empty for plain values.
    """

    value: Any
    categories: tuple[Any, ...] = ()
    storage: str = ""

    kind: ClassVar[str] = "constant"

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        inner = plain(array.slice(0, 0)).type
        known = is_plain(inner) or moments.is_moment(array.type)
        return known and len(_distinct(array)) <= 1

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        distinct = _distinct(array)
        if len(distinct) > 1:
            got = f"{distinct[0]!r} and {distinct[1]!r}"
            cure = "Leave its type out of space.yaml, or say `type: drop`."
            raise expected(name, "one value everywhere", got, cure)
        value = next(iter(distinct), None)
        is_coded = pa.types.is_dictionary(array.type)
        options = plain(array.dictionary).drop_null().to_pylist() if is_coded else ()
        storage = str(array.type) if moments.is_moment(array.type) else ""
        return cls(name, array.null_count / len(array), value, tuple(options), storage)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "categories": tuple(config["categories"])})

    @property
    def detail(self) -> str:
        if self.value is None:
            return "all missing"
        return f"always {self._shown(self.value)}"

    def declare(self) -> dict[str, Any]:
        return {}

    def encode(self, array: pa.Array) -> np.ndarray:
        if self.storage and array.null_count < len(array):
            array = self._as_moments(array)
        for value in _distinct(array):
            if value != self.value:
                got = repr(self._shown(value))
                raise self.expected(self.detail, got, "Fit again on data that vary.")
        return np.zeros(len(array))

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        if self.storage:
            none = np.full(len(values), self.value is None)
            gaps = none if missing is None else none | missing
            return moments.moments(
                np.full(len(values), self.value or 0), type_of(self.storage), gaps
            )
        if not self.categories:
            return pa.array([self.value] * len(values), mask=missing)
        code = None if self.value is None else self.categories.index(self.value)
        codes = pa.array([code] * len(values), pa.int32(), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, plain(pa.array(self.categories)))

    def parse(self, value: Any) -> pa.Array:
        if str(self.comparable(value)) != str(self.value):
            raise self.expected(self.detail, repr(value), "Drop the condition.")
        return self.decode(np.zeros(1))

    def comparable(self, value: Any) -> Any:
        """Return what can be compared with `value`: of a moment, a number; else the value itself.

        Raises:
            DataError: if the column holds moments and this is none.
        """
        if not self.storage or value is None:
            return value
        try:
            moment = moments.read(value, type_of(self.storage))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise self.expected(self.detail, repr(value), "Drop the condition.") from error
        return moments.integers(moment)[0].as_py()

    def _shown(self, value: Any) -> str:
        if not self.storage or value is None:
            return str(value)
        return moments.shown(value, type_of(self.storage))

    def _as_moments(self, array: pa.Array) -> pa.Array:
        try:
            return moments.as_type(array, type_of(self.storage))
        except (pa.ArrowException, ValueError) as error:
            cure = "Convert it, or fit again."
            raise self.expected(self.detail, str(array.type), cure) from error


@final
@dataclass(frozen=True)
class Identifier(Column):
    """A name of each row, of which nothing can be learned: new rows get new ones of its form.

    Taken for one is, of at least 20 entries that are all different: text; whole numbers that fill
    a range from 0 or 1; and whole numbers in a column whose name says so (``id``, ``order_key``).
    Numbers that are measured, dates and categories are not, also where they are written as text.

    Args:
        form: how new ones are made.
        why: what it was taken for one by.
    """

    form: keys.KeyForm
    why: str

    kind: ClassVar[str] = "identifier"

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        return _reason(name, array) is not None

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        if not (is_text(array.type) or pa.types.is_integer(array.type)):
            cure = "Say `type: drop` in space.yaml to leave the column out."
            raise expected(name, "an identifier of text or whole numbers", array.type, cure)
        entries = plain(array).drop_null()
        if not len(entries):
            cure = "Leave its type out of space.yaml."
            raise expected(name, "an identifier of some rows", "none", cure)
        why = "declared" if declared else _reason(name, array) or ""
        return cls(name, array.null_count / len(array), keys.form_of(name, entries), why)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "form": keys.form_from_config(config["form"])})

    @property
    def detail(self) -> str:
        cure = "integer" if isinstance(self.form, keys.Numbered) else "category"
        return (
            f"{self.why}: not modelled, new ones from {self.form.first} "
            f"(`type: {cure}` in space.yaml models it)"
        )

    def declare(self) -> dict[str, Any]:
        return {}

    def encode(self, array: pa.Array) -> np.ndarray:
        return np.zeros(len(array))

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        fresh = self.form.fresh(self.name, values)
        return fresh if missing is None else pc.if_else(pa.array(missing), None, fresh)  # pyright: ignore

    def parse(self, value: Any) -> pa.Array:
        cure = "Select rows by it before, or say `type: category` in space.yaml and fit again."
        what = "no condition on an identifier, of which nothing was learned"
        raise self.expected(what, repr(value), cure)


def _reason(name: str, array: pa.Array) -> str | None:
    """Return by what an array is taken for an identifier; None if it is not."""
    is_whole = pa.types.is_integer(array.type)
    count = len(array) - array.null_count
    if count < ENOUGH_FOR_A_KEY or not (is_whole or is_text(array.type)):
        return None
    if pc.count_distinct(array, mode="only_valid").as_py() < count:  # pyright: ignore
        return None
    if not is_whole:
        is_measured = pc.match_substring_regex(array, MEASURED)  # pyright: ignore
        if pc.all(is_measured).as_py():  # pyright: ignore
            return None
        return f"{count:,} texts, all different"
    low, high = (end.as_py() for end in pc.min_max(array).values())  # pyright: ignore
    if high - low == count - 1 and low in (0, 1):
        return f"every whole number from {low} to {high}"
    return f"named a key, {count:,} numbers, all different" if KEY_NAME.search(name) else None


def _distinct(array: pa.Array) -> list[Any]:
    entries = plain(array)
    if moments.is_moment(entries.type):
        entries = moments.integers(entries)
    return entries.unique().drop_null().to_pylist()
