"""What may be asked of a column: one value, a range, a set, and whatever these leave or share.

A condition is resolved by a *scale*, the view of a column in which its values are numbers or codes:
the condition says which sets to combine, the scale what a value is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol, Self, final

from reversal.errors import DataError


class Allowed(Protocol):
    """A set of values of one column."""

    def meet(self, other: Self, /) -> Self:
        """The values in both sets."""
        ...

    def join(self, other: Self, /) -> Self:
        """The values in either set."""
        ...

    def rest(self) -> Self:
        """The values that are not in the set."""
        ...


class Scale(Protocol):
    """A column as a condition sees it."""

    def point(self, value: Any, /) -> Any:
        """The set of one value."""
        ...

    def span(self, between: Between, /) -> Any:
        """The set of what lies between two values."""
        ...


class Condition(ABC):
    """A claim about one column; a plain value stands for equality."""

    @abstractmethod
    def allowed(self, scale: Scale) -> Any:
        """Return the set of values for which the claim holds.

        Raises:
            DataError: if the column has no such values.
        """


@final
@dataclass(frozen=True)
class Equal(Condition):
    """The column has this value."""

    value: Any

    def allowed(self, scale: Scale) -> Any:
        return scale.point(self.value)


@final
@dataclass(frozen=True)
class Between(Condition):
    """The column lies between two values, which are included unless said; None is no bound."""

    low: Any = None
    high: Any = None
    excludes_low: bool = False
    excludes_high: bool = False

    def allowed(self, scale: Scale) -> Any:
        return scale.span(self)

    def __str__(self) -> str:
        low, high = ("" if end is None else str(end) for end in (self.low, self.high))
        return f"{low}..{high}"


@final
@dataclass(frozen=True)
class OneOf(Condition):
    """The column has one of these values."""

    values: tuple[Any, ...]

    def allowed(self, scale: Scale) -> Any:
        return reduce(lambda a, b: a.join(b), map(scale.point, self.values))


@final
@dataclass(frozen=True)
class Not(Condition):
    """The column is present, and another condition on it does not hold."""

    condition: Condition

    def allowed(self, scale: Scale) -> Any:
        return self.condition.allowed(scale).rest()


@final
@dataclass(frozen=True)
class Every(Condition):
    """All of several conditions hold."""

    conditions: tuple[Condition, ...]

    def allowed(self, scale: Scale) -> Any:
        return reduce(lambda a, b: a.meet(b), (each.allowed(scale) for each in self.conditions))


def between(low: Any = None, high: Any = None) -> Between:
    """Return the condition low <= value <= high.

    Args:
        low: the least value that may be drawn, or None.
        high: the greatest, or None.

    Raises:
        DataError: if both are None, they cannot be compared, or low > high.
    """
    if low is None and high is None:
        raise DataError(
            "Expected a bound in `between`, got none. Leave the column out: nothing is asked of it."
        )
    if low is not None and high is not None:
        try:
            ordered = bool(low <= high)
        except TypeError as error:
            raise DataError(
                f"Expected two bounds of one kind in `between`, got {low!r} and {high!r}. "
                f"Give two numbers, two dates or two categories."
            ) from error
        is_label = isinstance(low, str)  # the order of labels is the column's, not the alphabet's
        if not (ordered or is_label):
            raise DataError(
                f"Expected low <= high in `between`, got {low!r} and {high!r}, an empty range. "
                f"Swap them."
            )
    return Between(low, high)


def one_of(*values: Any) -> OneOf:
    """Return the condition that a column has one of these values.

    Raises:
        DataError: if there is none.
    """
    _check_values("one_of", values)
    return OneOf(values)


def none_of(*values: Any) -> Not:
    """Return the condition that a column is present and has none of these values.

    Raises:
        DataError: if there is none.
    """
    _check_values("none_of", values)
    return Not(OneOf(values))


def condition_of(name: str, value: Any) -> Condition:
    """Return what ``given`` says of a column as a condition; a plain value is an equality.

    Raises:
        DataError: for a list, a set and their kin, which say neither.
    """
    if isinstance(value, list | tuple | set | frozenset | range | slice):
        raise DataError(
            f"Expected a value or a condition for {name!r}, got {value!r}. Write "
            f"rv.one_of('a', 'b') for a set, rv.between(low, high) for a range."
        )
    return value if isinstance(value, Condition) else Equal(value)


def _check_values(name: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise DataError(f"Expected values in `{name}`, got none, an empty set. Give at least one.")
    if len(values) == 1 and isinstance(values[0], list | tuple | set | frozenset):
        raise DataError(
            f"Expected values in `{name}`, got one {type(values[0]).__name__}. "
            f"Unpack it: {name}(*values)."
        )
