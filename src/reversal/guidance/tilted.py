r"""Denoisers tilted by evidence: Bayes' rule on the score, wherever log p_t(e | x_t) comes from.

.. math:: \nabla \log q_t(x) + w \nabla \log p_t(e | x), \qquad
   \log \frac{q_t(y)}{q_t(x)} + w \log \frac{p_t(e | y)}{p_t(e | x)} .

At w = 1 with the exact p_t(e | x_t) the reversal is exactly that of the conditional law.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reversal.core import Denoiser, Estimate, Kind
from reversal.errors import CapabilityError
from reversal.grids import Tick
from reversal.guidance.extrapolation import precise


class Look(NamedTuple):
    """What a tilted denoiser says: the inner estimate, the tilted one and log p_t(e | x_t)."""

    free: Any
    guided: Any
    log_evidence: Tensor


class Tilted(Denoiser):
    """The family of denoisers of a denoiser that know how probable their evidence is."""

    denoiser: Denoiser
    strength: float

    @abstractmethod
    def look(self, x_t: Any, t: Any, cond: Any = None) -> Look:
        """Return both estimates and the log-probability of the evidence, ``(B,)``, in nats."""

    @abstractmethod
    def log_likelihood(self, x_0: Any) -> Tensor:
        """Return log p(e | x_0), ``(B,)``: what the evidence comes to at data."""


def shifted(estimate: Estimate, gradient: Tensor) -> Estimate:
    """Add a gradient to the score that an estimate stands for, in the estimate's own kind.

    Where no signal is left at t = 1, nothing is added: noise says nothing of evidence.
    """
    path, x, t = estimate.path, estimate.x_t, estimate.t
    if isinstance(t, Tick) and t.time == 1 and path.starts_singular:
        return estimate
    if estimate.kind is Kind.SCORE:
        return Estimate(path, x, t, Kind.SCORE, estimate.value + gradient)
    rule: Any = path.conversion(Kind.SCORE, estimate.kind)
    if rule is None:
        raise CapabilityError(
            f"Expected a path with a score to guide, got {path}. Guide a Gaussian process, or "
            f"train with the condition and use ClassifierFree."
        )
    shift = rule(gradient, torch.zeros_like(x), t)
    return Estimate(path, x, t, estimate.kind, estimate.value + shift)


def weighed(
    estimate: Estimate, strength: float, evaluate: Callable[[Tensor, int], Tensor]
) -> Estimate:
    """Add the log-ratios of the evidence, times the strength, to an estimate on a finite set.

    Args:
        estimate: of one factor.
        strength: w.
        evaluate: maps states of the factor, each item's several times over, and that number of
            times to the log-probabilities of the evidence.
    """
    path, x = estimate.path, estimate.x_t
    shift = strength * _ratios(path, x, evaluate)
    return Estimate(path, x, estimate.t, Kind.SCORE, precise(estimate).score + shift)


def repeated(part: Any, times: int) -> Any:
    """Repeat the rows of a tensor, one after another; anything else is returned as it is."""
    if times == 1 or not isinstance(part, Tensor):
        return part
    return part.repeat_interleave(times, 0)


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
