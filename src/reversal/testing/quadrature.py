r"""Quadrature rules against the reference measure of a space, site by site.

On the line and on the circle the trapezoidal rule, exponentially accurate for densities that decay
or are periodic; on rotations a product rule in Euler angles, exact up to its band limit:

.. math:: \int f \,dR = \frac{1}{8\pi^2} \int_0^{2\pi}\!\! \int_{-1}^{1}\! \int_0^{2\pi}
   f(R_z(a) R_y(\arccos c) R_z(b))\, da\, dc\, db .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from reversal.spaces import SO3, Euclidean, Torus, rotations


class Rule(ABC):
    """Nodes and weights; ``is_ordered`` if the nodes of a site run along its one coordinate."""

    is_ordered: bool = True

    @abstractmethod
    def nodes(self, space: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes ``(M, *E)`` and log-weights ``(M, *sites)``.

        Args:
            space: the space.
            draws: draws of the law to be integrated, ``(n, *E)``: they show where its mass is.
        """


@final
class LineRule(Rule):
    """Equal steps over the mean of the draws, 14 standard deviations to both sides."""

    def nodes(self, space: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
        """801 nodes."""
        grid = torch.linspace(-14, 14, 801, dtype=torch.float64)
        spread, grid = draws.std(0), grid.reshape(-1, *[1] * len(space.sites))
        nodes = draws.mean(0) + spread * grid
        return nodes, (spread * 28 / 800).log().expand_as(nodes)


@final
class CircleRule(Rule):
    """Equal angles."""

    def nodes(self, space: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
        """2048 angles."""
        angles = (torch.arange(2048, dtype=torch.float64) / 2048 * 2 - 1) * math.pi
        nodes = angles.reshape(-1, *[1] * len(space.sites)).expand(-1, *space.sites)
        return nodes, torch.full_like(nodes, -math.log(2048))


@final
class RotationRule(Rule):
    """Euler angles: 24 x 16 x 24 nodes, exact up to degree 23."""

    is_ordered = False

    def nodes(self, space: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The same nodes for every site."""
        turn = torch.arange(24, dtype=torch.float64) * (2 * math.pi / 24)
        cosine, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(16))
        a, b, c = torch.meshgrid(turn, cosine.arccos(), turn, indexing="ij")
        R = _about(a, 2) @ _about(b, 1) @ _about(c, 2)
        logs = (weight / 2).log()[None, :, None].expand_as(a) - 2 * math.log(24)
        lead = [1] * len(space.sites)
        nodes = R.reshape(-1, *lead, 3, 3).expand(-1, *space.event_shape)
        return nodes, logs.reshape(-1, *lead).expand(-1, *space.sites)


_RULES: dict[type, Rule] = {Euclidean: LineRule(), Torus: CircleRule(), SO3: RotationRule()}


def rule_of(space: Any) -> Rule | None:
    """The rule of a space; None where there is none, and checks by quadrature are left out."""
    return _RULES.get(type(space))


def _about(angle: Tensor, axis: int) -> Tensor:
    v = torch.zeros(*angle.shape, 3, dtype=angle.dtype)
    v[..., axis] = angle
    return rotations.exp(v)
