r"""One result from several imputations: Rubin's rules.

With estimates :math:`Q_l` and their squared standard errors :math:`U_l` from m completed tables,

.. math:: \bar Q = \tfrac1m \sum_l Q_l, \quad W = \tfrac1m \sum_l U_l, \quad
   B = \tfrac{1}{m-1} \sum_l (Q_l - \bar Q)^2, \quad T = W + (1 + \tfrac1m) B ,

and :math:`(Q - \bar Q)/\sqrt T` is about Student's t. With the share of variance
:math:`\lambda = (1 + 1/m) B / T` and the degrees of freedom :math:`\nu_c` of the complete data,

.. math:: \nu_m = \frac{m - 1}{\lambda^2}, \qquad
   \nu_o = \frac{\nu_c + 1}{\nu_c + 3}\, \nu_c (1 - \lambda), \qquad
   \nu = \Big(\frac1{\nu_m} + \frac1{\nu_o}\Big)^{-1} .

Source: Rubin (1987), section 3.3; Barnard and Rubin (1999) for nu; van Buuren (2018), section 2.3,
for the fraction of missing information :math:`\gamma = (r + 2/(\nu + 3)) / (r + 1)`, with
:math:`r = (1 + 1/m) B / W`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from reversal.errors import DataError


class Interval(NamedTuple):
    """The ends of a confidence interval."""

    low: Any
    high: Any


@final
@dataclass(frozen=True)
class Pooled:
    """A pooled estimate; every field has the shape of one estimate.

    Args:
        estimate: the mean over the draws.
        variance: its total variance T, squared standard error.
        within: the mean variance W of one completed table.
        between: the variance B of the estimates between draws.
        df: degrees of freedom nu.
        missing: the fraction gamma of the information that is missing.
        num_draws: m.
    """

    estimate: Any
    variance: Any
    within: Any
    between: Any
    df: Any
    missing: Any
    num_draws: int

    @property
    def stderr(self) -> Any:
        """The standard error, sqrt(T)."""
        return np.sqrt(self.variance)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the central confidence interval by Student's t.

        Raises:
            DataError: unless the level lies between 0 and 1.
        """
        from scipy.special import stdtrit

        if not 0 < level < 1:
            raise DataError(f"Expected a level between 0 and 1, got {level}. Give e.g. 0.95.")
        half = stdtrit(np.minimum(self.df, 1e9), (1 + level) / 2) * self.stderr
        return Interval(self.estimate - half, self.estimate + half)


def pool(estimates: Any, variances: Any, df: float = math.inf) -> Pooled:
    """Pool the estimates from m completed tables.

    Args:
        estimates: one estimate per draw, shape (m,) or (m, *shape).
        variances: their squared standard errors, of the same shape.
        df: the degrees of freedom nu_c of an estimate from complete data, such as n - 1.

    Raises:
        DataError: if there are fewer than two draws, the shapes differ, or a number is not finite.
    """
    q, u = np.asarray(estimates, np.float64), np.asarray(variances, np.float64)
    _check(q, u, df)
    m = len(q)
    mean, within, between = q.mean(0), u.mean(0), q.var(0, ddof=1)
    extra = (1 + 1 / m) * between
    total = within + extra
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total > 0, extra / total, 0.0)
        ratio = np.where(within > 0, extra / within, np.where(extra > 0, np.inf, 0.0))
        of_draws = np.where(share > 0, (m - 1) / share**2, np.inf)
        observed = np.inf if df == math.inf else (df + 1) / (df + 3) * df * (1 - share)
        nu = 1 / (1 / of_draws + 1 / np.asarray(observed))
        missing = np.where(ratio < np.inf, (ratio + 2 / (nu + 3)) / (ratio + 1), 1.0)
    missing = np.where(share > 0, missing, 0.0)
    mean, total, within, between, nu, missing = map(
        _plain, (mean, total, within, between, nu, missing)
    )
    return Pooled(mean, total, within, between, nu, missing, m)


def pool_draws(
    filled: Any, statistic: Callable[[Any], tuple[Any, Any]], df: float = math.inf
) -> Pooled:
    """Apply a statistic to every draw of an imputed frame, and pool what it returns.

    Args:
        filled: what ``Model.impute`` returned: a frame whose first column numbers the draws.
        statistic: takes one completed frame, without that column, in the caller's library; returns
            an estimate and its squared standard error, numbers or arrays.
        df: see ``pool``.

    Raises:
        DataError: if the first column is none of draws, or there are fewer than two of them.
    """
    import narwhals as nw

    frame = nw.from_native(filled, eager_only=True)
    label = frame.columns[0] if frame.columns else ""
    if not str(label).startswith("draw"):
        raise DataError(
            f"Expected a frame whose first column numbers the draws, got {label!r} first. "
            f"Hand over what `model.impute(rows, draws=20)` returned."
        )
    draws = frame[label].unique().sort().to_list()
    parts = [frame.filter(nw.col(label) == draw).drop(label).to_native() for draw in draws]
    found = [statistic(part) for part in parts]
    return pool([each[0] for each in found], [each[1] for each in found], df)


def _plain(values: Any) -> Any:
    """Return an array without dimensions as a number."""
    return values.item() if np.ndim(values) == 0 else values


def _check(q: np.ndarray, u: np.ndarray, df: float) -> None:
    if q.ndim == 0 or q.shape != u.shape or len(q) < 2:
        raise DataError(
            f"Expected estimates and variances of one shape (m, ...), m >= 2, got {q.shape} and "
            f"{u.shape}. One draw says nothing of what is not known: impute with draws=20."
        )
    if not (np.isfinite(q).all() and np.isfinite(u).all() and (u >= 0).all()):
        raise DataError(
            "Expected finite estimates and variances >= 0, got others. Look at the statistic: a "
            "variance is a squared standard error."
        )
    if not df > 0:
        raise DataError(f"Expected degrees of freedom > 0, got {df}. Give n - 1, or leave it out.")
