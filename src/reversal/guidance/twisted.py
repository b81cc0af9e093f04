r"""Twisted sequential Monte Carlo: conditional draws, exact in the limit of many particles.

Particles walk by a guided denoiser and are weighed by how far that is from the truth. With the
model's own step p(x_s | x_t), the guided one r(x_s | x_t) and the twist
:math:`\psi_t(x_t) \approx p_t(e | x_t)`,

.. math:: w_1 = \psi_1(x_1), \qquad w_s = \frac{p(x_s | x_t)\, \psi_s(x_s)}
   {r(x_s | x_t)\, \psi_t(x_t)}, \qquad \psi_0(x_0) = p(e | x_0),

so that the weights telescope to :math:`p(x_{0:1})\, p(e | x_0)`, whatever the twist: the estimate
of p(e) under the sampled model is unbiased, and weighted particles follow its conditional law up to
an error of order 1 / particles. A system is resampled where its effective size falls below a share
of its particles. Source: Wu et al. (2023), arXiv 2306.17775; Del Moral, Doucet and Jasra (2012)
for the effective size as the judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Estimate, JointEstimate, Path, Sampler
from reversal.errors import CapabilityError, DataError, SpaceError
from reversal.grids import Tick
from reversal.guidance.tilted import Tilted
from reversal.noise import ItemNoise, Randomness
from reversal.particles import effective_size, resampled
from reversal.processes.gaussian import Gaussian
from reversal.questions import ask
from reversal.state import Tree


@final
@dataclass(frozen=True)
class Particles:
    """Weighted draws, ``systems`` of them of ``particles`` each.

    Args:
        states: ``(systems * particles, *E)``, or a dict of those; a system's follow one another.
        log_weights: ``(systems, particles)``, not normalized, float64.
        log_evidence: log of an unbiased estimate of p(e) per system, ``(systems,)``, in nats.
        effective_sizes: (sum w)^2 / sum w^2 at every step, before resampling, ``(steps + 1,
            systems)``; the last is that of ``log_weights``.
    """

    states: Any
    log_weights: Tensor
    log_evidence: Tensor
    effective_sizes: Tensor

    def draw(self, n: int, generator: Randomness = None) -> Any:
        """Draw n states of every system by their weights, ``(systems * n, *E)``.

        Draws of one system share ancestors: those of different systems alone are independent.
        """
        index = resampled(self.log_weights, n, generator)
        start = torch.arange(len(index), device=index.device) * self.log_weights.shape[1]
        rows = (index + start[:, None]).flatten()
        return state.map(lambda part: part[rows], self.states)

    def mean(self, function: Any) -> Tensor:
        """Return the weighted mean of ``function(states) -> (B, *)`` per system."""
        values = function(self.states).unflatten(0, self.log_weights.shape)
        weights = self.log_weights.softmax(-1).to(values)
        return (state.trail(weights, values.ndim - 2) * values).sum(1)


@final
@dataclass(frozen=True)
class TwistedSMC:
    """Sample a guided denoiser with weights, by steps of the bridge as ``Ancestral`` takes them.

    Args:
        threshold: a system is resampled where its effective size is below this share of it.
        eta: in (0, 1], the share of the bridge's noise on real spaces.

    What is sampled is the law of the steps, that of ``Ancestral`` on the unguided denoiser, given
    the evidence: steps and denoiser may err, guidance may not. Factors under Gaussian noise or on
    finite sets; a step of a real factor that ends at 0 is not guided, for it has no noise.
    """

    threshold: float = 0.5
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise CapabilityError(
                f"Expected a threshold in [0, 1], got {self.threshold}. 0 never resamples."
            )
        if not 0 < self.eta <= 1:
            raise CapabilityError(
                f"Expected eta in (0, 1], got {self.eta}. Weights need steps with noise."
            )

    def sample(
        self,
        guided: Tilted,
        particles: int,
        steps: int = 100,
        systems: int = 1,
        given: Any = None,
        cond: Any = None,
        generator: Randomness = None,
        grid: Any = None,
    ) -> Particles:
        """Run systems of particles beside one another.

        Args:
            guided: ``Reconstruction`` or ``Classifier``; its strength is that of the proposals.
            particles: how many in a system.
            steps: the number of steps of the default grid.
            systems: how many.
            given: known values, as every sampler takes them, alike for all particles of a system.
            cond: handed to the denoiser, one row per particle, alike within a system.
            generator: a ``torch.Generator``: particles of a system share their resampling.
            grid: a ``Grid``, or one per factor.

        Raises:
            CapabilityError: before the first step, if guidance or path lack what is needed.
            SpaceError: if there is no particle, or known values differ within a system.
            DataError: if a log-likelihood is not a number.

        Cost: one guided call per particle and step. Memory: that of a batch of all particles.
        """
        if not isinstance(guided, Tilted):
            raise CapabilityError(
                f"Expected a denoiser that knows its evidence, got {type(guided).__name__}. "
                f"Use Reconstruction(denoiser, DPS(log_likelihood)) or Classifier(denoiser, ...)."
            )
        if isinstance(generator, ItemNoise):
            raise CapabilityError(
                "Expected a torch.Generator for particles, which share their resampling, got an "
                "ItemNoise. Write torch.Generator().manual_seed(0)."
            )
        counts = (particles, systems)
        if not all(isinstance(count, int) and count >= 1 for count in counts):
            raise SpaceError(
                f"Expected at least one particle and one system, got {particles!r} and "
                f"{systems!r}. Give e.g. particles=64."
            )
        walk = _Walk(self, _System(systems, particles, self.threshold))
        n = systems * particles
        _need_alike(guided, given, systems, n)
        x_0 = walk.sample(guided, n, steps, given, cond, generator, grid)
        return walk.system.finished(x_0, guided.log_likelihood(x_0))


def _need_alike(guided: Tilted, given: Any, systems: int, n: int) -> None:
    """Raise unless the particles of each system have the same known sites and values."""
    question = ask(guided.process.space, n, given, None, guided.like)
    for part in (*state.leaves(question.values), *state.leaves(question.known)):
        if part is None:
            continue
        rows = part.unflatten(0, (systems, n // systems))
        if not bool((rows == rows[:, :1]).all()):
            raise SpaceError(
                "Expected known sites and values alike for all particles of a system, got rows "
                "that differ. Give one row, or one after another for each system's particles."
            )


@final
@dataclass
class _System:
    """What systems of particles remember between steps; ``(systems, particles)`` each."""

    systems: int
    particles: int
    threshold: float
    log_weights: Any = 0.0
    log_evidence: Any = 0.0
    sizes: list[Tensor] = field(default_factory=list)

    def weigh(self, log_twist: Tensor) -> None:
        """Multiply the weights by a new twist; that of the last step was divided out."""
        values = log_twist.double().view(self.systems, self.particles)
        if bool(values.isnan().any()):
            row = int(values.isnan().flatten().nonzero()[0])
            raise DataError(
                f"Expected log-likelihoods that are numbers or -inf, got NaN for particle {row}. "
                f"Look for a logarithm of a negative number, or for steps that are too long."
            )
        self.log_weights = self.log_weights + values
        self.sizes.append(effective_size(self.log_weights))

    def choose(self, generator: Randomness) -> Tensor:
        """Return which particles go on, ``(systems * particles,)``, and set their weights."""
        needed = self.sizes[-1] < self.threshold * self.particles
        index = resampled(self.log_weights, self.particles, generator)
        stay = torch.arange(self.particles, device=index.device)
        index = torch.where(needed[:, None], index, stay)
        whole = self.log_weights.logsumexp(1) - math.log(self.particles)
        self.log_evidence = self.log_evidence + torch.where(needed, whole, 0.0)
        self.log_weights = torch.where(needed[:, None], 0.0, self.log_weights)
        start = torch.arange(self.systems, device=index.device) * self.particles
        return (index + start[:, None]).flatten()

    def discount(self, log_ratio: Tensor) -> None:
        """Multiply the weights by p / (r psi_t)."""
        self.log_weights = self.log_weights + log_ratio.double().view_as(self.log_weights)

    def finished(self, x_0: Any, log_likelihood: Tensor) -> Particles:
        """Weigh by the evidence itself."""
        self.weigh(log_likelihood)
        whole = self.log_weights.logsumexp(1) - math.log(self.particles)
        sizes = torch.stack(self.sizes)
        return Particles(x_0, self.log_weights, self.log_evidence + whole, sizes)


@final
@dataclass
class _Walk(Sampler):
    """The steps of a run; the system is shared by the copies that ``sample`` makes."""

    method: TwistedSMC
    system: _System

    def check(self, path: Path) -> None:
        """A bridge whose steps have a density."""
        scored = isinstance(path, Gaussian) or not path.space.is_real
        if Capability.BRIDGE not in path.provides or not scored:
            raise CapabilityError(
                f"Expected Gaussian noise or a finite set with a bridge for {self.method}, got "
                f"{path}, whose steps have no density to weigh. Use a sampler on the guided "
                f"denoiser, which is not exact."
            )

    def advance(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Any,
        s: Any,
        cond: Any,
        stop: Tree,
        generator: Randomness,
    ) -> Any:
        """Weigh, choose who goes on, propose."""
        look = denoiser.look(x_t, t, cond)  # pyright: ignore[reportCallIssue]
        self.system.weigh(look.log_evidence)
        rows = self.system.choose(generator)
        parts = denoiser.process.parts
        free, guided = (_rows(estimate, rows) for estimate in (look.free, look.guided))
        propose = partial(_proposed, self.method.eta, generator)
        held = state.complete(stop, parts) if isinstance(parts, Mapping) else stop
        moved = state.map(propose, parts, t, s, free, guided, held)
        ratio = state.total(state.map(lambda pair: pair[1], moved))
        self.system.discount(ratio - look.log_evidence[rows])
        return state.map(lambda pair: pair[0], moved)


def _rows(estimate: Any, rows: Tensor) -> Any:
    """The estimates at an index; a tick is that of all rows."""
    chosen = state.map(
        lambda e: Estimate(e.path, e.x_t[rows], _at(e.t, rows), e.kind, e.value[rows]), estimate
    )
    return JointEstimate(chosen) if isinstance(chosen, dict) else chosen


def _at(t: Any, rows: Tensor) -> Any:
    return t if isinstance(t, Tick) else t[rows]


def _proposed(
    eta: float,
    generator: Randomness,
    path: Any,
    t: Any,
    s: Any,
    free: Estimate,
    guided: Estimate,
    stop: Any,
) -> tuple[Tensor, Tensor]:
    """Draw x_s; return it and log p(x_s | x_t) - log r(x_s | x_t) over the sites that run."""
    x_t = free.x_t
    target = path.ancestor(x_t, t, s, free, eta)
    if path.space.is_real and float(s) == 0:
        x_s = target.sample(generator)
        return x_s, x_s.new_zeros(len(x_s), dtype=torch.float64)
    proposal = path.ancestor(x_t, t, s, guided, eta)
    x_s = proposal.sample(generator)
    ratio = target.site_log_prob(x_s).double() - proposal.site_log_prob(x_s).double()
    ratio = torch.where(ratio.isnan(), 0.0, ratio)
    return x_s, state.sum_sites(ratio if stop is None else torch.where(stop, 0.0, ratio))
