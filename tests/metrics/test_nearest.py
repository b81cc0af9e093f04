"""Copies are found where there are any, and nowhere else."""

import numpy as np
import pandas as pd
import pytest

from reversal.metrics import aligned, copies, nearest
from reversal.metrics.nearest import Places, distances_to_nearest


def rows(n, seed):
    random = np.random.default_rng(seed)
    number = random.normal(size=n)
    number[random.random(n) < 0.1] = np.nan
    return pd.DataFrame(
        {"x": number, "y": random.exponential(size=n), "k": random.choice(list("abc"), n)}
    )


def test_the_distance_is_the_formula():
    train = pd.DataFrame({"x": [0.0, 1, 2, 3], "k": list("aabb")})
    asked = pd.DataFrame({"x": [1.0, np.nan, 2.5], "k": ["a", "b", "c"]})
    learned, unseen = aligned(train, asked)
    found = distances_to_nearest(Places(learned), unseen, learned)
    ranks = np.array([1, 3, 5, 7]) / 8
    wanted = [
        0.0,
        min((0.5 - ranks) ** 2 + 1 + np.array([1, 1, 0, 0])) ** 0.5,
        min((0.75 - ranks) ** 2 + 1) ** 0.5,
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_monotone_map_of_a_column_changes_nothing():
    tables = [rows(80, seed) for seed in range(3)]
    bent = [table.assign(y=np.exp(3 * table["y"])) for table in tables]
    np.testing.assert_allclose(nearest(*tables).synthetic, nearest(*bent).synthetic, atol=1e-12)


def test_a_model_that_hands_out_its_training_rows_is_caught():
    train, holdout = rows(400, 0), rows(400, 1)
    found = nearest(train, holdout, train.sample(300, random_state=0))
    assert found.synthetic_median == (0, 0, 0)
    assert found.copies.value == found.close.value == found.closer.value == 1
    assert found.holdout_copies.hits == 0
    assert found.holdout_median.low > 0


def test_rows_of_the_law_are_as_near_to_either():
    """At failure rate 1e-4: the share that is nearer to train is a mean of 500 fair coins."""
    found = nearest(rows(500, 0), rows(500, 1), rows(500, 2))
    assert abs(found.closer.value - 0.5) < 3.9 * 0.5 / 500**0.5 * 2**0.5
    assert found.copies.hits == found.holdout_copies.hits == 0
    assert found.close.value < 0.05 + 3.9 * (0.05 / 500) ** 0.5 * 2**0.5
    assert found.synthetic_median.low < found.holdout_median.high
    assert found.holdout_median.low < found.synthetic_median.high


def test_copies_are_whole_rows_and_a_gap_equals_a_gap():
    real = pd.DataFrame({"x": [1.0, np.nan, 3], "k": ["a", "b", None]})
    made = pd.DataFrame({"x": [np.nan, 3, 1.0, 1.0], "k": ["b", None, "a", "b"]})
    assert (copies(made, real).hits, copies(made, real).total) == (3, 4)


def test_few_rows_or_none_give_wide_intervals_or_none():
    train = rows(30, 0)
    one = nearest(train, rows(1, 1), rows(1, 2))
    assert one.copies.interval()[1] > 0.75
    empty = nearest(train, rows(5, 1), rows(0, 2))
    assert np.isnan(empty.synthetic_median.value)
    assert np.isnan(empty.copies.value)


def test_a_table_of_words_alone():
    train = pd.DataFrame({"k": list("aabb"), "l": list("xyxy")})
    asked = pd.DataFrame({"k": list("abc"), "l": list("xyz")})
    assert nearest(train, asked, asked).synthetic == pytest.approx([0, 0, 2**0.5])
