r"""Likelihoods with a stated error: the evidence lower bound on any product.

.. math:: \log p(x_0) \ge E\big[\log p_{prior}(x_1) - \log q(x_1 | x_0)\big]
   - \int_\epsilon^1 E\big[\Phi_t\big] dt + E\big[\log p(x_0 | x_\epsilon)\big],

with Phi_t the rate of path divergence between the conditional and the learned reversal, summed over
the running sites, and all constants kept, in nats. Time is drawn so that the variance stays finite
at t -> 0: as :math:`t = u^2` with weight 2u where epsilon is 0 (finite spaces, where the rate grows
like log t), and half uniformly in log t, half uniformly in its root, where there are real spaces
(on which it grows like 1/t). Under Gaussian noise the rate of standard normal data, whose integral
is known, is a control variate. With the exact denoiser and last step the bound plus the prior gap
:math:`E[\log q_1(x_1) - \log p_{prior}(x_1) | x_0]` is log p(x_0). Source: Benton et al. (2024),
section 4; Kingma et al. (2021), eq. (12); Campbell et al. (2022), Proposition 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Capability, Denoiser
from reversal.errors import CapabilityError, ClockError
from reversal.likelihood.posed import Posed
from reversal.likelihood.value import Likelihood, mean_of_draws
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.state import State, Tree

LAST_TIME: Final = 1e-3
"""Where real spaces stop: the density of x_0 given x at this time closes the bound."""
LAST_NOISE: Final = 9e-4
"""The least sigma / alpha at which Gaussian noise is told from rounding in float32."""


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    x: State,
    given: Any = None,
    observed: Tree = None,
    num_samples: int = 64,
    generator: Randomness = None,
    cond: Any = None,
    last_time: float | None = None,
    last: Callable[..., Tensor] | None = None,
) -> Likelihood:
    """Estimate the evidence lower bound of every item.

    Args:
        denoiser: an estimate of the reversal.
        x: states of the data space; any legal value where an entry is missing.
        given: what is conditioned on: a dict ``{"factor": True}`` or ``{"factor": mask}``, or a
            mask on a plain space. The bound is then on log p(the rest | given).
        observed: the entries present; the others are marginalized out.
        num_samples: draws per item, one time of equal strata each.
        generator: where randomness comes from.
        cond: handed to the denoiser.
        last_time: epsilon; if None, 0 on finite spaces, and elsewhere ``LAST_TIME``, or later
            where so little Gaussian noise could not be told from rounding.
        last: the exact last step ``last(x_0, x_eps, eps) -> (B,)``. The usual one is normal around
            the clean estimate with variance (sigma/alpha)^2, its kin on manifolds, and the
            posterior on finite sets.

    Returns:
        An unbiased estimate of a lower bound, with its standard error (from independent draws; the
        strata make it conservative).

    Raises:
        CapabilityError: if the path has no generator or no prior.
        ClockError: if the question lies outside the clock law.

    Cost: num_samples calls on finite spaces, 2 num_samples elsewhere.
    """
    path = denoiser.process
    path.space.check(x, "x")
    state.map(require, path.parts)
    posed = Posed.of(denoiser, x, given, observed, cond, generator)
    real = any(part.space.is_real for part in state.leaves(path.parts))
    eps = last_time
    if eps is None:
        eps = max(map(_last_time, state.leaves(path.parts)))
    if num_samples < 1 or not (0 < eps < 1 or (eps == 0 and not real)):
        raise ClockError(
            f"Expected num_samples >= 1 and a last time in (0, 1), or 0 on finite spaces, got "
            f"{num_samples} and {eps}. Leave last_time=None for the default."
        )
    bound = _Bound(posed, eps, last)
    draws = [bound.draw(k, num_samples) for k in range(num_samples)]
    return mean_of_draws(path, torch.stack(draws))


def require(path: Any) -> None:
    """Raise ``CapabilityError`` unless a path has a generator and a prior."""
    for need in (Capability.GENERATOR, Capability.PRIOR):
        if need not in path.provides:
            raise CapabilityError(
                f"Expected a path with {need} for a bound in continuous time, got {path}. Use a "
                f"Markov process: Gaussian, Mask, Uniform, Brownian or a product of them."
            )


def _last_time(path: Any) -> float:
    """The default epsilon of a factor: not before sigma / alpha has come to LAST_NOISE."""
    if not path.space.is_real:
        return 0.0
    if not isinstance(path, Gaussian):
        return LAST_TIME
    fine = torch.linspace(0, 1, 8193, dtype=torch.float64)
    signal = path.schedule.signal(fine)
    is_told = signal.sigma >= LAST_NOISE * signal.alpha
    return max(LAST_TIME, float(fine[is_told.int().argmax()]))


@final
@dataclass(frozen=True)
class _Bound:
    posed: Posed
    eps: float
    last: Callable[..., Tensor] | None

    def draw(self, stratum: int, strata: int) -> Tensor:
        """One unbiased draw of the whole bound, ``(B,)``."""
        n, like = self.posed.size, self.posed.like
        u = (stratum + noise.uniform((n,), like, self.posed.generator)) / strata
        t, weight = _times(u, self.eps)
        known = self._reference(t)
        return prior_term(self.posed) - weight * self._rate(t) - known + self._closing()

    def _reference(self, t: Tensor) -> Tensor:
        """The time integral of the rate that the control variate takes from every draw."""
        last = torch.full_like(t, self.eps)
        parts = self.posed.path.parts
        return self.posed.running(state.map(_reference_integral, parts, self.posed.x, last))

    def _rate(self, t: Tensor) -> Tensor:
        path = self.posed.path
        kernel, x_t, estimate = self.posed.look(t)
        forward = path.forward(x_t, t)
        target = kernel.score(x_t)
        gaps = state.map(lambda law, s, r: law.gap(s, r), forward, estimate.score, target)
        reference = state.map(_reference_rate, path.parts, x_t, t, forward, target)
        return self.posed.running(state.map(torch.sub, gaps, reference))

    def _closing(self) -> Tensor:
        posed, like = self.posed, self.posed.like
        if self.eps == 0 and self.last is None:
            return torch.zeros(posed.size, dtype=like.dtype, device=like.device)
        t = torch.full((posed.size,), self.eps, dtype=torch.float64, device=like.device)
        _, x_t, estimate = posed.look(t)
        if self.last is not None:
            return self.last(posed.x, x_t, t)
        return posed.running(
            state.map(
                lambda path, *a: _last_step(path, posed.generator, *a),
                posed.path.parts,
                posed.x,
                x_t,
                t,
                estimate,
            )
        )


def prior_term(posed: Posed) -> Tensor:
    """A draw of log p_prior(x_1) - log q(x_1 | x_0), ``(B,)``."""
    path = posed.path
    one = torch.ones(posed.size, dtype=torch.float64, device=posed.like.device)
    kernel = path.kernel(posed.x, one)
    x_1 = kernel.sample(posed.generator)
    gap = state.map(lambda p, q: p - q, path.prior.site_log_prob(x_1), kernel.site_log_prob(x_1))
    return posed.running(gap)


def _times(u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Map uniform numbers to times in [eps, 1] and their inverse densities.

    The two halves are weighted by the density of their mixture, so that neither is far off.
    Source: Veach and Guibas (1995), the balance heuristic.
    """
    if eps == 0:
        return u**2, 2 * u
    root = 1 - math.sqrt(eps)
    late, early = (1 - root * (2 - 2 * u)) ** 2, eps ** (1 - 2 * u)
    t = torch.where(u < 0.5, early, late)
    density = -1 / (t * math.log(eps)) + 1 / (2 * root * t.sqrt())
    return t, 2 / density


def _last_step(
    path: Any, generator: Randomness, x_0: Tensor, x_t: Tensor, t: Tensor, estimate: Any
) -> Tensor:
    """log p(x_0 | x_eps) of every site, by the usual last step."""
    if not path.space.is_real:
        return estimate.posterior.gather(-1, x_0[..., None]).squeeze(-1)
    center = path.ancestor(x_t, t, torch.zeros_like(t), estimate, 0.0).sample(generator)
    return path.around(center, t).site_log_prob(x_0) + _excess_square(path, x_0, x_t, t)


def _reference_rate(path: Any, x_t: Tensor, t: Tensor, forward: Any, target: Tensor) -> Tensor:
    r"""The rate of path divergence under standard normal data, whose score is -x_t / r^2.

    A control variate: it cancels what the noise alone contributes to the rate, and most of what the
    choice of t does. Zero where the noise is not Gaussian.
    """
    if not isinstance(path, Gaussian):
        return torch.zeros((), device=x_t.device)
    _, _, square = _levels(path, x_t, t)
    return forward.gap(-x_t / square, target)


def _reference_integral(path: Any, x_0: Tensor, last: Tensor) -> Tensor:
    r"""The integral over [last, 1] of the expectation of ``_reference_rate`` given x_0, per site.

    With the noise-to-signal ratio :math:`s = \sigma^2 / \alpha^2`, ds = g^2 / alpha^2 dt, it is

    .. math:: \tfrac12 \int \frac{ds}{s (1 + s)^2} + \tfrac12 x_0^2 \int \frac{ds}{(1 + s)^2} .
    """
    if not isinstance(path, Gaussian):
        return torch.zeros((len(x_0), *path.space.sites), device=x_0.device)
    signals = [path.schedule.signal(path.space.align(t)) for t in (last, torch.ones_like(last))]
    first, end = (each.sigma**2 / (each.alpha**2 + each.sigma**2) for each in signals)
    common = (end.log() - end - first.log() + first) / 2  # of s / (1 + s), without cancellation
    return common + (end - first) / 2 * x_0**2


def _excess_square(path: Any, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    r"""Half the scaled square of :math:`x_0 - \alpha x_t / r^2`, minus its mean given x_0."""
    if not isinstance(path, Gaussian):
        return torch.zeros((), device=x_t.device)
    alpha, sigma, square = _levels(path, x_t, t)
    error = x_0 - alpha * x_t / square
    mean = ((sigma**2 * x_0) ** 2 + (alpha * sigma) ** 2) / square**2
    return (alpha / sigma) ** 2 * (error**2 - mean) / 2


def _levels(path: Gaussian, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return alpha, sigma and alpha^2 + sigma^2, shaped to broadcast over the entries."""
    signal = path.schedule.signal(path.space.align(t))
    alpha, sigma = signal.alpha.to(x_t), signal.sigma.to(x_t)
    return alpha, sigma, alpha**2 + sigma**2
