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
from reversal.processes.gaussian import Gaussian
from reversal.processes.variances import StepVariance, step_law
from reversal.samplers.needs import require
from reversal.samplers.one_call import OneCall


@final
@dataclass(frozen=True)
class Ancestral(OneCall):
    """One call per step: DDPM at ``eta`` 1, DDIM at ``eta`` 0, exact unmasking on tokens.

    Args:
        eta: in [0, 1], the share of the bridge's noise, on real spaces; elsewhere it is 1.
        variance: of the steps under Gaussian noise, where it is not the bridge's: DDPM's two are
            ``SmallVariance()``, which is the bridge's, and ``LargeVariance()``; a
            ``LearnedVariance`` is asked at every step. A step to 0 adds no noise.

    Source: Ho et al. (2020), eq. (7); Song, Meng and Ermon (2021), eq. (12); Austin et al. (2021).
    """

    eta: float = 1.0
    variance: StepVariance | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise CapabilityError(f"Expected eta in [0, 1], got {self.eta}. 1 is DDPM, 0 is DDIM.")
        if self.variance is not None and self.eta != 1:
            raise CapabilityError(
                f"Expected eta=1 where a variance is chosen, got {self.eta}. Choose one of them."
            )

    def check(self, path: Path) -> None:
        """A bridge, and a real space where eta is not 1."""
        require(
            self,
            path,
            {Capability.BRIDGE},
            "Use Euler(churn=0) or Heun(), which follow a velocity.",
        )
        if self.variance is not None and path.space.is_real and not isinstance(path, Gaussian):
            raise CapabilityError(
                f"Expected Gaussian noise to choose the variance of, got {path}. Use Ancestral()."
            )
        if self.eta != 1 and not path.space.is_real:
            raise CapabilityError(
                f"Expected a real space for eta={self.eta}, got {path}, whose jumps have no noise "
                f"to scale. Use Ancestral(), or Euler(churn=...) for more or fewer jumps."
            )

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
        """Draw the factor from its bridge."""
        if self.variance is not None:
            return step_law(path, x_t, t, s, estimate, self.variance, cond).sample(generator)
        return path.ancestor(x_t, t, s, estimate, self.eta).sample(generator)
