r"""What a sample of a column may have missed: entries that its codec cannot do without.

Of a column that is read once, a `Witness` keeps a few entries whose presence makes what is inferred
from a sample hold for the whole: the least and the greatest, numbers that need more decimals than
all before, numbers that break the step of the lattice of all before,

.. math:: \gcd_i |x_i - x_0|, \qquad \text{which halves at least each time: at most 64 of them,}

and each different text. All are entries of the column, so that what is inferred from the sample and
them is inferred from data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data import keys, moments
from reversal.data.arrays import is_number, is_plain, is_text, plain
from reversal.data.column import Column, expected
from reversal.data.declared import Declared, DeclaredCategory, DeclaredLevels
from reversal.data.lattice import digits
from reversal.data.numeric import Integer
from reversal.data.unmodelled import Identifier

MOST_TEXTS: Final = 200_000
MOST_BYTES: Final = 2**25
"""How many different texts of a column are kept, and how many bytes of them."""


class Witness(ABC):
    """The entries of a column that a sample has to have.

    Args:
        name: of the column.
        kind: its Arrow type in the file.
    """

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.name = name
        self.kept: pa.Array = pa.array([], _values_of(kind))

    @abstractmethod
    def see(self, array: pa.Array) -> None:
        """Look at the next entries ``(B,)``, in one chunk, NaN being missing."""

    @abstractmethod
    def settled(self, column: Column, sample: pa.Array, rows: int, is_declared: bool) -> Column:
        """Return what was inferred of the column, mended by what is known of all rows.

        Args:
            column: inferred from the sample and what is beyond it.
            sample: entries of the column.
            rows: how many the whole has.
            is_declared: whether a caller declared the type.

        Raises:
            DataError: if the column cannot be told from a sample.
        """

    def beyond(self, sample: pa.Array) -> pa.Array:
        """Return what was kept and is not in a sample, as values without dictionary."""
        is_known = pc.is_in(self.kept, value_set=sample.cast(self.kept.type))  # pyright: ignore
        return self.kept.filter(pc.invert(is_known))  # pyright: ignore


@final
class Texts(Witness):
    """Each different entry, as long as they are few; of many, those that bound them."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        super().__init__(name, kind)
        self.is_over, self.own = False, f"{name}-"

    def see(self, array: pa.Array) -> None:
        distinct = plain(array.unique()).drop_null().cast(self.kept.type)
        if not self.is_over:
            distinct = self.kept = pa.concat_arrays([self.kept, distinct]).unique()
            self.is_over = len(self.kept) > MOST_TEXTS or self.kept.nbytes > MOST_BYTES
        if self.is_over and is_text(distinct.type):
            self.kept = self._bounding(pa.concat_arrays([self.kept, distinct]))
        elif self.is_over:
            self.kept = self.kept.slice(0, 1)

    def settled(self, column: Column, sample: pa.Array, rows: int, is_declared: bool) -> Column:
        if not self.is_over or isinstance(column, Identifier):
            return column
        cure = "Say `type: drop` or `type: identifier` in space.yaml, or store numbers as numbers."
        raise expected(
            self.name, f"at most {MOST_TEXTS:,} categories in a file of this size", "more", cure
        )

    def _bounding(self, texts: pa.Array) -> pa.Array:
        """Return the least and the greatest text, among all and the longest; see `keys`."""
        length = pc.utf8_length(texts)  # pyright: ignore
        longest = texts.filter(pc.equal(length, pc.max(length)))  # pyright: ignore
        bounds = [end for part in (texts, longest) for end in pc.min_max(part).values()]  # pyright: ignore
        while len(hits := texts.filter(pc.starts_with(texts, self.own))):  # pyright: ignore
            bounds.append(hits[0])
            self.own += "-"
        return pa.array([bound.as_py() for bound in bounds], self.kept.type).unique()


@final
class Numbers(Witness):
    """The least and the greatest, and what breaks a lattice: of numbers, moments, booleans."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        super().__init__(name, kind)
        self.ends = self.breaks = self.kept
        self.views: list[Callable[[pa.Array], np.ndarray]] = []
        if moments.is_moment(kind):
            self.views.append(_counted)
            if getattr(kind, "tz", None):
                self.views.append(lambda array: _counted(pc.local_timestamp(array)))  # pyright: ignore
        elif is_number(self.kept.type) and not pa.types.is_decimal(self.kept.type):
            self.views.append(_numbers)

    def see(self, array: pa.Array) -> None:
        entries = plain(array).drop_null()
        if not len(entries):
            return
        entries = pa.concat_arrays([self.ends, entries.cast(self.kept.type)])
        self.ends = _least_and_greatest(entries)
        self.kept = pa.concat_arrays([self.breaks, self.ends]).unique()
        for view in self.views:
            seen = view(entries)
            for breaks in (_undecimal, _off_step):
                while (row := breaks(view(self.kept), seen)) is not None:
                    self.breaks = pa.concat_arrays([self.breaks, entries.slice(row, 1)])
                    self.kept = pa.concat_arrays([self.breaks, self.ends]).unique()

    def settled(self, column: Column, sample: pa.Array, rows: int, is_declared: bool) -> Column:
        """Take whole numbers that fill a range from 0 or 1 for keys, as a look at all does."""
        if (
            is_declared
            or not isinstance(column, Integer)
            or not pa.types.is_integer(self.kept.type)
        ):
            return column
        low, high = (end.as_py() for end in pc.min_max(self.kept).values())  # pyright: ignore
        if column.missing or low not in (0, 1) or high - low != rows - 1:
            return column
        if len(sample.unique()) < len(sample):
            return column
        why = f"every whole number from {low} to {high}"
        return Identifier(self.name, 0.0, keys.form_of(self.name, self.kept, rows), why)


@final
class Unseen(Witness):
    """Nothing: of types that no column has."""

    def see(self, array: pa.Array) -> None:
        pass

    def settled(self, column: Column, sample: pa.Array, rows: int, is_declared: bool) -> Column:
        return column


def witness_of(name: str, kind: pa.DataType, declared: Declared | None) -> Witness:
    """Return what looks at a column of an Arrow type."""
    inner = _values_of(kind)
    is_listed = isinstance(declared, DeclaredCategory | DeclaredLevels)
    if moments.is_moment(kind) or (is_number(inner) and not is_listed and inner == _bare(kind)):
        return Numbers(name, kind)
    return Texts(name, kind) if is_plain(inner) else Unseen(name, kind)


def with_share(column: Column, missing: float) -> Column:
    """Return a column of which a share of the entries is missing."""
    return replace(column, missing=missing)


def _values_of(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column, as `plain` makes them."""
    return plain(pa.array([], _bare(kind))).type if is_plain(_bare(kind)) else _bare(kind)


def _bare(kind: Any) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _least_and_greatest(entries: pa.Array) -> pa.Array:
    kind = entries.type
    counted = entries.view(pa.int64()) if pa.types.is_duration(kind) else entries
    ends = pc.min_max(counted)  # pyright: ignore
    return pa.array([ends["min"], ends["max"]], counted.type).view(kind)


def _counted(array: pa.Array) -> np.ndarray:
    return moments.integers(array).to_numpy(zero_copy_only=False)


def _numbers(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)


def _undecimal(kept: np.ndarray, numbers: np.ndarray) -> int | None:
    """Return the first of numbers that needs more decimals than those that are kept."""
    found = digits(kept) if kept.dtype.kind == "f" and np.isfinite(kept).all() else None
    if found is None:
        return None
    wide = numbers.astype(np.float64) * 10 ** found[1]
    wrong = np.flatnonzero((np.rint(wide) / 10 ** found[1]).astype(numbers.dtype) != numbers)
    return int(wrong[0]) if len(wrong) else None


def _off_step(kept: np.ndarray, numbers: np.ndarray) -> int | None:
    """Return the first of numbers that is not on the widest lattice through those kept."""
    if kept.dtype.kind == "f":
        if not np.isfinite(kept).all() or (found := digits(kept)) is None:
            return None
        kept, decimals = found
        numbers = np.rint(numbers.astype(np.float64) * 10**decimals).astype(np.int64)
    step = np.gcd.reduce(_apart(kept, kept[0]))
    if step <= 1:
        return None if step or (numbers == kept[0]).all() else int((numbers != kept[0]).argmax())
    wrong = np.flatnonzero(_apart(numbers, kept[0]) % step)
    return int(wrong[0]) if len(wrong) else None


def _apart(numbers: np.ndarray, origin: Any) -> np.ndarray:
    """Return |x - origin| of whole numbers, exact."""
    wide, origin = numbers.astype(np.uint64), np.asarray(origin).astype(np.uint64)
    return np.where(
        numbers >= np.asarray(origin).astype(numbers.dtype), wide - origin, origin - wide
    )
