"""The Wilson interval is the set of probabilities that a score test does not reject."""

import numpy as np
import pytest

from reversal.metrics import Share, recognition


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (1, 1), (3, 10), (955, 1000), (497, 497)])
def test_the_ends_of_the_interval_stand_at_z_standard_errors(hits, total):
    share = Share(hits, total)
    for end in share.interval(0.95):
        if 0 < end < 1:
            score = (share.value - end) / np.sqrt(end * (1 - end) / total)
            assert abs(score) == pytest.approx(1.959963984540054, rel=1e-9)
    low, high = share.interval(0.95)
    assert low <= share.value <= high


def test_nothing_tried_tells_nothing():
    assert Share(0, 0).interval() == (0.0, 1.0)
    assert np.isnan(Share(0, 0).value)


def test_a_fair_reader_recognizes_what_it_was_asked_and_nothing_else():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    train = random.normal(size=(200, 1, 2, 2)) + 20.0 * labels[:, None, None, None]
    assert recognition(train, labels, train, labels) == Share(200, 200)
    assert recognition(train, labels, train, 1 - labels) == Share(0, 200)
