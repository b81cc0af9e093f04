"""Simulation-based calibration: the band has its level, and sees what is wrong with posteriors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from reversal.errors import DataError
from reversal.metrics import band, sbc

DRAWS = 99


def conjugate(num: int, seed: int, *, narrow: float = 1.0, shift: float = 0.0):
    """Draws and truths of theta ~ N(0, 1), xi | theta ~ N(theta, 1): posterior N(xi / 2, 1 / 2)."""
    random = np.random.default_rng(seed)
    theta = random.normal(size=(num, 2))
    mean = (theta + random.normal(size=theta.shape)) / 2 + shift
    return mean + narrow * 0.5**0.5 * random.normal(size=(DRAWS, num, 2)), theta


def probability(n: int, low: np.ndarray, high: np.ndarray, count: int) -> float:
    """The multinomial probability that the running counts of n numbers stay inside, by listing."""
    inside = 0.0
    for cells in product(range(n + 1), repeat=count):
        running = np.cumsum(cells)
        if running[-1] == n and np.all((running[:-1] >= low) & (running[:-1] <= high)):
            inside += stats.multinomial.pmf(cells, n, [1 / count] * count)
    return inside


@pytest.mark.parametrize(("n", "rate"), [(4, 0.3), (6, 0.2), (6, 0.02)])
def test_the_band_is_the_narrowest_of_its_family_that_has_its_level(n, rate):
    found = band(n, rate, points=4)
    low, high = (found.low * n).round().astype(int), (found.high * n).round().astype(int)
    assert probability(n, low, high, 4) >= 1 - rate
    levels = np.unique(
        [
            2 * tail
            for t in found.points
            for tail in (*stats.binom.cdf(np.arange(n), n, t), *stats.binom.sf(np.arange(n), n, t))
        ]
    )
    for gamma in levels:
        ends = [
            end(gamma * (1 - 1e-9) / 2, n, found.points)
            for end in (stats.binom.ppf, stats.binom.isf)
        ]
        if (
            np.all(ends[0] >= low)
            and np.all(ends[1] <= high)
            and not (np.array_equal(ends[0], low) and np.array_equal(ends[1], high))
        ):
            assert probability(n, *ends, 4) < 1 - rate


def test_uniform_numbers_leave_the_band_as_often_as_declared():
    random, rate, tries = np.random.default_rng(0), 0.1, 3000
    found = band(200, rate)
    u = random.random((tries, 200))
    shares = (u[:, :, None] < found.points).mean(1)
    left = int(((shares < found.low - 1e-12) | (shares > found.high + 1e-12)).any(1).sum())
    assert stats.binom.sf(left - 1, tries, rate) > 1e-4
    assert left > 0.5 * rate * tries  # binomial quantiles are whole: the level is not used up


def test_exact_posteriors_are_calibrated():
    assert sbc(*conjugate(400, 0), rate=1e-4).is_calibrated
    wrong = sum(not sbc(*conjugate(100, seed), rate=0.1).is_calibrated for seed in range(60))
    assert stats.binom.sf(wrong - 1, 60, 0.1) > 1e-4


@pytest.mark.parametrize("fault", [{"narrow": 0.8}, {"narrow": 1.25}, {"shift": 0.2}], ids=str)
def test_posteriors_too_narrow_too_wide_or_biased_are_not(fault):
    """A fifth of a standard deviation, or of its size, at a rate of one in ten thousand."""
    found = sbc(*conjugate(1000, 1, **fault), rate=1e-4)
    assert not found.are_uniform.any()


def test_too_narrow_posteriors_miss_the_truth_on_both_sides():
    found = sbc(*conjugate(1000, 2, narrow=0.8))
    assert (found.shares[0] > found.band.high[0]).all()
    assert (found.shares[-1] < found.band.low[-1]).all()


def test_one_fault_is_found_in_the_parameter_that_has_it():
    draws, truth = conjugate(1000, 3)
    draws[..., 1] += 0.2
    assert sbc(draws, truth).are_uniform.tolist() == [True, False]


def test_draws_that_tie_with_the_truth_are_calibrated():
    random = np.random.default_rng(0)
    values = random.integers(3, size=(6, 500, 1))
    assert sbc(values[1:], values[0], rate=1e-4).is_calibrated


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"Expected draws \(L, N, d\)"):
        sbc(np.zeros((4, 3)), np.zeros((4, 3)))
    with pytest.raises(DataError, match="Expected n >= 1"):
        band(0, 0.1)
    assert band(1, 0.1).low.shape == (1,)
