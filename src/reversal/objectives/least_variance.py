r"""The shape of a learned schedule by the variance of the loss, the network by the loss itself.

.. math:: \nabla_\theta E[L], \qquad \nabla_\eta \tfrac12 \log E[L^2] ,

with theta the network and eta the shape. The likelihood's loss has a mean that does not depend on
eta, so that its mean square is least where its variance is; the logarithm takes the scale out.
Source: Kingma et al. (2021), section 4 and appendix I.2.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal.core import Denoiser, Objective
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.schedules import LearnedSchedule
from reversal.state import State, Tree


@final
class LeastVariance(Objective):
    """An objective of an objective: its losses, with another gradient on the shape of a schedule.

    Args:
        objective: one whose mean the shape leaves as it is:
            ``Regression(weighting=LikelihoodWeighting())``, of a network that is shown
            ``schedule.level``, or ``StepBound`` of many steps.

    The gradient is right for the mean or the sum of the losses. Learned ends keep the gradient of
    the losses. Cost: one more backward pass.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses of the inner objective, ``(B,)``.

        Raises:
            CapabilityError: if no part of the denoiser is a ``LearnedSchedule``.
        """
        schedules = [part for part in denoiser.modules() if isinstance(part, LearnedSchedule)]
        if not schedules:
            raise CapabilityError(
                f"Expected a denoiser with a learned schedule for LeastVariance, got one of "
                f"{denoiser.process}. Write NetworkDenoiser(network, Gaussian(space, "
                f"LearnedSchedule()))."
            )
        losses = self.objective(denoiser, x_0, cond, observed, x_1, generator)
        shape = [p for each in schedules for p in each.shape_parameters() if p.requires_grad]
        if not (losses.requires_grad and shape and len(losses)):
            return losses
        square = (losses**2).mean().clamp_min(torch.finfo(losses.dtype).tiny)
        wanted = square.log() / 2 - losses.mean()
        slopes = torch.autograd.grad(wanted, shape, retain_graph=True)
        moves = [(slope * (p - p.detach())).sum() for slope, p in zip(slopes, shape, strict=True)]
        return losses + torch.stack(moves).sum()
