r"""A continuous normalizing flow by maximum likelihood: the log-density of a flow as a loss.

.. math:: \ell(x_0) = -\log p_{prior}(x_1) - \int_0^1 \nabla \cdot u_t(x_t)\, dt, \qquad
   \dot x_t = u_t(x_t) ,

solved in equal steps whose gradient is taken exactly: discretize, then optimize. Source: Chen et
al. (2018), eq. (8); Grathwohl et al. (2019) for the probes; deviation: no adjoint equation, whose
solution is not the gradient of what was computed.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Objective
from reversal.errors import CapabilityError
from reversal.likelihood.flow import ProbabilityFlow
from reversal.likelihood.posed import Posed
from reversal.likelihood.solvers import RungeKutta
from reversal.noise import Randomness
from reversal.state import State, Tree


@final
class MaximumLikelihood(Objective):
    """Minus the log-density of the data under the flow of a denoiser's velocity, in nats.

    Any path with a velocity and a prior will do; only its prior, its space and the conversion to a
    velocity are used: ``Interpolant(space, Unpaired(NormalPrior(space, 1.0)))`` is the plain flow.

    Args:
        steps: of the classical method of order 4.
        probes: random signs per item for the divergence, new at every call; 0 is the exact one,
            and None as of ``flow_log_prob``. The loss is unbiased either way.

    Cost: 4 steps calls of the network, each with one backward pass per dimension or probe that is
    differentiated again; all of it is held in memory. ``Regression`` on the same path costs one.
    """

    def __init__(self, steps: int = 20, probes: int | None = None) -> None:
        self.solver, self.probes = RungeKutta(steps), probes

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses, ``(B,)``.

        Raises:
            CapabilityError: for ``x_1``, whose place the flow itself finds, or a path without a
                velocity or a prior.
            ClockError: for missing entries outside the clock law.
        """
        if x_1 is not None:
            raise CapabilityError(
                "Expected data alone for MaximumLikelihood, got x_1 beside them, which the flow "
                "finds itself. Leave out x_1, or use Regression()."
            )
        denoiser.process.space.check_form(x_0, "x_0")
        posed = Posed.of(denoiser, x_0, None, observed, cond, generator)
        trains = torch.is_grad_enabled()
        flow = ProbabilityFlow.of(posed, posed.held(x_0), self.probes, None, trains)
        terms = flow.scored(self.solver, 1)
        return -(terms.end + terms.spread.mean(1)).to(state.like(x_0))
