r"""DDPM's schedule: a list of T noise variances, as a Gaussian process that is seen at t = k/T.

.. math:: q(x_k | x_{k-1}) = N(\sqrt{1 - \beta_k}\, x_{k-1}, \beta_k), \qquad
   \log \alpha_t = \tfrac12 \sum_{j \le k} \log(1 - \beta_j) \text{ at } t = k/T,

and linear in between: the noise rate is constant from one grid time to the next, and the chain is
exactly the process at those times. Any subset of them is a chain again, with the products of its
kernels, so that sampling in fewer steps is another grid. Source: Ho et al. (2020), eq. (2);
respacing: Nichol and Dhariwal (2021), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from reversal.errors import ClockError
from reversal.schedules.preserving import Preserving


@final
class Betas(Preserving):
    """A variance-preserving schedule by the list of its steps.

    Args:
        betas: T numbers in (0, 1), from data to noise.

    Raises:
        ClockError: for a list that is empty, or has other numbers.
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        self.betas = torch.as_tensor(betas, dtype=torch.float64).cpu().clone()
        inside = self.betas.ndim == 1 and bool(((self.betas > 0) & (self.betas < 1)).all())
        if not (inside and len(self.betas)):
            raise ClockError(
                f"Expected a list of numbers in (0, 1), got shape {tuple(self.betas.shape)} with "
                f"{self.betas.flatten()[:3].tolist()}... Use Betas.linear(1000)."
            )
        self._rates = -torch.log1p(-self.betas)
        self._sums = torch.cat([self._rates.new_zeros(1), self._rates.cumsum(0)])

    def __repr__(self) -> str:
        return f"Betas({len(self.betas)} steps)"

    @classmethod
    def linear(cls, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Betas:
        """Equally spaced betas. Source: Ho et al. (2020), section 4; 1000 steps from 1e-4."""
        return cls(torch.linspace(first, last, steps, dtype=torch.float64))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Betas:
        """The squared cosine, cut at ``largest``. Source: Nichol and Dhariwal (2021), eq. (17)."""
        share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        square = torch.cos((share + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - square[1:] / square[:-1]).clamp(max=largest))

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate -log(1 - beta_k) T of the step that t lies in."""
        return self._rates.to(t.device)[self._step(t)].to(t) * self.steps

    def log_alpha(self, t: Tensor) -> Tensor:
        """Half the sum of log(1 - beta) up to t, linear between grid times."""
        k = self._step(t)
        sums, rates = self._sums.to(t.device)[k].to(t), self._rates.to(t.device)[k].to(t)
        return -(sums + rates * (t * self.steps - k)) / 2

    def _step(self, t: Tensor) -> Tensor:
        """The number of the step that t lies in, from 0; a grid time belongs to the step below."""
        return ((t * self.steps).ceil().long() - 1).clamp(0, self.steps - 1)
