"""The section on whether a classifier tells synthetic rows from real ones."""

from __future__ import annotations

import math

from reversal.metrics import Estimate, c2st
from reversal.report import charts
from reversal.report.blocks import Figure, Finding, Section, Text, Tone
from reversal.report.material import Material
from reversal.report.words import between


def section(material: Material) -> Section:
    """Return the two-sample test, with the test of real rows against real ones beside it."""
    real, unseen, made = material.equal()
    found = c2st(unseen, made, seed=material.seed)
    floor = c2st(real, unseen, most=len(unseen), seed=material.seed)
    words = (
        "Gradient boosting is trained to tell synthetic rows from real ones, and tried on rows "
        "that it has not seen. Shown one row of either kind, it picks the synthetic one with the "
        "probability below: 0.5 is a coin, 1 is never wrong. It sees all columns at once, so it "
        "notices what single columns and pairs do not show."
    )
    rows = [
        ("synthetic against real", found, "made"),
        ("real against real (floor)", floor, "real"),
    ]
    caption = (
        f"Area under the curve with 95 % intervals, {len(made):,} rows of either kind: synthetic "
        f"against real {between(found)}; {material.names[0]} against {material.names[1]} "
        f"{between(floor)}."
    )
    low = min(0.4, *(estimate.low for _, estimate, _ in rows))
    chart = charts.intervals(rows, max(0.0, low), 1.0, caption)
    blocks = [Text(words), Figure(chart, caption)]
    return Section("apart", "Can a classifier tell them apart?", blocks, [_finding(found, floor)])


def _finding(found: Estimate, floor: Estimate) -> Finding:
    if math.isnan(found.value):
        tone, answer = Tone.PLAIN, "There are too few rows to try."
    elif found.low <= max(0.5, floor.high):
        tone, answer = Tone.GOOD, "No difference from real rows was found."
    elif found.value < 0.65:
        tone, answer = Tone.FAIR, "A little better than a coin."
    else:
        tone = Tone.POOR
        answer = f"Yes: it finds the synthetic row of a pair {100 * found.value:.0f} times in 100."
    return Finding(
        "Can a classifier tell them apart?", answer, f"AUC {between(found)}", between(floor), tone
    )
