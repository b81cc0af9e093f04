"""Probability vectors, with the first K - 1 entries as coordinates."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal.core import Space
from reversal.errors import SpaceError
from reversal.spaces.shapes import checked_shape


@final
class Simplex(Space):
    """Vectors of K non-negative entries that sum to one: ``Simplex(4)`` has E = (4,), sites ().

    The tangent is a step of the first K - 1 entries, ``(B, K - 1)``; the last one makes up for it.
    The reference measure is Lebesgue's in those coordinates, under which the axes have no
    divergence; the simplex has volume 1 / (K - 1)!.

    Args:
        size: K, at least 2.

    Raises:
        SpaceError: for another size.
    """

    def __init__(self, size: int) -> None:
        self.event_shape = checked_shape("Simplex", (size,))
        if size < 2:
            raise SpaceError(f"Expected a simplex of at least 2 entries, got {size}. Give K >= 2.")
        self.sites, self.tangent_shape = (), (size - 1,)

    def contains(self, x: Tensor) -> Tensor:
        """No entry below 0, and a sum of 1, up to rounding."""
        return ((x >= -1e-6).all(1)) & ((x.sum(1) - 1).abs() < 1e-4)

    def example(self, n: int, like: Tensor) -> Tensor:
        """The center."""
        size = self.event_shape[0]
        return like.new_full((n, size), 1 / size)

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """x + (v, -sum v), reflected at the faces: absolute values, scaled to the sum 1."""
        moved = torch.cat((x[..., :-1] + v, x[..., -1:] - v.sum(-1, keepdim=True)), -1)
        inside = moved.abs()
        return inside / inside.sum(-1, keepdim=True)

    def __repr__(self) -> str:
        return f"Simplex({self.event_shape[0]})"
