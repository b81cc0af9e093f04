"""The classifier test finds what is different, and covers 1/2 at its rate where nothing is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reversal.metrics import auc, c2st
from reversal.metrics.intervals import auc_variance, bootstrap
from reversal.metrics.two_sample import MOST_CODES


def mixed(n, seed, shift=0.0):
    random = np.random.default_rng(seed)
    number = random.normal(size=n)
    word = np.where(number + random.normal(size=n) > 0, "up", "down")
    number[random.random(n) < 0.1] = np.nan
    return pd.DataFrame({"number": number + shift, "word": word})


def test_auc_is_the_share_of_pairs_in_order_and_a_tie_counts_half():
    random = np.random.default_rng(0)
    x, y = random.integers(6, size=40), random.integers(5, size=60)
    pairs = np.sign(x[:, None] - y).mean() / 2 + 0.5
    value, variance = auc_variance(x, y)
    assert value == pytest.approx(pairs, abs=1e-12)
    psi = (1 + np.sign(x[:, None] - y)) / 2
    wanted = psi.mean(1).var(ddof=1) / 40 + psi.mean(0).var(ddof=1) / 60
    assert variance == pytest.approx(wanted, abs=1e-12)


def test_delong_covers_the_area_of_two_normal_laws():
    """N(1, 1) against N(0, 1) has the area Phi(1 / sqrt 2); coverage 95 % at failure rate 1e-4."""
    random, truth, trials = np.random.default_rng(1), stats.norm.cdf(0.5**0.5), 800
    found = [auc(1 + random.normal(size=80), random.normal(size=120)) for _ in range(trials)]
    hits = sum(low <= truth <= high for _, low, high in found)
    assert stats.binomtest(hits, trials, 0.95).pvalue > 1e-4


def test_areas_of_nothing_are_unknown():
    assert np.isnan(auc(np.zeros(0), np.ones(3)).value)
    assert auc(np.ones(1), np.zeros(1)) == (1.0, 0.0, 1.0)


def test_the_bootstrap_interval_of_a_mean_is_its_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    value, low, high = bootstrap(np.mean, values, resamples=4000)
    assert value == values.mean()
    assert (high - low) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert np.isnan(bootstrap(np.mean, np.zeros(0))).all()


def test_equal_laws_are_covered_at_the_declared_rate():
    """The interval is conservative: it misses 1/2 at most as often as declared, rate 1e-4."""
    trials = 20
    found = [c2st(mixed(150, k), mixed(150, 1000 + k), seed=k) for k in range(trials)]
    misses = sum(not low <= 0.5 <= high for _, low, high in found)
    assert stats.binom.sf(misses - 1, trials, 0.05) > 1e-4
    mean = np.mean([value for value, *_ in found])
    assert abs(mean - 0.5) < stats.norm.isf(5e-5) * 0.05 / trials**0.5


def test_separable_laws_are_told_apart_whatever_separates_them():
    words = pd.DataFrame({"word": ["a", "b"] * 60, "number": [0.0] * 60 + [1.0] * 60})
    assert c2st(mixed(150, 0), mixed(150, 1, shift=20)).value > 0.9
    assert c2st(words, words.assign(word=["c", "d"] * 60)).value == 1
    assert c2st(words, words.assign(word=[None, "a"] * 60)).value > 0.7
    days = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=120)})
    assert c2st(days, days + pd.Timedelta(days=400)).value == 1


def test_equal_numbers_of_rows_a_seed_and_many_categories():
    many = pd.DataFrame({"k": [f"k{n % (2 * MOST_CODES)}" for n in range(3 * MOST_CODES)]})
    assert c2st(many, many, most=300).value == pytest.approx(0.5, abs=0.1)
    first, second = mixed(400, 0), mixed(400, 1)
    assert c2st(first, second, most=90, seed=3) == c2st(first, second, most=90, seed=3)
    assert c2st(first, second, most=90, seed=3) != c2st(first, second, most=90, seed=4)
    one_sided = c2st(mixed(1000, 0), mixed(60, 1))
    assert one_sided.low <= 0.5 <= one_sided.high


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_too_few_rows_say_nothing(rows):
    value, low, high = c2st(mixed(100, 0), mixed(100, 1).head(rows))
    assert np.isnan(value)
    assert (low, high) == (0, 1)
