r"""Masking: each token is hidden at a random time and stays hidden.

.. math:: q(x_t = x_0) = \alpha_t, \qquad q(x_t = m) = 1 - \alpha_t .
"""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from reversal.noise import Randomness
from reversal.processes.resampling import Resampling
from reversal.spaces.categorical import Categorical


@final
class Mask(Resampling):
    """Hide tokens one by one; the prior is the all-masked state, ``mask_index`` everywhere.

    Args:
        space: ``Categorical``; noisy states have one more, the mask.
        schedule: the survival, ``LinearSurvival`` by default.

    Source: Austin et al. (2021), absorbing case; continuous time: Sahoo et al. (2024), Shi et al.
    (2024).
    """

    has_full_support = False
    is_masking = True

    @cached_property
    def noisy_space(self) -> Categorical:
        """The values and the mask."""
        return self.space.with_mask()

    @property
    def mask_index(self) -> int:
        """The code of the mask, ``space.num_states``."""
        return self.space.num_values

    @cached_property
    def log_fresh(self) -> Tensor:
        """A point mass at the mask, ``(K + 1,)``."""
        table = torch.full((self.mask_index + 1,), -torch.inf, dtype=torch.float64)
        table[-1] = 0.0
        return table

    def draw(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """The mask, everywhere."""
        return torch.full(shape, self.mask_index, dtype=torch.int64, device=like.device)
