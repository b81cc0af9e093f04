r"""A guidance interval: one denoiser while low < t <= high, another elsewhere.

Guidance at much noise narrows what is drawn, and at little noise it changes nothing any more: limit
it to the times in between. Source: Kynkaanniemi et al. (2024), "Applying guidance in a limited
interval improves sample and distribution quality in diffusion models", arXiv 2404.07724.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError, ClockError
from reversal.grids import Tick
from reversal.guidance.extrapolation import precise


@final
class GuidanceInterval(Denoiser):
    """A denoiser of two denoisers: ``guided`` inside an interval of times, ``plain`` outside.

    Args:
        guided: any denoiser of a denoiser.
        plain: what it guides.
        low: the end towards data.
        high: the end towards noise.

    Raises:
        ClockError: unless 0 <= low < high <= 1.
        CapabilityError: if the two differ in their process.

    Cost: that of the one in charge; of both where the clocks of a batch lie on both sides.
    """

    def __init__(self, guided: Denoiser, plain: Denoiser, low: float, high: float) -> None:
        super().__init__()
        if not 0 <= low < high <= 1:
            raise ClockError(
                f"Expected an interval with 0 <= low < high <= 1, got {low} and {high}. "
                f"Give times: 0 is data and 1 is noise."
            )
        if repr(guided.process) != repr(plain.process):
            raise CapabilityError(
                f"Expected two denoisers of one process, got {guided.process} and "
                f"{plain.process}. Give the denoiser that is guided."
            )
        self.guided, self.plain, self.low, self.high = guided, plain, low, high
        self.process, self.clocks = guided.process, guided.clocks

    @property
    def like(self) -> Tensor:
        """The guided denoiser's."""
        return self.guided.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Ask whom the clock asks for."""
        inside = state.map(self._inside, t)
        answers = list(state.leaves(inside))
        if all(answer is True for answer in answers):
            return self.guided(x_t, t, cond)
        if all(answer is False for answer in answers):
            return self.plain(x_t, t, cond)
        both = self.guided(x_t, t, cond), self.plain(x_t, t, cond)
        chosen = state.map(_chosen, *both, inside)
        return JointEstimate(chosen) if isinstance(chosen, dict) else chosen

    def _inside(self, t: Any) -> Any:
        """Whether a time lies within: a bool for a tick, bool tensors for clocks."""
        if isinstance(t, Tick):
            return self.low < t.time <= self.high
        return (self.low < t) & (t <= self.high)


def _chosen(guided: Estimate, plain: Estimate, inside: Any) -> Estimate:
    if isinstance(inside, bool):
        return guided if inside else plain
    if not guided.path.space.is_real and guided.kind is not plain.kind:
        guided, plain = (precise(each).to(Kind.SCORE) for each in (guided, plain))
    mask = inside[(...,) + (None,) * (guided.value.ndim - inside.ndim)]
    value = torch.where(mask, guided.value, plain.read(guided.kind))
    return Estimate(guided.path, guided.x_t, guided.t, guided.kind, value)
