"""The root of all columns: a name, and a way from Arrow entries to numbers and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from reversal.data.declared import Declared
from reversal.errors import DataError


@dataclass(frozen=True)
class Column(ABC):
    """A named column and the fraction of its entries that are missing."""

    name: str
    missing: float

    kind: ClassVar[str]

    @staticmethod
    @abstractmethod
    def accepts(name: str, array: pa.Array) -> bool:
        """Whether an array is taken for this type; they are asked in the order of `LEAVES`."""

    @classmethod
    @abstractmethod
    def infer(cls, name: str, array: pa.Array, declared: Declared | None = None) -> Self:
        """Return the column that an array shows, or what a caller declared of it.

        Raises:
            DataError: if the array is not of this type, or not as was declared.
        """

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the column whose fields plain JSON types give."""

    @abstractmethod
    def declare(self) -> dict[str, Any]:
        """Return what a caller may change of this column, as plain YAML types."""

    @abstractmethod
    def encode(self, array: pa.Array) -> np.ndarray:
        """Return what an array ``(B,)`` holds as numbers ``(B,)``.

        Raises:
            DataError: if an entry is not of this type.
        """

    @abstractmethod
    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        """Return numbers ``(B,)`` as entries; those that the mask names are missing.

        Those of a column that is not modelled are the numbers of the rows.
        """

    @abstractmethod
    def parse(self, value: Any) -> pa.Array:
        """Return one value, given as this type or as text, as an array ``(1,)`` to encode.

        Raises:
            DataError: if the column never has this value.
        """

    @property
    @abstractmethod
    def detail(self) -> str:
        """What there is to know of the column, in a few words."""

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"type": self.kind} | {k: v for k, v in asdict(self).items() if k != "kind"}

    def expected(self, what: str, got: Any, cure: str) -> DataError:
        """Return the error that an entry or a value is not of this column's type."""
        return expected(self.name, what, got, cure)


def expected(name: str, what: str, got: Any, cure: str) -> DataError:
    """Return the error that an entry or a value is not what a column holds."""
    stop = ";" if cure[:1].islower() else "."
    return DataError(f"Column {name!r}: expected {what}, got {got}{stop} {cure}")


def in_row(value: Any, row: int) -> str:
    """Return an entry and its place as a message names it."""
    return f"{value!r} in row {row} (counting from 0)"


def number_of(value: Any) -> int | float:
    """Return a value as a number: NaN if it is none, infinite if beyond all 64-bit integers."""
    try:
        number = int(value) if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return math.nan
    if isinstance(number, int) and abs(number) >= 2**64:
        return math.inf if number > 0 else -math.inf
    return number
