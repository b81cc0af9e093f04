r"""What the loss over present entries assumes of gaps: docs/missing.md, number by number.

Two booleans, P(x) = 1/2, P(y | x) = 0.8 and P(y | not x) = 0.2, so that P(y) = 1/2. Whether y is
missing depends on x alone, with probability 0.8 where x holds and 0.1 elsewhere: missing at random.
Among complete rows P(x) = 0.1 / 0.55 and P(y) = 0.8 0.1818 + 0.2 0.8182.
"""

import numpy as np
import pandas as pd
import pytest

import reversal as rv

N = 3000
COMPLETE_X = 0.1 / 0.55
COMPLETE_Y = 0.8 * COMPLETE_X + 0.2 * (1 - COMPLETE_X)
PLAN = {"hidden_features": 32, "num_blocks": 1, "dropout": 0.0, "show_progress": False}
SLACK = 0.06
"""What training leaves; the biases below are 0.19 and more."""


def frame(at_random=True):
    rng = np.random.default_rng(0)
    x = rng.random(N) < 0.5
    y = rng.random(N) < np.where(x, 0.8, 0.2)
    gone = rng.random(N) < (np.where(x, 0.8, 0.1) if at_random else 0.45)
    return pd.DataFrame({"x": x, "y": pd.array(np.where(gone, None, y), dtype="boolean")})


def fitted(data):
    return rv.Model(steps=700, learning_rate=5e-3, **PLAN).fit(data)


@pytest.fixture(scope="module")
def model():
    return fitted(frame())


def share(frame, name):
    return float(frame[name].astype(float).mean())


@pytest.mark.slow
def test_under_mar_what_is_asked_given_the_cause_of_the_gaps_is_right(model):
    """p(y | x) is learned from complete rows, and they have the right one."""
    for x, truth in ((True, 0.8), (False, 0.2)):
        assert model.probability({"y": rv.one_of(True), "x": x}).prob == pytest.approx(
            truth, abs=SLACK
        )
    filled = model.impute(frame(), draws=5)
    assert share(filled, "y") == pytest.approx(0.5, abs=SLACK / 2)


@pytest.mark.slow
def test_under_mar_samples_have_the_law_of_the_complete_rows(model):
    drawn = model.sample(4000, steps=30)
    assert share(drawn, "x") == pytest.approx(COMPLETE_X, abs=SLACK)
    assert share(drawn, "y") == pytest.approx(COMPLETE_Y, abs=SLACK)


@pytest.mark.slow
def test_under_mar_a_marginal_has_the_law_of_the_rows_that_show_it_alone(model):
    """y alone is learned from rows that have it; x alone mostly from rows without y."""
    assert model.probability({"y": rv.one_of(True)}).prob == pytest.approx(COMPLETE_Y, abs=SLACK)
    assert model.probability({"x": rv.one_of(True)}).prob > 0.5 + SLACK


@pytest.mark.slow
def test_under_mar_a_fit_to_an_imputed_table_is_right(model):
    """The cure: fill the gaps given what causes them, then learn the joint law."""
    again = fitted(model.impute(frame(), draws=1).drop(columns="draw"))
    drawn = again.sample(4000, steps=30)
    assert share(drawn, "x") == pytest.approx(0.5, abs=SLACK)
    assert share(drawn, "y") == pytest.approx(0.5, abs=SLACK)
    both = float((drawn["x"].astype(bool) & drawn["y"].astype(bool)).mean())
    assert both == pytest.approx(0.4, abs=SLACK)


@pytest.mark.slow
def test_under_mcar_samples_and_marginals_are_right():
    model = fitted(frame(at_random=False))
    drawn = model.sample(4000, steps=30)
    for name in ("x", "y"):
        assert share(drawn, name) == pytest.approx(0.5, abs=SLACK)
        found = model.probability({name: rv.one_of(True)}).prob
        assert found == pytest.approx(0.5, abs=SLACK)
