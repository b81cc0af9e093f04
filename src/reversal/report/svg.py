"""Drawings as SVG text: shapes with classes, whose colors the style sheet of the page gives."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import final

Point = tuple[float, float]


@final
class Drawing:
    """A picture of a width and a height in pixels, which scales with its place.

    Args:
        width: of the coordinates.
        height: of the coordinates; y points down.
        label: what a reader hears who does not see it.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height, self.label = width, height, label
        self.parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """Draw a rectangle, at least a hair wide."""
        size = f'width="{_n(max(width, 0))}" height="{_n(max(height, 0))}"'
        self.parts.append(f'<rect class="{look}" x="{_n(x)}" y="{_n(y)}" {size}/>')

    def line(self, start: Point, end: Point, look: str) -> None:
        """Draw a straight line."""
        ends = f'x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"'
        self.parts.append(f'<line class="{look}" {ends}/>')

    def path(self, points: Sequence[Point], look: str, closed: bool = False) -> None:
        """Draw a line through points."""
        if len(points):
            steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
            self.parts.append(f'<path class="{look}" d="M{steps}{"Z" if closed else ""}"/>')

    def dot(self, at: Point, look: str, radius: float = 4) -> None:
        """Draw a disk."""
        self.parts.append(
            f'<circle class="{look}" cx="{_n(at[0])}" cy="{_n(at[1])}" r="{_n(radius)}"/>'
        )

    def text(self, at: Point, words: str, look: str = "t", turn: float = 0) -> None:
        """Set words; the class says how they are anchored."""
        place = f'x="{_n(at[0])}" y="{_n(at[1])}"'
        turned = f' transform="rotate({_n(turn)} {_n(at[0])} {_n(at[1])})"' if turn else ""
        self.parts.append(f'<text class="{look}" {place}{turned}>{escape(words)}</text>')

    def __str__(self) -> str:
        box = f"0 0 {_n(self.width)} {_n(self.height)}"
        title = escape(self.label)
        return (
            f'<svg viewBox="{box}" role="img" aria-label="{title}" '
            f'style="max-width:{_n(self.width)}px">{"".join(self.parts)}</svg>'
        )


def short(words: str, most: int) -> str:
    """Return words cut to a number of letters."""
    return words if len(words) <= most else words[: most - 1].rstrip() + "\u2026"


def _n(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")
