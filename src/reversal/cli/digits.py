"""Handwritten digits as a product image x label: what a model of both can do, in numbers.

scikit-learn's 1,797 images of 8 x 8 pixels with values from 0 to 16 (Alpaydin and Kaynak 1998), in
a fixed order: the first 1,300 to fit, the other 497 held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from reversal.metrics import Copying, Share, copying, recognition
from reversal.spaces import Categorical, Euclidean, Product

if TYPE_CHECKING:
    from reversal.model import Model

FITTED = 1300
LEVELS = 16  # the value of full ink
PER_LABEL = 100


@final
@dataclass(frozen=True)
class Digits:
    """Images ``(N, 1, 8, 8)`` of whole numbers from 0 to 16, and labels ``(N,)``."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The factors by name."""
        return {"image": self.images, "label": self.labels}

    def first_of_each(self) -> Digits:
        """The first digit of each label, 0 to 9."""
        rows = [int(np.flatnonzero(self.labels == label)[0]) for label in range(10)]
        return Digits(self.images[rows], self.labels[rows])


@final
@dataclass(frozen=True)
class Figures:
    """What was measured of one model.

    Args:
        recognized: samples that a support-vector machine reads as the label asked for.
        classified: held-out images to whose label the model gives the greatest probability.
        copying: distances of the samples to the digits that were fitted.
    """

    recognized: Share
    classified: Share
    copying: Copying


def load() -> tuple[Digits, Digits]:
    """Return the digits to fit and those held out."""
    from sklearn.datasets import load_digits

    pixels, names = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(names))
    images = pixels[order].reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = names[order].astype(np.int64)
    fitted, held = slice(None, FITTED), slice(FITTED, None)
    return Digits(images[fitted], labels[fitted]), Digits(images[held], labels[held])


def space() -> Product:
    """The space of one digit."""
    return Product(image=Euclidean(1, 8, 8), label=Categorical(10))


def measure(
    model: Model, fitted: Digits, held: Digits, samples: np.ndarray, asked: np.ndarray
) -> Figures:
    """Return the figures of a model and of samples ``(M, 1, 8, 8)`` drawn for the labels asked."""
    probabilities = model.predict_proba({"image": held.images}, "label")
    guesses = np.asarray(probabilities).argmax(1)
    return Figures(
        recognition(fitted.images, fitted.labels, samples, asked),
        Share(int((guesses == held.labels).sum()), len(held.labels)),
        copying(samples, fitted.images, held.images),
    )


def lower_half(images: np.ndarray) -> np.ndarray:
    """Return bool ``(N, 1, 8, 8)``, True in the four lower rows of each image."""
    hidden = np.zeros(images.shape, bool)
    hidden[..., 4:, :] = True
    return hidden
