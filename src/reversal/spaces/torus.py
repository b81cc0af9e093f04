"""The torus: angles in [-pi, pi), every angle a site, the exponential map a wrapped sum."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from reversal.core import Space
from reversal.spaces.shapes import checked_shape


@final
class Torus(Space):
    """Angles: ``Torus(2)`` has E = sites = (2,); the reference measure is the uniform probability.

    Raises:
        SpaceError: unless every length is a positive integer.
    """

    measure = "uniform probability"

    def __init__(self, *shape: int) -> None:
        self.event_shape = self.sites = self.tangent_shape = checked_shape("Torus", shape)

    def contains(self, x: Tensor) -> Tensor:
        """Every angle lies in [-pi, pi), up to rounding at the seam."""
        return ((x >= -math.pi - 1e-6) & (x <= math.pi + 1e-6)).flatten(1).all(1)

    def example(self, n: int, like: Tensor) -> Tensor:
        """The angle 0."""
        return like.new_zeros((n, *self.event_shape))

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """x + v, wrapped into [-pi, pi)."""
        return wrap(x + v)

    def __repr__(self) -> str:
        return f"Torus({', '.join(map(str, self.event_shape))})"


def wrap(x: Tensor) -> Tensor:
    """Return x modulo 2 pi in [-pi, pi); what lies there already keeps its bits."""
    x = x - 2 * math.pi * torch.round(x / (2 * math.pi))
    return torch.where(x < math.pi, x, x - 2 * math.pi).clamp(min=-math.pi)
