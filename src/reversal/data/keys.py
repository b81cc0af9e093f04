r"""New identifiers of the form of those that were seen, none of them among these.

New ones come after the greatest. A run is shared, and a key is a person or an invoice: none is kept
of the data. What is kept is the greatest, rounded up at the first place in which keys k differ,

.. math::
    u \lceil (\max k + 2) / u \rceil - 1,
    \qquad u = 10^{\lfloor \log_{10} (\max k - \min k) \rfloor},

or, where keys number rows without a gap, as it is: that says where the numbering ends. Only where
the dtype or the letters leave no room is it rounded at a later place, or not at all.
"""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reversal.data.column import expected
from reversal.errors import DataError, listed

ALPHABETS = (
    string.digits,
    string.ascii_uppercase,
    string.ascii_lowercase,
    string.digits + "ABCDEF",
    string.digits + "abcdef",
    string.digits + string.ascii_uppercase,
    string.digits + string.ascii_lowercase,
    string.digits + string.ascii_uppercase + string.ascii_lowercase,
)
LONGEST = 64


@dataclass(frozen=True)
class KeyForm(ABC):
    """How new identifiers are made."""

    @property
    @abstractmethod
    def first(self) -> str:
        """The first new one."""

    @abstractmethod
    def fresh(self, name: str, rows: np.ndarray) -> pa.Array:
        """Return identifiers of rows, whose numbers are counted from 0, int64 ``(n,)``.

        Two rows have different ones, and none that were seen.
        """


@final
@dataclass(frozen=True)
class Numbered(KeyForm):
    """Whole numbers after one that none exceeds."""

    greatest: int
    limit: int

    @property
    def first(self) -> str:
        return str(self.greatest + 1)

    def fresh(self, name: str, rows: np.ndarray) -> pa.Array:
        n = int(rows.max(initial=-1)) + 1
        last = self.greatest + n
        if last > self.limit:
            cure = "Widen the dtype of the column, or say `type: drop` in space.yaml."
            raise expected(name, f"room for {n:,} keys up to {self.limit}", f"up to {last}", cure)
        start = np.uint64(self.greatest + 1) if last >= 2**63 else np.int64(self.greatest + 1)
        return pa.array(start + rows.astype(start.dtype))


@final
@dataclass(frozen=True)
class Prefixed(KeyForm):
    """Texts that end in a number, which goes on after one that none exceeds."""

    prefix: str
    greatest: int

    @property
    def first(self) -> str:
        return f"{self.prefix}{self.greatest + 1}"

    def fresh(self, name: str, rows: np.ndarray) -> pa.Array:
        numbers = pa.array(self.greatest + 1 + rows).cast(pa.large_string())
        prefix, nothing = (pa.scalar(part, pa.large_string()) for part in (self.prefix, ""))
        return pc.binary_join_element_wise(prefix, numbers, nothing)  # pyright: ignore


@final
@dataclass(frozen=True)
class Positional(KeyForm):
    """Texts of one length, each place of which has its letters: counted on from one none exceeds.

    Where no place is left to count on, a number is put before the key, which makes it longer than
    all that were seen.
    """

    greatest: str
    alphabets: tuple[str, ...]

    @property
    def first(self) -> str:
        return self.fresh("", np.arange(1))[0].as_py()

    def fresh(self, name: str, rows: np.ndarray) -> pa.Array:
        carry = 1 + rows
        places = np.empty((len(rows), len(self.greatest)), "U1")
        for k in reversed(range(len(self.greatest))):
            letters = np.array(list(self.alphabets[k]))
            total = carry + self.alphabets[k].index(self.greatest[k])
            places[:, k] = letters[total % len(letters)]
            carry = total // len(letters)
        texts = places.view(f"U{places.shape[1]}")[:, 0]
        longer = np.where(carry > 0, carry.astype(str), "")
        return pa.array(np.char.add(longer, texts), pa.large_string())


FORMS: tuple[type[KeyForm], ...] = (Numbered, Prefixed, Positional)


def form_of(name: str, entries: pa.Array, count: int | None = None) -> KeyForm:
    """Return the form of identifiers, whole numbers or text without gaps.

    Args:
        name: of their column.
        entries: all of them, or some, the least and the greatest among them.
        count: how many there are, if these are some.
    """
    count = len(entries) if count is None else count
    if pa.types.is_integer(entries.type):
        bits = entries.type.bit_width - pa.types.is_signed_integer(entries.type)
        limit = 2**bits - 1
        return Numbered(_rounded_up(entries, count, limit), limit)
    return _numbered_text(entries, count) or _placed_text(entries) or _own(name, entries)


def _rounded_up(numbers: pa.Array, count: int, limit: int) -> int:
    """Return a number that none exceeds: the greatest where all below are there, or one after."""
    low, high = (end.as_py() for end in pc.min_max(numbers).values())  # pyright: ignore
    if high - low <= count - 1:
        return high
    unit = 10 ** (len(str(high - low)) - 1)
    while (above := -(-(high + 2) // unit) * unit) > limit and unit > 1:
        unit //= 10
    return above - 1 if above <= limit else high


def form_from_config(config: dict[str, Any]) -> KeyForm:
    """Return the form whose fields plain JSON types give.

    Raises:
        DataError: if there is none.
    """
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    for form in FORMS:
        if {part.name for part in fields(form)} == values.keys():
            return form(**values)
    raise DataError(
        f"Expected the form of an identifier, got the fields {listed(config)}. Install the version "
        "of reversal that wrote it, or fit again."
    )


def _numbered_text(entries: pa.Array, count: int) -> Prefixed | None:
    """Return the form of one prefix and a number without leading zeros."""
    parts = pc.extract_regex(entries, r"^(?P<prefix>(?s:.*?))(?P<number>0|[1-9][0-9]{0,17})$")  # pyright: ignore
    if parts.null_count:
        return None
    prefixes = parts.field("prefix").unique().to_pylist()
    if len(prefixes) > 1:
        return None
    numbers = parts.field("number").cast(pa.int64())
    return Prefixed(prefixes[0], _rounded_up(numbers, count, 10**18 - 1))


def _placed_text(entries: pa.Array) -> Positional | None:
    """Return the form of ASCII texts of one length, if a place of theirs varies."""
    lengths = pc.utf8_length(entries).unique().to_pylist()  # pyright: ignore
    is_ascii = pc.all(pc.string_is_ascii(entries)).as_py()  # pyright: ignore
    if len(lengths) > 1 or not 0 < lengths[0] <= LONGEST or not is_ascii:
        return None
    letters = np.array(entries.to_pylist(), f"S{lengths[0]}").view("S1").reshape(-1, lengths[0])
    seen = ["".join(letter.decode() for letter in np.unique(place)) for place in letters.T]
    alphabets = [_alphabet(place) for place in seen]
    known = tuple(alphabet for alphabet in alphabets if alphabet is not None)
    if len(known) < len(seen):
        return None
    return Positional(_above(pc.max(entries).as_py(), seen, known), known)  # pyright: ignore


def _above(greatest: str, seen: Sequence[str], alphabets: Sequence[str]) -> str:
    """Return a text after the greatest: a greater letter where texts first differ, least ones then.

    Args:
        greatest: of all texts.
        seen: the letters of each place, in order.
        alphabets: those that each place can have.

    Where each such letter is the last of its alphabet, no text of this length comes after.
    """
    for k, (letter, place) in enumerate(zip(greatest, seen, strict=True)):
        after = alphabets[k].partition(letter)[2]
        if len(place) > 1 and after:
            return greatest[:k] + after[0] + "".join(least[0] for least in seen[k + 1 :])
    return greatest


def _alphabet(seen: str) -> str | None:
    """Return the letters that a place can have; one letter, no digit, stays where it is alone."""
    if len(seen) == 1 and not seen.isdigit():
        return seen
    return next((letters for letters in ALPHABETS if set(seen) <= set(letters)), None)


def _own(name: str, entries: pa.Array) -> Prefixed:
    """Return a form of our own for free text: a prefix with which no entry begins."""
    prefix = f"{name}-"
    while pc.any(pc.starts_with(entries, prefix)).as_py():  # pyright: ignore
        prefix += "-"
    return Prefixed(prefix, 0)
