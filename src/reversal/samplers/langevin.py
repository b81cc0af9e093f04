r"""Annealed Langevin: the state stands while time falls, and is settled at each level.

.. math:: x \leftarrow x + \tfrac{\epsilon_s}{2} \nabla \log q_s(x) + \sqrt{\epsilon_s}\, z, \qquad
   \epsilon_s = 2\, \text{size} \cdot g_s^2\, (t - s),

for every time s of the grid but 0, where the bridge takes the state to the data. Under the
geometric schedule :math:`\epsilon_s` is a fixed share of :math:`\sigma_s^2`, as the authors have
it. Source: Song and Ermon (2019), Algorithm 1; the last denoising is that of Jolicoeur-Martineau
et al. (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Path, Sampler
from reversal.noise import Randomness
from reversal.samplers.correction import check_corrector, correct
from reversal.samplers.corrector import check_settings
from reversal.samplers.euler import needs_bridge
from reversal.samplers.needs import require
from reversal.state import Tree


@final
@dataclass(frozen=True)
class Langevin(Sampler):
    """Corrections alone, at every time of the grid; on every space whose process has a generator.

    It needs many steps: the levels must be close for the state to follow them. It errs most in the
    weights of modes: of three rotations, at 100 steps, by 0.025 with 5 corrections, 0.003 with 20.

    Args:
        corrections: how many a level.
        size: the pseudo-time of one, in units of the generator's own time over the step.

    Cost: ``corrections`` calls a step, one in the last.
    """

    corrections: int = 5
    size: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, self.corrections, self.size)

    def check(self, path: Path) -> None:
        """A generator, and a bridge for the last step."""
        check_corrector(self, path)
        require(self, path, {Capability.BRIDGE}, "Use Euler(), which needs a generator alone.")

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
        """Settle at s, or take the bridge where the step ends at 0."""
        parts = denoiser.process.parts
        x = correct(denoiser, x_t, t, s, cond, stop, generator, self.corrections, self.size)
        ends = state.map(lambda path, *at: needs_bridge(path, *at, starts=False), parts, t, s)
        if all(end is False for end in state.leaves(ends)):
            return x
        finish, estimate = partial(_finish, generator), denoiser(x_t, t, cond)
        return state.map(finish, parts, ends, x, x_t, t, s, estimate)


def _finish(
    generator: Randomness,
    path: Any,
    ends: Any,
    x: Tensor,
    x_t: Tensor,
    t: Any,
    s: Any,
    estimate: Any,
) -> Tensor:
    if ends is False:
        return x
    eta = 0.0 if path.space.is_real else 1.0
    bridged = path.ancestor(x_t, t, s, estimate, eta).sample(generator)
    return bridged if ends is True else state.hold(~ends, x, bridged, len(path.space.sites))
