r"""A scalar as a denoiser: log beta(x, t), whose score is a true gradient or coherent ratios.

.. math:: s = \nabla \log \beta \qquad\text{or}\qquad s_y = \log \beta(y) - \log \beta(x) .
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import ClockLaw, SharedClock
from reversal.core import Denoiser, Estimate, JointEstimate, JumpSpace, Kind, Path
from reversal.denoisers import seen
from reversal.errors import CapabilityError, SpaceError
from reversal.operators import Neighbors, Tangent


class Scalar(Denoiser):
    """A denoiser that is the derivative of one number per item, ``network(x_t, t, cond)``."""

    def __init__(
        self, network: Callable[..., Tensor], process: Path, clocks: ClockLaw | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.process: Any = process
        self.clocks: Any = SharedClock() if clocks is None else clocks
        self._has_real = any(path.space.is_real for path in state.leaves(process.parts))

    @final
    @property
    def like(self) -> Tensor:
        """The first parameter of the network; float32 on the CPU if it has none."""
        return seen.weight(self.network)

    @final
    def value(self, x_t: Any, t: Any, cond: Any = None) -> Tensor:
        """The number, ``(B,)``.

        Raises:
            SpaceError: if the network outputs another shape.
        """
        n = state.batch_size(x_t)
        value = self.network(x_t, seen.clock(self, self.network, x_t, t, self._has_real), cond)
        if value.shape != (n,):
            raise SpaceError(
                f"Expected the network to output one number per item, {(n,)}, got "
                f"{tuple(value.shape)}. Squeeze its last dimension."
            )
        return value

    @final
    def read(self, kind: Kind, function: Callable[[Any], Tensor], x_t: Any, t: Any) -> Any:
        """The derivatives of a function of x_t, by differentiation and by differences."""
        space = self.process.noisy_space
        read = {}
        for name in list(space.factors) if space.factors else [""]:
            path = state.take(self.process.parts, name)
            own, at = state.take(x_t, name), state.take(t, name)
            how = _ratios if isinstance(path.noisy_space, JumpSpace) else _gradient
            read[name] = Estimate(path, own, at, kind, how(space, name, function, x_t))
        return JointEstimate(read) if space.factors else read[""]


@final
class Energy(Scalar):
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

    def log_beta(self, x_t: Any, t: Any, cond: Any = None) -> Tensor:
        """The scalar, ``(B,)``."""
        value = self.value(x_t, t, cond)
        if value.device.type == "cpu" and not bool(value.isfinite().all()):
            raise CapabilityError(
                "Expected beta > 0 everywhere, without which there is no reversal, got a log beta "
                "that is not finite. Bound the output of the network."
            )
        return value

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The score of log beta, by differentiation and by differences."""
        return self.read(Kind.SCORE, lambda y: self.log_beta(y, t, cond), x_t, t)


@final
class Action(Scalar):
    r"""Follow the gradient of a scalar network, the action: :math:`u_t = \nabla s_t`.

    Every law that changes in time has one such velocity, of least kinetic energy, so it can be
    learned from draws of the marginals alone: train it by ``ActionMatching``. Source: Neklyudov et
    al. (2023).

    Args:
        network: any callable.
        process: a path on real spaces.
        clocks: the law it was or will be trained on.

    Raises:
        CapabilityError: for a space without gradients.
    """

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The velocity."""
        for path in state.leaves(self.process.parts):
            if not path.space.is_real:
                raise CapabilityError(
                    f"Expected a real space for an action, got {path.space}. Use Energy()."
                )
        return self.read(Kind.VELOCITY, lambda y: self.value(y, t, cond), x_t, t)


def _gradient(space: Any, name: str, function: Callable[[Any], Tensor], x_t: Any) -> Tensor:
    gradient = Tangent(space, name).gradient(function, x_t)
    return gradient if torch.is_grad_enabled() else gradient.detach()


def _ratios(space: Any, name: str, function: Callable[[Any], Tensor], x_t: Any) -> Tensor:
    neighbors, here = Neighbors(space, name), function(x_t)
    around = [function(y) - here for _, _, y in neighbors.every(x_t)]
    return neighbors.gathered(x_t, around)
