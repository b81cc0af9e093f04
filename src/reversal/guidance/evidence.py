r"""How probable evidence on clean data is at a noisy state, from the denoiser's own estimate.

.. math:: p_t(e | x_t) = E[p(e | x_0) \mid x_t]

needs the law of x_0 given x_t, of which a denoiser knows the mean :math:`\hat x_0`. Each class here
takes another normal law for it: a point (DPS), one variance (PiGDM), or the covariance that the
denoiser's own Jacobian J says (moment matching),

.. math:: V = 0, \qquad V = \frac{c\,\sigma_t^2}{c\,\alpha_t^2 + \sigma_t^2}, \qquad
   V = \frac{\sigma_t^2}{\alpha_t} J, \quad J = \partial \hat x_0 / \partial x_t,

so that a linear observation has the law :math:`N(y; A \hat x_0, S^2 + A V A^T)`. The gradient is
taken with V held fixed. Exact where x_0 given x_t is that normal law: moment matching on normal
data, PiGDM on normal data of covariance c; DPS nowhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Kind
from reversal.denoisers.levels import levels
from reversal.errors import CapabilityError, SpaceError
from reversal.guidance.observation import LinearObservation, seen_part
from reversal.processes.gaussian import Gaussian

SOUND = 0.999
"""The least curvature of 1 + covariance that is taken for rounding."""
_TINY = 1e-30


class Evidence(ABC):
    """Evidence on clean data, and how it is carried to noisy states."""

    @abstractmethod
    def check(self, path: Any) -> None:
        """Raise unless the path has what is needed."""

    @abstractmethod
    def log_likelihood(self, x_0: Any) -> Tensor:
        """Return log p(e | x_0), ``(B,)``, in nats; finite factors are given one-hot."""

    @abstractmethod
    def log_prob(self, estimate: Any) -> Tensor:
        """Return log p_t(e | x_t), ``(B,)``, differentiable through the estimate's graph."""


@final
class DPS(Evidence):
    r"""The likelihood of the clean estimate: :math:`p_t(e | x_t) \approx p(e | \hat x_0)`.

    Args:
        log_likelihood: ``(x_0) -> (B,)``, differentiable: a ``LinearObservation`` or any callable.
            On a product it is given a dict, and finite factors, there and on a plain space, as
            probabilities ``(B, *sites, K)``: one-hot for data, the posterior at noise.

    It is too sure at every noise level, by the variance that it leaves out, and a sharp likelihood
    makes steps stiff. Source: Chung et al. (2023), arXiv 2209.14687. Deviation: the gradient is
    that of the log-likelihood itself, item by item, where their step has the constant length
    zeta / |y - A x_0|: no law has that score, and the norm must not run over a batch.
    """

    def __init__(self, log_likelihood: Callable[[Any], Tensor]) -> None:
        if not callable(log_likelihood):
            raise CapabilityError(
                f"Expected a log-likelihood (x_0) -> (B,), got {log_likelihood!r}. Give a "
                f"LinearObservation, or a function of clean states."
            )
        self.likelihood = log_likelihood

    def check(self, path: Any) -> None:
        """An observation must fit the path."""
        if isinstance(self.likelihood, LinearObservation):
            self.likelihood.check(path)

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The callable at data, whose finite factors are one-hot."""
        return _checked(self.likelihood(x_0), state.batch_size(x_0))

    def log_prob(self, estimate: Any) -> Tensor:
        """The callable at the means."""
        joint = isinstance(estimate, Mapping)
        n = state.batch_size(next(state.leaves(estimate)).x_t)
        return _checked(self.likelihood(Means(estimate) if joint else mean(estimate)), n)


@final
class PiGDM(Evidence):
    """A linear observation, x_0 given x_t of one variance (pseudoinverse guidance).

    Args:
        observation: what was seen.
        variance: c, that of the data: a number > 0, or one per entry, ``(*E,)``.

    Cost: one matrix (m, m) factorized per call, one per item where its clock is its own; a callable
    operator is made a matrix (m, d) once. Source: Song et al. (2023), "Pseudoinverse-guided
    diffusion models for inverse problems", whose r_t^2 this is at alpha = c = 1.
    """

    def __init__(self, observation: LinearObservation, variance: float | Tensor = 1.0) -> None:
        _need_observation(observation)
        self.observation, self.variance = observation, torch.as_tensor(variance)
        if not bool((self.variance > 0).all()):
            raise SpaceError(
                f"Expected the variance of the data as numbers > 0, got {variance}. "
                f"Give that of the entries, 1.0 for standardized data."
            )
        self._matrix: Tensor | None = None

    def check(self, path: Any) -> None:
        """Gaussian noise on what is seen."""
        self.observation.check(path)
        part = _need_gaussian(self, path, self.observation.factor)
        if self.variance.shape not in ((), part.space.event_shape):
            raise SpaceError(
                f"Expected one variance, or an array of shape {part.space.event_shape}, got "
                f"{tuple(self.variance.shape)}. Give that of the data's entries."
            )

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The observation's."""
        return self.observation(x_0)

    def log_prob(self, estimate: Any) -> Tensor:
        """The normal log-density of y with the widened covariance."""
        part = self.observation.seen(estimate)
        residual = self.observation.residual(part.clean)
        alpha, sigma = levels(part.path, part.x_t, part.t)
        c = self.variance.to(alpha)
        spread = (c * sigma**2 / (c * alpha**2 + sigma**2)).flatten(1)
        matrix = self._dense(part.x_t)
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        root = torch.linalg.cholesky(eye + (matrix * spread[:, None]) @ matrix.mT)
        white = torch.linalg.solve_triangular(root, residual[..., None], upper=False).squeeze(-1)
        half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.observation.log_prob(white.square().sum(-1)) - half

    def _dense(self, like: Tensor) -> Tensor:
        """A, whitened, ``(m, d)``."""
        if self._matrix is None or (self._matrix.dtype, self._matrix.device) != (
            like.dtype,
            like.device,
        ):
            event = like.shape[1:]
            eye = torch.eye(event.numel(), dtype=like.dtype, device=like.device)
            self._matrix = self.observation.apply(eye.view(-1, *event)).mT.detach()
        return self._matrix


@final
class MomentMatching(Evidence):
    r"""A linear observation, x_0 given x_t of the covariance that the denoiser's Jacobian says.

    Args:
        observation: what was seen.
        iterations: of conjugate gradients, each item its own, at most m.

    :math:`Cov(x_0 | x_t) = \frac{\sigma_t^2}{\alpha_t} J` exactly, for an exact denoiser; products
    with it are vector-Jacobian products. With ``iterations`` >= m the m x m covariance is written
    out and the log-density has its determinant; else the determinant is left out, which changes no
    gradient. A trained network's J is no exact covariance, worst where there is much noise: its
    directions of negative variance are left out, and an item is moved by at most what is missing,
    |y - A x_0|, neither of which touches an exact one. Cost: one product per iteration. Source:
    Boys et al. (2023), arXiv 2310.06721; Rozet et al. (2024), arXiv 2405.13712.
    """

    def __init__(self, observation: LinearObservation, iterations: int = 8) -> None:
        _need_observation(observation)
        if not isinstance(iterations, int) or iterations < 1:
            raise CapabilityError(
                f"Expected a number of iterations >= 1, got {iterations!r}. Give up to "
                f"{observation.size}, where it is exact."
            )
        self.observation, self.iterations = observation, iterations

    def check(self, path: Any) -> None:
        """Gaussian noise on what is seen."""
        self.observation.check(path)
        _need_gaussian(self, path, self.observation.factor)

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The observation's."""
        return self.observation(x_0)

    def log_prob(self, estimate: Any) -> Tensor:
        """The normal log-density of y with the matched covariance, which is held fixed."""
        part = self.observation.seen(estimate)
        clean, x_t = part.clean, part.x_t
        residual = self.observation.residual(clean)
        alpha, sigma = levels(part.path, x_t, part.t)
        scale = sigma**2 / alpha.clamp_min(_TINY**0.5)

        def product(w: Tensor) -> Tensor:
            back = self.observation.adjoint(w, x_t)
            pulled = torch.autograd.grad(clean, x_t, back, retain_graph=True)[0]
            return w + self.observation.apply(scale * pulled)

        fixed = residual.detach()
        if self.iterations < self.observation.size:
            (solved, image), half = conjugate_gradients(product, fixed, self.iterations), 0.0
        else:
            solved, image, half = _written_out(product, fixed)
        solved = solved * _bound(image - solved, fixed)
        value = self.observation.log_prob((fixed * solved).sum(-1)) - half
        return value.detach() + (solved * (fixed - residual)).sum(-1)


@final
class Together(Evidence):
    """Several pieces of evidence that are independent given the data: their logarithms add up.

    Args:
        pieces: each carried to noisy states in its own way. That they are not independent given
            x_t is left out, by every one of these approximations.
    """

    def __init__(self, *pieces: Evidence) -> None:
        if not pieces or not all(isinstance(piece, Evidence) for piece in pieces):
            raise CapabilityError(
                f"Expected pieces of evidence such as DPS(log_likelihood), got {pieces!r}. "
                f"Give at least one."
            )
        self.pieces = pieces

    def check(self, path: Any) -> None:
        """What every piece needs."""
        for piece in self.pieces:
            piece.check(path)

    def log_likelihood(self, x_0: Any) -> Tensor:
        """The sum of the pieces'."""
        return torch.stack([piece.log_likelihood(x_0) for piece in self.pieces]).sum(0)

    def log_prob(self, estimate: Any) -> Tensor:
        """The sum of the pieces'."""
        return torch.stack([piece.log_prob(estimate) for piece in self.pieces]).sum(0)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve M v = b for every row on its own, M - 1 symmetric and not negative.

    Args:
        product: maps ``(B, m)`` to the rows M_i w_i.
        b: ``(B, m)``.
        iterations: how many; a row that is solved, or whose M - 1 is negative, stands still.

    Returns:
        v and M v, ``(B, m)`` each.
    """
    v, r = torch.zeros_like(b), b
    p, rho = r, r.square().sum(-1, keepdim=True)
    enough = torch.finfo(b.dtype).eps ** 2 * rho
    for _ in range(iterations):
        image = product(p)
        curve = (p * image).sum(-1, keepdim=True)
        goes = (rho > enough) & (curve > SOUND * p.square().sum(-1, keepdim=True))
        length = torch.where(goes, rho / torch.where(goes, curve, 1.0), 0.0)
        v, r = v + length * p, r - length * image
        new = r.square().sum(-1, keepdim=True)
        p = torch.where(goes, r + new / rho.clamp_min(_TINY) * p, p)
        rho = torch.where(goes, new, rho)
    return v, b - r


def _written_out(product: Callable[[Tensor], Tensor], b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve by the matrix, column by column; return v, M v and log det / 2.

    Directions in which M - 1 is negative, which is no covariance, are left out.
    """
    eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    matrix = torch.stack([product(column.expand_as(b)) for column in eye], -1)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    kept = (vectors.mT @ b[..., None]).squeeze(-1) * (values > SOUND)
    values = values.clamp_min(1.0)
    solved = (vectors @ (kept / values)[..., None]).squeeze(-1)
    return solved, (matrix @ solved[..., None]).squeeze(-1), values.log().sum(-1) / 2


def _bound(push: Tensor, residual: Tensor) -> Tensor:
    """How much of a push to take, ``(B, 1)``: no covariance moves A x_0 by more than is missing."""
    missing, moved = (v.norm(dim=-1, keepdim=True) for v in (residual, push))
    return torch.where(moved > missing, missing / moved.clamp_min(_TINY), 1.0)


@final
class Means(Mapping[str, Tensor]):
    """The means of x_0 given x_t, by factor, read when they are asked for: angles have none."""

    def __init__(self, estimates: Mapping[str, Any]) -> None:
        self.estimates = estimates

    def __getitem__(self, name: str) -> Tensor:
        return mean(self.estimates[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)


def mean(estimate: Any) -> Tensor:
    """Return E[x_0 | x_t]: the clean estimate of reals, the probabilities of codes."""
    if estimate.path.space.is_real:
        return estimate.clean
    return estimate.posterior.softmax(-1)


def _checked(values: Tensor, n: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (n,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise SpaceError(
            f"Expected a log-likelihood of shape ({n},), one number per item, got {got}. Sum over "
            f"everything but the batch."
        )
    return values


def _need_observation(observation: Any) -> None:
    if not isinstance(observation, LinearObservation):
        raise CapabilityError(
            f"Expected a LinearObservation, got {observation!r}. Any other log-likelihood is for "
            f"DPS(log_likelihood)."
        )


def _need_gaussian(evidence: Any, path: Any, factor: str | None) -> Gaussian:
    part = seen_part(path, factor)
    if not isinstance(part, Gaussian) or not part.conversion(Kind.SCORE, Kind.CLEAN):
        raise CapabilityError(
            f"Expected Gaussian noise on what {type(evidence).__name__} sees, got {part}. Give "
            f"Classifier() the log-probability of the evidence at noisy states."
        )
    return part
