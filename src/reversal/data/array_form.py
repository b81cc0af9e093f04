"""What one array looks like: shape, dtype, affine map or vocabulary."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self, final

import numpy as np

from reversal.data.arrays import LARGEST
from reversal.data.frames import near
from reversal.errors import DataError
from reversal.spaces import Categorical, Euclidean


@final
@dataclass(frozen=True)
class ArrayForm:
    """What one array looks like: its shape beyond the batch, dtype, and affine map or vocabulary.

    Args:
        shape: of one item.
        dtype: the caller's dtype, as NumPy names it.
        mean: of all entries of a real factor.
        scale: their standard deviation.
        low: the least number of integers.
        high: the greatest.
        labels: the values of the codes, where the array has labels in the place of codes.
    """

    shape: tuple[int, ...]
    dtype: str
    mean: float = 0.0
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    labels: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name: str, array: np.ndarray, space: Any) -> Self:
        """Return the form that an array shows; the range matters to integers alone."""
        shape, dtype = array.shape[1:], str(array.dtype)
        if isinstance(space, Categorical) and array.dtype.kind in "OU":
            return cls(shape, dtype, labels=_labels(name, array, space))
        if not isinstance(space, Euclidean):
            return cls(shape, dtype)
        check_numbers(name, array)
        seen = array[np.isfinite(array)].astype(np.float64)
        mean, scale = _moments(name, seen)
        if array.dtype.kind not in "iu":
            return cls(shape, dtype, mean, scale)
        return cls(shape, dtype, mean, scale, float(seen.min()), float(seen.max()))

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {str(label): code for code, label in enumerate(self.labels)}

    def codes(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return labels as their codes, -1 where there is none.

        Raises:
            DataError: if one is unknown.
        """
        values = entries(array)
        found = [-1 if value is None else self._codes.get(str(value), -2) for value in values]
        codes = np.array(found, np.int64)
        wrong = np.flatnonzero(codes == -2)
        if len(wrong):
            value = str(values[wrong[0]])
            cure = near(value, self._codes)
            raise DataError(f"Expected a known label in {name!r}, got {value!r}; {cure}")
        return codes.reshape(array.shape)

    def labelled(self, codes: np.ndarray) -> np.ndarray:
        """Return codes as their labels, None where one is -1."""
        found = np.empty(codes.shape, object)
        found[...] = np.array([*self.labels, None], object)[codes]
        return found

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types; an infinite end and an empty vocabulary are left out."""
        fields = asdict(self) | {"shape": list(self.shape), "labels": list(self.labels)}
        is_open = {"low": math.isinf(self.low), "high": math.isinf(self.high)}
        is_open["labels"] = not self.labels
        return {name: value for name, value in fields.items() if not is_open.get(name)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the form that `to_config` described."""
        lists = {name: tuple(config.get(name, ())) for name in ("shape", "labels")}
        return cls(**{**config, **lists})


def entries(array: np.ndarray) -> list[Any]:
    """Return the entries of an array as plain Python values, None where NaN or `pandas.NA` is."""
    plain = (x.item() if isinstance(x, np.generic) else x for x in array.ravel().tolist())
    return [None if _is_gap(value) else value for value in plain]


def _is_gap(value: Any) -> bool:
    """Whether a value stands for none; that of pandas can only be there if pandas is."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or value is getattr(sys.modules.get("pandas"), "NA", None)


def check_numbers(name: str, array: np.ndarray) -> None:
    """Refuse an array of other than numbers."""
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"Expected numbers in {name!r}, got {array.dtype}. Convert it: `array.astype(float)`."
        )


def _moments(name: str, seen: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, free of overflow."""
    peak = float(np.abs(seen).max()) if seen.size else 0.0
    unit = seen / peak if peak > 0 else np.zeros(1)
    mean, scale = float(unit.mean()) * peak, float(unit.std()) * peak
    if not scale > 0:
        raise DataError(
            f"Expected numbers that vary in {name!r}, got one value everywhere. "
            f"There is nothing to learn in it: leave it out."
        )
    if peak > LARGEST or not scale > 1 / LARGEST:
        raise DataError(
            f"Expected numbers between {1 / LARGEST:g} and {LARGEST:g} in {name!r}, got {peak:g} "
            f"with a standard deviation of {scale:g}. Choose another unit."
        )
    return mean, scale


def _labels(name: str, array: np.ndarray, space: Categorical) -> tuple[Any, ...]:
    """Return the distinct labels of an array in their order, as plain JSON types."""
    present = [value for value in entries(array) if value is not None]
    if not present:
        raise DataError(f"Expected a label in {name!r}, got gaps alone. Leave the factor out.")
    first: dict[type, Any] = {}
    for value in present:
        first.setdefault(type(value), value)
    odd = [value for kind, value in first.items() if kind not in (str, bool, int)]
    if odd:
        raise DataError(
            f"Expected labels of text or whole numbers in {name!r}, got {odd[0]!r}. Convert them: "
            "`array.astype(str)`."
        )
    if len(first) > 1:
        raise DataError(
            f"Expected labels of one type in {name!r}, all text, all whole numbers or all "
            f"booleans, got {' and '.join(map(repr, first.values()))}. Convert them to one, and "
            "leave None for a gap."
        )
    distinct = set(present)
    if len(distinct) != space.num_values:
        raise DataError(
            f"Expected {space.num_values} different labels in {name!r}, got {len(distinct)}. "
            f"Mend its space: `Categorical({len(distinct)})`."
        )
    return tuple(sorted(distinct))
