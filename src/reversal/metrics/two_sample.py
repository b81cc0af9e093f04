r"""Two samples: can a classifier tell real rows from others?

Gradient boosting learns to tell m rows of either table; the rows of each fold are scored by a
classifier that has not seen them, and

.. math:: \hat A = \frac1K \sum_k \hat A_k , \qquad
   \operatorname{Var} \hat A \approx c\, \frac1{K^2} \sum_k \operatorname{Var} \hat A_k ,
   \qquad c = 1 + \frac{K}{K - 1}

is the mean area under the curve of K folds with DeLong's variances. 0.5 means that the classifier
found no difference, 1 that it tells all apart. The factor c allows for what the folds share: their
classifiers are trained on each other's rows. Source: Friedman (2003) and Lopez-Paz and Oquab (2017)
for the test, Nadeau and Bengio (2003), eq. (9), for the factor 1 + K n_test / n_train.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reversal.metrics.intervals import LEVEL, Estimate, auc_variance, normal_interval
from reversal.metrics.rows import Rows, aligned

MOST_CODES = 200
"""How many values of a category gradient boosting tells apart; rarer ones count as one."""


def c2st(
    real: Any,
    other: Any,
    *,
    most: int | None = None,
    folds: int = 3,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Return how well gradient boosting tells two tables apart, as the area under its curve.

    Categories are categorical features, gaps are told from values, dates are numbers.

    Args:
        real: a frame, or `Rows`.
        other: a frame with the same columns, or `Rows` of the same schema.
        most: how many rows of either are used at most; always the same number of both.
        folds: of the cross-validation.
        level: of the interval.
        seed: of the choice of rows, of the folds and of the classifier.

    Returns:
        NaN in [0, 1] where a fold would be empty.

    Raises:
        DataError: if the columns differ.

    Cost: ``folds`` gradient boostings of at most 100 trees.
    """
    from sklearn.model_selection import StratifiedKFold

    pair = aligned(real, other)
    size = min(len(pair[0]), len(pair[1]), *([] if most is None else [most]))
    if size < 2 * folds or not pair[0].schema.columns:
        return Estimate(float("nan"), 0.0, 1.0)
    drawn = [rows.draw(size, seed + k) for k, rows in enumerate(pair)]
    X, is_category = features(*drawn)
    y = np.repeat([0, 1], size)
    found = []
    for learned, scored in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, y):
        classifier = boosting(is_category, seed).fit(X[learned], y[learned])
        scores = classifier.decision_function(X[scored])
        found.append(auc_variance(scores[y[scored] == 1], scores[y[scored] == 0]))
    values, variances = np.array(found).T
    shared = 1 + folds / (folds - 1)
    return normal_interval(
        float(values.mean()), float(shared * variances.sum() / folds**2), level=level
    )


def boosting(is_category: np.ndarray, seed: int) -> Any:
    """Return scikit-learn's gradient boosting with its defaults.

    Args:
        is_category: which of the C features are categories, bool ``(C,)``.
        seed: of its choice of rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        categorical_features=is_category,  # pyright: ignore[reportArgumentType]
        random_state=seed,
    )


def features(*tables: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of tables one below the other as gradient boosting reads them.

    Args:
        tables: rows of one schema.

    Returns:
        Numbers ``(n, C)``, NaN where missing, and which of the C columns are categories.
    """
    columns = tables[0].schema.columns
    parts = []
    for column in columns:
        values = np.concatenate([rows[column.name] for rows in tables])
        if column.is_discrete:
            values = np.where(values < 0, np.nan, _frequent(values))
        parts.append(values)
    return np.stack(parts, 1), np.array([column.is_discrete for column in columns])


def _frequent(codes: np.ndarray) -> np.ndarray:
    """Return codes below `MOST_CODES`, the most frequent first; all others share the last."""
    values, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(-counts * (values >= 0), kind="stable")] = np.arange(len(values))
    return np.minimum(ranks, MOST_CODES - 1)[places]
