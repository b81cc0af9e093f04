"""The root of all columns: a name, and a way from Arrow entries to numbers and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from reversal.errors import DataError


@dataclass(frozen=True)
class Column(ABC):
    """A named column and the fraction of its entries that are missing."""

    name: str
    missing: float

    kind: ClassVar[str]

    @staticmethod
    @abstractmethod
    def accepts(array: pa.Array) -> bool:
        """Whether an array is of this type; the types are asked in the order of `LEAVES`."""

    @classmethod
    @abstractmethod
    def infer(cls, name: str, array: pa.Array) -> Self:
        """Return the column that an array shows; the array is one that is accepted."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the column that `to_config` described, its kind left out."""

    @abstractmethod
    def encode(self, array: pa.Array) -> np.ndarray:
        """Return what an array ``(B,)`` holds as numbers ``(B,)``.

        Raises:
            DataError: if an entry is not of this type.
        """

    @abstractmethod
    def decode(self, values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
        """Return numbers ``(B,)`` as entries; those that the mask names are missing."""

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
        return {"type": self.kind, **asdict(self)}

    def expected(self, what: str, got: Any, cure: str) -> DataError:
        """Return the error that an entry or a value is not of this column's type."""
        stop = ";" if cure[:1].islower() else "."
        return DataError(f"Column {self.name!r}: expected {what}, got {got}{stop} {cure}")
