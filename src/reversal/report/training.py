"""The section on the course of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reversal.report import charts
from reversal.report.blocks import Figure, Section, Text
from reversal.report.log import LOG, Line
from reversal.report.words import number

TITLE = "How training went"
MOST_POINTS = 400


def section(log: Sequence[Line]) -> Section:
    """Return the curves of the losses; where nothing was recorded, that."""
    curves = {
        "training loss": (_points(log, "loss"), "real"),
        "held-out loss": (_points(log, "held_out"), "made"),
    }
    curves = {name: curve for name, curve in curves.items() if len(curve[0]) > 1}
    if not curves:
        words = f"The run has no record of its training ({LOG} is missing or holds no losses)."
        return Section("training", TITLE, [Text(words)])
    words = (
        "The loss on rows that training did not see should fall and level off. If it still falls "
        "at the end, training longer helps; if it rises, the model began to learn by heart (the "
        "weights of the least held-out loss are kept)."
    )
    return Section("training", TITLE, [Text(words), _figure(curves, log)])


def _figure(
    curves: dict[str, tuple[list[tuple[float, float]], str]], log: Sequence[Line]
) -> Figure:
    held = [line for line in log if math.isfinite(line.held_out)]
    caption = f"{log[-1].step:,} steps."
    if held:
        best = min(held, key=lambda line: line.held_out)
        caption = f"The least held-out loss, {number(best.held_out)}"
        if math.isfinite(best.stderr):
            caption += f" \u00b1 {number(best.stderr)}"
        caption += f", came at step {best.step:,} of {log[-1].step:,}."
    return Figure(charts.curves(curves, "step", "Losses by step"), caption)


def _points(log: Sequence[Line], name: str) -> list[tuple[float, float]]:
    found = [(float(line.step), getattr(line, name)) for line in log]
    found = [point for point in found if math.isfinite(point[1])]
    step = max(1, len(found) // MOST_POINTS)
    return [*found[::step], *(found[-1:] if (len(found) - 1) % step else [])]
