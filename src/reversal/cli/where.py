"""The language of ``--where``: values, ranges and sets of columns, joined by ``and``.

    conditions = condition, { "and", condition } ;
    condition  = column, ( "==" | "!=" | "<" | "<=" | ">" | ">=" ), value
               | column, [ "not" ], "in", ( range | set ) ;
    range      = [ value ], "..", [ value ] ;
    set        = "(", values, ")" | "[", values, "]" | "{", values, "}" ;
    values     = value, { ",", value }, [ "," ] ;
    column     = a plain name | a name between ` ` ;
    value      = a number | 'text' | "text" | true | false ;

A range holds both of its ends; one of them may be left out. A column may be named several times,
but not beside an equality, which says all there is to say. A quote or a backslash within quotes is
written after a backslash. Words are also read with capitals. Notation: ISO/IEC 14977 (1996).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

from reversal.data.conditions import Between, Condition, Equal, Every, Not, OneOf
from reversal.errors import ReversalError

Value = str | int | float | bool

PATTERN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<quoted>`[^`]+`)
      | (?P<word>[^\W\d]\w*(?:\.\w+)*)
      | (?P<sign>\.\.|[=!<>&|]+|[^\w\s])
      | (?P<other>\w+)""",
    re.VERBOSE | re.DOTALL,
)
BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
AND, IN, NOT = ({word, word.title(), word.upper()} for word in ("and", "in", "not"))
CLOSING = {"(": ")", "[": "]", "{": "}"}
COMPARISONS: dict[str, Callable[[Value], Condition]] = {
    "==": Equal,
    "!=": lambda value: Not(Equal(value)),
    "<": lambda value: Between(None, value, excludes_high=True),
    "<=": lambda value: Between(None, value),
    ">": lambda value: Between(value, None, excludes_low=True),
    ">=": lambda value: Between(value, None),
}


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


def tokens(text: str) -> Iterator[Token]:
    """Yield the pieces of a text that are not blank, and one at its end."""
    for match in PATTERN.finditer(text):
        if match.lastgroup != "space":
            yield Token(match.lastgroup or "other", match.group(), match.start())
    yield Token("end", "nothing more", len(text.rstrip()))


def parse(text: str) -> dict[str, Condition]:
    """Read the conditions of a text, by column and in order.

    Raises:
        ConditionError: if the text is none, or names a column beside an equality on it.
    """
    return _Reader(text).conditions()


def given(text: str | None) -> dict[str, Any]:
    """Return the conditions as what a model is given, equalities as values; nothing without a text.

    Raises:
        ConditionError: if the text cannot be read.
    """
    found = {} if text is None else parse(text)
    return {k: each.value if isinstance(each, Equal) else each for k, each in found.items()}


@final
class _Reader:
    """A reader that stands before one token and never goes back."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = tokens(text)
        self.token = next(self.rest)

    def conditions(self) -> dict[str, Condition]:
        found: dict[str, list[Condition]] = {}
        while True:
            start = self.token
            column, condition = self.condition()
            others = found.setdefault(column, [])
            if others and any(isinstance(each, Equal) for each in (*others, condition)):
                cure = "`==` fixes a column: leave out what else is asked of it."
                raise self.error("another column", f"{start.shown} again", cure, start)
            others.append(condition)
            if self.token.kind == "end":
                break
            self.conjunction()
        return {k: c[0] if len(c) == 1 else Every(tuple(c)) for k, c in found.items()}

    def condition(self) -> tuple[str, Condition]:
        column, sign = self.column(), self.token
        if sign.text in COMPARISONS:
            self.move()
            return column, COMPARISONS[sign.text](self.value())
        negated = sign.text in NOT
        if negated:
            self.move()
        if self.token.text not in IN:
            raise self.no_comparison(negated)
        self.move()
        inside = self.set() if self.token.text in CLOSING else self.range()
        return column, Not(inside) if negated else inside

    def column(self) -> str:
        token = self.token
        if token.kind not in ("word", "quoted") or token.text in AND:
            cure = "Write `column == value`; a name with blanks stands between backticks."
            raise self.error("the name of a column", token.shown, cure)
        self.move()
        return token.text.strip("`")

    def set(self) -> Condition:
        closing = CLOSING[self.token.text]
        self.move()
        values: list[Value] = []
        while self.token.text != closing:
            values.append(self.value(f"Write {closing!r} after the last value of a set."))
            if self.token.text == ",":
                self.move()
            elif self.token.text != closing:
                cure = "Part values by commas, and close the set."
                raise self.error(f"`,` or `{closing}`", self.token.shown, cure)
        if not values:
            cure = "An empty set holds nothing: name at least one value."
            raise self.error("a value", self.token.shown, cure)
        self.move()
        return OneOf(tuple(values))

    def range(self) -> Condition:
        start = self.token
        low = None if self.token.text == ".." else self.value("Write `in low..high`.")
        if self.token.text != "..":
            cure = "A range is written `in 65..80`, a set `in ('cook', 'smith')`."
            raise self.error("`..`", self.token.shown, cure)
        self.move()
        is_open = self.token.kind == "end" or self.token.text in AND
        high = None if is_open else self.value("Write `in low..high`.")
        self.check_range(low, high, start)
        return Between(low, high)

    def check_range(self, low: Value | None, high: Value | None, start: Token) -> None:
        if low is None and high is None:
            cure = "Write at least one end: `in 65..`, `in ..80`."
            raise self.error("a range with an end", "none", cure, start)
        if low is None or high is None:
            return
        if isinstance(low, str) != isinstance(high, str):
            cure = "Give two numbers, or two texts in quotes."
            raise self.error("two ends of one kind", f"{low!r} and {high!r}", cure, start)
        if not isinstance(low, str) and low > high:  # pyright: ignore[reportOperatorIssue]
            cure = "An empty range holds nothing: swap its ends."
            raise self.error("low..high with low <= high", f"{low}..{high}", cure, start)

    def value(self, cure: str | None = None) -> Value:
        token = self.token
        if token.kind == "text":
            value: Value = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        elif token.kind == "number":
            value = _number(token.text)
        elif token.text in BOOLEANS:
            value = BOOLEANS[token.text]
        else:
            raise self.error(
                "a number, 'text', true or false", token.shown, self.no_value(token, cure)
            )
        self.move()
        return value

    def conjunction(self) -> None:
        if self.token.text not in AND:
            cure = "Join conditions by `and`; only conditions that all hold can be asked."
            raise self.error("`and` or the end", self.token.shown, cure)
        self.move()

    def no_comparison(self, negated: bool) -> ConditionError:
        if negated:
            return self.error("`in` after `not`", self.token.shown, "Write `not in (...)`.")
        cure = "Write `column == value`, `column in 65..80` or `column in ('cook', 'smith')`."
        if self.token.text.lower() == "is":
            cure = "Whether an entry is missing is not modelled; ask for values."
        expected = "`==`, `!=`, `<`, `<=`, `>`, `>=` or `in` after the name of a column"
        return self.error(expected, self.token.shown, cure)

    def no_value(self, token: Token, cure: str | None) -> str:
        if token.kind in ("word", "other") and token.text not in AND:
            return f"Text stands in quotes: '{token.text}'."
        if token.text in ("'", '"'):
            return "Close the quotes."
        return cure or "Write a value after the comparison."

    def move(self) -> None:
        self.token = next(self.rest)

    def error(
        self, expected: str, got: str, cure: str, token: Token | None = None
    ) -> ConditionError:
        return ConditionError(self.text, (token or self.token).place, expected, got, cure)


def _number(text: str) -> int | float:
    """Return a whole number as an int, another as a float."""
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
