"""Training on rows of the law is as good as training on real ones; on broken rows it is not."""

import numpy as np
import pandas as pd
import pytest

from reversal.errors import DataError
from reversal.metrics import aligned, utility
from reversal.metrics.utility import default_target


def rows(n, seed, classes=2):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 2))
    logits = x[:, :1] * np.linspace(-2, 2, classes)
    label = (logits + random.gumbel(size=(n, classes))).argmax(1)
    return pd.DataFrame(
        {"a": x[:, 0], "b": x[:, 1], "label": [f"k{k}" for k in label], "total": x.sum(1)}
    )


def broken(table, seed=0):
    """Return a table whose columns do not know of each other."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({name: random.permutation(table[name].to_numpy()) for name in table})


@pytest.mark.parametrize(
    ("target", "classes", "score"),
    [("label", 2, "AUC"), ("label", 4, "accuracy"), ("total", 2, "R2")],
)
def test_rows_of_the_law_lose_nothing_and_broken_ones_all(target, classes, score):
    train, same, test = (rows(300, seed, classes) for seed in range(3))
    equal = utility(train, same, test, target)
    assert equal.score == score
    assert equal.loss.low < 0.05
    assert equal.loss.value == pytest.approx(equal.real.value - equal.synthetic.value)
    assert equal.real.low < equal.real.value < equal.real.high
    ruined = utility(train, broken(same), test, target)
    assert ruined.real == equal.real
    assert ruined.loss.low > 0.1


def test_the_best_auc_is_that_of_the_law():
    """p(k1 | a) = 1 / (1 + exp(-4 a)), whose AUC is read off a large sample."""
    train, test = rows(2000, 0), rows(2000, 1)
    found = utility(train, train, test, "label")
    large = rows(200_000, 2)
    order = large["a"].rank()
    k1 = large["label"] == "k1"
    m, n = k1.sum(), (~k1).sum()
    best = (order[k1].sum() - m * (m + 1) / 2) / (m * n)
    assert found.real.low - 0.03 < best < found.real.high + 0.03
    assert found.loss.value == 0


def test_the_default_target_is_the_last_column_of_few_values():
    table = rows(50, 0)
    assert default_target(aligned(table)[0].schema) == "label"
    assert default_target(aligned(table.drop(columns="label"))[0].schema) == "total"
    assert utility(table, table, table).target == "label"


def test_one_class_or_gaps_in_the_target_are_no_harm():
    train, test = rows(60, 0), rows(60, 1)
    same = utility(train, train.assign(label="k0"), test, "label")
    assert same.synthetic.value == 0.5
    gaps = train.assign(label=train["label"].where(train.index % 2 == 0))
    assert utility(gaps, train, test, "label").learned == (30, 60)
    none = utility(train, train.assign(label=None), test, "label")
    assert none.learned == (60, 0)
    assert none.synthetic.value == 0.5


def test_what_cannot_be_predicted_is_refused():
    table = rows(40, 0)
    with pytest.raises(DataError, match="nothing"):
        utility(table, table, table, "nothing")
    with pytest.raises(DataError, match="another column"):
        utility(table[["label"]], table[["label"]], table[["label"]])
