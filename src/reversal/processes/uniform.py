r"""Uniform noise: at some rate a site draws a new value from all of its values alike.

.. math:: q(y | k) = \alpha_t \delta_{yk} + (1 - \alpha_t) / K .
"""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from reversal import noise
from reversal.noise import Randomness
from reversal.processes.resampling import Resampling
from reversal.spaces.categorical import Categorical


@final
class Uniform(Resampling):
    """Replace values by uniform ones; the prior is uniform.

    Args:
        space: ``Categorical``; each packed site is uniform over its own values.
        schedule: the survival, ``LinearSurvival`` by default.

    Source: Hoogeboom et al. (2021); Campbell et al. (2022), uniform rates.
    """

    has_full_support = True

    @cached_property
    def noisy_space(self) -> Categorical:
        """The space itself."""
        return self.space

    @cached_property
    def log_fresh(self) -> Tensor:
        """1/K for each value of a site, ``(K,)`` or ``(*sites, K)``."""
        valid = self.space.valid
        if valid is None:
            valid = torch.ones(self.space.num_values, dtype=torch.bool)
        return (valid.double() / valid.sum(-1, keepdim=True)).log()

    def draw(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """Uniform codes."""
        high = torch.tensor(self.space.cardinalities or self.space.num_values, device=like.device)
        return noise.integers(high, shape, like, generator)
