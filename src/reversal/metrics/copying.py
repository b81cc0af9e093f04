r"""Copying: do samples lie nearer to the training data than new data do?

.. math:: d(x) = \min_i \lVert x - x_i \rVert_2, \qquad
   \text{copied if}\quad \overline{d(\text{samples})} < \text{the bootstrap interval of }
   \overline{d(\text{holdout})} .

A model that hands out its training data has d = 0; one that learned the law has the distances of
data that it has never seen. Source: Efron (1979) for the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

ENTRIES = 2**22  # of the matrix of distances that is held at once


@final
@dataclass(frozen=True)
class Copying:
    """Distances to the nearest training datum, of samples and of a holdout.

    Args:
        samples: the mean over the samples.
        holdout: the mean over the holdout.
        low: the lower end of the bootstrap interval of the holdout's mean.
        high: its upper end.
        close: the share of samples nearer than 95 % of the holdout: near 0.05 without copying.
    """

    samples: float
    holdout: float
    low: float
    high: float
    close: float

    @property
    def is_copied(self) -> bool:
        """Whether the samples' mean lies below the interval."""
        return self.samples < self.low


def nearest_distances(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each point ``(M, *E)`` to the nearest of ``(N, *E)``.

    The differences themselves are squared and summed, so that the distance of a copy is exactly 0.

    Cost: O(M N E) time; O(M + 2^22) memory.
    """
    flat = reference.reshape(len(reference), -1).astype(np.float64)
    rows = points.reshape(len(points), -1).astype(np.float64)
    step = max(1, ENTRIES // max(1, flat.size))
    blocks = (rows[k : k + step, None] - flat for k in range(0, len(rows), step))
    found = [np.sqrt(np.einsum("mne,mne->mn", block, block).min(1)) for block in blocks]
    return np.concatenate(found) if found else np.zeros(0)


def copying(
    samples: np.ndarray,
    train: np.ndarray,
    holdout: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Copying:
    """Compare the distances of samples to the training data with those of a holdout.

    Args:
        samples: ``(M, *E)``.
        train: ``(N, *E)``.
        holdout: ``(H, *E)``, real data that the model has not seen.
        level: of the interval, by bootstrap percentiles.
        resamples: the number of bootstrap resamples.
        seed: of the resampling.
    """
    own, unseen = nearest_distances(samples, train), nearest_distances(holdout, train)
    random = np.random.default_rng(seed)
    chosen = random.integers(len(unseen), size=(resamples, len(unseen)))
    low, high = np.quantile(unseen[chosen].mean(1), [(1 - level) / 2, (1 + level) / 2])
    close = float((own < np.quantile(unseen, 0.05)).mean())
    return Copying(float(own.mean()), float(unseen.mean()), float(low), float(high), close)
