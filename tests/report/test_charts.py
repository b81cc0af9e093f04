"""Drawings are well-formed, and their shapes are as large as the numbers they stand for."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from reversal.metrics import Estimate, aligned
from reversal.metrics.columns import Numeric
from reversal.report import charts, marginals
from reversal.report.svg import Drawing, short

ENDS = np.linspace(0, 1, 5)
TICKS = [(0.0, "0"), (1.0, "<1 & more>")]


def parts(drawing, name, look):
    root = ElementTree.fromstring(drawing)
    return [part for part in root.iter(name) if part.get("class") == look]


def heights(path):
    """Return the heights of the steps of a path above its base, in units of the tallest."""
    points = [tuple(map(float, p.split())) for p in path.get("d").strip("MZ").split("L")]
    base = points[0][1]
    steps = np.array([base - y for _, y in points[1:-1:2]])
    return steps / steps.max()


def test_steps_are_as_high_as_the_shares():
    """And what lies beyond the ends counts in the first and in the last bin."""
    real = np.array([-5, 0.1, 0.3, 0.6, 0.6, 0.6, 0.6, 9.0])
    drawing = charts.histogram([real, real[::-1]], ENDS, TICKS, "x", ("real", "made"))
    for name in ("area real", "step made"):
        (path,) = parts(drawing, "path", name)
        np.testing.assert_allclose(heights(path), [0.5, 0.25, 1, 0.25], atol=2e-3)


def test_bars_are_as_wide_as_the_shares():
    shares = [np.array([0.5, 0.25]), np.array([0.25, 0.5]), np.array([0.1, 0.4])]
    drawing = charts.bars(shares, ["a", "b"], "x")
    for look, share in (("area real", shares[0]), ("fill made", shares[2])):
        widths = [float(part.get("width")) for part in parts(drawing, "rect", look)]
        assert widths[0] / widths[1] == pytest.approx(share[0] / share[1], rel=0.01)
    assert "40.0 %" in drawing


def test_a_map_has_one_shade_per_pair_and_none_for_the_unknown():
    values = np.array([[np.nan, -1.0, 0.0], [-1.0, np.nan, 0.5], [0.0, 0.5, np.nan]])
    drawing = charts.heat_map(values, ["a", "b", "c"], "x", signed=True)
    counts = {look: len(parts(drawing, "rect", look)) for look in ("n10", "h0", "h5")}
    assert counts == {"n10": 2, "h0": 2, "h5": 2}


def test_intervals_and_reliability_stand_at_their_values():
    rows = [("a", Estimate(0.5, 0.25, 0.75), "made"), ("b", Estimate(np.nan, 0, 1), "real")]
    drawing = charts.intervals(rows, 0.0, 1.0, "x")
    (dot,) = parts(drawing, "circle", "fill made")
    (bar,) = parts(drawing, "line", "bar made")
    x1, x2 = float(bar.get("x1")), float(bar.get("x2"))
    assert float(dot.get("cx")) == pytest.approx((x1 + x2) / 2, abs=0.1)
    assert parts(drawing, "circle", "fill real") == []
    square = charts.reliability([0.5], [Estimate(0.5, 0.4, 0.6)], "x")
    (diagonal,) = parts(square, "line", "step unseen")
    (dot,) = parts(square, "circle", "fill made")
    middle = (float(diagonal.get("x1")) + float(diagonal.get("x2"))) / 2
    assert float(dot.get("cx")) == pytest.approx(middle, abs=0.1)


def test_curves_of_one_point_or_a_constant_are_drawn():
    for line in ([(1.0, 2.0)], [(1.0, 2.0), (5.0, 2.0)]):
        assert "NaN" not in charts.curves({"loss": (line, "made")}, "step", "x")


def test_words_are_escaped_and_cut():
    drawing = Drawing(10, 10, '<script>"')
    drawing.text((0, 0), "a < b & c")
    assert ElementTree.fromstring(str(drawing)).find("text").text == "a < b & c"
    assert short("a long name", 7) == "a long\u2026"


def the_bins(numbers):
    return marginals.bins(np.asarray(numbers, float), Numeric("x", pa.float64()))


@pytest.mark.parametrize(
    "numbers",
    [
        np.repeat(np.arange(2850, 6301, 25), 3),
        np.round(np.linspace(13.1, 21.5, 85), 1),
        np.arange(40),
        1e12 + np.arange(100.0),
    ],
)
def test_bins_hold_equally_many_of_the_values_to_which_numbers_are_rounded(numbers):
    """So that an even law has no peak; the last bin may hold fewer."""
    ends, _ = the_bins(numbers)
    low, high = np.quantile(numbers, [0.005, 0.995], method="nearest")
    inside = numbers[(numbers >= low) & (numbers <= high)]
    counts = np.histogram(inside, ends)[0]
    assert counts.sum() == len(inside)
    assert len(set(counts[:-1])) == 1
    assert counts[-1] <= counts[0]


@pytest.mark.parametrize(
    "numbers", [np.random.default_rng(0).normal(size=500), [1, 1, 1, 5], [3], [1, 1 + 1e-15]]
)
def test_bins_of_any_numbers_rise_and_have_ticks_in_them(numbers):
    ends, ticks = the_bins(numbers)
    assert (np.diff(ends) > 0).all()
    assert len(ends) <= marginals.MOST_BINS + 1
    assert ends[0] <= ticks[0][0] <= ticks[-1][0] <= ends[-1]


def test_days_stand_on_the_axis_as_a_person_writes_them():
    days = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=90).repeat(2)})
    (rows,) = aligned(days)
    drawing = marginals.chart((rows, rows), "day", ("real", "synthetic"))
    shown = [part.text for part in ElementTree.fromstring(drawing).iter("text")]
    assert {"2024-01-01", "2024-03-30"} <= set(shown)


def test_few_values_and_many_categories_are_bars_with_the_rest_together():
    words = [f"w{k}" for k in range(30) for _ in range(k + 1)]
    (rows,) = aligned(pd.DataFrame({"w": words, "n": [k % 3 for k in range(len(words))]}))
    drawing = marginals.chart((rows, rows), "w", ("real", "synthetic"))
    assert f"{30 - marginals.MOST_BARS} others" in drawing
    assert len(parts(drawing, "rect", "area real")) == marginals.MOST_BARS + 1
    assert len(parts(marginals.chart((rows, rows), "n", ("a", "b")), "rect", "fill made")) == 3
