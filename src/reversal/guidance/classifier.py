r"""Classifier guidance: Bayes' rule on the score, with a classifier of noisy states.

.. math:: \nabla \log q_t(x) + w \nabla \log p_t(e | x), \qquad
   \log \frac{q_t(y)}{q_t(x)} + w \log \frac{p_t(e | y)}{p_t(e | x)} .

At w = 1 with the exact p_t(e | x_t) the reversal is exactly that of the conditional law. Source:
Dhariwal and Nichol (2021), eq. (10); Nisonoff et al. (2024), eq. (3) for jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import tensor
from reversal.core import Denoiser, Estimate, JointEstimate
from reversal.guidance.tilted import Look, Tilted, repeated, shifted, weighed


@final
class Classifier(Tilted):
    """A denoiser of a denoiser, tilted by the log-probability of evidence at the noisy state.

    Args:
        denoiser: the unconditional one.
        log_prob: ``log_prob(x_t, t) -> (B,)``, differentiable in real factors.
        strength: w.

    Where no signal is left at t = 1, real factors are not tilted: noise says nothing of evidence.

    Cost: one gradient on real factors; one evaluation for every value of every site on finite sets.
    """

    def __init__(
        self, denoiser: Denoiser, log_prob: Callable[[Any, Any], Tensor], strength: float = 1.0
    ) -> None:
        super().__init__()
        self.denoiser, self.log_prob, self.strength = denoiser, log_prob, strength
        self.process, self.clocks = denoiser.process, denoiser.clocks

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Tilt the inner estimate, factor by factor."""
        return self._tilted(self.denoiser(x_t, t, cond), x_t, _clock(x_t, t))

    def look(self, x_t: Any, t: Any, cond: Any = None) -> Look:
        """The inner estimate, the tilted one and the classifier's log-probability."""
        free, clock = self.denoiser(x_t, t, cond), _clock(x_t, t)
        return Look(free, self._tilted(free, x_t, clock), self.log_prob(x_t, clock))

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The classifier's log-probability at t = 0."""
        n, like = state.batch_size(x_0), state.like(x_0)
        zero = like.new_zeros(n)
        return self.log_prob(x_0, state.map(lambda _: zero, self.process.parts))

    def _tilted(self, estimate: Any, x_t: Any, clock: Any) -> Any:
        if not isinstance(x_t, Mapping):
            return self._tilt(estimate, lambda x, times: self.log_prob(x, repeated(clock, times)))
        tilted = {
            name: self._tilt(part, self._with_factor(name, x_t, clock))
            for name, part in estimate.items()
        }
        return JointEstimate(tilted)

    def _with_factor(self, name: str, x_t: Any, clock: Any) -> Callable[[Tensor, int], Tensor]:
        def evaluate(x: Tensor, times: int) -> Tensor:
            rest = {key: repeated(part, times) for key, part in x_t.items()}
            at = state.map(lambda part: repeated(part, times), clock)
            return self.log_prob({**rest, name: x}, at)

        return evaluate

    def _tilt(self, estimate: Estimate, evaluate: Callable[[Tensor, int], Tensor]) -> Estimate:
        if self.strength == 0:
            return estimate
        if not estimate.path.space.is_real:
            return weighed(estimate, self.strength, evaluate)
        gradient = _gradient(estimate.path.space, estimate.x_t, evaluate)
        return shifted(estimate, self.strength * gradient)


def _clock(x_t: Any, t: Any) -> Any:
    n, like = state.batch_size(x_t), state.like(x_t)
    return state.map(lambda at: tensor(at, n, like), t)


def _gradient(space: Any, x: Tensor, evaluate: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The tangent gradient: how log_prob changes along ``space.move``."""
    with torch.enable_grad():
        step = x.new_zeros((len(x), *space.tangent_shape)).requires_grad_()
        return torch.autograd.grad(evaluate(space.move(x, step), 1).sum(), step)[0]
