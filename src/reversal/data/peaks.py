"""Values that repeat, and heavy tails: what a column of numbers shows beyond its range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_SPIKES = 64
SPIKE_SHARE, SPIKE_COUNT = 0.01, 5
PEAK_SHARE, PEAK_OTHERS = 0.2, 10
ENOUGH_FOR_TAILS = 100
HEAVY = 8.0  # normal 3.5, exponential 5.6, log-normal 9.6, Cauchy 32

Peaks = tuple[tuple[float, float], ...]


def spikes(numbers: np.ndarray, declared: Sequence[float] | None = None) -> Peaks:
    """Return values of positive probability and their shares, in increasing order.

    Off a lattice a number that comes again is no accident: it is a spike where it fills at least
    1 % of the rows, and 5. At most the 64 most frequent are taken. Declared ones are taken as they
    are, those that never occur left out.

    Args:
        numbers: shape (n,), on no lattice.
        declared: the values that a caller named instead.
    """
    values, counts = np.unique(numbers.astype(np.float64), return_counts=True)
    if declared is None:
        chosen = (counts >= SPIKE_COUNT) & (counts >= SPIKE_SHARE * len(numbers))
    else:
        chosen = np.isin(values, np.array(declared, dtype=np.float64))
    values, counts = values[chosen], counts[chosen]
    top = np.sort(np.argsort(-counts, kind="stable")[:MOST_SPIKES])
    return tuple(zip(values[top].tolist(), (counts[top] / len(numbers)).tolist(), strict=True))


def peak(numbers: np.ndarray) -> Peaks:
    """Return the most frequent of many rounded numbers, if it fills a fifth of the rows."""
    values, counts = np.unique(numbers, return_counts=True)
    top = int(counts.argmax())
    share = float(counts[top] / len(numbers))
    is_peak = share >= PEAK_SHARE and len(values) > PEAK_OTHERS
    return ((values[top].item(), share),) if is_peak else ()


def shown_peaks(peaks: Peaks) -> list[str]:
    """Return the three greatest peaks in words."""
    first = sorted(peaks, key=lambda pair: -pair[1])[:3]
    return [f"{value:.10g} in {100 * share:.1f} % of rows" for value, share in first]


def has_heavy_tails(numbers: np.ndarray, peaks: Peaks) -> bool:
    """Whether the outer percent of numbers lies far beyond the middle half, peaks left out.

    That is, whether (q(99 %) - q(50 %)) / (q(75 %) - q(50 %)), or the same of the lower tail,
    exceeds 8; of fewer than 100 numbers nothing is said.
    """
    rest = numbers[~np.isin(numbers, [value for value, _ in peaks])]
    if len(rest) < ENOUGH_FOR_TAILS:
        return False
    low, first, middle, third, high = np.quantile(
        rest.astype(np.float64), [0.01, 0.25, 0.5, 0.75, 0.99]
    )
    above = high - middle > HEAVY * (third - middle) and third > middle
    below = middle - low > HEAVY * (middle - first) and middle > first
    return bool(above or below)
