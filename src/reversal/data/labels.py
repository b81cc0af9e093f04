"""Columns of values that can be listed: codes 0, ..., n - 1 of categories and booleans."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data.arrays import is_number, is_plain, is_text, plain
from reversal.data.column import Column, expected, in_row
from reversal.data.declared import Declared, field
from reversal.data.frames import near


@dataclass(frozen=True)
class Discrete(Column):
    """A column of codes 0, ..., n - 1, and -1 where missing.

    Args:
        unseen: the codes of values that can occur, as was declared, and did not: the model learns
            that they are rare, and nothing of what goes with them.
    """

    unseen: tuple[int, ...] = dataclass_field(default=(), kw_only=True)

    @property
    @abstractmethod
    def is_ordered(self) -> bool:
        """Whether a greater code is a greater value, so that a range of values can be asked for."""

    @property
    @abstractmethod
    def labels(self) -> tuple[Any, ...]:
        """The value of each code."""

    @abstractmethod
    def place(self, value: Any) -> float:
        """Return where a value stands among the codes; of numbers between two it is a fraction.

        Raises:
            DataError: if the column never has it, and it lies between none.
        """

    @property
    def cardinality(self) -> int:
        """The number n of codes."""
        return len(self.labels)

    @property
    def unseen_shown(self) -> str:
        """The values that did not occur, as what is known of the column ends."""
        if not self.unseen:
            return ""
        first = ", ".join(str(self.labels[code])[:20] for code in self.unseen[:4])
        return f"; never seen: {first}" + (", ..." if len(self.unseen) > 4 else "")

    def refuse_unseen(self, codes: np.ndarray) -> None:
        """Refuse evidence that no row showed.

        Args:
            codes: those that the evidence allows.

        Raises:
            DataError: if all of them are of values that did not occur.
        """
        if len(codes) and np.isin(codes, self.unseen).all():
            values = " or ".join(repr(self.labels[code]) for code in codes[:4])
            cure = "No row had it, so nothing was learned of such rows: ask for another value."
            raise self.expected("a value that was seen", f"{values}, which is declared only", cure)


@final
@dataclass(frozen=True)
class Category(Discrete):
    """Values of a list: the caller's, or sorted where he gave none.

    Args:
        categories: the list; where it is an order, least first.
        kind: which of `KINDS`. The model itself knows no order: it says what a range is.
    """

    categories: tuple[Any, ...]
    kind: str  # pyright: ignore[reportIncompatibleVariableOverride]

    KINDS: ClassVar[tuple[str, str]] = ("category", "ordered category")

    @property
    def is_ordered(self) -> bool:
        return self.kind == self.KINDS[True]

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        inner = plain(array.slice(0, 0)).type
        return is_text(inner) or (pa.types.is_dictionary(array.type) and is_plain(inner))

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        seen = cls.KINDS[bool(getattr(array.type, "ordered", False))]
        categories = _categories(name, array, declared)
        kind, rate = field(declared, "type") or seen, array.null_count / len(array)
        return with_unseen(cls(name, rate, categories=categories, kind=kind), array)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        lists = {name: tuple(config.get(name, ())) for name in ("categories", "unseen")}
        return cls(**{**config, **lists})

    @property
    def labels(self) -> tuple[Any, ...]:
        return self.categories

    @cached_property
    def values(self) -> pa.Array:
        """The categories as an Arrow array without dictionary."""
        return plain(pa.array(self.categories))

    @property
    def detail(self) -> str:
        between = " < " if self.is_ordered else ", "
        few = between.join(str(category)[:20] for category in self.categories[:4])
        few += f"{between}..." if self.cardinality > 4 else ""
        return f"{self.cardinality}: {few}{self.unseen_shown}"

    def declare(self) -> dict[str, Any]:
        return {"categories": list(self.categories)}

    def encode(self, array: pa.Array) -> np.ndarray:
        try:
            entries = plain(array).cast(self.values.type)
        except pa.ArrowException as error:
            what, cure = f"categories of {self.values.type}", "Convert the column, or fit again."
            raise self.expected(what, array.type, cure) from error
        found = pc.index_in(entries, value_set=self.values)  # pyright: ignore
        codes = found.fill_null(-1).to_numpy().astype(np.int64)
        unseen = np.flatnonzero((codes < 0) & entries.is_valid().to_numpy(zero_copy_only=False))
        if len(unseen):
            row = int(unseen[0])
            value = str(entries[row].as_py())
            cure = near(value, map(str, self.categories))
            raise self.expected("a known category", in_row(value, row), cure)
        return codes

    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        codes = pa.array(values.astype(np.int32), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, self.values)

    def parse(self, value: Any) -> pa.Array:
        by_text = {str(category): category for category in self.categories}
        if str(value) not in by_text:
            raise self.expected("a known category", repr(value), near(str(value), by_text))
        return pa.array([by_text[str(value)]], self.values.type)

    def place(self, value: Any) -> float:
        return float(self.encode(self.parse(value))[0])


@final
@dataclass(frozen=True)
class Boolean(Discrete):
    """False and true, coded 0 and 1."""

    kind: ClassVar[str] = "boolean"

    @property
    def is_ordered(self) -> bool:
        return True

    @staticmethod
    def accepts(name: str, array: pa.Array) -> bool:
        return pa.types.is_boolean(array.type)

    @classmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        column = cls(name, array.null_count / len(array))
        column.encode(array)
        return with_unseen(column, array)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "unseen": tuple(config.get("unseen", ()))})

    @property
    def labels(self) -> tuple[Any, ...]:
        return (False, True)

    @property
    def detail(self) -> str:
        return f"false, true{self.unseen_shown}"

    def declare(self) -> dict[str, Any]:
        return {}

    def encode(self, array: pa.Array) -> np.ndarray:
        entries = plain(array)
        if is_number(entries.type):
            numbers = entries.fill_null(0).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
            if len(wrong):
                got = in_row(numbers[wrong[0]].item(), int(wrong[0]))
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

    def place(self, value: Any) -> float:
        return float(self.encode(self.parse(value))[0])


T = TypeVar("T", bound=Discrete)


def with_unseen(column: T, array: pa.Array) -> T:
    """Return a column that knows which of its values an array has not."""
    seen = column.encode(plain(array).unique())
    unseen = np.setdiff1d(np.arange(column.cardinality), seen)
    return replace(column, unseen=tuple(unseen.tolist()))


def _categories(name: str, array: pa.Array, declared: Declared | None) -> tuple[Any, ...]:
    """Return the categories of an array, or those that were declared and hold all of it."""
    inner = plain(array.slice(0, 0)).type
    if not is_plain(inner):
        cure = "Leave its type out of space.yaml, or convert the column to text before."
        raise expected(name, "text, numbers or booleans", inner, cure)
    wanted = field(declared, "categories")
    if wanted is not None:
        return _declared(name, array, tuple(wanted))
    if pa.types.is_dictionary(array.type):
        values = plain(array.dictionary).drop_null()
    else:
        values = plain(array).unique().drop_null().sort()
    if not len(values):
        cure = "Say `type: constant` in space.yaml, or list `categories`."
        raise expected(name, "at least one category", "none", cure)
    return tuple(values.to_pylist())


def _declared(name: str, array: pa.Array, wanted: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return declared categories as values of the column's own type."""
    inner = plain(array.slice(0, 0)).type
    kinds = {type(value) for value in wanted}
    fits = kinds <= {int, float} if is_number(inner) else len(kinds) == 1
    if is_text(inner):
        fits = kinds == {str}
    if not fits or len(set(wanted)) < len(wanted):
        got = ", ".join(repr(value) for value in wanted[:8])
        cure = "Mend `categories` in space.yaml; text like 'yes', 'no' and '1' stands in quotes."
        raise expected(name, f"distinct categories of {inner}", got, cure)
    values = pa.array(wanted, None if is_text(inner) else inner)
    entries = plain(array)
    found = pc.index_in(entries, value_set=plain(values).cast(entries.type))  # pyright: ignore
    missing = found.is_null().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(missing & entries.is_valid().to_numpy(zero_copy_only=False))
    if len(wrong):
        got = in_row(entries[int(wrong[0])].as_py(), int(wrong[0]))
        cure = "Add it to `categories` in space.yaml, or mend the entry."
        raise expected(name, "one of the declared categories", got, cure)
    return tuple(plain(values).to_pylist())
