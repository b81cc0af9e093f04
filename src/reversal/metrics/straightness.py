r"""How straight the paths of a flow are: what one Euler step loses.

.. math:: S = E \int_0^1 |x_1 - x_0 - u_t(x_t)|^2 dt ,

0 for straight lines followed at constant speed. Source: Liu et al. (2023), eq. (3).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reversal.core import Denoiser
from reversal.grids import Grid
from reversal.samplers import Euler


def straightness(denoiser: Denoiser, x_1: Tensor, steps: int = 100, cond: Any = None) -> Tensor:
    """Return S over the paths that start at ``x_1``, a number.

    Args:
        denoiser: of one factor that has a velocity.
        x_1: the states at time 1, ``(B, *E)``.
        steps: equal Euler steps; the error is of order one over their number.
        cond: handed to the denoiser.
    """
    grid, walk = Grid.uniform(steps), [x_1]
    Euler(churn=0).sample(
        denoiser,
        len(x_1),
        grid=grid,
        x_1=x_1,
        cond=cond,
        on_step=lambda _, x: walk.append(x),
    )
    line, width = x_1 - walk[-1], 1 / steps
    bends = [((line - (x_t - x_s) / width) ** 2).flatten(1).sum(1) for x_t, x_s in pairwise(walk)]
    return torch.stack(bends).mean()
