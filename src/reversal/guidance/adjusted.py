r"""Rules on the clean estimate, such as thresholding: a denoiser of a denoiser.

Every sampler then walks around the adjusted estimate :math:`r(E[x_0 | x_t])`. Static thresholding
clips to the range of the data; dynamic thresholding, with s the p-quantile of :math:`|x_0|` over
the entries of an item, or the bound b if that is more, gives

.. math:: \frac{b}{s} \operatorname{clip}(x_0, -s, s) .

Source: Saharia et al. (2022), section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError, SpaceError, listed

Rule = Callable[[Tensor], Tensor]


@final
@dataclass(frozen=True)
class Clip:
    """Static thresholding: every entry is cut to [low, high]."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise SpaceError(f"Expected low < high, got {self.low} and {self.high}. Swap them.")

    def __call__(self, x_0: Tensor) -> Tensor:
        """The estimate within its range."""
        return x_0.clamp(self.low, self.high)


@final
@dataclass(frozen=True)
class DynamicThreshold:
    """Dynamic thresholding: an item whose quantile exceeds the bound is scaled back to it.

    Args:
        quantile: p, in (0, 1].
        bound: b > 0, the greatest absolute value of the data.
    """

    quantile: float = 0.995
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.quantile <= 1 and self.bound > 0):
            raise SpaceError(
                f"Expected a quantile in (0, 1] and a bound > 0, got {self.quantile} and "
                f"{self.bound}. Leave them out for data in [-1, 1]."
            )

    def __call__(self, x_0: Tensor) -> Tensor:
        """The estimate, cut and scaled item by item."""
        if x_0.numel() == 0:
            return x_0
        size = x_0.abs().flatten(1).quantile(self.quantile, 1).clamp_min(self.bound)
        s = state.trail(size, x_0.ndim - 1)
        return torch.minimum(torch.maximum(x_0, -s), s) * (self.bound / s)


@final
class Adjusted(Denoiser):
    """A denoiser whose clean estimate passes through a rule.

    Args:
        denoiser: its estimates must have a clean one.
        rule: maps clean estimates ``(B, *E)`` to the same, item by item; a dict of rules over some
            of the factors of a product. ``Clip``, ``DynamicThreshold``, or any function.

    The law that is sampled is no longer that of the denoiser, unless the rule changes nothing.

    Raises:
        CapabilityError: where a factor has no clean estimate.
    """

    def __init__(self, denoiser: Denoiser, rule: Rule | Mapping[str, Rule]) -> None:
        super().__init__()
        parts = denoiser.process.parts
        named = isinstance(rule, Mapping)
        if named != isinstance(parts, Mapping) or (named and not set(rule) <= set(parts)):
            wanted = f"a dict over {listed(parts)}" if isinstance(parts, Mapping) else "one rule"
            raise CapabilityError(
                f"Expected {wanted} for {denoiser.process}, got {rule!r}. Name the factors that "
                f"have a rule, and no others."
            )
        self.denoiser, self.rule = denoiser, state.complete(rule, parts)
        self.process, self.clocks = denoiser.process, denoiser.clocks
        state.map(_require_clean, parts, self.rule)

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Estimate, then apply the rule factor by factor."""
        adjusted = state.map(_adjust, self.denoiser(x_t, t, cond), self.rule)
        return JointEstimate(adjusted) if isinstance(adjusted, dict) else adjusted


def _adjust(estimate: Estimate, rule: Rule | None) -> Estimate:
    if rule is None:
        return estimate
    value = rule(estimate.read(Kind.CLEAN))
    return Estimate(estimate.path, estimate.x_t, estimate.t, Kind.CLEAN, value)


def _require_clean(path: Any, rule: Rule | None) -> None:
    if rule is not None and not any(path.conversion(kind, Kind.CLEAN) for kind in Kind):
        raise CapabilityError(
            f"Expected a path whose estimates have a clean one, got {path}. Take rules for "
            f"Gaussian factors and interpolants without noise."
        )
