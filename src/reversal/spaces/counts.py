"""Counts: 0, 1, 2, ... without an upper end, which jump by one."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal import noise
from reversal.core import JumpSpace
from reversal.noise import Randomness
from reversal.spaces.shapes import checked_shape


@final
class Counts(JumpSpace):
    """Non-negative integers, int64, every entry a site: ``Counts()``, ``Counts(3)``.

    There are two jumps, 0 down and 1 up; a count of 0 has no jump down. The reference measure is
    the counting measure.
    """

    num_jumps = 2
    is_ordered = True
    valid = None

    def __init__(self, *sites: int) -> None:
        self.event_shape = self.sites = self.tangent_shape = checked_shape("Counts", sites, 0)

    def contains(self, x: Tensor) -> Tensor:
        """No count below 0."""
        return (x >= 0)[..., None].flatten(1).all(1)

    def example(self, n: int, like: Tensor) -> Tensor:
        """No counts at all."""
        return torch.zeros((n, *self.event_shape), dtype=torch.int64, device=like.device)

    def hop(self, x: Tensor, k: Tensor) -> Tensor:
        """One down or one up."""
        return (x + 2 * k - 1).clamp_min(0)

    def back(self, x: Tensor, k: Tensor) -> Tensor:
        """The other way."""
        return 1 - k

    def jump(self, x: Tensor, rates: Tensor, generator: Randomness = None) -> Tensor:
        """Add Poisson numbers of jumps up and down, and stop at 0.

        Weak order 1, as with one jump at most, and exact where the rates are constant. Source:
        Gillespie (2001); Campbell et al. (2022), section 4.1, for ordinal states.
        """
        number = noise.poisson(rates, generator)
        return (x + number[..., 1] - number[..., 0]).clamp_min(0)

    def __repr__(self) -> str:
        return f"Counts({', '.join(map(str, self.sites))})"
