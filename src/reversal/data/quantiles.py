r"""Monotone maps to the normal law, one per column, packed.

Let F be the distribution function of a column, Phi that of N(0, 1). The map

.. math:: z(x) = \Phi^{-1}(F(x)), \qquad \log p(x) = \log p_z(z(x)) + \log \frac{dz}{dx},

sends the column to N(0, 1). It is known at up to 257 knots, piecewise linear between them and
linear beyond the first and the last, hence strictly increasing with an exact inverse.

The knots are spaced evenly in probability, for the bulk, and evenly in z, for the tails. Numbers
on a lattice are spread over their cells, and the ends of the cells that are seen often are knots:
then z ~ N(0, 1) falls into them with their empirical frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NUM_KNOTS = 257
REPEATS = 4
RESOLUTION = 1e-13
Knots = tuple[tuple[float, ...], tuple[float, ...]]


def sample_knots(numbers: np.ndarray) -> Knots:
    """Return the knots and their normal quantiles of a sample of real numbers.

    The k-th smallest of n numbers stands at probability (k - 1/2) / n (Hazen 1914), equal ones at
    the mean of theirs.

    Args:
        numbers: shape (n,), at least two different ones.
    """
    values, counts = np.unique(numbers.astype(np.float64), return_counts=True)
    n = counts.sum()
    probs = (np.cumsum(counts) - counts / 2) / n
    if len(values) > NUM_KNOTS:
        inner = _levels(n, NUM_KNOTS)
        inner = inner[(inner > probs[0]) & (inner < probs[-1])]
        levels = np.concatenate([probs[:1], inner, probs[-1:]])
        values, probs = np.interp(levels, probs, values), levels
    return _increasing(values, _normal_quantile(probs))


def cell_knots(cells: np.ndarray, counts: np.ndarray) -> Knots:
    """Return the knots of whole numbers, each spread over the unit interval around it.

    A number that occurs four times or more keeps its frequency: it fills its interval evenly, and
    the ends of the 64 most frequent intervals are knots. The law of rarer ones is interpolated,
    lest a small sample be learned by heart. A gap between frequent numbers has a probability below
    1e-6, so that the map increases there too.

    Args:
        cells: different whole numbers in increasing order, shape (m,).
        counts: how often each occurs, shape (m,).
    """
    n, above = counts.sum(), np.cumsum(counts)
    half = np.where(counts >= REPEATS, 0.5, 0.0)
    edges = np.stack([cells - half, cells + half], axis=1).ravel()
    inset = (0.5 - half) * counts
    probs = np.stack([above - counts + inset, above - inset], axis=1).ravel() / n
    edges, first = np.unique(edges, return_index=True)
    probs = (probs[first] + 1e-6 * np.linspace(0, 1, len(edges))) / (1 + 1e-6)
    top = np.argsort(counts, kind="stable")[-(NUM_KNOTS // 4) :]
    ends = np.stack([cells[top] - half[top], cells[top] + half[top]])
    kept = np.unique(np.append(np.interp(ends, edges, probs), probs[[0, -1]]))
    inner = _levels(n, NUM_KNOTS + 2 - len(kept))[1:-1]
    within = (inner > probs[0] + RESOLUTION) & (inner < probs[-1] - RESOLUTION)
    levels = np.sort(np.append(kept, inner[within]))
    levels = levels[np.append(True, np.diff(levels) > RESOLUTION)]
    normals = _normal_quantile(levels.clip(0.5 / n, 1 - 0.5 / n))
    return _increasing(np.interp(levels, probs, edges), normals)


def _levels(n: int, size: int) -> np.ndarray:
    """Return probabilities in [1/2n, 1 - 1/2n]: half evenly spaced, half in normal quantile."""
    low = 0.5 / n
    tail = _normal_quantile(np.array([low]))[0]
    spread = torch.linspace(tail, -tail, size // 2 + 2, dtype=torch.float64)[1:-1]
    normal = torch.special.ndtr(spread).numpy()
    return np.sort(np.concatenate([np.linspace(low, 1 - low, size - size // 2), normal]))


def _normal_quantile(probs: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(probs)).numpy()


def _increasing(values: np.ndarray, normals: np.ndarray) -> Knots:
    """Merge knots that equal their predecessor in either coordinate."""
    keep = np.append(True, (np.diff(values) > 0) & (np.diff(normals) > 0))
    return tuple(values[keep].tolist()), tuple(normals[keep].tolist())


@final
@dataclass(frozen=True, eq=False)
class QuantileMap:
    """d strictly increasing piecewise-linear maps between values and normal quantiles.

    Args:
        knots: values in increasing order, shape (d, k), float64; a row with fewer ends in inf.
        normals: their normal quantiles, likewise.
        counts: the number of knots of each column, at least 2, shape (d,).
    """

    knots: Tensor
    normals: Tensor
    counts: Tensor

    @classmethod
    def pack(cls, columns: Sequence[Knots]) -> QuantileMap:
        """Pack the knots of columns, one pair (knots, normals) each."""
        knots, normals = (
            pad_sequence(
                [torch.tensor(column[part], dtype=torch.float64) for column in columns],
                batch_first=True,
                padding_value=torch.inf,
            )
            for part in (0, 1)
        )
        return cls(knots, normals, torch.tensor([len(column[0]) for column in columns]))

    def forward(self, values: Tensor) -> Tensor:
        """Return z(x) of values ``(B, d)``, float64. Cost: B d log k."""
        return self._interpolate(values, self.knots, self.normals)

    def inverse(self, normals: Tensor) -> Tensor:
        """Return x(z) of normal quantiles ``(B, d)``, float64. Cost: B d log k."""
        return self._interpolate(normals, self.normals, self.knots)

    def log_jacobian(self, values: Tensor) -> Tensor:
        """Return log |dz / dx| at values ``(B, d)``, float64; at a knot, that of the left piece."""
        index = self._pieces(values.double().T.contiguous(), self.knots)
        rise, run = (_ends(part, index) for part in (self.normals, self.knots))
        return ((rise[1] - rise[0]).log() - (run[1] - run[0]).log()).T

    def _pieces(self, at: Tensor, knots: Tensor) -> Tensor:
        """Return which knot ends the piece that holds each of ``(d, B)`` numbers."""
        index = torch.searchsorted(knots, at)
        return torch.minimum(index.clamp(min=1), self.counts[:, None] - 1)

    def _interpolate(self, at: Tensor, source: Tensor, target: Tensor) -> Tensor:
        at = at.double().T.contiguous()
        index = self._pieces(at, source)
        (a, b), (c, d) = _ends(source, index), _ends(target, index)
        return (c + (at - a) / (b - a) * (d - c)).T


def _ends(knots: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return knots.gather(1, index - 1), knots.gather(1, index)
