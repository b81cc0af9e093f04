"""Samplers that move every factor by one common estimate: one network call per step."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, final

from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Sampler
from reversal.noise import Randomness
from reversal.state import Tree


class OneCall(Sampler):
    """The family; a leaf says how one factor moves."""

    @abstractmethod
    def move(
        self,
        generator: Randomness,
        cond: Any,
        path: Any,
        x_t: Tensor,
        t: Any,
        s: Any,
        estimate: Any,
    ) -> Tensor:
        """Move one factor from t to s."""

    @final
    def advance(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Any,
        s: Any,
        cond: Any,
        stop: Tree,
        generator: Randomness,
    ) -> Any:
        estimate = denoiser(x_t, t, cond)
        move = partial(self.move, generator, cond)
        return state.map(move, denoiser.process.parts, x_t, t, s, estimate)
