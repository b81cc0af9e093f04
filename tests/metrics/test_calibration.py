"""Calibrated predictions are found to be so at the declared rate, others are not."""

import numpy as np
import pytest
from scipy import stats

from reversal.metrics import covered, crps, energy_distance, pit, reliability


def predictions(n, seed, sharper=1.0):
    """Return probabilities and outcomes drawn from them, then made sharper than they are."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    outcomes = (true.cumsum(1) < random.random((n, 1))).sum(1).clip(max=2)
    said = true**sharper
    return said / said.sum(1, keepdims=True), outcomes


def test_a_calibrated_model_is_calibrated_and_a_sure_one_is_not():
    misses = sum(not reliability(*predictions(500, seed)).is_calibrated for seed in range(30))
    assert stats.binom.sf(misses - 1, 30, 0.025) > 1e-4
    sure = reliability(*predictions(2000, 0, sharper=3.0))
    assert not sure.is_calibrated
    assert sure.error.low > sure.expected.high


def test_the_error_of_one_bin_is_the_gap_of_confidence_and_hits():
    probabilities = np.tile([0.8, 0.2], (10, 1))
    found = reliability(probabilities, np.array([0] * 6 + [1] * 4))
    assert found.error.value == pytest.approx(0.2)
    assert found.confidence == pytest.approx((0.8,))
    assert (found.hits[0].hits, found.hits[0].total) == (6, 10)


def test_bins_hold_equal_numbers():
    found = reliability(*predictions(500, 0))
    assert [share.total for share in found.hits] == [50] * 10
    assert list(found.confidence) == sorted(found.confidence)
    assert np.isnan(reliability(np.zeros((0, 2)), np.zeros(0, int)).error.value)


@pytest.mark.parametrize("draws", [1, 4, 19])
@pytest.mark.parametrize("digits", [0, 6])
def test_the_transform_is_uniform_with_any_number_of_draws_and_ties(draws, digits):
    random = np.random.default_rng(draws)
    values = random.normal(size=(draws + 1, 4000)).round(digits)
    u = pit(values[1:], values[0])
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    for level in (0.5, 0.9):
        share = covered(u, level)
        assert stats.binomtest(share.hits, share.total, level).pvalue > 1e-4


def test_draws_that_are_too_narrow_do_not_cover():
    random = np.random.default_rng(0)
    u = pit(0.5 * random.normal(size=(20, 2000)), random.normal(size=2000))
    assert covered(u, 0.9).interval()[1] < 0.75


def test_crps_of_a_normal_law_is_its_closed_form():
    """Gneiting and Raftery (2007): E CRPS of N(0, 1) at 0 is (sqrt 2 - 1) / sqrt pi."""
    draws = np.random.default_rng(0).normal(size=(40, 20_000))
    found = crps(draws, np.zeros(20_000))
    wanted = (2**0.5 - 1) / np.pi**0.5
    assert abs(found.mean() - wanted) < 3.9 * found.std() / 20_000**0.5
    pairs = np.abs(draws[:, None, :5] - draws[None, :, :5]).sum((0, 1)) / (40 * 39)
    np.testing.assert_allclose(found[:5], np.abs(draws[:, :5]).mean(0) - pairs / 2, atol=1e-12)
    assert crps(np.array([[3.0]]), np.array([1.0])) == [2.0]


def test_energy_distance_of_points_and_of_a_shift():
    """Of uniform laws E|X - Y - s| = 1/3 + s^2 - s^3 / 3, so that s = 1/2 gives 5/12."""
    assert energy_distance(np.zeros(5), np.ones((4, 1))) == pytest.approx(2)
    x = np.random.default_rng(0).random(1500)
    y = np.random.default_rng(1).random(1500)
    assert abs(energy_distance(x, y)) < 0.003
    assert energy_distance(x, y + 0.5) == pytest.approx(5 / 12, abs=0.05)
