"""Rotations: matrices with the metric angle squared, moved by body-frame rotation vectors."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal.core import Space
from reversal.spaces import rotations
from reversal.spaces.shapes import checked_shape


@final
class SO3(Space):
    """Rotation matrices: ``SO3()`` has E = (3, 3), sites (); ``SO3(5)`` has (5, 3, 3) and (5,).

    The tangent at R is a rotation vector v in the body frame, ``(B, *sites, 3)``; the exponential
    map is R exp(v); the reference measure is Haar probability.
    """

    measure = "uniform probability"

    def __init__(self, *sites: int) -> None:
        self.sites = checked_shape("SO3", sites, least=0)
        self.event_shape, self.tangent_shape = (*sites, 3, 3), (*sites, 3)

    def contains(self, x: Tensor) -> Tensor:
        """Orthogonal to 1e-3, with determinant +1."""
        gap = x.mT @ x - torch.eye(3, dtype=x.dtype, device=x.device)
        proper = torch.linalg.det(x.double()) > 0
        return ((gap.abs().amax((-2, -1)) < 1e-3) & proper)[..., None].flatten(1).all(1)

    def example(self, n: int, like: Tensor) -> Tensor:
        """The identity."""
        eye = torch.eye(3, dtype=like.dtype, device=like.device)
        return eye.expand(n, *self.event_shape).clone()

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """R exp(v), re-orthonormalized."""
        return rotations.orthonormalize(rotations.compose(x, rotations.exp(v)))

    def __repr__(self) -> str:
        return f"SO3({', '.join(map(str, self.sites))})"
