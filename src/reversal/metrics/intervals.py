r"""Numbers with an interval: the area under a curve by DeLong, anything else by the bootstrap.

For scores :math:`x_1, \dots, x_m` of positives and :math:`y_1, \dots, y_n` of negatives,

.. math:: \hat A = \frac{1}{mn} \sum_{ij} \psi(x_i, y_j), \qquad
   \psi(x, y) = 1[x > y] + \tfrac12 1[x = y], \qquad
   \operatorname{Var} \hat A = \frac{S_{10}}{m} + \frac{S_{01}}{n} ,

where :math:`S_{10}` and :math:`S_{01}` are the sample variances of the means of :math:`\psi` over
the negatives and over the positives. Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics
44, p. 839; ranks in the place of the double sum: Sun and Xu (2014). Bootstrap: Efron (1979).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 500


class Estimate(NamedTuple):
    """A value between the ends of its interval; NaN and a whole range where it is unknown."""

    value: float
    low: float
    high: float


def auc(positives: np.ndarray, negatives: np.ndarray, *, level: float = LEVEL) -> Estimate:
    """Return the probability that a positive scores above a negative, with DeLong's interval.

    Args:
        positives: scores ``(m,)``.
        negatives: scores ``(n,)``.
        level: of the interval, which is cut at 0 and 1.

    Returns:
        NaN in [0, 1] where there is no positive or no negative.

    Cost: three sorts.
    """
    value, variance = auc_variance(positives, negatives)
    return normal_interval(value, variance, level=level)


def auc_variance(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """Return the area under the curve and its variance by DeLong; NaN with one score or none.

    Args:
        positives: scores ``(m,)``.
        negatives: scores ``(n,)``.
    """
    from scipy.stats import rankdata

    m, n = len(positives), len(negatives)
    if not (m and n):
        return float("nan"), float("nan")
    together = rankdata(np.concatenate([positives, negatives]))
    above = (together[:m] - rankdata(positives)) / n
    below = 1 - (together[m:] - rankdata(negatives)) / m
    variances = [part.var(ddof=1) / len(part) for part in (above, below) if len(part) > 1]
    return float(above.mean()), float(sum(variances)) if min(m, n) > 1 else float("nan")


def normal_interval(value: float, variance: float, *, level: float = LEVEL) -> Estimate:
    """Return a share and its normal interval, cut at 0 and 1; [0, 1] of an unknown variance."""
    if not variance >= 0:
        return Estimate(value, 0.0, 1.0)
    half = NormalDist().inv_cdf((1 + level) / 2) * variance**0.5
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def bootstrap(
    statistic: Callable[..., Any],
    *rows: np.ndarray,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of rows and its interval by bootstrap percentiles.

    Args:
        statistic: arrays ``(n, ...)``, resampled together, to a number.
        rows: those arrays.
        level: of the interval.
        resamples: the number of resamples.
        seed: of the resampling.

    Returns:
        NaN everywhere where there are no rows.
    """
    n = len(rows[0])
    if not n:
        return Estimate(*[float("nan")] * 3)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        index = random.integers(n, size=n)
        drawn.append(float(statistic(*(part[index] for part in rows))))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(*rows)), float(low), float(high))
