r"""Monotone maps to the normal law, one per column, packed.

Let F be the distribution function of a column, Phi that of N(0, 1). The map

.. math:: z(x) = \Phi^{-1}(F(x)), \qquad \log p(x) = \log p_z(z(x)) + \log \frac{dz}{dx},

sends the column to N(0, 1). It is known at a knot per 12 numbers, 1025 at most, and piecewise
linear between them: a density that followed a small sample more closely would know it by heart.
Beyond the first and the last it goes on with the slope of the end piece, or with 1 over the range
that was seen where the end piece is steeper: a number far beyond all others is encoded in order,
by at most one unit of z per range, however heavy the tail. (A column clamps what it decodes.)

The knots are spaced evenly in probability, for the bulk, and evenly in z, for the tails. Numbers
on a lattice are spread over their cells, and the ends of the cells that are seen often are knots:
then z ~ N(0, 1) falls into them with their empirical frequencies.

A number v of positive probability m = F(v) - F(v-) off a lattice, a spike, is a knot twice: a flat
piece of the inverse. With u ~ U[0, 1) it is spread evenly in probability,

.. math:: z = \Phi^{-1}(F(v-) + u m), \qquad
    \log P(v) \ge E_u \big[ \log p_z(z) + \log m - \log \varphi(z) \big] ,

with equality where p_z is normal on the piece, and everything on it comes back as v exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NUM_KNOTS = (9, 1025)
PER_KNOT = 12
REPEATS = 4
RESOLUTION = 1e-13
EDGE = 1e-12  # the probability beyond each end of a spike's piece, lest the map stand still there
LEAST_RISE = 1e-6  # of z over one range beyond what was seen
Knots = tuple[tuple[float, ...], tuple[float, ...]]


def num_knots(n: int) -> int:
    """Return at how many knots the law of a sample of n numbers is known, at most."""
    least, most = NUM_KNOTS
    return int(min(most, max(least, n // PER_KNOT)))


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
    if len(values) > num_knots(n):
        inner = _levels(n, num_knots(n))
        inner = inner[(inner > probs[0]) & (inner < probs[-1])]
        levels = np.concatenate([probs[:1], inner, probs[-1:]])
        values, probs = np.interp(levels, probs, values), levels
    return _increasing(values, _normal_quantile(probs))


def cell_knots(cells: np.ndarray, counts: np.ndarray) -> Knots:
    """Return the knots of whole numbers, each spread over the unit interval around it.

    A number that occurs four times or more keeps its frequency: it fills its interval evenly, and
    the ends of the most frequent intervals are knots. The law of rarer ones is interpolated,
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
    top = np.argsort(counts, kind="stable")[-(7 * num_knots(n) // 16) :]
    ends = np.stack([cells[top] - half[top], cells[top] + half[top]])
    kept = np.unique(np.append(np.interp(ends, edges, probs), probs[[0, -1]]))
    inner = _levels(n, num_knots(n) + 2 - len(kept))[1:-1]
    within = (inner > probs[0] + RESOLUTION) & (inner < probs[-1] - RESOLUTION)
    levels = np.sort(np.append(kept, inner[within]))
    levels = levels[np.append(True, np.diff(levels) > RESOLUTION)]
    normals = _normal_quantile(levels.clip(0.5 / n, 1 - 0.5 / n))
    return _increasing(np.interp(levels, probs, edges), normals)


def spiked_knots(numbers: np.ndarray, spikes: np.ndarray) -> Knots:
    """Return the knots of a sample of which some values are spikes: each is a knot twice.

    The others stand where `sample_knots` puts them, in the probability that the spikes leave.

    Args:
        numbers: shape (n,), at least two different ones.
        spikes: values of positive probability among them, in increasing order, shape (s,).
    """
    values, counts = np.unique(numbers.astype(np.float64), return_counts=True)
    n, is_spike = counts.sum(), np.isin(values, spikes)
    heights, centers = counts[is_spike], values[is_spike]
    rest, seen = values[~is_spike], counts[~is_spike]
    beside = np.append(0, np.cumsum(seen))[np.searchsorted(rest, centers)]
    before = np.append(0, np.cumsum(heights))
    edges = np.stack([beside + before[:-1], beside + before[1:]], axis=1) / n
    edges = edges + np.array([EDGE, -EDGE]) / 2
    xs, probs = np.repeat(centers, 2), edges.ravel()
    if len(rest):
        size = max(num_knots(n) - len(xs), NUM_KNOTS[0])
        inner, inner_probs = _between(rest, seen, centers, beside, size)
        below = np.append(0, np.cumsum(heights))[np.searchsorted(centers, inner)]
        xs = np.append(xs, inner)
        probs = np.append(probs, (inner_probs * seen.sum() + below) / n)
    order = np.lexsort((probs, xs))
    return _increasing(xs[order], _normal_quantile(probs[order]), flats=centers)


def _between(
    rest: np.ndarray, seen: np.ndarray, centers: np.ndarray, beside: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return knots among the values that are no spikes, and their probabilities among those.

    A spike splits them at the share of what lies beside it, so that no knot crosses it.
    """
    n = seen.sum()
    xs = np.append(rest, centers)
    probs = np.append((np.cumsum(seen) - seen / 2) / n, beside / n)
    order = np.argsort(xs)
    xs, probs = xs[order], probs[order]
    ends = np.array([rest[0], rest[-1]]), np.interp([rest[0], rest[-1]], xs, probs)
    if len(rest) <= size:
        return rest, (np.cumsum(seen) - seen / 2) / n
    levels = _levels(n, size - 2)
    levels = levels[(levels > ends[1][0]) & (levels < ends[1][1])]
    inner = np.interp(levels, probs, xs)
    free = ~np.isin(inner, centers)
    return np.append(ends[0], inner[free]), np.append(ends[1], levels[free])


def _levels(n: int, size: int) -> np.ndarray:
    """Return probabilities in [1/2n, 1 - 1/2n]: half evenly spaced, half in normal quantile."""
    low = 0.5 / n
    tail = _normal_quantile(np.array([low]))[0]
    spread = torch.linspace(tail, -tail, size // 2 + 2, dtype=torch.float64)[1:-1]
    normal = torch.special.ndtr(spread).numpy()
    return np.sort(np.concatenate([np.linspace(low, 1 - low, size - size // 2), normal]))


def _normal_quantile(probs: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(probs)).numpy()


def _increasing(
    values: np.ndarray, normals: np.ndarray, flats: np.ndarray | tuple[()] = ()
) -> Knots:
    """Merge knots that equal their predecessor in either coordinate; a flat value is kept twice."""
    rises = (np.diff(values) > 0) | np.isin(values[1:], flats)
    keep = np.append(True, rises & (np.diff(normals) > 0))
    return tuple(values[keep].tolist()), tuple(normals[keep].tolist())


@final
@dataclass(frozen=True, eq=False)
class QuantileMap:
    """d increasing piecewise-linear maps between values and normal quantiles.

    Args:
        knots: values in increasing order, shape (d, k), float64; a row with fewer ends in inf. Two
            equal ones are a spike.
        normals: their normal quantiles, strictly increasing, likewise.
        counts: the number of knots of each column, at least 2, shape (d,).
    """

    knots: Tensor
    normals: Tensor
    counts: Tensor

    @classmethod
    def pack(cls, columns: Sequence[Knots]) -> QuantileMap:
        """Pack the knots of columns, one pair (knots, normals) each, and one more at each end."""
        whole = [_with_ends(*column) for column in columns]
        knots, normals = (
            pad_sequence(
                [torch.tensor(column[part], dtype=torch.float64) for column in whole],
                batch_first=True,
                padding_value=torch.inf,
            )
            for part in (0, 1)
        )
        return cls(knots, normals, torch.tensor([len(column[0]) for column in whole]))

    @cached_property
    def flat(self) -> Tensor:
        """Which columns have a spike, bool ``(d,)``."""
        return (self.knots.diff(dim=1) == 0).any(1)

    def forward(self, values: Tensor, levels: Tensor | None = None) -> Tensor:
        """Return z(x) of values ``(B, d)``, float64. Cost: B d log k.

        Args:
            values: numbers.
            levels: where on its piece a spike stands, in [0, 1); by default in the middle.
        """
        normals = self._interpolate(values, self.knots, self.normals)
        if not self.flat.any():
            return normals
        spiked = self._of(self.flat)
        levels = torch.full_like(normals, 0.5) if levels is None else levels
        normals[:, self.flat] = spiked._spread(
            values[:, self.flat], levels[:, self.flat], normals[:, self.flat]
        )
        return normals

    def forward_float(self, values: Tensor, levels: Tensor | None = None) -> Tensor:
        """Return z(x) as float32 that lies on a spike's piece exactly where x is the spike."""
        normals = self.forward(values, levels)
        rounded = normals.float()
        if self.flat.any():
            spiked = self._of(self.flat)
            rounded[:, self.flat] = spiked._kept_apart(values[:, self.flat], normals[:, self.flat])
        return rounded

    def inverse(self, normals: Tensor) -> Tensor:
        """Return x(z) of normal quantiles ``(B, d)``, float64. Cost: B d log k."""
        return self._interpolate(normals, self.normals, self.knots)

    def ends(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest z whose value is x, float64 ``(B, d)`` each.

        They differ where x is a spike, and bound what lies at and above or at and below it.
        """
        is_spike, low, high = self._spikes(values.double().T.contiguous())
        normals = self._interpolate(values, self.knots, self.normals).T
        return torch.where(is_spike, low, normals).T, torch.where(is_spike, high, normals).T

    def log_jacobian(self, normals: Tensor) -> Tensor:
        """Return log |dz / dx| at normal quantiles ``(B, d)``, float64; at a knot, to the left.

        On the piece of a spike of probability m it is log |dz / du| = log m - log phi(z), with
        respect to the level u: the reference measure there counts.
        """
        at = normals.double().T.contiguous()
        index = self._pieces(at, self.normals)
        rise, run = (_ends(part, index) for part in (self.normals, self.knots))
        width = run[1] - run[0]
        mass = torch.special.ndtr(rise[1]) - torch.special.ndtr(rise[0])
        spike = mass.log() + at.square() / 2 + math.log(2 * math.pi) / 2
        return torch.where(width == 0, spike, (rise[1] - rise[0]).log() - width.log()).T

    def _of(self, columns: Tensor) -> QuantileMap:
        return QuantileMap(self.knots[columns], self.normals[columns], self.counts[columns])

    def _spikes(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which of ``(d, B)`` values are spikes, and the normal quantiles of their ends."""
        index = self._pieces(at, self.knots)
        after = (index + 1).clamp(max=self.knots.shape[1] - 1)
        is_spike = (self.knots.gather(1, index) == at) & (self.knots.gather(1, after) == at)
        return is_spike, self.normals.gather(1, index), self.normals.gather(1, after)

    def _spread(self, values: Tensor, levels: Tensor, normals: Tensor) -> Tensor:
        """Return normal quantiles in which each spike stands at its level of probability."""
        is_spike, low, high = self._spikes(values.double().T.contiguous())
        below, above = torch.special.ndtr(low), torch.special.ndtr(high)
        level = torch.special.ndtri(below + levels.T * (above - below))
        return torch.where(is_spike, level.clamp(low, high), normals.T).T

    def _kept_apart(self, values: Tensor, normals: Tensor) -> Tensor:
        """Return float32 quantiles; one that rounding took over the end of a piece goes back."""
        exact, at = normals.T.contiguous(), values.double().T.contiguous()
        is_spike, low, high = self._spikes(at)
        rounded = exact.float()
        start, stop = _ends(self.knots, self._pieces(rounded.double(), self.normals))
        is_on = start == stop
        strayed = torch.where(is_spike, ~is_on | (start != at), is_on)
        goes_up = torch.where(is_spike, exact - low < high - exact, exact > rounded)
        infinity = torch.full_like(rounded, torch.inf)
        moved = torch.nextafter(rounded, torch.where(goes_up, infinity, -infinity))
        return torch.where(strayed, moved, rounded).T

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


def _with_ends(knots: Sequence[float], normals: Sequence[float]) -> Knots:
    """Return knots with one more at each end, which make the map go on with a bounded slope."""
    span = knots[-1] - knots[0]
    rises = [
        min(max(span * rise / run, LEAST_RISE), 1.0) if run > 0 else 1.0
        for run, rise in (
            (knots[1] - knots[0], normals[1] - normals[0]),
            (knots[-1] - knots[-2], normals[-1] - normals[-2]),
        )
    ]
    return (
        (knots[0] - span, *knots, knots[-1] + span),
        (normals[0] - rises[0], *normals, normals[-1] + rises[1]),
    )
