"""The section on whether a classifier tells synthetic rows from real ones."""

from __future__ import annotations

import math

from reversal.metrics import Estimate, c2st
from reversal.report import charts
from reversal.report.blocks import Figure, Finding, Section, Text, Tone
from reversal.report.material import Material
from reversal.report.words import between, decimal

TITLE = "Can a classifier tell them apart?"
CLEAR, UNSURE = 0.65, 0.6


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
    low = 0.4 if min(estimate.low for _, estimate, _ in rows) >= 0.4 else 0.0
    chart = charts.intervals(rows, low, 1.0, caption)
    blocks = [Text(words), Figure(chart, caption)]
    return Section("apart", TITLE, blocks, [_finding(found, floor)])


def _finding(found: Estimate, floor: Estimate) -> Finding:
    if math.isnan(found.value):
        tone, answer = Tone.PLAIN, "There are too few rows to try."
    elif found.low <= 0.5 or found.value <= floor.high:
        tone, answer = Tone.GOOD, "No difference from real rows was found."
        if found.high > UNSURE:
            tone = Tone.PLAIN
            answer = f"With so few rows, anything up to {decimal(found.high)} is possible."
    elif found.value < CLEAR:
        tone, answer = Tone.FAIR, "A little better than a coin."
    else:
        times = f"{100 * found.value:.0f} times in 100"
        tone, answer = Tone.POOR, f"Yes: it finds the synthetic row of a pair {times}."
    figures = f"AUC {between(found)}", f"real rows {between(floor)}"
    return Finding(TITLE, answer, *figures, tone)
