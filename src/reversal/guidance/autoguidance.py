r"""Autoguidance: extrapolate from a weak model of the same law to a strong one.

.. math:: s_w = s_{\text{weak}} + w (s_{\text{strong}} - s_{\text{weak}}) .

Where both err alike and the weak one more, w > 1 takes some of the strong one's error away; the law
that is sampled is neither's. Source: Karras et al. (2024), "Guiding a diffusion model with a bad
version of itself", arXiv 2406.02507.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from reversal.core import Denoiser
from reversal.errors import CapabilityError
from reversal.guidance.extrapolation import check_strength, extrapolated


@final
class Autoguidance(Denoiser):
    """A denoiser of two denoisers, both given the condition.

    Args:
        strong: the model.
        weak: one of the same process that was trained less, or is smaller.
        strength: w; 1 is the strong one alone.

    Raises:
        CapabilityError: if the two differ in their process or clocks.

    Cost: a call of each.
    """

    def __init__(self, strong: Denoiser, weak: Denoiser, strength: float) -> None:
        super().__init__()
        check_strength(strength)
        if repr(strong.process) != repr(weak.process):
            raise CapabilityError(
                f"Expected two denoisers of one process, got {strong.process} and {weak.process}. "
                f"Train the weak one under the strong one's process."
            )
        if strong.clocks is not weak.clocks and strong.clocks != weak.clocks:
            raise CapabilityError(
                f"Expected two denoisers of one clock law, got {strong.clocks} and {weak.clocks}. "
                f"Train the weak one with the strong one's clocks=."
            )
        self.strong, self.weak, self.strength = strong, weak, strength
        self.process, self.clocks = strong.process, strong.clocks

    @property
    def like(self) -> Tensor:
        """The strong denoiser's."""
        return self.strong.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Combine the two estimates, factor by factor."""
        weak, strong = self.weak(x_t, t, cond), self.strong(x_t, t, cond)
        return extrapolated(self.strength, weak, strong)
