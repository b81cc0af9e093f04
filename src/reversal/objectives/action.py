r"""Action matching: the velocity of a path from draws of its marginals alone.

.. math:: J(s) = E_{q_0} s_0 - E_{q_1} s_1
   + \int_0^1 E_{q_t} \big[\tfrac12 |\nabla s_t|^2 + \partial_t s_t\big] dt
   = \tfrac12 \int_0^1 E_{q_t} |\nabla s_t - u_t|^2 dt + \text{const},

for whatever velocity u carries the marginals: what is found is the one that is a gradient. Source:
Neklyudov et al. (2023), eq. (4) and (5).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Objective
from reversal.denoisers import Action
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.objectives.regression import paired
from reversal.state import State, Tree


@final
class ActionMatching(Objective):
    """The loss of an ``Action`` under one time per item; needs no kernel but its draws.

    Cost: three calls and a backward pass through one of them.
    """

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
            CapabilityError: if the denoiser is no ``Action``, entries are missing, or sites have
                clocks of their own.
        """
        if not isinstance(denoiser, Action) or observed is not None:
            raise CapabilityError(
                f"Expected an Action and whole items for ActionMatching, got "
                f"{type(denoiser).__name__}. Wrap your scalar network: Action(network, path)."
            )
        path, n, like = denoiser.process, state.batch_size(x_0), state.like(x_0)
        path.space.check_form(x_0, "x_0")
        clock = denoiser.clocks.sample(path.space, n, like, generator)
        if clock.running is not None or not isinstance(clock.time, Tensor):
            raise CapabilityError(
                f"Expected one clock for all sites, got {denoiser.clocks}. Use SharedClock()."
            )
        ends = paired(path, x_0, x_1, cond, generator)
        start, end = torch.zeros_like(clock.time), torch.ones_like(clock.time)
        x_t, last = (path.kernel(x_0, t, *ends).sample(generator) for t in (clock.time, end))
        inside = clock.weigh(self._inside(denoiser, x_t, clock.time, cond))
        return denoiser.value(x_0, start, cond) - denoiser.value(last, end, cond) + inside

    def _inside(self, action: Action, x_t: Any, t: Tensor, cond: Any) -> Tensor:
        """Half the squared gradient, and the derivative in time."""
        with torch.enable_grad():
            at = t.detach().requires_grad_()
            value = action.value(x_t, at, cond)
            (rate,) = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)
            velocity = action(x_t, t, cond).velocity
            energy = state.total(state.map(lambda u: (u**2).flatten(1).sum(1), velocity)) / 2
        return energy + (0 if rate is None else rate)
