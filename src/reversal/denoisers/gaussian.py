r"""Gaussian data under Gaussian noise: everything in closed form.

.. math:: x_0 \sim N(m, C), \quad x_t = A x_0 + S z, \qquad
   E[x_0 | x_t] = m + C A (A C A + S^2)^{-1} (x_t - A m),

with A and S the diagonal matrices of the signal and noise levels of every site: a known site has
A = 1 and S = 0, a dropped one A = 0.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal.clocks import AnyClock
from reversal.core import Denoiser, Estimate, Kind
from reversal.denoisers.levels import levels
from reversal.errors import SpaceError
from reversal.processes.gaussian import Gaussian


@final
class GaussianData(Denoiser):
    """The exact denoiser of N(mean, covariance) on ``Euclidean(d)``.

    Args:
        process: ``Gaussian`` on ``Euclidean(d)``.
        mean: shape (d,).
        covariance: symmetric positive definite, shape (d, d).

    Raises:
        SpaceError: if the shapes do not fit.
    """

    def __init__(self, process: Gaussian, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        shape = process.space.event_shape
        if len(shape) != 1 or mean.shape != shape or covariance.shape != shape * 2:
            raise SpaceError(
                f"Expected Euclidean(d) with a mean (d,) and a covariance (d, d), got "
                f"{process.space}, {tuple(mean.shape)} and {tuple(covariance.shape)}. "
                f"Flatten the data."
            )
        sound = torch.linalg.cholesky_ex(covariance).info == 0
        if mean.dtype != covariance.dtype or not bool(sound):
            raise SpaceError(
                f"Expected a positive definite covariance of the mean's dtype, got {mean.dtype}, "
                f"{covariance.dtype} and {covariance.tolist()}. Add a little to its diagonal."
            )
        self.process: Any = process
        self.clocks: Any = AnyClock()
        self.mean, self.covariance = mean, covariance

    @property
    def like(self) -> Tensor:
        """The mean's device and dtype."""
        return self.mean

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> Estimate:
        """The conditional mean."""
        signal, _, gain = self._gain(x_t, t)
        clean = self.mean + (gain @ (x_t - signal * self.mean)[..., None]).squeeze(-1)
        return Estimate(self.process, x_t, t, Kind.CLEAN, clean)

    def last(self, x_0: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """log p(x_0 | x_t), ``(B,)``: the exact last step of a bound."""
        signal, _, gain = self._gain(x_t, t)
        mean = self.mean + (gain @ (x_t - signal * self.mean)[..., None]).squeeze(-1)
        left = self.covariance - gain @ (signal[..., None] * self.covariance)
        law = torch.distributions.MultivariateNormal(
            mean, (left + left.mT) / 2, validate_args=False
        )
        return law.log_prob(x_0)

    def log_prob(self, x_t: Tensor, t: Any) -> Tensor:
        """log q_t(x_t), ``(B,)``."""
        signal, variance, _ = self._gain(x_t, t)
        law = torch.distributions.MultivariateNormal(
            signal * self.mean, variance, validate_args=False
        )
        return law.log_prob(x_t)

    def _gain(self, x_t: Tensor, t: Any) -> tuple[Tensor, Tensor, Tensor]:
        signal, sigma = levels(self.process, x_t, t)
        cross = self.covariance * signal[:, None, :]
        variance = signal[..., None] * cross + torch.diag_embed(sigma**2)
        return signal, variance, torch.linalg.solve(variance, cross.mT).mT
