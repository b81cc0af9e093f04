r"""Shape: how far the law of each column alone is from the real one.

.. math:: \text{numeric:}\quad \sup_x |F(x) - G(x)|, \qquad
   \text{discrete:}\quad \tfrac12 \sum_k |p_k - q_k| ,

with the empirical F and G, p and q of the entries that are present; gaps are left out here and
compared by their shares. These are 1 minus the scores ``KSComplement`` and ``TVComplement`` of
sdmetrics 0.32, and their mean over columns is 1 minus its Column Shapes, where no column is
constant: a constant one would count there with an error of 0, and is left out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from reversal.metrics.columns import Numeric
from reversal.metrics.rows import Rows, aligned


@final
@dataclass(frozen=True)
class ColumnError:
    """One column of two tables.

    Args:
        name: of the column.
        error: the distance of the two laws, in [0, 1]; NaN where a table has gaps alone.
        missing: the shares of entries that are missing in the two tables.
    """

    name: str
    error: float
    missing: tuple[float, float]


@final
@dataclass(frozen=True)
class Shape:
    """The columns of two tables, in the order of the table."""

    columns: tuple[ColumnError, ...]

    @property
    def error(self) -> float:
        """The mean over the columns, NaN where none can be compared."""
        return mean([column.error for column in self.columns])

    def worst(self) -> tuple[ColumnError, ...]:
        """Return the columns, the one with the greatest error first."""
        return tuple(sorted(self.columns, key=lambda c: -np.nan_to_num(c.error, nan=-1)))


def shape(real: Any, other: Any) -> Shape:
    """Return the errors of the columns of a table against a real one.

    Args:
        real: a frame, or `Rows`.
        other: a frame with the same columns, or `Rows` of the same schema.

    Raises:
        DataError: if the columns differ.

    Cost: a sort of each numeric column.
    """
    first, second = aligned(real, other)
    return Shape(tuple(_error(first, second, c.name) for c in first.schema.columns))


def ks_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the greatest distance of two empirical distribution functions; NaN of no number.

    Args:
        x: numbers ``(m,)``, none of them NaN.
        y: numbers ``(n,)``.

    Source: Smirnov (1939).
    """
    if not (len(x) and len(y)):
        return float("nan")
    x, y = np.sort(x), np.sort(y)
    at = np.concatenate([x, y])
    gap = np.searchsorted(x, at, "right") / len(x) - np.searchsorted(y, at, "right") / len(y)
    return float(np.abs(gap).max())


def total_variation(x: np.ndarray, y: np.ndarray) -> float:
    """Return half the summed differences of two laws of codes; NaN of no code.

    Args:
        x: whole numbers ``(m,)``, of any size.
        y: whole numbers ``(n,)``.
    """
    if not (len(x) and len(y)):
        return float("nan")
    joint = np.concatenate([x, y])
    low = joint.min()
    codes = joint - low
    if codes.max() > 8 * len(codes) + 4096:  # too sparse to count in place
        codes = np.unique(joint, return_inverse=True)[1]
    size = int(codes.max()) + 1
    p = np.bincount(codes[: len(x)], minlength=size) / len(x)
    q = np.bincount(codes[len(x) :], minlength=size) / len(y)
    return float(np.abs(p - q).sum() / 2)


def mean(values: list[float]) -> float:
    """Return the mean of the values that are numbers, NaN of none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _error(real: Rows, other: Rows, name: str) -> ColumnError:
    gaps = [rows.missing(name) for rows in (real, other)]
    x, y = (rows[name][~gap] for rows, gap in zip((real, other), gaps, strict=True))
    column = real.schema.columns[real.schema.place(name)]
    distance = ks_distance if isinstance(column, Numeric) else total_variation
    shares = [float(gap.mean()) if len(gap) else float("nan") for gap in gaps]
    return ColumnError(name, distance(x, y), (shares[0], shares[1]))
