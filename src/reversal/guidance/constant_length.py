r"""Diffusion posterior sampling as published: after each step a push of one length.

.. math:: x_s = x_s' - \zeta\, \nabla_{x_t} |y - A \hat x_0(x_t)|, \qquad
   x_s' \sim p(x_s | x_t) ,

with x_s' the step of any sampler. The push does not know how long the step is: with twice as many
steps it acts twice as often, and what is sampled is the law of no evidence at any number of them.
``Reconstruction`` of ``DPS`` adds a score in its place, which every number of steps has in common.
Source: Chung et al. (2023), arXiv 2209.14687, Algorithm 1, where :math:`\zeta = 2 \zeta'`, and
their program, where zeta is 0.3 to 1 at 1,000 steps. Deviation: the norm is each item's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Path, Sampler
from reversal.errors import CapabilityError
from reversal.guidance.evidence import DPS
from reversal.guidance.observation import LinearObservation
from reversal.guidance.reconstruction import Reconstruction
from reversal.noise import Randomness
from reversal.samplers.ancestral import Ancestral
from reversal.state import Tree


@final
@dataclass(frozen=True, eq=False)
class ConstantDPS(Sampler):
    """A sampler of a sampler, pushed towards an observation.

    Args:
        observation: what was seen; its noise is not looked at.
        length: zeta, > 0.
        sampler: what walks.

    Real factors are pushed, finite ones are not. Raises, in ``sample``: ``CapabilityError`` if the
    path has no score, ``SpaceError`` if the observation does not fit it. Cost: the steps of the
    sampler, whose first look serves the push, and one gradient each.
    """

    observation: LinearObservation
    length: float = 1.0
    sampler: Sampler = field(default_factory=Ancestral)

    def __post_init__(self) -> None:
        if not isinstance(self.observation, LinearObservation) or not self.length > 0:
            raise CapabilityError(
                f"Expected a LinearObservation and a length > 0, got {self.observation!r} and "
                f"{self.length}. Any log-likelihood is for Reconstruction(denoiser, DPS(...))."
            )
        if not isinstance(self.sampler, Sampler):
            raise CapabilityError(
                f"Expected a sampler that walks, got {self.sampler!r}. Give e.g. Ancestral()."
            )

    def check(self, path: Path) -> None:
        """What the inner sampler needs."""
        self.sampler.check(path)

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
        """Step as the sampler does, then push along the gradient at x_t."""
        self.observation.check(denoiser.process)
        evidence = Reconstruction(denoiser, DPS(self._missed))
        free, _, slopes = evidence.differentiated(x_t, t, cond)
        seen = _Seen(denoiser, x_t, t, free)
        x_s = self.sampler.step(seen, x_t, t, s, cond, stop, generator)
        pushed = slopes if state.branches(x_s) else slopes[""]
        return state.map(partial(_push, self.length), denoiser.process.space.parts, x_s, pushed)

    def _missed(self, x_0: Any) -> Tensor:
        """-|y - A x_0|, in the units of y."""
        residual = self.observation.residual(self.observation.seen(x_0))
        return -torch.linalg.vector_norm(residual * self.observation.std.to(residual), dim=-1)


def _push(length: float, space: Any, x: Tensor, slope: Tensor | None) -> Tensor:
    return x if slope is None else space.move(x, length * slope)


@final
class _Seen(Denoiser):
    """A denoiser that remembers what it said of one state."""

    def __init__(self, denoiser: Denoiser, x_t: Any, t: Any, estimate: Any) -> None:
        super().__init__()
        self.denoiser, self.at, self.estimate = denoiser, (x_t, t), estimate
        self.process, self.clocks = denoiser.process, denoiser.clocks

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The estimate at that very state, the denoiser's elsewhere."""
        if x_t is self.at[0] and t is self.at[1]:
            return self.estimate
        return self.denoiser(x_t, t, cond)
