r"""The bound in T steps as a loss: what trains a learned variance, or everything.

.. math:: L_{vlb} = E_k\, T\, L_{k-1}, \qquad L_{hybrid} = L_{simple} + \lambda L_{vlb},

with k drawn alike from 1 .. T, L_0 = -log p(x_0 | x_{t_1}) and the other terms divergences of
bridges. Source: Nichol and Dhariwal (2021), eq. (16) and section 3.1.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Objective
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.processes.decoders import Decoder
from reversal.processes.reverse_chain import ReverseChain, grid_of
from reversal.processes.variances import StepVariance
from reversal.state import State, Tree
from reversal.times import LowDiscrepancy


@final
class StepBound(Objective):
    """Minus the bound of a chain, in nats: one step of it per item, unbiased.

    The hybrid loss is that of ``Regression()`` plus 0.001 times that of
    ``StepBound(1000, variance, trains_mean=False)``.

    Args:
        grid: a ``Grid`` from 1 to 0; a number T takes the denoiser's own.
        variance: as of ``elbo_discrete``. Its parameters belong into the optimizer.
        decoder: as of ``elbo_discrete``.
        trains_mean: whether the estimate gets a gradient, or the variance alone.

    Cost: one network call, and one of the variance's for each of the two kinds of step.
    """

    def __init__(
        self,
        grid: Any,
        variance: StepVariance | None = None,
        decoder: Decoder | None = None,
        trains_mean: bool = True,
    ) -> None:
        self.grid, self.variance, self.decoder = grid, variance, decoder
        self.trains_mean = trains_mean

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
            CapabilityError: for missing entries or another end, which this loss has no place for.
            ClockError: for a grid that is none.
        """
        if observed is not None or x_1 is not None:
            raise CapabilityError(
                "Expected complete data without x_1 for StepBound, got `observed` or `x_1`. Use "
                "Regression(), or leave out the items with gaps."
            )
        path = denoiser.process
        path.space.check_form(x_0, "x_0")
        chain = ReverseChain.of(path, grid_of(denoiser, self.grid), self.variance, self.decoder)
        n, like = state.batch_size(x_0), state.like(x_0).double()
        u = LowDiscrepancy().sample(n, like, generator)
        k = 1 + (u * chain.steps).long().clamp(0, chain.steps - 1)
        t = chain.time(k)
        x_t = path.kernel(x_0, t).sample(generator)
        with torch.set_grad_enabled(self.trains_mean and torch.is_grad_enabled()):
            estimate = denoiser(x_t, t, cond)
        ends = _total(chain.prior_divergence(x_0, generator))
        return ends + chain.steps * self._term(chain, x_0, x_t, k, estimate, cond)

    def _term(
        self, chain: ReverseChain, x_0: Any, x_t: Any, k: Tensor, estimate: Any, cond: Any
    ) -> Tensor:
        """Every item by the rule of its step: the last one has a decoder, the others a KL."""
        last = -_total(chain.log_decoded(x_0, x_t, estimate, cond))
        if chain.steps < 2:
            return last
        inner = _total(chain.divergence(x_0, x_t, k.clamp_min(2), estimate, cond))
        return torch.where(k == 1, last, inner)


def _total(values: Tree) -> Tensor:
    return state.total(state.map(state.sum_sites, values))
