r"""Recognition: a classifier that learned from real data alone reads samples.

With h hits among n samples and z the standard normal quantile of the level, the Wilson interval is

.. math:: \frac{p + z^2/2n}{1 + z^2/n} \pm \frac{z}{1 + z^2/n}
   \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}}, \qquad p = h / n .

Source: Wilson (1927), JASA 22(158), p. 209; Cortes and Vapnik (1995) for the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np


@final
@dataclass(frozen=True)
class Share:
    """``hits`` among ``total`` independent trials."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The share h/n; NaN where nothing was tried."""
        return self.hits / self.total if self.total else float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the Wilson interval of the probability; [0, 1] where nothing was tried."""
        if not self.total:
            return 0.0, 1.0
        z2_n = NormalDist().inv_cdf((1 + level) / 2) ** 2 / self.total
        p = self.value
        center, width = p + z2_n / 2, (z2_n * (p * (1 - p) + z2_n / 4)) ** 0.5
        return (
            max(0.0, (center - width) / (1 + z2_n)),
            min(1.0, (center + width) / (1 + z2_n)),
        )


def recognition(
    train: np.ndarray, labels: np.ndarray, samples: np.ndarray, asked: np.ndarray
) -> Share:
    """Return how many samples a support-vector machine reads as the label they were asked for.

    Its kernel is exp(-gamma d^2) with gamma = 1 / (entries x variance), and C = 1.

    Args:
        train: real data, ``(N, *E)``.
        labels: their labels, ``(N,)``.
        samples: ``(M, *E)``.
        asked: the labels that the samples were asked for, ``(M,)``.

    Cost: O(N^2) to fit, O(N M) to read.
    """
    from sklearn.svm import SVC

    classifier = SVC(gamma="scale", random_state=0).fit(train.reshape(len(train), -1), labels)
    read = classifier.predict(samples.reshape(len(samples), -1))
    return Share(int((read == np.asarray(asked)).sum()), len(samples))
