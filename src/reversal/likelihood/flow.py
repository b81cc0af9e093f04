r"""The density of a probability flow, point by point.

With :math:`\dot x = u_t(x)` carrying the law at t = 0 to the prior at t = 1,

.. math:: \log p(x_0) = \log p_{prior}(x_1) + \int_0^1 \nabla \cdot u_t(x_t)\, dt,

the divergence in the tangent frame of the space, with respect to its measure. It is the sum of T
derivatives, one backward pass each, or the mean of :math:`z^T (\partial u / \partial x) z` over
random signs z, drawn once for the whole path. Source: Chen et al. (2018), eq. (8); Grathwohl et al.
(2019), section 3.1; Song et al. (2021), eq. (39).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Capability, Denoiser, Kind
from reversal.errors import CapabilityError, SpaceError
from reversal.likelihood.posed import Posed
from reversal.likelihood.solvers import DormandPrince, Solver
from reversal.likelihood.tangents import Tangents
from reversal.likelihood.value import Likelihood, measure
from reversal.noise import Randomness
from reversal.operators.traces import probed, trace
from reversal.questions import ask, check_counts
from reversal.spaces import Euclidean
from reversal.state import State, Tree

EXACT_UP_TO: Final = 64
"""The largest number of tangent dimensions whose divergence is exact by default."""
PROBES: Final = 16
CONVERGED: Final = 1e-3
"""The most that two solutions may differ, in nats per dimension, to be called converged."""
_SPREAD: Final = "//"
"""Where the integral of the divergence stands among the factors; no factor is called that."""
_EDGE: Final = {torch.float64: 1e-5}
_SINGLE_EDGE: Final = 1e-3


@torch.no_grad()
def flow_log_prob(
    denoiser: Denoiser,
    x: State,
    given: Any = None,
    observed: Tree = None,
    probes: int | None = None,
    generator: Randomness = None,
    cond: Any = None,
    solver: Solver | None = None,
    prior: Callable[[Any], Tensor] | None = None,
) -> Likelihood:
    """Compute log p of every item by its probability flow.

    Args:
        denoiser: an estimate with a velocity, or a score under a generator, differentiable in x_t:
            a network that turns gradients off would lose its share of the divergence.
        x: states of the data space; any legal value where an entry is missing.
        given: what is conditioned on, as of ``elbo``; finite factors must be given or missing.
        observed: the entries present; the others are marginalized out.
        probes: random signs per item for the divergence; 0 is the exact divergence, and None that
            up to ``EXACT_UP_TO`` dimensions and ``PROBES`` probes beyond.
        generator: where the probes come from.
        cond: handed to the denoiser.
        solver: ``DormandPrince()`` by default; ``RungeKutta(steps)`` for a fixed number of calls.
        prior: the log-density at t = 1 of the states, ``(B,)``; that of the path's prior if None.
            The path's own is off from the marginal of the data by the signal that is left at t = 1,
            which the value then contains: about alpha_1 times a mean that is not 0.

    Returns:
        The value; the standard error from the probes, 0 where the divergence is exact; the bias of
        the solver, item by item: how far both terms are from those of a coarser solution with twice
        the cut of time at both ends. The kind says so where a
        row's bias is above ``CONVERGED`` nats per dimension.

    Raises:
        CapabilityError: if running sites are finite, or the path has no velocity or no prior.
        ClockError: if the question lies outside the clock law.
        ConvergenceError: if a row cannot be followed to the tolerance.

    Cost: two solutions; per call of the field one forward pass and one backward pass per dimension
    or probe. The state is kept in float64, and shown to the denoiser in the dtype of x.
    """
    denoiser.process.space.check(x, "x")
    posed = Posed.of(denoiser, x, given, observed, cond, generator)
    flow = ProbabilityFlow.of(posed, posed.held(x), probes, prior)
    solver = DormandPrince() if solver is None else solver
    fine, coarse = (flow.scored(each, edge) for each, edge in ((solver, 1), (solver.coarser, 2)))
    return flow.likelihood(fine, coarse, solver.resolution)


@torch.no_grad()
def sample_with_log_prob(
    denoiser: Denoiser,
    n: int,
    given: Any = None,
    dropped: Any = None,
    probes: int | None = None,
    generator: Randomness = None,
    cond: Any = None,
    solver: Solver | None = None,
    x_1: State | None = None,
    prior: Callable[[Any], Tensor] | None = None,
) -> tuple[Any, Likelihood]:
    """Draw n states by the probability flow, each with its log-density, in one pass.

    Args:
        denoiser: as of ``flow_log_prob``.
        n: the number of items.
        given: known values, as a sampler takes them; the density is that of the rest given these.
        dropped: the sites to marginalize out; their values in the result mean nothing.
        probes: as of ``flow_log_prob``.
        generator: where the prior draws, then the probes come from.
        cond: handed to the denoiser.
        solver: as of ``flow_log_prob``.
        prior: as of ``flow_log_prob``; needs ``x_1``, drawn from it.
        x_1: the states to start from; prior draws if None.

    Returns:
        The states and their likelihood, as of ``flow_log_prob``; its bias is the difference from
        the value of a coarser path from the same start.

    Raises:
        CapabilityError: as of ``flow_log_prob``.
        ClockError: if the question lies outside the clock law.
        SpaceError: if given values or ``x_1`` do not fit the space.
    """
    check_counts(n, 1)
    path, like = denoiser.process, denoiser.like
    if x_1 is not None:
        path.noisy_space.check(x_1, "x_1", n)
    question = ask(path.space, n, given, dropped, like)
    denoiser.clocks.refuse(path.space, question)
    refuse_jumps(path, question.stop)
    first = _prior(path).sample(n, generator, like) if x_1 is None or dropped is not None else x_1
    x = question.start(path.space, first, x_1)
    flow = ProbabilityFlow.of(Posed(denoiser, x, cond, question, generator), x, probes, prior)
    solver = DormandPrince() if solver is None else solver
    drawn, fine = flow.drawn(solver, 1)
    _, coarse = flow.drawn(solver.coarser, 2)
    return drawn, flow.likelihood(fine, coarse, solver.resolution)


class Terms(NamedTuple):
    """log p_prior(x_1), ``(B,)``, and the divergence by every probe, ``(B, K)``.

    Errors of the two may cancel in their sum, so that each is compared alone.
    """

    end: Tensor
    spread: Tensor


@final
@dataclass(frozen=True)
class ProbabilityFlow:
    """The flow of the running sites of states x, with signs ``(B, K, T)`` or None for all axes.

    Where it ``trains``, what it gives has a gradient.
    """

    posed: Posed
    x: Any
    tangents: Tangents
    signs: Tensor | None
    prior: Callable[[Any], Tensor] | None
    trains: bool = False

    @classmethod
    def of(
        cls,
        posed: Posed,
        x: Any,
        probes: int | None,
        prior: Callable[[Any], Tensor] | None,
        trains: bool = False,
    ) -> ProbabilityFlow:
        """Check what is asked, and draw the signs."""
        path = posed.path
        if torch.is_inference_mode_enabled():
            raise CapabilityError(
                "Expected a mode in which the divergence can be differentiated, got inference "
                "mode, in which it would be 0. Use torch.no_grad()."
            )
        refuse_jumps(path, posed.question.stop)
        if prior is None:
            _prior(path)
        tangents = Tangents.of(path.space, x, posed.question.stop)
        if probes is None:
            probes = PROBES if tangents.dimension > EXACT_UP_TO else 0
        if not isinstance(probes, int) or probes < 0:
            raise SpaceError(f"Expected probes >= 0, got {probes!r}. 0 is exact; None chooses.")
        if probes == 0:
            return cls(posed, x, tangents, None, prior, trains)
        shape = (posed.size, probes, tangents.dimension)
        u = noise.uniform(shape, posed.like, posed.generator)
        return cls(posed, x, tangents, 1 - 2 * (u < 0.5).double(), prior, trains)

    def scored(self, solver: Solver, edge: float) -> Terms:
        """Both terms of log p, by the flow from data to noise."""
        x_1, spread = self._follow(solver, edge, 0.0, 1.0)
        return Terms(self._prior_log_prob(x_1), spread)

    def drawn(self, solver: Solver, edge: float) -> tuple[Any, Terms]:
        """Data, and both terms of their log p."""
        x_0, spread = self._follow(solver, edge, 1.0, 0.0)
        return x_0, Terms(self._prior_log_prob(self.x), -spread)

    def likelihood(self, fine: Terms, coarse: Terms, resolution: float) -> Likelihood:
        """The mean over the probes, held against a coarser solution, term by term."""
        value = fine.end + fine.spread.mean(1)
        bias = (fine.end - coarse.end).abs()
        bias = bias + (fine.spread.mean(1) - coarse.spread.mean(1)).abs()
        resolution = max(resolution, torch.finfo(state.like(self.x).dtype).eps)
        bias = bias + resolution * (1 + fine.spread.mean(1).abs())
        bias = torch.where(bias.isnan(), torch.inf, bias)
        stderr = torch.zeros_like(value)
        if self.signs is not None:
            count = fine.spread.shape[1]
            stderr = (
                fine.spread.std(1) / count**0.5 if count > 1 else torch.full_like(value, torch.inf)
            )
        late = bias > CONVERGED * self.tangents.running
        kind = "log-density"
        if bool(late.any()):
            kind += f", not converged in {int(late.sum())} of {len(late)} rows"
        return Likelihood(value, stderr, bias, kind, measure(self.posed.path.space))

    def _prior_log_prob(self, x_1: Any) -> Tensor:
        if self.prior is not None:
            return self.prior(x_1).double()
        return self.posed.running(_prior(self.posed.path).site_log_prob(x_1))

    def _follow(self, solver: Solver, edge: float, start: float, stop: float) -> tuple[Any, Tensor]:
        """The states at ``stop`` and the integral of the divergence, ``(B, K)``."""
        count = 1 if self.signs is None else self.signs.shape[1]
        zero = self.posed.like.new_zeros((self.posed.size, count))
        if not self.tangents.parts:
            return self.x, zero
        spaces = {name: _curved(part) for name, part in self.tangents.parts.items()}
        near = edge * _EDGE.get(state.like(self.x).dtype, _SINGLE_EDGE)

        def velocity(y: Any, t: Tensor) -> Any:
            return self._slope(y, t.clamp(near, 1 - near))

        y = {**self.tangents.flowing(self.x), _SPREAD: zero}
        y = solver.solve(velocity, y, start, stop, {**spaces, _SPREAD: None})
        return self.tangents.put(y, self.x), y[_SPREAD]

    def _slope(self, y: Any, t: Tensor) -> Any:
        """The velocity by factor, and the divergence by every probe."""
        with torch.enable_grad():
            v = self.posed.like.new_zeros((len(t), self.tangents.dimension)).requires_grad_()
            u = self._velocity(self.tangents.put(self.tangents.walked(y, v), self.x), t)
            again = self.trains
            spread = trace(u, v, again) if self.signs is None else probed(u, v, self.signs, again)
        u, spread = (u, spread) if self.trains else (u.detach(), spread.detach())
        return {**self.tangents.split(u), _SPREAD: spread}

    def _velocity(self, x: Any, t: Tensor) -> Tensor:
        path, clock = self.posed.path, self.posed.clock(t)
        estimate = self.posed.denoiser(x, clock, self.posed.cond)
        needs_law = any(not _has_velocity(part) for part in state.leaves(path.parts))
        law = path.forward(x, clock) if needs_law else None
        return self.tangents.joined(state.map(_velocity, path.parts, estimate, law))


def refuse_jumps(path: Any, stop: Tree) -> None:
    """Raise ``CapabilityError`` unless every running site is real and has a velocity."""
    state.map(_refuse_jumps, path.parts, state.complete(stop, path.parts))


def _refuse_jumps(path: Any, stop: Any) -> None:
    if stop is not None and bool(stop.all()):
        return
    if not path.space.is_real:
        raise CapabilityError(
            f"Expected real spaces for a probability flow, got {path}, whose states jump. Use "
            f"elbo(), or condition on it: given={{name: True}}."
        )
    if not _has_velocity(path) and Capability.GENERATOR not in path.provides:
        raise CapabilityError(
            f"Expected a path with a velocity or a generator for a probability flow, got {path}. "
            f"Use Gaussian, Brownian or an Interpolant."
        )


def _curved(part: Any) -> Any:
    return None if isinstance(part, Euclidean) else part


def _has_velocity(path: Any) -> bool:
    return not path.space.is_real or Capability.VELOCITY in path.provides


def _prior(path: Any) -> Any:
    try:
        return path.prior
    except CapabilityError as error:
        raise CapabilityError(
            f"Expected a path whose law at t = 1 has a density, got {path}, which has none: there "
            f"is no likelihood. Use a coupling with a prior, or a Gaussian process."
        ) from error


def _velocity(path: Any, estimate: Any, law: Any) -> Tensor | None:
    if not path.space.is_real:
        return None
    if Capability.VELOCITY in path.provides:
        return estimate.read(Kind.VELOCITY)
    return -law.reversal(estimate.read(Kind.SCORE), 0.0).drift
