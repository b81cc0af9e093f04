r"""Simulation-based calibration: are posteriors right on average over the prior?

With :math:`\theta \sim` prior, :math:`\xi \sim p(\cdot | \theta)` and draws from the posterior
given :math:`\xi`, the truth is one draw more: its rank among them, made continuous by `pit`, is
uniform. So N of these have an empirical distribution :math:`F_N` that at :math:`t_i = i / K`, all
at once, stays inside

.. math:: N F_N(t_i) \in \big[B_{\gamma/2}(N, t_i),\, B_{1 - \gamma/2}(N, t_i)\big],
   \qquad i = 1, \dots, K - 1,

with binomial quantiles B, with a probability that grows as gamma falls; gamma is the largest with
at least 1 - rate. The probability is exact: the counts are a Poisson process given its total, whose
increments are independent. Too narrow posteriors make :math:`F_N` rise at both ends, too wide ones
in the middle, biased ones to one side. Source: Talts et al. (2018), Theorem 1; Saeilynoja, Buerkner
and Vehtari (2022), section 2, for the band; Moscovich and Nadler (2017) for the Poisson increments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from reversal.errors import DataError
from reversal.metrics.calibration import pit

NUM_POINTS = 50
"""K, how many intervals the band is cut into at most."""
_HALVINGS = 40


@final
@dataclass(frozen=True)
class Band:
    """Where an empirical distribution of N uniform numbers lies, at all points at once.

    Args:
        points: t, ``(K - 1,)``.
        low: the least share of numbers below each point.
        high: the greatest.
        rate: how often uniform numbers leave it, at most.
    """

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rate: float


@final
@dataclass(frozen=True)
class Calibration:
    """The ranks of the truth among draws from posteriors, by parameter.

    Args:
        u: ranks in [0, 1), ``(N, d)``.
        band: one for each of the d distributions; its rate is the declared one divided by d.
    """

    u: np.ndarray
    band: Band

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of ranks below each point, ``(K - 1, d)``."""
        return np.stack([(self.u < t).mean(0) for t in self.band.points])

    @cached_property
    def are_uniform(self) -> np.ndarray:
        """Whether each parameter stays inside the band, ``(d,)``."""
        shares, low, high = self.shares, self.band.low[:, None], self.band.high[:, None]
        return np.all((shares >= low - 1e-12) & (shares <= high + 1e-12), axis=0)

    @property
    def is_calibrated(self) -> bool:
        """Whether all stay inside: of exact posteriors they do but for the declared rate."""
        return bool(self.are_uniform.all())


def sbc(draws: np.ndarray, truth: np.ndarray, *, rate: float = 0.01, seed: int = 0) -> Calibration:
    """Return the calibration of posteriors, parameter by parameter.

    Args:
        draws: from the posterior of each of N evidences, ``(L, N, d)``; L >= 1 is any number. They
            should be independent.
        truth: the parameters that each evidence was simulated from, ``(N, d)``, drawn from the
            prior.
        rate: how often exact posteriors are called wrong, all parameters together (Bonferroni).
        seed: of what makes the ranks continuous.

    Raises:
        DataError: if the shapes do not fit.
    """
    draws, truth = np.asarray(draws, np.float64), np.asarray(truth, np.float64)
    if truth.ndim != 2 or draws.shape[1:] != truth.shape or not draws.size:
        raise DataError(
            f"Expected draws (L, N, d) and truth (N, d), got {draws.shape} and {truth.shape}. "
            f"Put the draws of one posterior along the first dimension."
        )
    u = pit(draws.reshape(len(draws), -1), truth.reshape(-1), seed=seed).reshape(truth.shape)
    return Calibration(u, band(len(u), rate / truth.shape[1]))


def band(n: int, rate: float, *, points: int | None = None) -> Band:
    """Return the simultaneous band of n uniform numbers.

    Args:
        n: N.
        rate: the probability that uniform numbers leave it, at most, in (0, 1).
        points: K; by default n, 50 at most.

    Cost: 40 chains of K convolutions of length n.
    """
    from scipy.stats import binom

    count = max(2, min(n, NUM_POINTS)) if points is None else points
    if n < 1 or count < 2 or not 0 < rate < 1:
        raise DataError(
            f"Expected n >= 1, two points or more and a rate in (0, 1), got n={n}, "
            f"points={count} and rate={rate}. Take more of them."
        )
    t = np.arange(1, count) / count
    below, above = 0.0, rate
    for _ in range(_HALVINGS):
        gamma = (below + above) / 2
        low, high = binom.ppf(gamma / 2, n, t), binom.isf(gamma / 2, n, t)
        inside = _stays(n, low.astype(int), high.astype(int), count)
        below, above = (gamma, above) if inside >= 1 - rate else (below, gamma)
    low, high = binom.ppf(below / 2, n, t), binom.isf(below / 2, n, t)
    return Band(t, low / n, high / n, rate)


def _stays(n: int, low: np.ndarray, high: np.ndarray, count: int) -> float:
    """Return the probability that the counts of n uniform numbers stay inside, all at once."""
    from scipy.stats import poisson

    step = poisson.pmf(np.arange(n + 1), n / count)
    law = np.zeros(n + 1)
    law[0] = 1.0
    for first, last in zip([*low, n], [*high, n], strict=True):
        law = np.convolve(law, step)[: n + 1]
        law[:first] = 0.0
        law[last + 1 :] = 0.0
    return float(law[n] / poisson.pmf(n, n))
