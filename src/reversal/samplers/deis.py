r"""DEIS: Adams-Bashforth on the noise estimate, in :math:`\rho = \sigma/\alpha`.

.. math:: \frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} + \int_{\rho_t}^{\rho_s} P(\log \rho)\, d\rho

with P the polynomial through the noise estimates at t and at the last times. The authors take
polynomials in t or in rho as well; log rho does not depend on how a schedule measures time, and is
the natural variable of the signal-to-noise ratio. Source: Zhang and Chen (2023), section 3.3.
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
class DEIS(Leaning):
    """One call per step along the probability flow, order 1 to 4 on Gaussian factors.

    Other real factors step as ``Ancestral(eta=0)``, finite sets as ``Ancestral()``. The first steps
    are of the order that the estimates seen so far allow: orders above 2 show where the grid starts
    with short steps. For the memory see ``Leaning``.

    Args:
        order: 1, which is DDIM, to 4.

    Cost: one network call per step, and the memory of order - 1 estimates.
    """

    order: int = 3
    kind = Kind.NOISE

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise CapabilityError(f"Expected order 1, 2, 3 or 4, got {self.order!r}. Choose 3.")

    @property
    def depth(self) -> int:
        """One look less than the order."""
        return self.order - 1

    def check(self, path: Path) -> None:
        """A bridge."""
        require(self, path, {Capability.BRIDGE}, "Use Heun(), which follows a velocity.")

    def settle(self, path: Any, now: Look, *past: Look) -> Look:
        """Nothing."""
        return now

    def move(self, generator: Randomness, path: Any, s: Any, now: Look, *past: Look) -> Tensor:
        """Take the bridge without its noise; with it on finite sets."""
        leaning = lean(Kind.NOISE, False, path, s, now, past)
        eta = 0.0 if path.space.is_real else 1.0
        return path.ancestor(now.x, now.time, s, leaning, eta).sample(generator)
