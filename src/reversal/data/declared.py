"""What a caller may say of a column: one model per type, as `space.yaml` holds it.

What is left out is taken from the data.
"""

from __future__ import annotations

import datetime
import reprlib
from typing import Annotated, Any, Literal, Self, TypeVar, final, get_args, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

MOST_LEVELS = 1024
"""How many levels a column has at most."""

Label = StrictStr | StrictBool | StrictInt | StrictFloat
Moment = StrictStr | datetime.datetime | datetime.date | datetime.time | StrictInt


class Declared(BaseModel):
    """The type of a column."""

    type: Any

    @model_validator(mode="after")
    def in_order(self) -> Self:
        """Refuse a range of numbers that is empty."""
        ends = field(self, "least"), field(self, "greatest")
        if all(isinstance(end, int | float) for end in ends) and ends[0] > ends[1]:
            got = " and ".join(map(_shown, ends))
            raise ValueError(f"least <= greatest, got {got}. Mend one of the two.")
        return self

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@final
class DeclaredReal(Declared):
    """Real numbers: their range, the decimals to which they are rounded, the values that repeat.

    ``decimals: null`` says that they are not rounded; numbers without decimals have no spikes.
    """

    type: Literal["real"]
    least: float | None = None
    greatest: float | None = None
    decimals: int | None = Field(None, ge=0, le=9)
    spikes: tuple[float, ...] | None = None


@final
class DeclaredInteger(Declared):
    """Whole numbers and their range."""

    type: Literal["integer"]
    least: int | None = None
    greatest: int | None = None


@final
class DeclaredMoment(Declared):
    """A date, a time or a duration, and its range as text."""

    type: Literal["date", "datetime", "time", "duration"]
    least: Moment | None = None
    greatest: Moment | None = None


@final
class DeclaredCategory(Declared):
    """Values that can occur; in their order where they are ordered."""

    type: Literal["category", "ordered category"]
    categories: tuple[Label, ...] | None = None

    @field_validator("categories")
    @classmethod
    def are_some(cls, values: tuple[Label, ...] | None) -> tuple[Label, ...] | None:
        """Refuse an empty list."""
        return _some("categories", values)


@final
class DeclaredLevels(Declared):
    """Whole numbers that can occur, each modelled on its own, those that never do among them."""

    type: Literal["levels"]
    values: tuple[StrictInt, ...] | None = None

    @field_validator("values")
    @classmethod
    def are_distinct(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Refuse what is there twice, or what no column of whole numbers holds."""
        values = _some("values", values)
        if values is None:
            return None
        if len(values) > MOST_LEVELS:
            most, count = f"{MOST_LEVELS:,}", f"{len(values):,}"
            raise ValueError(f"at most {most} `values`, got {count}. Say `type: integer`.")
        if len(set(values)) < len(values):
            twice = next(value for k, value in enumerate(values) if value in values[:k])
            got = f"{_shown(twice)} twice"
            raise ValueError(f"distinct whole numbers in `values`, got {got}. Delete one.")
        low, high = min(values), max(values)
        if low < -(2**63) or high >= (2**63 if low < 0 else 2**64):
            ends = [end for end in (low, high) if not -(2**63) <= end < 2**63]
            got = " and ".join(map(_shown, ends))
            raise ValueError(f"whole numbers of 64 bits in `values`, got {got}. Take it out.")
        return values


@final
class DeclaredAlone(Declared):
    """A type of which there is nothing more to say."""

    type: Literal["boolean", "constant", "identifier", "drop"]


AnyDeclared = Annotated[
    DeclaredReal
    | DeclaredInteger
    | DeclaredLevels
    | DeclaredMoment
    | DeclaredCategory
    | DeclaredAlone,
    Field(discriminator="type"),
]


T = TypeVar("T")


def _some(name: str, values: tuple[T, ...] | None) -> tuple[T, ...] | None:
    """Return what a list holds, which is not nothing."""
    if values is not None and not values:
        cure = "List them, or take the field out to have them inferred."
        raise ValueError(f"at least one entry in `{name}`, got none. {cure}")
    return values


def _shown(number: float) -> str:
    return reprlib.repr(number) if isinstance(number, int) else f"{number:g}"


def field(declared: Declared | None, name: str) -> Any:
    """Return what was declared under a name; None where nothing was."""
    return getattr(declared, name, None)


MODELS = (
    *(DeclaredReal, DeclaredInteger, DeclaredLevels),
    *(DeclaredMoment, DeclaredCategory, DeclaredAlone),
)
KINDS: dict[str, type[Declared]] = {
    kind: model for model in MODELS for kind in get_args(get_type_hints(model)["type"])
}
