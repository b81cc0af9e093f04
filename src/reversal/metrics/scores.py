r"""Proper scores of draws: how near they are to what came, and their law to the true one.

.. math:: \mathrm{CRPS} = E |X - y| - \tfrac12 E |X - X'|, \qquad
   \mathrm{ED}^2 = 2 E \lVert X - Y \rVert - E \lVert X - X' \rVert - E \lVert Y - Y' \rVert .

Both expectations over pairs leave a draw's distance to itself out, so that they are free of bias.
Source: Gneiting and Raftery (2007), J. Am. Stat. Assoc. 102, eq. (21); Ferro (2014) for the fair
CRPS; Szekely and Rizzo (2004) for the energy distance.
"""

from __future__ import annotations

import numpy as np

BLOCK = 2**22  # distances that are held at once


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the fair continuous ranked probability score of each entry ``(M,)``; less is better.

    Args:
        draws: ``(D, M)``, D >= 1; of a single draw it is the absolute error.
        truth: what came, ``(M,)``, in the same units as the score.

    Cost: a sort of the draws.
    """
    draws = np.sort(np.asarray(draws, np.float64), 0)
    count = len(draws)
    near = np.abs(draws - truth).mean(0)
    if count < 2:
        return near
    weights = 2 * np.arange(1, count + 1) - count - 1
    return near - (weights[:, None] * draws).sum(0) / (count * (count - 1))


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the squared energy distance of two samples, about 0 where they have one law.

    Args:
        x: points ``(m, d)``, or numbers ``(m,)``; m >= 2.
        y: points ``(n, d)``; n >= 2. Standardize both by one scale if their columns have units.

    Returns:
        An unbiased estimate, which may be negative.

    Cost: O((m + n)^2 d) time, O(m + n + 2^22) memory.
    """
    x, y = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (x, y))
    m, n = len(x), len(y)
    between = _total(x, y) / (m * n)
    return 2 * between - _total(x, x) / (m * (m - 1)) - _total(y, y) / (n * (n - 1))


def _total(x: np.ndarray, y: np.ndarray) -> float:
    """Return the sum of all distances."""
    from scipy.spatial.distance import cdist

    step = max(1, BLOCK // max(1, len(y)))
    return float(sum(cdist(x[k : k + step], y).sum() for k in range(0, len(x), step)))
