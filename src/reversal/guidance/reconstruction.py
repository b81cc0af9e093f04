r"""Reconstruction guidance: evidence on clean data, with a model that never saw any.

.. math:: \nabla \log q_t(x) + w \nabla_x \log p_t(e | x), \qquad
   p_t(e | x_t) \text{ from the estimate at } (x_t, t),

differentiated through the denoiser. How p_t(e | x_t) is made of the estimate, and when that is
exact, stands in ``evidence``. Source: Ho, Salimans et al. (2022), "Video diffusion models", and
those named there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import tensor
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError, SpaceError
from reversal.guidance.evidence import Evidence
from reversal.guidance.tilted import Look, Tilted, repeated, shifted, weighed


@final
class Reconstruction(Tilted):
    """A denoiser of a denoiser, tilted by evidence on clean data.

    Args:
        denoiser: the unconditional one; its network must be differentiable in x_t.
        evidence: ``DPS``, ``PiGDM`` or ``MomentMatching``.
        strength: w.

    Raises:
        CapabilityError: if the path has no score to shift, or the evidence needs another one.
        SpaceError: if the evidence does not fit the space.

    Every item is guided on its own. On a product every factor is tilted, seen or not: real ones by
    the gradient, finite ones by the ratios of the evidence at all their values. Cost: one call and
    its gradient; one call more for every value of every site of finite factors.
    """

    def __init__(self, denoiser: Denoiser, evidence: Evidence, strength: float = 1.0) -> None:
        super().__init__()
        if not isinstance(evidence, Evidence):
            raise CapabilityError(
                f"Expected evidence such as DPS(log_likelihood) or MomentMatching(observation), "
                f"got {evidence!r}. Wrap it in one of those."
            )
        self.denoiser, self.evidence, self.strength = denoiser, evidence, strength
        self.process, self.clocks = denoiser.process, denoiser.clocks
        state.map(_need_score, self.process.parts)
        evidence.check(self.process)

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Tilt the inner estimate, factor by factor."""
        return self.look(x_t, t, cond).guided

    def look(self, x_t: Any, t: Any, cond: Any = None) -> Look:
        """Both estimates and log p_t(e | x_t), in one call and its gradient."""
        free, log_evidence, gradients = self.differentiated(x_t, t, cond)
        tilted = {
            name: self._tilt(part, gradients[name], self._with_factor(name, x_t, t, cond))
            for name, part in _named(free).items()
        }
        plain = not isinstance(x_t, Mapping)
        return Look(free, tilted[""] if plain else JointEstimate(tilted), log_evidence)

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The evidence's, at data."""
        embed = partial(_embedded, self.like.dtype)
        return self.evidence.log_likelihood(state.map(embed, self.process.space.parts, x_0))

    def differentiated(self, x_t: Any, t: Any, cond: Any) -> tuple[Any, Tensor, dict[str, Any]]:
        """The estimate, the log-evidence and its tangent gradient per real factor, detached."""
        with torch.enable_grad():
            steps = {
                name: part.new_zeros((len(part), *space.tangent_shape)).requires_grad_()
                for name, part in _named(x_t).items()
                if (space := _named(self.process.space.parts)[name]).is_real
            }
            moved = {
                name: _named(self.process.space.parts)[name].move(part.detach(), steps[name])
                if name in steps
                else part
                for name, part in _named(x_t).items()
            }
            estimate = self.denoiser(moved.get("", moved), t, cond)
            log_evidence = self.evidence.log_prob(estimate)
            slopes = _gradients(log_evidence, steps)
        free = {
            name: Estimate(part.path, _named(x_t)[name], part.t, part.kind, part.value.detach())
            for name, part in _named(estimate).items()
        }
        joint = free.get("") or JointEstimate(free)
        return joint, log_evidence.detach(), {**dict.fromkeys(free), **slopes}

    def _tilt(
        self, estimate: Estimate, gradient: Any, evaluate: Callable[[Tensor, int], Tensor]
    ) -> Estimate:
        if self.strength == 0:
            return estimate
        if gradient is None:
            return weighed(estimate, self.strength, evaluate)
        return shifted(estimate, self.strength * gradient)

    def _with_factor(
        self, name: str, x_t: Any, t: Any, cond: Any
    ) -> Callable[[Tensor, int], Tensor]:
        def evaluate(x: Tensor, times: int) -> Tensor:
            like = state.like(x_t)
            clock = state.map(lambda at: repeated(tensor(at, len(x) // times, like), times), t)
            shown = state.map(lambda part: repeated(part, times), cond)
            rest = {key: repeated(part, times) for key, part in _named(x_t).items()}
            there = {**rest, name: x}
            return self.differentiated(there.get("", there), clock, shown)[1]

        return evaluate


def _named(tree: Any) -> Mapping[str, Any]:
    """A tree by the names of its factors; what is plain is named ""."""
    return tree if isinstance(tree, Mapping) else {"": tree}


def _gradients(log_evidence: Tensor, steps: dict[str, Tensor]) -> dict[str, Tensor]:
    if not steps:
        return {}
    if not log_evidence.requires_grad:
        raise CapabilityError(
            "Expected evidence that can be differentiated down to the noisy state, got a constant. "
            "Look for a log-likelihood or a network that detaches, or ignores what it is given."
        )
    slopes = torch.autograd.grad(log_evidence.sum(), list(steps.values()), allow_unused=True)
    return {
        name: torch.zeros_like(step) if slope is None else slope
        for (name, step), slope in zip(steps.items(), slopes, strict=True)
    }


def _need_score(path: Any) -> None:
    if path.space.is_real and not any(path.conversion(Kind.SCORE, kind) for kind in Kind):
        raise CapabilityError(
            f"Expected a path with a score to guide, got {path}. Guide a Gaussian process, or "
            f"train with the condition and use ClassifierFree."
        )


def _embedded(dtype: torch.dtype, space: Any, x_0: Tensor) -> Tensor:
    """Reals as they are, codes one-hot."""
    if space.is_real:
        return x_0
    if x_0.dtype != torch.int64:
        raise SpaceError(f"Expected codes in {space}, got {x_0.dtype}. Give int64.")
    return torch.nn.functional.one_hot(x_0, space.num_values).to(dtype)
