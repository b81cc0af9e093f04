r"""Ancestral sampling: the bridge q(x_s | x_t, x_0), averaged over what is known of x_0.

.. math:: p(x_s | x_t) = \sum_k p(x_0 = k | x_t)\, q(x_s | x_t, k)

on finite sets, where it is exact for each site and of order 1 for many; with the clean estimate in
place of x_0 on R^d and, in the tangent, on manifolds: order 1, exact for a point mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reversal.core import Capability, Path
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.samplers.needs import require
from reversal.samplers.one_call import OneCall


@final
@dataclass(frozen=True)
class Ancestral(OneCall):
    """One call per step: DDPM at ``eta`` 1, DDIM at ``eta`` 0, exact unmasking on tokens.

    Args:
        eta: in [0, 1], the share of the bridge's noise, on real spaces; elsewhere it is 1.

    Source: Ho et al. (2020), eq. (7); Song, Meng and Ermon (2021), eq. (12); Austin et al. (2021).
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise CapabilityError(f"Expected eta in [0, 1], got {self.eta}. 1 is DDPM, 0 is DDIM.")

    def check(self, path: Path) -> None:
        """A bridge, and a real space where eta is not 1."""
        require(
            self,
            path,
            {Capability.BRIDGE},
            "Use Euler(churn=0) or Heun(), which follow a velocity.",
        )
        if self.eta != 1 and not path.space.is_real:
            raise CapabilityError(
                f"Expected a real space for eta={self.eta}, got {path}, whose jumps have no noise "
                f"to scale. Use Ancestral(), or Euler(churn=...) for more or fewer jumps."
            )

    def move(
        self, generator: Randomness, path: Any, x_t: Tensor, t: Any, s: Any, estimate: Any
    ) -> Tensor:
        """Draw the factor from its bridge."""
        return path.ancestor(x_t, t, s, estimate, self.eta).sample(generator)
