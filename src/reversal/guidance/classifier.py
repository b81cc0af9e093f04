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
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError
from reversal.grids import Tick
from reversal.guidance.classifier_free import precise


@final
class Classifier(Denoiser):
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
        estimate = self.denoiser(x_t, t, cond)
        n, like = state.batch_size(x_t), state.like(x_t)
        clock = state.map(lambda at: tensor(at, n, like), t)
        if not isinstance(x_t, Mapping):
            return self._tilt(estimate, lambda x, repeat: self.log_prob(x, _repeat(clock, repeat)))
        tilted = {
            name: self._tilt(part, self._with_factor(name, x_t, clock))
            for name, part in estimate.items()
        }
        return JointEstimate(tilted)

    def _with_factor(self, name: str, x_t: Any, clock: Any) -> Callable[[Tensor, int], Tensor]:
        def evaluate(x: Tensor, repeat: int) -> Tensor:
            rest = {key: _repeat(part, repeat) for key, part in x_t.items()}
            return self.log_prob(
                {**rest, name: x}, state.map(lambda at: _repeat(at, repeat), clock)
            )

        return evaluate

    def _tilt(self, estimate: Estimate, evaluate: Callable[[Tensor, int], Tensor]) -> Estimate:
        path, x = estimate.path, estimate.x_t
        if self.strength == 0:
            return estimate
        if not path.space.is_real:
            shift = self.strength * _ratios(path, x, evaluate)
            return Estimate(path, x, estimate.t, Kind.SCORE, precise(estimate).score + shift)
        if isinstance(estimate.t, Tick) and estimate.t.time == 1 and path.starts_singular:
            return estimate
        gradient = self.strength * _gradient(path.space, x, evaluate)
        if estimate.kind is Kind.SCORE:
            return Estimate(path, x, estimate.t, Kind.SCORE, estimate.value + gradient)
        rule: Any = path.conversion(Kind.SCORE, estimate.kind)
        if rule is None:
            raise CapabilityError(
                f"Expected a path with a score to guide, got {path}. Guide a Gaussian process, or "
                f"train with the condition and use ClassifierFree."
            )
        shift = rule(gradient, torch.zeros_like(x), estimate.t)
        return Estimate(path, x, estimate.t, estimate.kind, estimate.value + shift)


def _gradient(space: Any, x: Tensor, evaluate: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The tangent gradient: how log_prob changes along ``space.move``."""
    with torch.enable_grad():
        step = x.new_zeros((len(x), *space.tangent_shape)).requires_grad_()
        return torch.autograd.grad(evaluate(space.move(x, step), 1).sum(), step)[0]


def _ratios(path: Any, x: Tensor, evaluate: Callable[[Tensor, int], Tensor]) -> Tensor:
    """log p(e | y) - log p(e | x) for every value y of every site, ``(B, *sites, N)``."""
    n, num_states = len(x), path.noisy_space.num_states
    flat = x.reshape(n, -1)
    sites = flat.shape[1]
    grid = flat[:, None, None].repeat(1, sites, num_states, 1)
    each = torch.arange(sites, device=x.device)
    grid[:, each, :, each] = torch.arange(num_states, device=x.device)
    there = evaluate(grid.reshape(n * sites * num_states, *x.shape[1:]), sites * num_states)
    here = evaluate(x, 1)
    return (
        (there.view(n, -1) - here[:, None])
        .view(*x.shape, num_states)
        .nan_to_num(nan=0.0, posinf=0.0, neginf=-torch.inf)
    )


def _repeat(part: Tensor, times: int) -> Tensor:
    return part if times == 1 else part.repeat_interleave(times, 0)
