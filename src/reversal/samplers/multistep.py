r"""DPM-Solver++: the clean estimate is extrapolated, for one call a step.

With the estimates d at the last time r and at t, order 2 is

.. math:: \tilde d = d_t + \frac{\lambda_s - \lambda_t}{2 (\lambda_t - \lambda_r)}\,(d_t - d_r),
   \qquad x_s \sim q_\eta(x_s \mid x_t, x_0 = \tilde d) ,

which is the estimate extrapolated linearly in lambda to the middle of the step; order 3 integrates
the parabola through three estimates. Source: Lu et al. (2022), DPM-Solver++(2M) at eta 0 and
SDE-DPM-Solver++(2M) at eta 1, and (3M). Deviation: the second difference of (3M) is integrated
exactly, with twice the weight that the authors' program gives it, which leaves order 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reversal.core import Capability, Kind, Path
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.samplers.leaning import Leaning, Look, lean
from reversal.samplers.needs import require


@final
@dataclass(unsafe_hash=True)
class Multistep(Leaning):
    """One call per step, order 1 to 3 on Gaussian factors; the others step as Ancestral.

    The first step and one that ends at 0 are of order 1, which leaves order 2 of the whole; order 3
    shows where the grid starts with short steps. For the memory see ``Leaning``.

    Args:
        order: 1, which is `Ancestral`, 2, or, at eta 0, 3.
        eta: in [0, 1], the share of the bridge's noise on real spaces; 0 is the probability flow.

    Cost: one network call per step, and the memory of order - 1 estimates.
    """

    order: int = 2
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise CapabilityError(f"Expected order 1, 2 or 3, got {self.order!r}. Choose 2.")
        if not 0 <= self.eta <= 1:
            raise CapabilityError(f"Expected eta in [0, 1], got {self.eta}. 0 is the flow.")
        if self.order == 3 and self.eta != 0:
            raise CapabilityError(
                f"Expected eta=0 at order 3, got {self.eta}: no stochastic rule of that order is "
                f"known. Use Multistep(3, eta=0) or Multistep(2)."
            )

    @property
    def depth(self) -> int:
        """One look less than the order."""
        return self.order - 1

    def check(self, path: Path) -> None:
        """A bridge, and a real space where eta is not 1."""
        require(self, path, {Capability.BRIDGE}, "Use Heun(), which follows a velocity.")
        if self.eta != 1 and not path.space.is_real:
            raise CapabilityError(
                f"Expected a real space for eta={self.eta}, got {path}, whose jumps have no noise "
                f"to scale. Use Multistep() with eta=1."
            )

    def settle(self, path: Any, now: Look, *past: Look) -> Look:
        """Nothing."""
        return now

    def move(self, generator: Randomness, path: Any, s: Any, now: Look, *past: Look) -> Tensor:
        """Draw from the bridge."""
        leaning = lean(Kind.CLEAN, True, path, s, now, past)
        return path.ancestor(now.x, now.time, s, leaning, self.eta).sample(generator)
