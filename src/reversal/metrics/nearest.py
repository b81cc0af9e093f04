r"""Nearest records: do synthetic rows lie nearer to the training rows than unseen real rows do?

The distance of two rows is Euclidean, with entries between 0 and 1 from every column,

.. math:: d(x, y)^2 = \sum_{j\ \text{numeric}} \big(F_j(x_j) - F_j(y_j)\big)^2
   + \sum_{j\ \text{discrete}} 1[x_j \ne y_j] + \sum_{j\ \text{numeric}} 1[\text{one is missing}] ,

where F_j is the empirical distribution function of the training rows, 1/2 for a gap: heavy tails
and units do not matter. A gap equals a gap, and is a value of its own in a discrete column.
Source: Wilson and Martinez (1997), J. Artif. Intell. Res. 6, HEOM, with ranks in the place of the
range; Efron (1979) for the bootstrap.

No figure here is a guarantee of privacy: a row can give a person away without being a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from reversal.metrics.intervals import Estimate, bootstrap
from reversal.metrics.recognition import Share
from reversal.metrics.rows import Rows, aligned

ENTRIES = 2**23  # of the matrix of distances that is held at once


@final
@dataclass(frozen=True)
class Nearest:
    """Distances of rows to the nearest training row.

    Args:
        synthetic: the distances ``(m,)`` of synthetic rows.
        holdout: those ``(h,)`` of real rows that were not trained on.
        synthetic_median: with its bootstrap interval.
        holdout_median: with its bootstrap interval.
        closer: the share of synthetic rows that are nearer to the training rows than to as many
            holdout rows; a tie counts half. 0.5 without memory.
        copies: synthetic rows that are the same as a training row.
        holdout_copies: holdout rows that are the same as a training row.
        close: synthetic rows nearer to a training row than 95 % of the holdout.
    """

    synthetic: np.ndarray
    holdout: np.ndarray
    synthetic_median: Estimate
    holdout_median: Estimate
    closer: Estimate
    copies: Share
    holdout_copies: Share
    close: Share


def nearest(
    train: Any, holdout: Any, synthetic: Any, *, most: int | None = None, seed: int = 0
) -> Nearest:
    """Compare the distances of synthetic rows to the training rows with those of a holdout.

    The share `Nearest.closer` is measured against as many training rows as there are holdout rows,
    drawn at random where there are more.

    Args:
        train: a frame, or `Rows`; its distribution functions are the units of distance.
        holdout: real rows that were not trained on.
        synthetic: rows of the model.
        most: how many rows of holdout and synthetic are looked up at most.
        seed: of the choice of rows and of the bootstrap.

    Raises:
        DataError: if the columns differ.

    Cost: O(most N C) for N training rows of C columns; intervals are given the training rows.
    """
    learned, unseen, made = aligned(train, holdout, synthetic)
    place = Places(learned)
    asked, found = (rows.draw(most or len(rows), seed) for rows in (unseen, made))
    own, theirs = (distances_to_nearest(place, rows, learned) for rows in (found, asked))
    size = min(len(learned), len(unseen))
    closer = _closer(place, found, learned.draw(size, seed), unseen.draw(size, seed))
    bound = np.quantile(theirs, 0.05) if len(theirs) else 0.0
    return Nearest(
        own,
        theirs,
        bootstrap(np.median, own, seed=seed),
        bootstrap(np.median, theirs, seed=seed),
        bootstrap(np.mean, closer, seed=seed),
        copies(made, learned),
        copies(unseen, learned),
        Share(int((own < bound).sum()), len(own)),
    )


@final
class Places:
    """Rows as points: ranks of numbers among those of a table, flags of gaps, and codes."""

    def __init__(self, rows: Rows) -> None:
        self.sorted = {
            column.name: np.sort(rows[column.name][~rows.missing(column.name)])
            for column in rows.schema.columns
            if not column.is_discrete
        }

    def real(self, rows: Rows) -> np.ndarray:
        """Return ranks in [0, 1] and flags of gaps, ``(n, 2 d)``, for the d numeric columns."""
        ranks = [_ranks(known, rows[name]) for name, known in self.sorted.items()]
        flags = [np.isnan(rows[name]).astype(np.float64) for name in self.sorted]
        return np.stack([*ranks, *flags], 1) if ranks else np.zeros((len(rows), 0))

    def codes(self, rows: Rows) -> np.ndarray:
        """Return the codes ``(n, c)`` of the discrete columns."""
        codes = [rows[c.name] for c in rows.schema.columns if c.is_discrete]
        return np.stack(codes, 1).astype(np.float64) if codes else np.zeros((len(rows), 0))


def distances_to_nearest(place: Places, rows: Rows, reference: Rows) -> np.ndarray:
    """Return the distance of each row ``(M,)`` to the nearest of a reference.

    Cost: O(M N C) time, O(M + 2^23) memory.
    """
    from scipy.spatial.distance import cdist

    real, codes = place.real(reference), place.codes(reference)
    x, k = place.real(rows), place.codes(rows)
    step = max(1, ENTRIES // max(1, len(reference)))
    found = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        squares = np.zeros((len(x[part]), len(reference)))
        if x.shape[1]:
            squares += cdist(x[part], real, "sqeuclidean")
        if k.shape[1]:
            squares += k.shape[1] * cdist(k[part], codes, "hamming")
        found.append(np.sqrt(squares.min(1)))
    return np.concatenate(found) if found else np.zeros(0)


def copies(rows: Any, reference: Any) -> Share:
    """Return how many rows are the same as a row of a reference in every column."""
    ours, theirs = aligned(rows, reference)
    if not len(ours) or not ours.schema.columns:
        return Share(0, len(ours))
    stacked = [
        np.nan_to_num(np.concatenate(pair), nan=np.inf)
        for pair in zip(ours.values, theirs.values, strict=True)
    ]
    ids = np.zeros(len(stacked[0]), np.int64)
    for column in stacked:
        codes = np.unique(column, return_inverse=True)[1]
        ids = np.unique(ids * (codes.max() + 1) + codes, return_inverse=True)[1]
    return Share(int(np.isin(ids[: len(ours)], ids[len(ours) :]).sum()), len(ours))


def _closer(place: Places, rows: Rows, train: Rows, holdout: Rows) -> np.ndarray:
    """Return 1 where a row is nearer to train than to holdout, 1/2 in a tie."""
    gap = distances_to_nearest(place, rows, holdout) - distances_to_nearest(place, rows, train)
    return (1 + np.sign(np.where(np.abs(gap) < 1e-12, 0.0, gap))) / 2


def _ranks(known: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the share of known numbers below each number, half of its equals; 1/2 for NaN."""
    below = np.searchsorted(known, numbers) + np.searchsorted(known, numbers, "right")
    return np.where(np.isnan(numbers), 0.5, below / max(1, 2 * len(known)))
