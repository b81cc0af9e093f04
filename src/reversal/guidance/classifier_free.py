r"""Classifier-free guidance: extrapolate from the unconditional to the conditional score.

.. math:: s_w = s_\varnothing + w (s_c - s_\varnothing) .

The law sampled at strengths other than 0 and 1 is not p(x) p(c | x)^w. Source: Ho and Salimans
(2022), eq. (6); Nisonoff et al. (2024) for jumps.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from reversal.core import Denoiser
from reversal.guidance.extrapolation import check_strength, extrapolated
from reversal.objectives.dropout import in_place_of


@final
class ClassifierFree(Denoiser):
    """A denoiser of a denoiser that was trained with and without its condition.

    Args:
        denoiser: called with ``cond`` and with ``null``; ``ConditionDropout`` trains it.
        strength: w.
        null: the condition that stands for none. A number or one row stands for all rows of a
            tensor, and so does each part of a dict.

    Cost: two calls.
    """

    def __init__(self, denoiser: Denoiser, strength: float, null: Any = None) -> None:
        super().__init__()
        check_strength(strength)
        self.denoiser, self.strength, self.null = denoiser, strength, null
        self.process, self.clocks = denoiser.process, denoiser.clocks

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Combine the two estimates, factor by factor."""
        free = self.denoiser(x_t, t, in_place_of(self.null, cond))
        return extrapolated(self.strength, free, self.denoiser(x_t, t, cond))
