"""The language of ``--where``: equality conditions on columns, joined by ``and``.

    conditions = condition, { "and", condition } ;
    condition  = column, "==", value ;
    column     = a plain name | a name between ` ` ;
    value      = a number | 'text' | "text" | true | false ;

A quote or a backslash within quotes is written after a backslash. ``and``, ``true`` and ``false``
are also read with capitals. Notation: ISO/IEC 14977 (1996).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from reversal.errors import ReversalError

Value = str | int | float | bool

PATTERN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<quoted>`[^`]+`)
      | (?P<word>[^\W\d][\w.]*)
      | (?P<sign>[=!<>&|]+|[^\w\s])
      | (?P<other>\w+)""",
    re.VERBOSE | re.DOTALL,
)
BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
AND = {"and", "And", "AND"}


@final
class ConditionError(ReversalError, ValueError):
    """A condition cannot be read; the message shows the place with a caret."""

    def __init__(self, text: str, place: int, expected: str, got: str, cure: str) -> None:
        line = re.sub(r"\s", " ", text)
        super().__init__(f"Expected {expected}, got {got}. {cure}\n\n  {line}\n  {' ' * place}^")


@final
@dataclass(frozen=True)
class Token:
    """A piece of the text: its kind, what stands there, and where it starts."""

    kind: str
    text: str
    place: int

    @property
    def shown(self) -> str:
        """The token as a message names it."""
        return self.text if self.kind in ("text", "end") else f"`{self.text.strip('`')}`"


@final
@dataclass(frozen=True)
class Equal:
    """The condition ``column == value``."""

    column: str
    value: Value


def tokens(text: str) -> Iterator[Token]:
    """Yield the pieces of a text that are not blank, and one at its end."""
    for match in PATTERN.finditer(text):
        if match.lastgroup != "space":
            yield Token(match.lastgroup or "other", match.group(), match.start())
    yield Token("end", "nothing more", len(text.rstrip()))


def parse(text: str) -> tuple[Equal, ...]:
    """Read the conditions of a text, in order.

    Raises:
        ConditionError: if the text is none, or names a column twice.
    """
    return _Reader(text).conditions()


def given(text: str | None) -> dict[str, Value]:
    """Return the conditions as what a model is given; nothing without a text.

    Raises:
        ConditionError: if the text cannot be read.
    """
    return {} if text is None else {found.column: found.value for found in parse(text)}


@final
class _Reader:
    """A reader that stands before one token and never goes back."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = tokens(text)
        self.token = next(self.rest)

    def conditions(self) -> tuple[Equal, ...]:
        found = {}
        while True:
            start = self.token
            condition = self.condition()
            if condition.column in found:
                cure = "Name each column once; a column has one value in a row."
                raise self.error("another column", f"{start.shown} again", cure, start)
            found[condition.column] = condition
            if self.token.kind == "end":
                return tuple(found.values())
            self.conjunction()

    def condition(self) -> Equal:
        column = self.column()
        self.equality()
        return Equal(column, self.value())

    def column(self) -> str:
        token = self.token
        if token.kind not in ("word", "quoted") or token.text in AND:
            cure = "Write `column == value`; a name with blanks stands between backticks."
            raise self.error("the name of a column", token.shown, cure)
        self.move()
        return token.text.strip("`")

    def equality(self) -> None:
        token = self.token
        if token.text != "==":
            cure = "Write `column == value`: equality is the one comparison that can be asked."
            raise self.error("`==` after the name of a column", token.shown, cure)
        self.move()

    def value(self) -> Value:
        token = self.token
        if token.kind == "text":
            value: Value = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        elif token.kind == "number":
            value = _number(token.text)
        elif token.text in BOOLEANS:
            value = BOOLEANS[token.text]
        else:
            raise self.error("a number, 'text', true or false", token.shown, self.cure(token))
        self.move()
        return value

    def conjunction(self) -> None:
        if self.token.text not in AND:
            cure = "Join conditions by `and`; only equalities that all hold can be asked."
            raise self.error("`and` or the end", self.token.shown, cure)
        self.move()

    def cure(self, token: Token) -> str:
        if token.kind in ("word", "other") and token.text not in AND:
            return f"Text stands in quotes: '{token.text}'."
        if token.text in ("'", '"'):
            return "Close the quotes."
        return "Write a value after `==`."

    def move(self) -> None:
        self.token = next(self.rest)

    def error(
        self, expected: str, got: str, cure: str, token: Token | None = None
    ) -> ConditionError:
        return ConditionError(self.text, (token or self.token).place, expected, got, cure)


def _number(text: str) -> int | float:
    """Return a whole number as an int, another as a float."""
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
