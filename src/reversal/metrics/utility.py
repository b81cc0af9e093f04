r"""Utility: does a predictor that learned from synthetic rows serve on real ones?

Gradient boosting learns a column from all others, once from real rows and once from as many
synthetic rows, and both are scored on the same unseen real rows: by the area under the curve where
the column has two values, by accuracy where it has more, and by

.. math:: R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

where it is numeric. Intervals are bootstrap percentiles over the rows of the test, those of the
difference over the same resamples of both. Source: Esteban, Hyland and Raetsch (2017), "train on
synthetic, test on real"; Efron (1979).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from reversal.errors import DataError
from reversal.metrics.columns import Discrete
from reversal.metrics.intervals import Estimate, bootstrap
from reversal.metrics.rows import Rows, Schema, aligned
from reversal.metrics.two_sample import boosting, features

MOST_CLASSES = 20
MOST_TESTED = 10_000
"""How many rows of the test are resampled, at most."""


@final
@dataclass(frozen=True)
class Utility:
    """Scores on unseen real rows.

    Args:
        target: the column that is learned.
        score: its name: "AUC", "accuracy" or "R2"; more is better.
        real: of the classifier or regression that learned from real rows.
        synthetic: of the one that learned from synthetic rows.
        loss: real minus synthetic, on the same resamples.
        learned: the number of rows that each was trained on, of real and of synthetic.
        tested: the number of rows they were scored on.
    """

    target: str
    score: str
    real: Estimate
    synthetic: Estimate
    loss: Estimate
    learned: tuple[int, int]
    tested: int


def utility(
    train: Any, synthetic: Any, test: Any, target: str | None = None, *, seed: int = 0
) -> Utility:
    """Return how well a column is predicted after training on real and on synthetic rows.

    Args:
        train: a frame of real rows, or `Rows`; cut at random to as many rows as ``synthetic`` has.
        synthetic: rows of the model.
        test: real rows that neither saw.
        target: the column; by default that of `default_target`.
        seed: of the choice of rows, of the boosting and of the bootstrap.

    Raises:
        DataError: if the columns differ, there is one alone, or there is no such target.

    Cost: two gradient boostings of at most 100 trees, one per class of a target of many classes.
    """
    rows = aligned(train, synthetic, test)
    schema = rows[0].schema
    name = default_target(schema) if target is None else target
    place = schema.place(name)
    if len(schema.columns) < 2:
        raise DataError("Expected another column to predict from, got one. There is no utility.")
    size = min(len(rows[0]), len(rows[1]))
    known = [r.take(~r.missing(name)) for r in (rows[0].draw(size, seed), rows[1].draw(size, seed))]
    tested = rows[2].take(~rows[2].missing(name)).draw(MOST_TESTED, seed)
    task = _task(schema, name, known[0])
    X, is_category = features(*known, tested)
    inputs = np.delete(X, place, 1), np.delete(is_category, place)
    ends = np.cumsum([len(known[0]), len(known[1])])
    parts = np.split(inputs[0], ends)
    truth = tested[name]
    scored = [
        task.predictions(part, r[name], parts[2], inputs[1], seed)
        for part, r in zip(parts, known, strict=False)
    ]
    return Utility(
        name,
        task.score,
        bootstrap(task.value, truth, scored[0], seed=seed),
        bootstrap(task.value, truth, scored[1], seed=seed),
        bootstrap(lambda y, a, b: task.value(y, a) - task.value(y, b), truth, *scored, seed=seed),
        (len(known[0]), len(known[1])),
        len(tested),
    )


def default_target(schema: Schema) -> str:
    """Return the last discrete column of at most `MOST_CLASSES` values, or the last numeric one.

    Raises:
        DataError: if there is neither.
    """
    discrete = [
        c.name for c in schema.columns if isinstance(c, Discrete) and len(c.labels) <= MOST_CLASSES
    ]
    numeric = [c.name for c in schema.columns if not c.is_discrete]
    for names in (discrete, numeric):
        if names:
            return names[-1]
    raise DataError("Expected a column to predict, got none of few values and no number.")


class Task(ABC):
    """What is learned of a column, and how predictions are scored."""

    score: ClassVar[str]

    @abstractmethod
    def predictions(
        self, X: np.ndarray, y: np.ndarray, asked: np.ndarray, is_category: np.ndarray, seed: int
    ) -> np.ndarray:
        """Return predictions ``(m,)`` for rows ``asked`` after learning from X and y."""

    @abstractmethod
    def value(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        """Return the score of predictions ``(m,)``."""


@final
class TwoClasses(Task):
    """A column of two values, scored by the area under the curve."""

    score: ClassVar[str] = "AUC"

    def __init__(self, positive: int) -> None:
        self.positive = positive

    def predictions(
        self, X: np.ndarray, y: np.ndarray, asked: np.ndarray, is_category: np.ndarray, seed: int
    ) -> np.ndarray:
        truth = y == self.positive
        if truth.all() or not truth.any():
            return np.zeros(len(asked))
        return boosting(is_category, seed).fit(X, truth).decision_function(asked)

    def value(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        from scipy.stats import rankdata

        is_positive = truth == self.positive
        m, n = int(is_positive.sum()), int((~is_positive).sum())
        if not (m and n):
            return float("nan")
        return float((rankdata(predicted)[is_positive].sum() - m * (m + 1) / 2) / (m * n))


@final
class Classes(Task):
    """A column of several values, scored by the share of right predictions."""

    score: ClassVar[str] = "accuracy"

    def predictions(
        self, X: np.ndarray, y: np.ndarray, asked: np.ndarray, is_category: np.ndarray, seed: int
    ) -> np.ndarray:
        if len(np.unique(y)) < 2:
            return np.full(len(asked), y[0] if len(y) else -1)
        return boosting(is_category, seed).fit(X, y).predict(asked)

    def value(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        return float((truth == predicted).mean())


@final
class Regression(Task):
    """A numeric column, scored by the share of its variance that is explained."""

    score: ClassVar[str] = "R2"

    def predictions(
        self, X: np.ndarray, y: np.ndarray, asked: np.ndarray, is_category: np.ndarray, seed: int
    ) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingRegressor

        if len(y) < 2:
            return np.full(len(asked), y.mean() if len(y) else 0.0)
        regression = HistGradientBoostingRegressor(
            categorical_features=is_category,  # pyright: ignore[reportArgumentType]
            random_state=seed,
        )
        return regression.fit(X, y).predict(asked)

    def value(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        spread = ((truth - truth.mean()) ** 2).sum()
        return float(1 - ((truth - predicted) ** 2).sum() / spread) if spread else float("nan")


def _task(schema: Schema, name: str, rows: Rows) -> Task:
    column = schema.columns[schema.place(name)]
    if not isinstance(column, Discrete):
        return Regression()
    counts = np.bincount(rows[name], minlength=len(column.labels))
    if len(column.labels) != 2:
        return Classes()
    return TwoClasses(int(counts.argmin()))
