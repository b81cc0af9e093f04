r"""Trend: how far the association of each pair of columns is from the real one.

.. math:: \text{both numeric:}\quad \tfrac12 |r - \tilde r| , \qquad
   \text{otherwise:}\quad \tfrac12 \sum_{kl} |p_{kl} - q_{kl}| ,

with Pearson's r over the rows where both entries are present, and the contingency tables p and q,
in which a gap is a value of its own. In a mixed pair the numbers are cut into ten equal bins
between the least and the greatest *of their own table*, the greatest number has a bin of its own,
and gaps share it. All of this is what Column Pair Trends of sdmetrics 0.32 does with both of its
thresholds at 0, so that figures can be compared (its default leaves weakly associated pairs out of
the mean); a pair of numbers of which one is constant in a table has no error, as there. Bins of the
real table for both, ``common=True``, are what its ``ContingencySimilarity`` does on its own: one
extreme number then cannot move the bins of a whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, final

import numpy as np

from reversal.metrics.columns import Numeric
from reversal.metrics.rows import Rows, aligned
from reversal.metrics.shape import mean, total_variation

BINS = 10


@final
@dataclass(frozen=True)
class PairError:
    """Two columns of two tables.

    Args:
        first: the name of one column.
        second: the name of the other.
        error: in [0, 1]; NaN where a correlation is undefined.
        real: the association in the real table: Pearson's r of numbers, else Cramer's V.
        other: the same in the other table.
    """

    first: str
    second: str
    error: float
    real: float
    other: float


@final
@dataclass(frozen=True)
class Trend:
    """The pairs of columns of two tables."""

    pairs: tuple[PairError, ...]

    @property
    def error(self) -> float:
        """The mean over the pairs, NaN where there is none."""
        return mean([pair.error for pair in self.pairs])

    def worst(self) -> tuple[PairError, ...]:
        """Return the pairs, the one with the greatest error first."""
        return tuple(sorted(self.pairs, key=lambda p: -np.nan_to_num(p.error, nan=-1)))


def trend(real: Any, other: Any, *, common: bool = False) -> Trend:
    """Return the errors of the pairs of columns of a table against a real one.

    Args:
        real: a frame, or `Rows`.
        other: a frame with the same columns, or `Rows` of the same schema.
        common: whether both tables are cut into the bins of the real one.

    Raises:
        DataError: if the columns differ.

    Cost: O(C^2 N) for C columns and N rows.
    """
    rows = aligned(real, other)
    names = [column.name for column in rows[0].schema.columns]
    numeric = [c.name for c in rows[0].schema.columns if isinstance(c, Numeric)]
    like, ends = (rows[0], open_edges) if common else (None, edges)
    first, second = (
        _Side(part, {name: ends((like or part)[name]) for name in numeric}) for part in rows
    )
    return Trend(tuple(_pair(first, second, a, b) for a, b in combinations(names, 2)))


def edges(numbers: np.ndarray) -> np.ndarray:
    """Return the eleven ends of ten equal bins between the least and greatest of ``(n,)``."""
    known = numbers[~np.isnan(numbers)]
    return np.histogram_bin_edges(known, BINS) if len(known) else np.linspace(0, 1, BINS + 1)


def open_edges(numbers: np.ndarray) -> np.ndarray:
    """Return the same, the first and the last bin without end."""
    ends = edges(numbers)
    ends[[0, -1]] = -np.inf, np.inf
    return ends


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    r"""Return the association of two columns of codes ``(n,)``, in [0, 1] and free of bias.

    .. math:: V = \sqrt{\frac{\tilde\varphi^2}{\min(\tilde r, \tilde k) - 1}}, \qquad
       \tilde\varphi^2 = \Big(\frac{\chi^2}{n} - \frac{(r - 1)(k - 1)}{n - 1}\Big)_+ , \qquad
       \tilde r = r - \frac{(r - 1)^2}{n - 1} .

    Source: Bergsma (2013), J. Korean Stat. Soc. 42, p. 323. NaN of a column with one value.
    """
    n = len(first)
    rows, columns = (np.unique(codes, return_inverse=True)[1] for codes in (first, second))
    r, k = int(rows.max(initial=0)) + 1, int(columns.max(initial=0)) + 1
    if n < 2 or min(r, k) < 2:
        return float("nan")
    cells, seen = np.unique(rows * k + columns, return_counts=True)
    expected = np.bincount(rows)[cells // k] * np.bincount(columns)[cells % k] / n
    phi2 = float((seen**2 / expected).sum() / n - 1)
    free = max(0.0, phi2 - (r - 1) * (k - 1) / (n - 1))
    room = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, (free / room) ** 0.5)) if room > 0 else 0.0


@final
class _Side:
    """One table: the codes of all columns, and the correlations of the numeric ones."""

    def __init__(self, rows: Rows, ends: Mapping[str, np.ndarray]) -> None:
        columns = rows.schema.columns
        self.numeric = {c.name: rows[c.name] for c in columns if isinstance(c, Numeric)}
        self.codes = {
            c.name: np.digitize(rows[c.name], ends[c.name]) if c.name in ends else rows[c.name] + 1
            for c in columns
        }
        self.correlations = _correlations(list(self.numeric.values()))
        self.places = {name: place for place, name in enumerate(self.numeric)}

    def correlation(self, a: str, b: str) -> float:
        """Pearson's r of two numeric columns."""
        return float(self.correlations[self.places[a], self.places[b]])

    def joint(self, a: str, b: str, count: int) -> np.ndarray:
        """One code per row for two columns, of which the second has fewer codes than ``count``."""
        return self.codes[a] * count + self.codes[b]


def _correlations(columns: list[np.ndarray]) -> np.ndarray:
    """Return Pearson's r of all pairs, each over the rows where both entries are present."""
    import pandas as pd

    if not columns:
        return np.zeros((0, 0))
    return pd.DataFrame(np.stack(columns, 1)).corr(min_periods=2).to_numpy()


def _pair(real: _Side, other: _Side, a: str, b: str) -> PairError:
    if a in real.numeric and b in real.numeric:
        r, s = real.correlation(a, b), other.correlation(a, b)
        return PairError(a, b, abs(r - s) / 2, r, s)
    count = int(max(side.codes[b].max(initial=0) for side in (real, other))) + 1
    error = total_variation(real.joint(a, b, count), other.joint(a, b, count))
    v, w = (cramers_v(side.codes[a], side.codes[b]) for side in (real, other))
    return PairError(a, b, error, v, w)
