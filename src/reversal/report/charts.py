"""The charts of a report, from arrays to SVG: laws, bars, intervals, maps, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from reversal.metrics import Estimate
from reversal.report.svg import Drawing, short

LOOKS = ("real", "unseen", "made")
"""The classes of the tables that are drawn together, in this order."""
WIDTH, HEIGHT = 300.0, 150.0
SHADES = 10


def histogram(
    tables: Sequence[np.ndarray],
    ends: np.ndarray,
    ticks: Sequence[tuple[float, str]],
    title: str,
    looks: Sequence[str] = LOOKS,
) -> str:
    """Draw the laws of numbers on common bins: the first as an area, the others as lines.

    Args:
        tables: numbers ``(n,)`` without NaN; what lies beyond the ends counts in the first or the
            last bin.
        ends: of the bins, equally spaced.
        ticks: places on the axis and their labels, from left to right.
        title: what the drawing shows.
        looks: the classes of the tables.
    """
    drawing = Drawing(WIDTH, HEIGHT, title)
    inner = [np.clip(numbers, ends[0], ends[-1]) for numbers in tables]
    shares = [np.histogram(part, ends)[0] / max(1, len(part)) for part in inner]
    top = max(float(share.max(initial=0)) for share in shares) or 1.0
    left, right, base = 6.0, WIDTH - 6, HEIGHT - 22
    xs = left + (right - left) * np.arange(len(ends)) / (len(ends) - 1)
    for share, look in zip(shares, looks, strict=True):
        ys = base - (base - 14) * share / top
        steps = [(x, y) for k, y in enumerate(ys) for x in (xs[k], xs[k + 1])]
        line = [(left, base), *steps, (right, base)]
        drawing.path(line, f"{'area' if look == 'real' else 'step'} {look}", look == "real")
    drawing.line((left, base), (right, base), "axis")
    for place, label in ticks:
        x = left + (right - left) * float((place - ends[0]) / (ends[-1] - ends[0]))
        side = "" if x < 0.2 * WIDTH else " end" if x > 0.8 * WIDTH else " mid"
        shift = -4 if not side else 4 if side == " end" else 0
        drawing.text((x + shift if 8 < x < WIDTH - 8 else x, HEIGHT - 6), label, f"t{side}")
    drawing.text((left, 9), f"{100 * top:.0f} %", "t")
    return str(drawing)


def ends_and_middle(ends: np.ndarray, label: Callable[[float], str]) -> list[tuple[float, str]]:
    """Return ticks at the first, the middle and the last end of bins."""
    return [(float(ends[k]), label(float(ends[k]))) for k in (0, len(ends) // 2, -1)]


def bars(shares: Sequence[np.ndarray], labels: Sequence[str], title: str) -> str:
    """Draw the shares of categories: real as wide bars, holdout as ticks, synthetic as thin bars.

    Args:
        shares: one array ``(K,)`` per table, at most three.
        labels: of the K categories.
        title: what the drawing shows.
    """
    step, left = 19.0, 108.0
    drawing = Drawing(WIDTH, step * len(labels) + 6, title)
    top = max(float(np.max(share, initial=0)) for share in shares) or 1.0
    for k, label in enumerate(labels):
        y = 3 + step * k
        drawing.text((left - 6, y + 12), short(label, 15), "t end")
        widths = [(WIDTH - left - 44) * float(share[k]) / top for share in shares]
        drawing.rect(left, y + 2, widths[0], 14, "area real")
        if len(shares) == 3:
            drawing.line((left + widths[1], y), (left + widths[1], y + 18), "step unseen")
        drawing.rect(left, y + 6.5, widths[-1], 5, "fill made")
        drawing.text((left + max(widths) + 5, y + 13), f"{100 * shares[-1][k]:.1f} %", "t")
    return str(drawing)


def intervals(
    rows: Sequence[tuple[str, Estimate, str]], low: float, high: float, title: str
) -> str:
    """Draw estimates as dots on their intervals, one per row.

    Args:
        rows: the label, the estimate and the class of each.
        low: the left end of the axis.
        high: its right end.
        title: what the drawing shows.
    """
    step, left, width = 30.0, 190.0, 560.0
    drawing = Drawing(width, step * len(rows) + 26, title)

    def place(value: float) -> float:
        share = (np.nan_to_num(value, nan=low) - low) / (high - low)
        return left + (width - left - 20) * float(np.clip(share, 0, 1))

    for tick in np.arange(np.ceil(10 * low - 1e-6), 10 * high + 0.5) / 10:
        drawing.line((place(tick), 4), (place(tick), step * len(rows) + 4), "grid")
        drawing.text((place(tick), step * len(rows) + 20), f"{abs(tick):.1f}", "t mid")
    for k, (label, estimate, look) in enumerate(rows):
        y = step * k + 18
        drawing.text((left - 12, y + 4), short(label, 30), "t end")
        drawing.line((place(estimate.low), y), (place(estimate.high), y), f"bar {look}")
        if not np.isnan(estimate.value):
            drawing.dot((place(estimate.value), y), f"fill {look}", 5)
    return str(drawing)


def heat_map(values: np.ndarray, names: Sequence[str], title: str, signed: bool) -> str:
    """Draw a symmetric matrix ``(C, C)`` as shades; NaN stays blank.

    Args:
        values: in [-1, 1].
        names: of the columns.
        title: what the drawing shows.
        signed: whether negative values have a color of their own.
    """
    count = len(names)
    left = 92.0 if count <= 24 else 8.0
    cell = max(4.0, (340.0 - left) / count)
    drawing = Drawing(left + cell * count + 2, cell * count + (88 if count <= 24 else 8), title)
    for i in range(count):
        for j in range(count):
            if not np.isnan(values[i, j]):
                shade = round(min(1.0, abs(values[i, j])) * SHADES)
                look = "n" if signed and values[i, j] < 0 else "h"
                drawing.rect(left + cell * j, cell * i, cell - 0.5, cell - 0.5, f"{look}{shade}")
    if count <= 24:
        for i, name in enumerate(names):
            drawing.text((left - 5, cell * (i + 0.5) + 3.5), short(name, 15), "t end")
            at = (left + cell * (i + 0.5) + 3, cell * count + 8)
            drawing.text(at, short(name, 13), "t end", turn=-60)
    return str(drawing)


def reliability(confidence: Sequence[float], hits: Sequence[Estimate], title: str) -> str:
    """Draw hits against confidence, with intervals and the diagonal of a calibrated model."""
    size, edge = 210.0, 30.0
    drawing = Drawing(size + 16, size, title)

    def place(x: float, y: float) -> tuple[float, float]:
        span = size - edge - 10
        return edge + span * x, 10 + span * (1 - y)

    for tick in (0.0, 0.5, 1.0):
        drawing.line(place(0, tick), place(1, tick), "grid")
        drawing.line(place(tick, 0), place(tick, 1), "grid")
        drawing.text((place(tick, 0)[0], size - 6), f"{100 * tick:.0f} %", "t mid")
        drawing.text((edge - 4, place(0, tick)[1] + 4), f"{100 * tick:.0f}", "t end")
    drawing.line(place(0, 0), place(1, 1), "step unseen")
    for x, estimate in zip(confidence, hits, strict=True):
        drawing.line(place(x, estimate.low), place(x, estimate.high), "bar made")
        drawing.dot(place(x, estimate.value), "fill made", 3.5)
    return str(drawing)


def curves(
    lines: Mapping[str, tuple[Sequence[tuple[float, float]], str]], axis: str, title: str
) -> str:
    """Draw lines through points on common axes, with a legend.

    Args:
        lines: by name, the points and the class.
        axis: the name of the horizontal axis.
        title: what the drawing shows.
    """
    width, height, left, base = 640.0, 260.0, 56.0, 222.0
    drawing = Drawing(width, height, title)
    points = np.array([point for line, _ in lines.values() for point in line])
    (x0, x1), ys = (points[:, 0].min(), points[:, 0].max()), points[:, 1]
    y0, y1 = ys.min(), float(np.quantile(ys, 0.98))  # the first losses would flatten the rest
    x1, y1 = x1 + (x1 <= x0), y1 + (y1 <= y0)

    def place(x: float, y: float) -> tuple[float, float]:
        share = float(np.clip((y - y0) / (y1 - y0), 0, 1.02))
        return left + (width - left - 12) * (x - x0) / (x1 - x0), base - (base - 14) * share

    for share in (0.0, 0.5, 1.0):
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        drawing.line((left, place(x0, y)[1]), (width - 12, place(x0, y)[1]), "grid")
        drawing.text((left - 6, place(x0, y)[1] + 4), f"{y:.4g}", "t end")
        anchor = "t end" if share == 1 else "t mid"
        drawing.text((place(x, y0)[0], base + 16), f"{x:,.0f}", anchor)
    low = height - 6
    for k, (name, (line, look)) in enumerate(lines.items()):
        at = left + 150 * k
        drawing.path([place(x, y) for x, y in line], f"step {look}")
        drawing.line((at, low), (at + 20, low), f"step {look}")
        drawing.text((at + 26, height - 2), name, "t")
    drawing.text((width - 12, height - 2), axis, "t end")
    return str(drawing)
