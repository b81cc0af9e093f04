"""The demo's pictures: sheets of small images, and a scatter of two measurements.

Gray images are drawn as ink on paper, entries that are hidden as a tint. Text is set by matplotlib
through its object interface, which touches no global state and needs no screen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from reversal.data.frames import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, HIDDEN = ((0.955, 0.945, 0.92), (0.09, 0.11, 0.20), (0.80, 0.86, 0.93))
TEXT, QUIET = "#171c33", "#6f7280"
COLORS = ("#d9622b", "#2f6fb3", "#3a9a6d", "#8a5cb0", "#b58900")
TILE, GAP = 0.52, 0.055  # inches
LEFT, TOP, EDGE = 0.62, 1.02, 0.26  # inches
DPI = 150


@final
@dataclass(frozen=True)
class Sheet:
    """Small images in rows and columns.

    Args:
        images: gray values in [0, 1], ``(rows, columns, H, W)``; 1 is ink.
        title: the first line.
        caption: a quiet line below it.
        rows: one label per row.
        columns: one label per column, or none.
        hidden: bool, of the images' shape: entries that are not shown.
        rules: the columns after which the gap is wider.
    """

    images: np.ndarray
    title: str
    caption: str
    rows: Sequence[str]
    columns: Sequence[str] = ()
    hidden: np.ndarray | None = None
    rules: Sequence[int] = ()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Draw the sheet as a PNG file."""
        from matplotlib.figure import Figure

        lefts = self._lefts()
        width = lefts[-1] + TILE + EDGE
        top = TOP if self.columns else TOP - 0.2
        height = top + len(self.images) * (TILE + GAP) + EDGE
        figure = Figure((max(width, 4.2), height), dpi=DPI, facecolor="white")
        _heading(figure, self.title, self.caption)
        canvas, colored = _canvas(figure), _colored(self.images, self.hidden)
        for row, label in enumerate(self.rows):
            bottom = height - top - row * (TILE + GAP) - TILE
            _text(figure, LEFT - 0.14, bottom + TILE / 2, label, size=11, ha="right", va="center")
            for left, image in zip(lefts, colored[row], strict=True):
                _tile(canvas, left, bottom, image)
        for left, label in zip(lefts, self.columns, strict=False):
            at = (left + TILE / 2, height - top + 0.07)
            _text(figure, *at, label, size=8.5, color=QUIET, ha="center")
        _save(figure, path)

    def _lefts(self) -> list[float]:
        """Return where each column starts, in inches."""
        wider = [sum(column > after for after in self.rules) for column in range(self._columns)]
        return [LEFT + k * (TILE + GAP) + 0.2 * wide for k, wide in enumerate(wider)]

    @property
    def _columns(self) -> int:
        return self.images.shape[1]


@final
@dataclass(frozen=True)
class Scatter:
    """Two measurements of several groups, one panel per table, on common axes.

    Args:
        panels: per panel its heading, and per group the points ``(n, 2)``.
        axes: the names of the two measurements.
        title: the first line.
        caption: a quiet line below it.
    """

    panels: Mapping[str, Mapping[str, np.ndarray]]
    axes: tuple[str, str]
    title: str
    caption: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Draw the panels as a PNG file."""
        from matplotlib.figure import Figure

        figure = Figure((8.4, 4.7), dpi=DPI, facecolor="white")
        _heading(figure, self.title, self.caption)
        limits = self._limits()
        for number, (heading, groups) in enumerate(self.panels.items()):
            axes = figure.add_axes((0.085 + 0.465 * number, 0.13, 0.43, 0.62))
            for color, (name, points) in zip(COLORS, groups.items(), strict=False):
                axes.scatter(*points.T, s=13, color=color, alpha=0.75, linewidths=0, label=name)
            axes.set_title(heading, loc="left", fontsize=10, color=TEXT)
            axes.set_xlabel(self.axes[0], fontsize=9, color=QUIET)
            axes.set(xlim=limits[0], ylim=limits[1])
            _quiet(axes)
            if number:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel(self.axes[1], fontsize=9, color=QUIET)
                axes.legend(frameon=False, fontsize=8.5, loc="lower right", handletextpad=0.2)
        _save(figure, path)

    def _limits(self) -> np.ndarray:
        """Return the least and greatest values of all panels with a margin, ``(2, 2)``."""
        points = np.concatenate(
            [part for groups in self.panels.values() for part in groups.values()]
        )
        low, high = np.nanmin(points, 0), np.nanmax(points, 0)
        margin = 0.05 * (high - low)
        return np.stack([low - margin, high + margin], 1)


def _colored(images: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
    """Return gray values as colors between paper and ink, ``(..., 3)``."""
    ink = np.clip(images, 0, 1)[..., None]
    colors = (1 - ink) * np.array(PAPER) + ink * np.array(INK)
    return colors if hidden is None else np.where(hidden[..., None], np.array(HIDDEN), colors)


def _canvas(figure: Figure) -> Axes:
    """Return axes over a whole figure, in inches."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(0, figure.get_figheight()))
    return axes


def _tile(canvas: Axes, left: float, bottom: float, image: np.ndarray) -> None:
    extent = (left, left + TILE, bottom, bottom + TILE)
    canvas.imshow(image, interpolation="nearest", aspect="auto", extent=extent)


def _heading(figure: Figure, title: str, caption: str) -> None:
    height = figure.get_size_inches()[1]
    _text(figure, EDGE, height - 0.38, title, size=13, weight="bold")
    _text(figure, EDGE, height - 0.62, caption, size=9, color=QUIET)


def _text(figure: Figure, x: float, y: float, words: str, **style: object) -> None:
    """Set words at a place in inches."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, words, **{"color": TEXT, **style})  # pyright: ignore


def _quiet(axes: Axes) -> None:
    """Leave of the frame of a plot what is needed."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9cad1")
    axes.tick_params(colors=QUIET, labelsize=8, length=3, color="#c9cad1")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
