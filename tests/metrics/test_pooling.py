"""Rubin's rules: numbers worked by hand, limits, and the coverage of their intervals."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import reversal as rv

RATE = 1e-4


def test_three_draws_worked_by_hand():
    """Q = 10, 12, 14 and U = 4: W = 4, B = 4, T = 4 + 4/3 4 = 28/3, lambda = 4/7, r = 4/3."""
    pooled = rv.pool([10, 12, 14], [4, 4, 4])
    assert pooled.estimate == 12
    assert (pooled.within, pooled.between) == (4, 4)
    assert pooled.variance == pytest.approx(28 / 3)
    assert pooled.df == pytest.approx(2 / (4 / 7) ** 2)
    assert pooled.missing == pytest.approx((4 / 3 + 2 / (6.125 + 3)) / (7 / 3))
    half = stats.t(6.125).ppf(0.975) * math.sqrt(28 / 3)
    assert pooled.interval() == pytest.approx((12 - half, 12 + half))
    assert pooled.num_draws == 3


def test_the_degrees_of_freedom_of_a_small_sample_are_those_of_barnard_and_rubin():
    """nu_o = (nu_c + 1) / (nu_c + 3) nu_c (1 - lambda), with nu_c = 20: 21/23 20 3/7."""
    pooled = rv.pool([10, 12, 14], [4, 4, 4], df=20)
    observed = 21 / 23 * 20 * 3 / 7
    assert pooled.df == pytest.approx(1 / (1 / 6.125 + 1 / observed))
    assert pooled.df < 20


def test_nothing_missing_is_the_complete_analysis():
    pooled = rv.pool([3.0] * 5, [0.25] * 5, df=30)
    assert pooled.variance == pooled.within == 0.25
    assert pooled.missing == pooled.between == 0
    assert pooled.df == pytest.approx(31 / 33 * 30)
    assert rv.pool([3.0] * 5, [0.25] * 5).df == math.inf
    low, high = rv.pool([3.0] * 5, [0.25] * 5).interval(0.9)
    assert (low, high) == pytest.approx((3 - 1.6448536 / 2, 3 + 1.6448536 / 2))


def test_arrays_are_pooled_entry_by_entry():
    rng = np.random.default_rng(0)
    q, u = rng.normal(size=(6, 2, 3)), rng.uniform(1, 2, (6, 2, 3))
    whole, one = rv.pool(q, u, df=50), rv.pool(q[:, 1, 2], u[:, 1, 2], df=50)
    assert whole.interval().low.shape == (2, 3)
    for name in ("estimate", "variance", "df", "missing"):
        assert getattr(whole, name)[1, 2] == pytest.approx(getattr(one, name))


def test_intervals_cover_a_mean_as_often_as_they_say():
    """Proper imputations of a normal sample with half of it missing: 95 % of 3,000 intervals."""
    runs, n, seen, draws, truth = 3000, 60, 30, 8, 1.5
    rng = np.random.default_rng(1)
    covered = naive = 0
    for _ in range(runs):
        y = truth + rng.normal(size=seen)
        variance = (seen - 1) * y.var(ddof=1) / rng.chisquare(seen - 1, draws)
        mean = y.mean() + np.sqrt(variance / seen) * rng.normal(size=draws)
        filled = mean[:, None] + np.sqrt(variance)[:, None] * rng.normal(size=(draws, n - seen))
        tables = np.concatenate([np.tile(y, (draws, 1)), filled], 1)
        pooled = rv.pool(tables.mean(1), tables.var(1, ddof=1) / n, df=n - 1)
        low, high = pooled.interval()
        covered += low < truth < high
        naive += abs(pooled.estimate - truth) < 1.96 * math.sqrt(pooled.within)
    slack = stats.norm.isf(RATE / 2) * math.sqrt(0.95 * 0.05 / runs)
    assert abs(covered / runs - 0.95) < slack + 0.01  # the reference law is approximate
    assert naive / runs < 0.9


@pytest.mark.parametrize("library", [lambda frame: frame, pl.from_pandas])
def test_a_statistic_is_taken_of_every_draw(library):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"draw": np.repeat([0, 1, 2], 40), "y": rng.normal(size=120)})

    def mean(part):
        assert list(part.columns) == ["y"]
        return part["y"].mean(), part["y"].var() / len(part)

    parts = [frame["y"][frame["draw"] == k] for k in range(3)]
    wanted = rv.pool([p.mean() for p in parts], [p.var() / 40 for p in parts], df=39)
    found = rv.pool_draws(library(frame), mean, df=39)
    assert found.estimate == pytest.approx(wanted.estimate)
    assert found.interval() == pytest.approx(wanted.interval())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rv.pool([1.0], [1.0]), "One draw says nothing"),
        (lambda: rv.pool([1.0, 2.0], [1.0]), "of one shape"),
        (lambda: rv.pool(1.0, 1.0), "of one shape"),
        (lambda: rv.pool([1.0, math.nan], [1.0, 1.0]), "finite estimates"),
        (lambda: rv.pool([1.0, 2.0], [1.0, -1.0]), "variances >= 0"),
        (lambda: rv.pool([1.0, 2.0], [1.0, 1.0], df=0), "degrees of freedom > 0"),
        (lambda: rv.pool([1.0, 2.0], [1.0, 1.0]).interval(95), "between 0 and 1"),
        (lambda: rv.pool_draws(pd.DataFrame({"y": [1.0]}), len), "first column numbers the draws"),
        (lambda: rv.pool_draws(pd.DataFrame(), len), "first column numbers the draws"),
    ],
)
def test_what_cannot_be_pooled_is_refused(make, said):
    with pytest.raises(rv.DataError, match=said):
        make()
