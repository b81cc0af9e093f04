r"""A scalar as a denoiser: log beta(x, t), whose score is a true gradient or coherent ratios.

.. math:: s = \nabla \log \beta \qquad\text{or}\qquad s_y = \log \beta(y) - \log \beta(x) .
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from reversal import state
from reversal.clocks import ClockLaw, SharedClock
from reversal.core import Denoiser, Estimate, JointEstimate, JumpSpace, Kind, Process
from reversal.errors import CapabilityError, SpaceError
from reversal.operators import Neighbors, Tangent


@final
class Energy(Denoiser):
    """Reverse by a scalar network ``network(x_t, t, cond) -> (B,)``, its output log beta.

    Args:
        network: any callable; minus it is the energy, up to what does not depend on x_t.
        process: what is reversed.
        clocks: the law it was or will be trained on.

    Raises:
        CapabilityError: where log beta is not finite, so that beta > 0 fails.

    Cost: one backward pass, and one call for every neighbor on jumping factors.

    A constant of log beta, such as the last bias of a network, has no gradient, and DDP stops at
    parameters without one: leave it out, ``nn.Linear(n, 1, bias=False)``.
    """

    def __init__(
        self, network: Callable[..., Tensor], process: Process, clocks: ClockLaw | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.process: Any = process
        self.clocks: Any = SharedClock() if clocks is None else clocks

    @property
    def like(self) -> Tensor:
        """The first parameter of the network; float32 on the CPU if it has none."""
        if isinstance(self.network, nn.Module):
            for parameter in self.network.parameters():
                return parameter
        return torch.empty(())

    def log_beta(self, x_t: Any, t: Any, cond: Any = None) -> Tensor:
        """The scalar, ``(B,)``."""
        n = state.batch_size(x_t)
        value = self.network(x_t, self.clocks.show(self.process.space, t, n, state.like(x_t)), cond)
        if value.shape != (n,):
            raise SpaceError(
                f"Expected the network to output one number per item, {(n,)}, got "
                f"{tuple(value.shape)}. Squeeze its last dimension."
            )
        if value.device.type == "cpu" and not bool(value.isfinite().all()):
            raise CapabilityError(
                "Expected beta > 0 everywhere, without which there is no reversal, got a log beta "
                "that is not finite. Bound the output of the network."
            )
        return value

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The score of log beta, by differentiation and by differences."""
        space = self.process.noisy_space
        names = list(space.factors) if space.factors else [""]
        read = {}
        for name in names:
            path = state.take(self.process.parts, name)
            own, at = state.take(x_t, name), state.take(t, name)
            how = self._ratios if isinstance(path.noisy_space, JumpSpace) else self._gradient
            read[name] = Estimate(path, own, at, Kind.SCORE, how(space, name, x_t, t, cond))
        return JointEstimate(read) if space.factors else read[""]

    def _gradient(self, space: Any, name: str, x_t: Any, t: Any, cond: Any) -> Tensor:
        score = Tangent(space, name).gradient(lambda y: self.log_beta(y, t, cond), x_t)
        return score if torch.is_grad_enabled() else score.detach()

    def _ratios(self, space: Any, name: str, x_t: Any, t: Any, cond: Any) -> Tensor:
        neighbors, here = Neighbors(space, name), self.log_beta(x_t, t, cond)
        around = [self.log_beta(y, t, cond) - here for _, _, y in neighbors.every(x_t)]
        return neighbors.gathered(x_t, around)
