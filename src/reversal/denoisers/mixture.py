r"""Mixtures of normal laws under Gaussian noise: everything in closed form.

.. math:: x_0 \sim \sum_k w_k N(m_k, C_k), \qquad
   q_t = \sum_k w_k N(A m_k,\; V_k), \quad V_k = A C_k A + S^2, \qquad
   E[x_0 | x_t] = \sum_k \pi_k(x_t) \big(m_k + C_k A V_k^{-1} (x_t - A m_k)\big),

with :math:`\pi_k \propto w_k N(x_t; A m_k, V_k)` and A, S the diagonal matrices of the signal and
noise levels of every site: a known site has A = 1 and S = 0, a dropped one A = 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal.clocks import AnyClock
from reversal.core import Denoiser, Estimate, Kind
from reversal.denoisers.levels import levels
from reversal.errors import SpaceError
from reversal.noise import Randomness, categorical, normal
from reversal.processes.gaussian import Gaussian


class _Look(NamedTuple):
    """Log-density of x_t under every component, ``(B, K)``, and its mean of x_0, ``(B, K, d)``."""

    logs: Tensor
    clean: Tensor


@final
class GaussianMixture(Denoiser):
    """The exact denoiser of a mixture of K normal laws, whatever the Gaussian schedule.

    Args:
        process: ``Gaussian`` on any ``Euclidean`` space of d entries.
        weights: K numbers > 0; normalized here.
        means: shape (K, *E).
        covariances: shape (K, d, d); or variances of independent entries, (K, *E), or (K,).

    Raises:
        SpaceError: if the shapes or dtypes do not fit, or a covariance is not positive definite.

    Cost: K factorizations of d x d per call, and B K products of a matrix with a vector; with a
    clock of its own per item, B K factorizations.
    """

    def __init__(
        self, process: Gaussian, weights: Tensor, means: Tensor, covariances: Tensor
    ) -> None:
        super().__init__()
        shape = process.space.event_shape
        count, width = len(means), math.prod(shape)
        sizes = ((count, width, width), (count, *shape), (count,))
        alike = means.dtype == covariances.dtype and means.is_floating_point()
        sound = means.shape == (count, *shape) and weights.shape == (count,) and count > 0
        if not (alike and sound and covariances.shape in sizes and bool((weights > 0).all())):
            raise SpaceError(
                f"Expected K weights > 0, means (K, *{shape}) and covariances of the same dtype, "
                f"with one of the shapes {sizes}, got {tuple(weights.shape)}, {tuple(means.shape)} "
                f"and {tuple(covariances.shape)} of {means.dtype} and {covariances.dtype}."
            )
        if covariances.shape != sizes[0]:
            entries = covariances.reshape(count, -1).expand(count, width)
            covariances = torch.diag_embed(entries)
        self.factors, info = torch.linalg.cholesky_ex(covariances)
        if bool(info.any()) or not bool(torch.isfinite(means).all()):
            raise SpaceError(
                f"Expected finite means and positive definite covariances, got component "
                f"{int(info.argmax())} that is not. Add a little to its diagonal; a point mass "
                f"is an atom of Empirical."
            )
        self.process: Any = process
        self.clocks: Any = AnyClock()
        self.weights = (weights.double() / weights.double().sum()).to(means)
        self.means, self.covariances = means, covariances

    @property
    def like(self) -> Tensor:
        """The means' device and dtype."""
        return self.means

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> Estimate:
        """The conditional mean."""
        look = self._look(x_t, t)
        shares = look.logs.softmax(-1)
        clean = (shares[..., None] * look.clean).sum(1).view_as(x_t)
        return Estimate(self.process, x_t, t, Kind.CLEAN, clean)

    def posterior(self, x_t: Tensor, t: Any) -> Tensor:
        """The probabilities of the components given x_t, ``(B, K)``."""
        return self._look(x_t, t).logs.softmax(-1)

    def log_prob(self, x_t: Tensor, t: Any) -> Tensor:
        """log q_t(x_t), ``(B,)``; the density of the data at t = 0."""
        return self._look(x_t, t).logs.logsumexp(-1)

    def last(self, x_0: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """log p(x_0 | x_t), ``(B,)``: the exact last step of a bound."""
        start = torch.zeros(len(x_0), dtype=x_0.dtype, device=x_0.device)
        forward = self.process.kernel(x_0, t).log_prob(x_t)
        return self.log_prob(x_0, start) + forward - self.log_prob(x_t, t)

    def sample(self, n: int, generator: Randomness = None) -> Tensor:
        """Draw n data, ``(n, *E)``."""
        chosen = categorical(self.weights.expand(n, -1), generator)
        z = normal((n, self.factors.shape[-1]), self.means, generator)
        moved = (self.factors[chosen] @ z[..., None]).squeeze(-1)
        return self.means[chosen] + moved.view(n, *self.process.space.event_shape)

    def _look(self, x_t: Tensor, t: Any) -> _Look:
        count, width = self.factors.shape[:2]
        alpha, sigma = (level.reshape(-1, 1, width) for level in levels(self.process, x_t, t))
        means = self.means.reshape(count, width)
        cross = self.covariances * alpha[..., None, :]
        variance = alpha[..., None] * cross + torch.diag_embed(sigma**2)
        root = torch.linalg.cholesky(variance)
        off = x_t.reshape(-1, 1, width) - alpha * means
        eye = torch.eye(width, dtype=root.dtype, device=root.device).expand_as(root)
        whiten = torch.linalg.solve_triangular(root, eye, upper=False)
        white = (whiten @ off[..., None]).squeeze(-1)
        gain = cross @ whiten.mT
        half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + width / 2 * math.log(2 * math.pi)
        logs = self.weights.log() - half - white.square().sum(-1) / 2
        return _Look(logs, means + (gain @ white[..., None]).squeeze(-1))
