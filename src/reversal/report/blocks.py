"""What a section is made of: sentences, tables, cards and figures, which templates write."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, final


class Tone(StrEnum):
    """How a figure is to be taken."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"
    PLAIN = "plain"


class Block(ABC):
    """A piece of a section; ``template`` writes it."""

    template: ClassVar[str]


@final
@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    words: str
    template: ClassVar[str] = "text.html"


@final
@dataclass(frozen=True)
class Heading(Block):
    """A heading within a section."""

    words: str
    template: ClassVar[str] = "heading.html"


@final
@dataclass(frozen=True)
class Note(Block):
    """What a reader must know before he trusts the figures beside it."""

    words: str
    template: ClassVar[str] = "note.html"


@final
@dataclass(frozen=True)
class Code(Block):
    """Lines that are typed."""

    lines: str
    template: ClassVar[str] = "code.html"


@final
@dataclass(frozen=True)
class Table(Block):
    """A table; its first column names the rows.

    Args:
        caption: what it shows.
        head: the names of the columns.
        rows: cells as text.
        is_folded: whether it opens on a click.
        breaks: the numbers of the rows above which a line is drawn.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_folded: bool = False
    breaks: Sequence[int] = ()
    template: ClassVar[str] = "table.html"


@final
@dataclass(frozen=True)
class Card:
    """A small chart with a heading and a line of figures."""

    title: str
    chart: str
    figures: str
    detail: str = ""


@final
@dataclass(frozen=True)
class Cards(Block):
    """Small charts side by side.

    Args:
        cards: in the order of reading.
        legend: the class and the name of each color.
    """

    cards: Sequence[Card]
    legend: Sequence[tuple[str, str]] = ()
    template: ClassVar[str] = "cards.html"


@final
@dataclass(frozen=True)
class Figure(Block):
    """A chart of the width of the page with a caption."""

    chart: str
    caption: str
    template: ClassVar[str] = "figure.html"


@final
@dataclass(frozen=True)
class Finding:
    """One line of the summary.

    Args:
        question: what is asked.
        answer: in plain words.
        figure: the number it rests on.
        beside: what unseen real rows come to.
        tone: how it is to be taken.
    """

    question: str
    answer: str
    figure: str
    beside: str
    tone: Tone

    def hedged(self, rows: int) -> Finding:
        """Return the same as unclear, if it says that all is well on the strength of few rows."""
        if self.tone is not Tone.GOOD:
            return self
        answer = f"Nothing was found, but {rows:,} unseen rows are too few to tell."
        return replace(self, answer=answer, tone=Tone.PLAIN)


@final
@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        anchor: where links lead.
        title: its heading.
        blocks: what it shows.
        findings: what of it belongs into the summary.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
    findings: Sequence[Finding] = ()
