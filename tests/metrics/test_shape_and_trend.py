"""Distances of laws against closed forms, and against sdmetrics where it is installed."""

import importlib.util
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reversal.datasets import penguins
from reversal.metrics import shape, trend
from reversal.metrics.shape import ks_distance, total_variation
from reversal.metrics.trend import cramers_v

EVEN, ODD = penguins().iloc[::2], penguins().iloc[1::2]
SHAPE, TREND = 0.22929304827952257, 0.26103958270819816


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.625, 3.0])
def test_a_shift_of_a_uniform_law_is_its_ks_distance(shift):
    grid = (np.arange(4096) + 0.5) / 4096
    assert ks_distance(grid, grid + shift) == pytest.approx(min(shift, 1), abs=1e-12)


def test_the_ks_distance_is_that_of_scipy_on_ties():
    random = np.random.default_rng(0)
    x, y = random.integers(9, size=137), random.integers(11, size=1000)
    assert ks_distance(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-15)


@pytest.mark.parametrize("far", [1, 10**12])
def test_total_variation_of_known_tables(far):
    """p = (1/2, 1/4, 1/4, 0) and q = (1/4, 1/4, 0, 1/2) are at 1/2, wherever the codes lie."""
    p, q = np.array([0, 0, 1, 2]) * far, np.array([0, 1, 3, 3]) * far
    assert total_variation(p, q) == 0.5
    assert total_variation(p, np.tile(p, 7)) == 0


def test_errors_are_half_a_correlation_apart_and_gaps_are_left_out():
    x = np.array([-1.0, -1, 1, 1, np.nan, 5])
    real = pd.DataFrame({"a": x, "b": [-1.0, -1, 1, 1, 3, np.nan]})
    other = pd.DataFrame({"a": x, "b": [1.0, 1, -1, -1, 3, np.nan]})
    (pair,) = trend(real, other).pairs
    assert (pair.real, pair.other, pair.error) == pytest.approx((1, -1, 1))
    assert shape(real, other).columns[0].missing == (1 / 6, 1 / 6)


def test_a_gap_is_a_value_of_its_own_in_a_contingency_table():
    real = pd.DataFrame({"a": ["x", "x", None, "y"], "b": ["u", "u", "u", "v"]})
    other = pd.DataFrame({"a": ["x", "x", "x", "y"], "b": ["u", "u", "u", "v"]})
    assert trend(real, other).error == 0.25


def test_an_extreme_number_moves_the_bins_of_its_own_table_alone():
    numbers = np.linspace(0, 1, 1000)
    word = np.where(numbers < 0.5, "low", "high")
    real = pd.DataFrame({"x": numbers, "k": word})
    other = pd.DataFrame({"x": [*numbers[:-1], 1000.0], "k": word})
    assert trend(real, other, common=True).error == 0
    assert trend(real, other).error > 0.8


def test_cramers_v_is_one_of_a_map_and_free_of_bias_of_independence():
    random = np.random.default_rng(0)
    codes = random.integers(5, size=(2, 20_000))
    assert cramers_v(codes[0], 7 - codes[0]) == pytest.approx(1)
    assert cramers_v(*codes) < 0.02
    wide = random.integers(300, size=(2, 3000))
    assert cramers_v(*wide) < 0.1


def test_the_mean_leaves_out_what_is_undefined():
    real = pd.DataFrame({"a": [1.0, 2, 3], "b": [3.0, 1, 2], "c": [2.0, 3, 1]})
    other = real.assign(b=None, c=1.0)
    errors = {column.name: column.error for column in shape(real, other).columns}
    assert np.isnan(errors["b"])
    assert shape(real, other).error == pytest.approx((0 + 2 / 3) / 2)
    assert np.isnan(trend(real, other).error)
    assert [column.name for column in shape(real, other).worst()] == ["c", "a", "b"]
    assert np.isnan(trend(real[["a"]], other[["a"]]).error)


def test_the_figures_of_sdmetrics_are_met():
    """What sdmetrics 0.32.0 gave for these rows, its thresholds of association at 0."""
    assert shape(EVEN, ODD).error == pytest.approx(SHAPE, abs=1e-12)
    assert trend(EVEN, ODD).error == pytest.approx(TREND, abs=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("sdmetrics") is None, reason="needs sdmetrics")
def test_every_column_and_pair_is_that_of_sdmetrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sdmetrics.reports.single_table import QualityReport

        report = QualityReport()
        report.real_correlation_threshold = report.real_association_threshold = 0
        types = {
            name: {
                "sdtype": "numerical"
                if pd.api.types.is_numeric_dtype(EVEN[name])
                else "categorical"
            }
            for name in EVEN
        }
        frames = [part.reset_index(drop=True) for part in (EVEN, ODD)]
        report.generate(*frames, {"columns": types}, verbose=False)
    columns = report.get_details("Column Shapes").set_index("Column")["Score"]
    for column in shape(EVEN, ODD).columns:
        assert column.error == pytest.approx(1 - columns[column.name], abs=1e-9)
    pairs = report.get_details("Column Pair Trends").set_index(["Column 1", "Column 2"])["Score"]
    for pair in trend(EVEN, ODD).pairs:
        assert pair.error == pytest.approx(1 - pairs[pair.first, pair.second], abs=1e-9)
