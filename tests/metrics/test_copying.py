"""Distances to the nearest training datum, and the verdict that they allow."""

import numpy as np
import pytest

from reversal.metrics import copying, nearest_distances


def normal(seed, n):
    return np.random.default_rng(seed).normal(size=(n, 2, 3))


def test_distances_agree_with_the_definition_in_whatever_blocks(monkeypatch):
    points, reference = normal(0, 17), normal(1, 23)
    wanted = np.linalg.norm((points[:, None] - reference).reshape(17, 23, 6), axis=2).min(1)
    for entries in (1, 1000, 2**22):
        monkeypatch.setitem(nearest_distances.__globals__, "ENTRIES", entries)
        np.testing.assert_allclose(nearest_distances(points, reference), wanted, rtol=1e-14)


def test_a_copy_has_distance_zero_and_is_reported():
    train = 1e4 + normal(0, 50)
    np.testing.assert_array_equal(nearest_distances(train, train), 0)
    found = copying(train, train, 1e4 + normal(1, 50))
    assert found.samples == 0
    assert found.is_copied
    assert found.close == 1


def test_draws_from_the_law_are_no_copies():
    """The lower end at level 1 - 2e-4 fails for draws of the same law at a rate of about 1e-4."""
    found = copying(
        normal(2, 10_000), normal(0, 300), normal(1, 300), level=1 - 2e-4, resamples=20_000
    )
    assert not found.is_copied
    assert found.close == pytest.approx(0.05, abs=0.05)


def test_nearness_beyond_the_interval_is_reported():
    train = normal(0, 500)
    near = train + 0.5 * normal(3, 500)
    assert copying(near, train, normal(1, 500)).is_copied


def test_the_interval_covers_the_mean_and_depends_on_the_seed_alone():
    train, holdout = normal(0, 100), normal(1, 100)
    first, again = (copying(normal(2, 9), train, holdout, seed=7) for _ in range(2))
    assert first == again
    assert first.low < first.holdout < first.high
