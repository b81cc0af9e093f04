"""Euclidean space: real arrays, every entry a site, the exponential map a sum."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal.core import Space
from reversal.spaces.shapes import checked_shape


@final
class Euclidean(Space):
    """Real arrays of one shape: ``Euclidean(2)``, ``Euclidean(1, 28, 28)``; sites = E.

    Raises:
        SpaceError: unless every length is a positive integer.
    """

    def __init__(self, *shape: int) -> None:
        self.event_shape = self.sites = self.tangent_shape = checked_shape("Euclidean", shape)

    def contains(self, x: Tensor) -> Tensor:
        """Every entry is finite."""
        return torch.isfinite(x).flatten(1).all(1)

    def example(self, n: int, like: Tensor) -> Tensor:
        """The origin."""
        return like.new_zeros((n, *self.event_shape))

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """x + v."""
        return x + v

    def __repr__(self) -> str:
        return f"Euclidean({', '.join(map(str, self.event_shape))})"
