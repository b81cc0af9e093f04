r"""Calibration: does what a model says with probability p happen with frequency p?

*Probabilities.* The predictions of the likeliest class are cut into bins of equal numbers, and

.. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \lvert \text{hits}_b - \text{confidence}_b \rvert .

It is above 0 for a calibrated model too; how far is seen by drawing the classes from the predicted
probabilities themselves. *Numbers.* With D draws of an entry, of which k lie below what came and e
equal it,

.. math:: u = \frac{k + v\,(e + 1)}{D + 1}, \qquad v \sim U[0, 1),

is uniform on [0, 1) if draws and truth have one law, so an interval of level l holds the truth,
:math:`|u - 1/2| < l / 2`, with probability l, whatever D. Source: Guo et al. (2017) for the ECE,
Vaicenavicius et al. (2019) for its level under calibration; Dawid (1984) and Czado et al. (2009)
for the randomized probability integral transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from reversal.metrics.intervals import Estimate, bootstrap
from reversal.metrics.recognition import Share

NUM_BINS = 10
LEVELS = (0.5, 0.9)


@final
@dataclass(frozen=True)
class Reliability:
    """The calibration of predicted classes.

    Args:
        error: the ECE, with its bootstrap interval.
        expected: what a calibrated model would come to with these probabilities: the mean, and the
            interval that holds 95 % of its errors.
        confidence: the mean confidence of each bin.
        hits: the right predictions of each bin.
    """

    error: Estimate
    expected: Estimate
    confidence: tuple[float, ...]
    hits: tuple[Share, ...]

    @property
    def is_calibrated(self) -> bool:
        """Whether the error is one that a calibrated model would have."""
        return not self.error.value > self.expected.high


def reliability(
    probabilities: np.ndarray,
    outcomes: np.ndarray,
    *,
    bins: int = NUM_BINS,
    draws: int = 200,
    seed: int = 0,
) -> Reliability:
    """Return the calibration of the likeliest class.

    Args:
        probabilities: ``(n, K)``, rows that sum to 1.
        outcomes: the classes that came, ``(n,)``, from 0 to K - 1.
        bins: at most how many; a bin has at least ten rows where there are that many.
        draws: how many data sets a calibrated model is tried on.
        seed: of the draws and of the bootstrap.
    """
    confidence = probabilities.max(1) if len(probabilities) else np.zeros(0)
    hit = (probabilities.argmax(1) if len(probabilities) else np.zeros(0)) == outcomes
    order = np.argsort(confidence, kind="stable")
    confidence, hit = confidence[order], hit[order].astype(np.float64)
    count = max(1, min(bins, len(hit) // 10))
    random = np.random.default_rng(seed)
    errors = [_ece(confidence, random.random(len(hit)) < confidence, count) for _ in range(draws)]
    low, high = np.quantile(errors, [0.025, 0.975])
    parts = np.array_split(np.arange(len(hit)), count)
    return Reliability(
        bootstrap(lambda c, h: _sorted_ece(c, h, count), confidence, hit, seed=seed),
        Estimate(float(np.mean(errors)), float(low), float(high)),
        tuple(float(confidence[part].mean()) for part in parts if len(part)),
        tuple(Share(int(hit[part].sum()), len(part)) for part in parts if len(part)),
    )


def pit(draws: np.ndarray, truth: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the randomized probability integral transform of each entry, ``(M,)`` in [0, 1).

    Args:
        draws: ``(D, M)``, D >= 1.
        truth: what came, ``(M,)``.
        seed: of the randomization.
    """
    draws, truth = np.asarray(draws, np.float64), np.asarray(truth, np.float64)
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    v = np.random.default_rng(seed).random(len(truth))
    return (below + v * (equal + 1)) / (len(draws) + 1)


def covered(u: np.ndarray, level: float) -> Share:
    """Return how many entries lie in their central interval of a level.

    Args:
        u: from `pit`, ``(M,)``.
        level: between 0 and 1; of calibrated draws this share is covered on average, exactly.
    """
    return Share(int((np.abs(u - 0.5) < level / 2).sum()), len(u))


def _ece(confidence: np.ndarray, hit: np.ndarray, bins: int) -> float:
    """Return the ECE of entries that are sorted by confidence."""
    if not len(hit):
        return float("nan")
    ends = np.linspace(0, len(hit), bins + 1).round().astype(int)[:-1]
    return float(np.abs(np.add.reduceat(hit - confidence, ends)).sum() / len(hit))


def _sorted_ece(confidence: np.ndarray, hit: np.ndarray, bins: int) -> float:
    order = np.argsort(confidence, kind="stable")
    return _ece(confidence[order], hit[order], bins)
