r"""Statistical tests with a declared failure rate: how often a correct program may fail them.

The rate, 1e-4 by default, is shared by the entries of one call (Bonferroni). Seeds are fixed, so a
test that passes once passes always; the rate is what makes it honest to have chosen no seed.
"""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

from reversal.testing.comparison import require

FAILURE_RATE = 1e-4
_LEAST_COUNT = 5.0


def require_frequencies(
    counts: Tensor, probabilities: Tensor, *, of: object, rate: float = FAILURE_RATE
) -> None:
    r"""Chi-square: the counts follow the probabilities.

    .. math:: \sum_k \frac{(n_k - n p_k)^2}{n p_k} \sim \chi^2_{K - 1}

    Cells that expect fewer than five draws are pooled, with the next smallest cell if the pool
    itself expects fewer; a draw of probability zero fails at once.

    Args:
        counts: ``(K,)``.
        probabilities: ``(K,)``, summing to one.
        of: what was drawn, for the message.
        rate: the failure rate.
    """
    counts, expected = counts.double(), probabilities.double() * counts.sum()
    impossible = float(counts[expected <= 0].sum())
    require(impossible == 0, f"{of}: {impossible:g} draws have probability zero.")
    is_small = expected < _LEAST_COUNT
    if 0 < float(expected[is_small].sum()) < _LEAST_COUNT and not bool(is_small.all()):
        is_small = expected <= expected[~is_small].min()
    seen, wanted = (
        torch.cat([part[~is_small], part[is_small].sum()[None]]) for part in (counts, expected)
    )
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    if len(seen) < 2:
        return
    statistic = float(((seen - wanted) ** 2 / wanted).sum())
    p_value = float(stats.chi2.sf(statistic, len(seen) - 1))
    require(
        p_value >= rate,
        f"{of}: frequencies off, chi-square = {statistic:.1f} on {len(seen) - 1} degrees of "
        f"freedom, p = {p_value:.2g} below the declared failure rate {rate:.2g}.",
    )


def require_uniform(values: Tensor, *, of: object, rate: float = FAILURE_RATE) -> None:
    """Kolmogorov-Smirnov: every column of ``(n, S)`` is uniform on [0, 1]."""
    columns = values.reshape(len(values), -1)
    for column in columns.T:
        result = stats.kstest(column.numpy(), "uniform")
        require(
            result.pvalue >= rate / columns.shape[1],
            f"{of}: the distribution is off by {result.statistic:.4f} (Kolmogorov-Smirnov, n = "
            f"{len(column)}), p = {result.pvalue:.2g} below {rate / columns.shape[1]:.2g}.",
        )


def require_mean(
    values: Tensor, mean: Tensor | float, *, of: object, rate: float = FAILURE_RATE
) -> None:
    """z-test: every column of ``(n, S)`` has this mean, by its own standard error."""
    columns = values.reshape(len(values), -1).double()
    error = columns.std(0) / len(columns) ** 0.5
    gap = (columns.mean(0) - mean).abs()
    worst = float((gap / error.clamp_min(1e-12 * (1 + columns.abs().mean(0)))).max())
    bound = float(stats.norm.isf(rate / 2 / columns.shape[1]))
    require(
        worst <= bound,
        f"{of}: a mean is off by {worst:.1f} standard errors (n = {len(columns)}), more than "
        f"{bound:.1f}, which has the declared failure rate {rate:.2g}.",
    )
