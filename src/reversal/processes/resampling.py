r"""Resampling: at some rate a site forgets its value and draws a new one from a fixed law pi.

.. math:: q(y | k) = \alpha_t \delta_{yk} + (1 - \alpha_t) \pi_y, \qquad
   R_t(x \to y) = \beta_t \pi_y, \quad \beta_t = -\dot\alpha_t / \alpha_t .

With m the posterior p(x_0 = k | x_t) of a site, c its cavity (the same without the site's own
value) and :math:`w_k = m_k / q(x | k)`, everything that reversal needs is linear in K:

.. math:: \frac{q_t(y)}{q_t(x)} = \alpha_t w_y + (1 - \alpha_t) \pi_y \sum_k w_k
   = \frac{\alpha_t c_y + (1 - \alpha_t) \pi_y}{\alpha_t c_x + (1 - \alpha_t) \pi_x},

.. math:: p(x_s = y | x_t = x) = (1 - \alpha_{t|s}) \pi_x
   \Big[\alpha_s w_y + (1 - \alpha_s) \pi_y \sum_k w_k\Big], \quad y \ne x .

Source: Austin et al. (2021), eq. (3); Campbell et al. (2022), Propositions 1 and 3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from reversal import noise, state
from reversal.core import Capability, Generator, Jumps, Kernel, Kind, Leap, Prior, Process
from reversal.errors import CapabilityError, ClockError, SpaceError
from reversal.grids import Grid, evaluate
from reversal.noise import Randomness
from reversal.schedules import LinearSurvival, SurvivalSchedule
from reversal.spaces.categorical import Categorical


class Resampling(Process):
    """The family; a leaf supplies the law pi and the space of noisy states."""

    provides = frozenset({Capability.GENERATOR, Capability.BRIDGE, Capability.PRIOR})
    has_full_support: bool
    is_masking: bool = False
    """Whether pi is a point mass at the last noisy state, which is no value."""

    def __init__(self, space: Categorical, schedule: SurvivalSchedule | None = None) -> None:
        if not isinstance(space, Categorical):
            raise SpaceError(
                f"Expected {type(self).__name__} noise on a Categorical space, got {space}. "
                f"Use Gaussian on Euclidean spaces, Brownian on manifolds."
            )
        if not isinstance(schedule, SurvivalSchedule | None):
            raise ClockError(
                f"Expected a survival schedule for {type(self).__name__} noise, got {schedule}. "
                f"Use LinearSurvival(), CosineSurvival() or, for Uniform, ExponentialSurvival()."
            )
        self.space = space
        self.schedule = schedule if schedule is not None else LinearSurvival()
        if not (self.has_full_support or self.schedule.starts_singular):
            raise ClockError(
                f"Expected a schedule that leaves nothing unmasked at t = 1, got {schedule}: the "
                f"all-masked prior could not hold what survives. Use LinearSurvival() or "
                f"CosineSurvival()."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space}, {self.schedule})"

    @property
    @abstractmethod
    def log_fresh(self) -> Tensor:
        """log pi, shape ``(N,)`` or ``(*sites, N)``; -inf where pi is 0."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """Draw values of shape ``(B, *sites)`` from pi."""

    @property
    def starts_singular(self) -> bool:
        """Whether the rate is infinite at t = 1."""
        return self.schedule.starts_singular

    @property
    def prior(self) -> Prior:
        """Every site independently from pi."""
        return FreshPrior(self)

    def kernel(self, x_0: Tensor, t: Any) -> RenewedKernel:
        """alpha_t delta + (1 - alpha_t) pi."""
        at = self._survival(t)
        return RenewedKernel(self, x_0, at.log_alpha, at.log_lost, at.lost)

    def transition(self, x_s: Tensor, s: Any, t: Any) -> RenewedKernel:
        """The same with the survival from s to t."""
        step = self._step(t, s)
        return RenewedKernel(
            self, x_s, _log(step.alpha_between), _log(step.lost_between), step.lost_between
        )

    def bridge(self, x_0: Tensor, x_t: Tensor, s: Any, t: Any) -> LeapKernel:
        """The bridge, as the mixture over a posterior that is sure of x_0."""
        sure = torch.full((*x_0.shape, self.space.num_values), -torch.inf, dtype=torch.float64)
        posterior = sure.to(x_0.device).scatter(-1, x_0[..., None], 0.0)
        return LeapKernel(x_t, self.leap(posterior, x_t, t, s))

    def ancestor(self, x_t: Tensor, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> LeapKernel:
        """The bridge averaged over the posterior: exact for one site, of order 1 for many."""
        return LeapKernel(x_t, self.leap(estimate.read(Kind.POSTERIOR), x_t, t, s))

    def elapsed(self, s: Any, t: Any) -> Any:
        """The integral of the rate over [s, t]."""
        step = self._step(t, s)
        return -_log(step.alpha_between)

    def forward(self, x: Tensor, t: Any) -> Generator:
        """Rates beta_t pi_y from every state."""
        return Generator(jumps=FreshJumps(self, x, self._survival(t).rate))

    def increment(self, x: Tensor, t: Any, s: Any) -> Generator:
        """The rates at t times the length of the step."""
        length, rate = evaluate(
            self._length, self.space.align(t), self.space.align(s), dtype=torch.float64
        )
        return Generator(jumps=FreshJumps(self, x, length * rate))

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """Posterior and cavity give the score; back as far as pi has full support."""
        rules = {
            (Kind.POSTERIOR, Kind.SCORE): self._score_of_posterior,
            (Kind.CAVITY, Kind.SCORE): self._score_of_cavity,
            (Kind.CAVITY, Kind.POSTERIOR): self._posterior_of_cavity,
            (Kind.SCORE, Kind.POSTERIOR): self._posterior_of_score,
        }
        if self.has_full_support:
            rules[Kind.POSTERIOR, Kind.CAVITY] = self._cavity_of_posterior
            rules[Kind.SCORE, Kind.CAVITY] = self._cavity_of_score
        return rules.get((source, target))

    def grid(self, steps: int) -> Grid:
        """Steps of equal survival."""
        levels = self.schedule.survival(torch.tensor([1.0, 0.0], dtype=torch.float64)).alpha
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        times = self.schedule.inverse(levels[0] + (levels[1] - levels[0]) * u)
        times[0], times[-1] = 1.0, 0.0
        return Grid(times)

    def log_fresh_at(self, x: Tensor) -> Tensor:
        """log pi at the states x, ``(B, *sites)``."""
        table = self.log_fresh.to(x.device)
        if table.ndim == 1:
            return table[x]
        return table.expand(*x.shape, -1).gather(-1, x[..., None]).squeeze(-1)

    def log_likelihood(self, x: Tensor, log_alpha: Any, log_lost: Any) -> tuple[Tensor, Tensor]:
        """log q(x | k) for k other than x, and for k = x, both ``(B, *sites)``, in float64."""
        far = log_lost + self.log_fresh_at(x)
        return far, torch.logaddexp(
            torch.as_tensor(log_alpha, dtype=far.dtype, device=far.device), far
        )

    def _survival(self, t: Any) -> Any:
        return evaluate(self.schedule.survival, self.space.align(t), dtype=torch.float64)

    def _step(self, t: Any, s: Any) -> Any:
        return evaluate(
            self.schedule.renewal, self.space.align(t), self.space.align(s), dtype=torch.float64
        )

    def _length(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return t - s, self.schedule.survival(t).rate

    def _weights(self, posterior: Tensor, x: Tensor, t: Any) -> Tensor:
        """log w_k = log m_k - log q(x | k), and -inf where q(x | k) = 0."""
        at = self._survival(t)
        far, near = self.log_likelihood(x, at.log_alpha, at.log_lost)
        far = torch.where(far == -torch.inf, torch.inf, far)[..., None].to(posterior)
        return self._replace(posterior - far, x, lambda own: own - near.to(posterior), posterior)

    def _replace(
        self, values: Tensor, x: Tensor, rule: Callable[[Tensor], Tensor], of: Tensor
    ) -> Tensor:
        """Put ``rule(of at k = x)`` at k = x, where x is a value and not a mask."""
        own = x.clamp(max=self.space.num_values - 1)[..., None]
        is_value = x < self.space.num_values
        there = rule(of.gather(-1, own).squeeze(-1))
        kept = values.gather(-1, own).squeeze(-1)
        return values.scatter(-1, own, torch.where(is_value, there, kept)[..., None])

    def _blend(self, log_w: Tensor, log_alpha: Any, log_lost: Any) -> Tensor:
        """log(alpha w_y + lost pi_y sum w) for every noisy state y."""
        kept = self._pad(log_w + _lift(log_alpha, log_w))
        total = _log_total(log_w) + _lift(log_lost, log_w)
        fresh = total + self.log_fresh.to(log_w)
        never = (kept == -torch.inf) & (fresh == -torch.inf)
        blend = torch.logaddexp(kept.masked_fill(never, 0.0), fresh.masked_fill(never, 0.0))
        return blend.masked_fill(never, -torch.inf)

    def _pad(self, values: Tensor) -> Tensor:
        extra = self.noisy_space.num_states - values.shape[-1]
        return functional.pad(values, (0, extra), value=-torch.inf) if extra else values

    def _score_of_posterior(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        at = self._survival(t)
        return self._blend(self._weights(value, x_t, t), at.log_alpha, at.log_lost)

    def _score_of_cavity(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        at = self._survival(t)
        log_q = self._blend(_normalized(value), at.log_alpha, at.log_lost)
        return log_q - log_q.gather(-1, x_t[..., None])

    def _posterior_of_cavity(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        at = self._survival(t)
        far, near = self.log_likelihood(x_t, at.log_alpha, at.log_lost)
        joint = value + far[..., None].to(value)
        return _normalized(self._replace(joint, x_t, lambda own: own + near.to(value), value))

    def _cavity_of_posterior(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        return _normalized(self._weights(value, x_t, t))

    def _cavity_of_score(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        at = self._survival(t)
        marginal = value.double().scatter(-1, x_t[..., None], 0.0).softmax(-1)
        lost = torch.as_tensor(at.log_lost - at.log_alpha, dtype=torch.float64).sigmoid()
        noise_share = _lift(lost.to(marginal), marginal) * self.log_fresh.to(marginal).exp()
        return _normalized((marginal - noise_share).clamp_min(0).log()).to(value)

    def _posterior_of_score(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        if self.has_full_support:
            return self._posterior_of_cavity(self._cavity_of_score(value, x_t, t), x_t, t)
        return self._posterior_of_cavity(value[..., : self.space.num_values], x_t, t)

    def leap(self, posterior: Tensor, x_t: Tensor, t: Any, s: Any) -> Leap:
        """The law of x_s given x_t, averaged over the posterior, logits ``(B, *sites, K)``."""
        return (self.lifted if self.is_masking else self.blended)(posterior, x_t, t, s)

    def lifted(self, posterior: Tensor, x_t: Tensor, t: Any, s: Any) -> Leap:
        r"""A mask is lifted with probability :math:`(\alpha_s - \alpha_t)/(1 - \alpha_t)`."""
        step = self._step(t, s)
        lifted = torch.as_tensor(step.alpha_s * step.lost_between)
        share = lifted / (step.lost_s + lifted).clamp_min(torch.finfo(lifted.dtype).tiny)
        prob = torch.where(x_t == self.space.num_values, share.to(x_t.device), 0.0)
        return Leap(prob.to(posterior.dtype), functional.pad(posterior.softmax(-1), (0, 1)))

    def blended(self, posterior: Tensor, x_t: Tensor, t: Any, s: Any) -> Leap:
        """The second equation of this module, for any pi."""
        step = self._step(t, s)
        blend = self._blend(self._weights(posterior, x_t, t), _log(step.alpha_s), _log(step.lost_s))
        far, near = self.log_likelihood(x_t, _log(step.alpha_between), _log(step.lost_between))
        own = x_t[..., None]
        stay = (blend.gather(-1, own).squeeze(-1) + near.to(blend)).exp()
        weights = (blend + far[..., None].to(blend)).exp().scatter(-1, own, 0.0)
        return Leap.of_masses(stay, weights)


@final
@dataclass(frozen=True, eq=False)
class FreshJumps(Jumps):
    """Rates ``rate`` pi_y from x to y; a jump onto x itself does not count."""

    process: Resampling
    x: Tensor
    rate: Any

    @property
    def total(self) -> Tensor:
        """rate (1 - pi_x)."""
        return -self.rate * torch.expm1(self.process.log_fresh_at(self.x))

    @property
    def rates(self) -> Tensor:
        """rate pi_y."""
        fresh = self.process.log_fresh.to(self.x.device).exp()
        dense = (state.trail(self.rate, 1) * fresh).expand(*self.x.shape, -1)
        return dense.scatter(-1, self.x[..., None], 0.0)

    @property
    def into(self) -> Tensor:
        """rate pi_x, from every other state."""
        pull = self.rate * self.process.log_fresh_at(self.x).exp()
        dense = pull[..., None].expand(*self.x.shape, self.process.noisy_space.num_states)
        return dense.scatter(-1, self.x[..., None], 0.0)

    def sample_jump(self, generator: Randomness = None) -> Tensor:
        """Draw from pi without x."""
        return noise.categorical(self.rates, generator)


@final
@dataclass(frozen=True, eq=False)
class RenewedKernel(Kernel):
    """alpha delta_{x_0} + (1 - alpha) pi on every site."""

    process: Resampling
    x_0: Tensor
    log_alpha: Any
    log_lost: Any
    lost: Any

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw whether the site was resampled, then what it drew."""
        u = noise.uniform(
            self.x_0.shape, torch.empty((), dtype=torch.float64, device=self.x_0.device), generator
        )
        fresh = self.process.draw(tuple(self.x_0.shape), self.x_0, generator)
        return torch.where(u < self.lost, fresh, self.x_0)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of every site, in float64."""
        far, near = self.process.log_likelihood(x, self.log_alpha, self.log_lost)
        return torch.where(x == self.x_0, near, far)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The clean codes for posterior and cavity; log-ratios for the score."""
        if kind in (Kind.POSTERIOR, Kind.CAVITY):
            return self.x_0
        if kind is not Kind.SCORE:
            raise CapabilityError(
                f"Expected a target among posterior, cavity and score on a finite set, got {kind}."
            )
        fresh = self.process.log_fresh.to(x_t.device) + _lift(self.log_lost, x_t[..., None])
        every = fresh.expand(*x_t.shape, -1)
        own = every.gather(-1, self.x_0[..., None])
        at_x_0 = torch.logaddexp(own, torch.as_tensor(_lift(self.log_alpha, own)).to(own))
        ratios = every.scatter(-1, self.x_0[..., None], at_x_0)
        return ratios - self.site_log_prob(x_t)[..., None]


@final
@dataclass(frozen=True, eq=False)
class LeapKernel(Kernel):
    """The law of x_s given x_t as a leap: whether a site jumps, then where."""

    x_t: Tensor
    leap: Leap

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw whether, then where."""
        return self.leap.sample(self.x_t, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of every site."""
        return self.leap.law(self.x_t).gather(-1, x[..., None]).squeeze(-1).log()

    def divergence(self, other: LeapKernel) -> Tensor:
        """KL(self || other) of every site, in nats."""
        law, model = self.leap.law(self.x_t), other.leap.law(other.x_t).to(self.leap.prob)
        ratio = law.clamp_min(torch.finfo(law.dtype).tiny).log() - model.log()
        return torch.where(law > 0, law * ratio, 0.0).sum(-1)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The log-ratios; it knows no other kind."""
        if kind is not Kind.SCORE:
            raise CapabilityError(f"Expected the score of a bridge, got {kind}.")
        log_law = self.leap.law(self.x_t).log()
        return log_law - log_law.gather(-1, x_t[..., None])


@final
@dataclass(frozen=True, eq=False)
class FreshPrior(Prior):
    """Every site independently from pi."""

    process: Resampling

    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Tensor:
        """Draw n arrays of codes."""
        shown = torch.empty(()) if like is None else like
        return self.process.draw((n, *self.process.space.sites), shown, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """log pi of every site."""
        return self.process.log_fresh_at(x)


def _lift(coefficient: Any, like: Tensor) -> Any:
    if not isinstance(coefficient, Tensor):
        return coefficient
    lifted = coefficient[..., None]
    return lifted.to(like) if like.is_floating_point() else lifted


def _log(value: Any) -> Any:
    return torch.as_tensor(value, dtype=torch.float64).log()


def _log_total(logits: Tensor) -> Tensor:
    return logits.logsumexp(-1, keepdim=True)


def _normalized(logits: Tensor) -> Tensor:
    total = _log_total(logits)
    return logits - torch.where(total == -torch.inf, 0.0, total)
