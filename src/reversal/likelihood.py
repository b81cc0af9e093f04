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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.clocks import spread
from reversal.core import Capability, Denoiser, Kind
from reversal.errors import CapabilityError, ClockError
from reversal.noise import Randomness
from reversal.objectives.implicit import implicit_rate
from reversal.operators import Local, Traces
from reversal.processes import Gaussian
from reversal.questions import Question, ask
from reversal.state import State, Tree

LAST_TIME: Final = 1e-3
"""Where real spaces stop: the density of x_0 given x at this time closes the bound."""
LAST_NOISE: Final = 9e-4
"""The least sigma / alpha at which Gaussian noise is told from rounding in float32."""


@dataclass(frozen=True)
class Likelihood:
    """An estimate of log p per item.

    Args:
        value: nats, shape (B,).
        stderr: the standard error of ``value``, shape (B,).
        bias: what is known of its bias, in nats; 0 for an unbiased estimate.
        kind: what ``value`` estimates, such as ``lower bound``.
        measure: the reference measure, per factor on a product.
    """

    value: Tensor
    stderr: Tensor
    bias: float
    kind: str
    measure: Any


LastStep = Callable[[Denoiser, Any, Any, Any], Tree]


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
    state.map(_require, path.parts)
    question = _question(denoiser, x, given, observed)
    real = any(part.space.is_real for part in state.leaves(path.parts))
    eps = last_time
    if eps is None:
        eps = max(map(_last_time, state.leaves(path.parts)))
    if num_samples < 1 or not (0 < eps < 1 or (eps == 0 and not real)):
        raise ClockError(
            f"Expected num_samples >= 1 and a last time in (0, 1), or 0 on finite spaces, got "
            f"{num_samples} and {eps}. Leave last_time=None for the default."
        )
    bound = _Bound(denoiser, x, cond, question, generator, eps, last)
    draws = torch.stack([bound.draw(k, num_samples) for k in range(num_samples)])
    return _likelihood(path, draws)


@torch.no_grad()
def implicit_elbo(
    denoiser: Denoiser,
    x: State,
    num_samples: int = 64,
    generator: Randomness = None,
    cond: Any = None,
    probes: int | None = None,
    jumps: int | None = None,
) -> Likelihood:
    r"""Estimate the bound of a process that can only be simulated.

    .. math:: \log p(x_0) \ge \log \pi(x_0) - \int_0^1
       E\Big[\frac{L^* \beta}{\beta} + L \log \frac{\beta}{\pi} \,\Big|\, x_0\Big] dt,

    with pi the prior: it needs no density of a kernel, and no last step. It is log p(x_0), up to
    the prior gap, at the exact score. Source: Benton et al. (2024), Theorem 1, with Dynkin's
    formula for log pi, which takes the noise of late times out.

    Args:
        denoiser: estimates with a score, under one time per item.
        x: states of the data space.
        num_samples: draws per item, one time of equal strata each.
        generator: where randomness comes from.
        cond: handed to the denoiser.
        probes: as of ``Implicit``.
        jumps: as of ``Implicit``.

    Returns:
        An unbiased estimate of a lower bound; where the data have no smooth density its variance is
        infinite.

    Raises:
        CapabilityError: if the process has no generator or no prior.

    Cost: per draw, a simulation, an ``implicit_rate`` and the same of the prior.
    """
    path = denoiser.process
    path.space.check(x, "x")
    state.map(_require, path.parts)
    n, like = state.batch_size(x), state.like(x).double()
    traces = Traces(probes, jumps, generator)
    draws = []
    for stratum in range(num_samples):
        u = (stratum + noise.uniform((n,), like, generator)) / num_samples
        t = (u**2).to(like)
        x_t = path.kernel(x, t).sample(generator)
        rate = implicit_rate(path, t, lambda y, t=t: denoiser(y, t, cond).score, x_t, traces)
        known = Local.of(path, t, traces)(path.prior.log_prob)(x_t).detach()
        draws.append(path.prior.log_prob(x).double() - 2 * u * (rate - known).double())
    return _likelihood(path, torch.stack(draws))


def _likelihood(path: Any, draws: Tensor) -> Likelihood:
    """The mean of independent draws of a bound, ``(num_samples, B)``, with its standard error."""
    one = len(draws) < 2 or draws.numel() == 0
    spread_ = torch.full_like(draws[0], torch.inf) if one else draws.std(0)
    return Likelihood(
        draws.mean(0),
        spread_ / len(draws) ** 0.5,
        0.0,
        "lower bound",
        state.map(_measure, path.parts),
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


@dataclass
class _Bound:
    denoiser: Denoiser
    x: Any
    cond: Any
    question: Question
    generator: Randomness
    eps: float
    last: Callable[..., Tensor] | None

    def draw(self, stratum: int, strata: int) -> Tensor:
        """One unbiased draw of the whole bound, ``(B,)``."""
        n, like = state.batch_size(self.x), state.like(self.x).double()
        u = (stratum + noise.uniform((n,), like, self.generator)) / strata
        t, weight = _times(u, self.eps)
        known = self._reference(t)
        return self._prior(n, like) - weight * self._rate(t) - known + self._closing(n, like)

    def _reference(self, t: Tensor) -> Tensor:
        """The time integral of the rate that the control variate takes from every draw."""
        last = torch.full_like(t, self.eps)
        parts = self.denoiser.process.parts
        return self._running(state.map(_reference_integral, parts, self.x, last))

    def _prior(self, n: int, like: Tensor) -> Tensor:
        """log p_prior(x_1) - log q(x_1 | x_0)."""
        path = self.denoiser.process
        kernel = path.kernel(self.x, torch.ones(n, dtype=torch.float64, device=like.device))
        x_1 = kernel.sample(self.generator)
        gap = state.map(
            lambda p, q: p - q, path.prior.site_log_prob(x_1), kernel.site_log_prob(x_1)
        )
        return self._running(gap)

    def _rate(self, t: Tensor) -> Tensor:
        path = self.denoiser.process
        kernel, x_t, estimate = self._look(t)
        forward = path.forward(x_t, t)
        target = kernel.score(x_t)
        gaps = state.map(lambda law, s, r: law.gap(s, r), forward, estimate.score, target)
        reference = state.map(_reference_rate, path.parts, x_t, t, forward, target)
        return self._running(state.map(torch.sub, gaps, reference))

    def _closing(self, n: int, like: Tensor) -> Tensor:
        if self.eps == 0 and self.last is None:
            return torch.zeros(n, dtype=like.dtype, device=like.device)
        t = torch.full((n,), self.eps, dtype=torch.float64, device=like.device)
        _, x_t, estimate = self._look(t)
        if self.last is not None:
            return self.last(self.x, x_t, t)
        parts = self.denoiser.process.parts
        return self._running(
            state.map(
                lambda path, *a: _last_step(path, self.generator, *a),
                parts,
                self.x,
                x_t,
                t,
                estimate,
            )
        )

    def _look(self, t: Tensor) -> tuple[Any, Any, Any]:
        """Noise the running sites to t and ask the denoiser."""
        path, q = self.denoiser.process, self.question
        kernel = path.kernel(self.x, t)
        x_t = kernel.sample(self.generator)
        if q.stop is None:
            return kernel, x_t, self.denoiser(x_t, t, self.cond)
        fresh = path.prior.sample(len(t), self.generator, state.like(self.x))
        held = state.map(_place, path.space.parts, x_t, self.x, fresh, q.known, q.dropped)
        clock = state.map(_stand, path.space.parts, t, q.known, q.dropped)
        return kernel, held, self.denoiser(held, clock, self.cond)

    def _running(self, values: Tree) -> Tensor:
        kept = state.map(
            lambda v, m: v if m is None else torch.where(m, 0.0, v), values, self.question.stop
        )
        return state.total(state.map(state.sum_sites, kept)).double()


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


def _question(denoiser: Denoiser, x: Any, given: Any, observed: Any) -> Question:
    path, n = denoiser.process, state.batch_size(x)
    evidence = given
    if isinstance(given, Mapping):
        evidence = {name: (x[name], mask) for name, mask in state.flatten(given).items()}
    elif given is not None:
        evidence = (x, given)
    missing = (
        None
        if observed is None
        else state.map(lambda mask: None if mask is None else ~mask, observed)
    )
    question = ask(path.space, n, evidence, missing, state.like(x))
    denoiser.clocks.refuse(path.space, question)
    return question


def _place(space: Any, x_t: Tensor, x: Tensor, fresh: Tensor, known: Any, dropped: Any) -> Tensor:
    sites = len(space.sites)
    return state.hold(dropped, fresh, state.hold(known, x, x_t, sites), sites)


def _stand(space: Any, t: Tensor, known: Any, dropped: Any) -> Tensor:
    clock = spread(space, t)
    clock = clock if known is None else torch.where(known, 0.0, clock)
    return clock if dropped is None else torch.where(dropped, 1.0, clock)


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


def _require(path: Any) -> None:
    for need in (Capability.GENERATOR, Capability.PRIOR):
        if need not in path.provides:
            raise CapabilityError(
                f"Expected a path with {need} for a bound in continuous time, got {path}. Use a "
                f"Markov process: Gaussian, Mask, Uniform, Brownian or a product of them."
            )


def _measure(path: Any) -> str:
    if not path.space.is_real:
        return "counting"
    return "Lebesgue" if path.conversion(Kind.SCORE, Kind.CLEAN) else "uniform probability"
