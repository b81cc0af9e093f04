r"""Classifier-free guidance: extrapolate from the unconditional to the conditional score.

.. math:: s_w = s_\varnothing + w (s_c - s_\varnothing),

gradients on real spaces, log-ratios on finite sets. At w = 1 this is the conditional denoiser. The
law sampled at other strengths is not p(x) p(c | x)^w. Source: Ho and Salimans (2022), eq. (6);
Nisonoff et al. (2024) for jumps.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError


@final
class ClassifierFree(Denoiser):
    """A denoiser of a denoiser that was trained with and without its condition.

    Args:
        denoiser: called with ``cond`` and with ``null``.
        strength: w.
        null: the condition that stands for none.

    Cost: two calls.
    """

    def __init__(self, denoiser: Denoiser, strength: float, null: Any = None) -> None:
        super().__init__()
        if not strength >= 0:
            raise CapabilityError(f"Expected a strength >= 0, got {strength}. 1 is the condition.")
        self.denoiser, self.strength, self.null = denoiser, strength, null
        self.process, self.clocks = denoiser.process, denoiser.clocks

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Combine the two estimates, factor by factor."""
        given, free = self.denoiser(x_t, t, cond), self.denoiser(x_t, t, self.null)
        mixed = state.map(self._mix, given, free)
        return JointEstimate(mixed) if isinstance(mixed, dict) else mixed

    def _mix(self, given: Estimate, free: Estimate) -> Estimate:
        if given.path.space.is_real:
            start, end = free.read(given.kind), given.value
            value = start + self.strength * (end - start)
            return Estimate(given.path, given.x_t, given.t, given.kind, value)
        if self.strength == 0:
            return free
        start, end = precise(free).score, precise(given).score
        same = (start == end) | (start == -torch.inf)
        value = start + self.strength * torch.where(same, 0.0, end - start)
        return Estimate(given.path, given.x_t, given.t, Kind.SCORE, value)


def precise(estimate: Estimate) -> Estimate:
    """Return an estimate on a finite set in float64, logits normalized there.

    Near t = 1 a score holds what it says of the data in its last digits.
    """
    value = estimate.value.double()
    logits = estimate.kind in (Kind.POSTERIOR, Kind.CAVITY)
    value = value.log_softmax(-1) if logits else value
    return Estimate(estimate.path, estimate.x_t, estimate.t, estimate.kind, value)
