r"""Gaussian noise: the signal fades and white noise grows, entry by entry.

.. math:: q(x_t | x_0) = N(\alpha_t x_0, \sigma_t^2), \qquad
   L_t h = f_t\, x \cdot \nabla h + \tfrac12 g_t^2 \Delta h .

Given x_t every prediction is one linear combination :math:`a x_0 + b \epsilon` of the clean data
and the noise, with (a, b) = (1, 0) for clean, (0, 1) for noise, :math:`(\dot\alpha, \dot\sigma)`
for velocity and :math:`(0, -1/\sigma)` for score. Two of them, x_t included, fix all the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise
from reversal.core import Capability, Generator, Kernel, Kind, Prior, Process
from reversal.errors import CapabilityError, ClockError, SpaceError
from reversal.grids import Grid, Tick, evaluate
from reversal.noise import Randomness
from reversal.schedules import SignalSchedule, VariancePreserving
from reversal.spaces.euclidean import Euclidean

_TINY = 1e-12
_NO_SIGNAL = (Kind.NOISE, Kind.SCORE)


@final
class Gaussian(Process):
    """Noising by a linear stochastic differential equation; ``schedule`` names which one.

    Args:
        space: ``Euclidean``.
        schedule: ``VariancePreserving`` (default), ``QuadraticBeta``, ``Cosine``,
            ``OrnsteinUhlenbeck``, ``VarianceExploding``, ``Karras``, ``SubVariancePreserving``,
            ``Rectified``, ``Signals`` of your own, or a ``LearnedSchedule``.

    Source: Song et al. (2021), section 3; Kingma et al. (2021), appendix A.
    """

    provides = frozenset(Capability) - {Capability.ENDPOINTS, Capability.MIXING}

    def __init__(self, space: Euclidean, schedule: SignalSchedule | None = None) -> None:
        if not isinstance(space, Euclidean):
            raise SpaceError(
                f"Expected Gaussian noise on a Euclidean space, got {space}. "
                f"Use Brownian on manifolds, Mask or Uniform on categories."
            )
        if not isinstance(schedule, SignalSchedule | None):
            raise ClockError(
                f"Expected a signal schedule for Gaussian noise, got {schedule}. Use "
                f"VariancePreserving(), Cosine(), VarianceExploding() or Rectified()."
            )
        self.space = space
        self.schedule = schedule if schedule is not None else VariancePreserving()
        self._rules = {pair: self._rule(*pair) for pair in permutations(_COMBINATIONS, 2)}

    def __repr__(self) -> str:
        return f"Gaussian({self.space}, {self.schedule})"

    @property
    def noisy_space(self) -> Euclidean:
        """The space itself."""
        return self.space

    @property
    def starts_singular(self) -> bool:
        """Whether the drift is infinite at t = 1."""
        return self.schedule.starts_singular

    @property
    def prior(self) -> Prior:
        """N(0, alpha_1^2 + sigma_1^2): the marginal of data with unit variance."""
        with torch.no_grad():
            last = self.schedule.signal(torch.ones((), dtype=torch.float64))
        return NormalPrior(self.space, math.hypot(float(last.alpha), float(last.sigma)))

    def kernel(self, x_0: Tensor, t: Any) -> NoisedKernel:
        """N(alpha_t x_0, sigma_t^2)."""
        signal = self.signal(t, x_0.dtype)
        return NoisedKernel(x_0, signal)

    def transition(self, x_s: Tensor, s: Any, t: Any) -> NormalKernel:
        """N((alpha_t / alpha_s) x_s, sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)."""
        step = self._step(t, s, x_s.dtype)
        return NormalKernel(_exp(step.decay) * x_s, step.sigma_t * _root(step.fraction))

    def bridge(self, x_0: Tensor, x_t: Tensor, s: Any, t: Any) -> NormalKernel:
        """The normal law of x_s given both ends."""
        return self._bridge(x_0, x_t, self._step(t, s, x_t.dtype), 1.0)

    def ancestor(
        self, x_t: Tensor, t: Any, s: Any, estimate: Any, eta: float = 1.0
    ) -> NormalKernel:
        """The bridge with the clean estimate in place of x_0; ``eta`` 0 is DDIM.

        Source: Song, Meng and Ermon (2021), eq. (12) and (16).
        """
        return self._bridge(estimate.read(Kind.CLEAN), x_t, self._step(t, s, x_t.dtype), eta)

    def around(self, center: Tensor, t: Any) -> NormalKernel:
        """N(center, (sigma_t / alpha_t)^2): the usual last step of a bound."""
        signal = self.signal(t, center.dtype)
        return NormalKernel(center, signal.sigma / signal.alpha)

    def elapsed(self, s: Any, t: Any) -> tuple[Any, Any]:
        """The integrals of f and of g^2 over [s, t]."""
        step = self._step(t, s, torch.float64)
        return step.decay, step.diffusion

    def forward(self, x: Tensor, t: Any) -> Generator:
        """Drift f x, covariance g^2."""
        signal = self.signal(t, x.dtype)
        return Generator(signal.drift * x, signal.diffusion * torch.ones_like(x))

    def increment(self, x: Tensor, t: Any, s: Any) -> Generator:
        """Drift and covariance integrated over the step."""
        step = self._step(t, s, x.dtype)
        return Generator(step.decay * x, step.diffusion)

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """One rule for all pairs among clean, noise, velocity and score."""
        return self._rules.get((source, target))

    def signal(self, t: Any, dtype: torch.dtype) -> Any:
        """The coefficients of the schedule, shaped to broadcast over the sites."""
        return evaluate(self.schedule.signal, self.space.align(t), dtype=dtype)

    def noise_error(self, kind: Kind, t: Any, dtype: torch.dtype) -> Tensor:
        r"""What an error of this kind is multiplied by to be one of the noise, given x_t.

        .. math:: \frac{\alpha}{b \alpha - a \sigma}, \qquad \text{kind} = a x_0 + b \epsilon .
        """
        signal = self.signal(t, dtype)
        a, b = _COMBINATIONS[kind](signal)
        return signal.alpha / (b * signal.alpha - a * signal.sigma)

    @torch.no_grad()
    def grid(self, steps: int) -> Grid:
        r"""Steps in the angle :math:`\theta = \arctan(\sigma/\alpha)`, smaller towards data."""
        fine = torch.linspace(0, 1, 8193, dtype=torch.float64)
        signal = self.schedule.signal(fine)
        angle = torch.atan2(signal.sigma, signal.alpha)
        wanted = angle[-1] * torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 1.5
        right = torch.searchsorted(angle, wanted).clamp(1, len(fine) - 1)
        share = (wanted - angle[right - 1]) / (angle[right] - angle[right - 1])
        times = fine[right - 1] + share * (fine[right] - fine[right - 1])
        times[0], times[-1] = 0.0, 1.0
        return Grid(times.flip(0))

    def _step(self, t: Any, s: Any, dtype: torch.dtype) -> Any:
        return evaluate(self.schedule.step, self.space.align(t), self.space.align(s), dtype=dtype)

    def _bridge(self, clean: Tensor, x_t: Tensor, step: Any, eta: float) -> NormalKernel:
        carried = step.sigma_s * _root(1 - eta**2 * step.fraction) / _positive(step.sigma_t)
        mean = _mix(carried, x_t, step.alpha_s - carried * step.alpha_t, clean)
        return NormalKernel(mean, eta * step.sigma_s * _root(step.fraction) if eta else 0.0)

    def _rule(self, source: Kind, target: Kind) -> Callable[[Tensor, Tensor, Any], Tensor]:
        blend = partial(_blend, self.schedule, _COMBINATIONS[source], _COMBINATIONS[target])
        align = self.space.align

        blind = self.starts_singular and source in _NO_SIGNAL and target not in _NO_SIGNAL

        def rule(value: Tensor, x_t: Tensor, t: Any) -> Tensor:
            if blind and isinstance(t, Tick) and t.time == 1:
                raise CapabilityError(
                    f"Expected a denoiser that tells data from noise at t = 1 under {self}, where "
                    f"no signal is left, got one that outputs {source}. Train Velocity(), Clean() "
                    f"or Preconditioned(), or start below 1: grid=Grid.uniform(steps, 0.999)."
                )
            of_x, of_value = evaluate(blend, align(t), dtype=x_t.dtype)
            return _mix(of_x, x_t, of_value, value)

        return rule


@final
@dataclass(frozen=True)
class NoisedKernel(Kernel):
    """N(alpha x_0, sigma^2), which knows what x_t was made of."""

    x_0: Tensor
    signal: Any

    def sample(self, generator: Randomness = None) -> Tensor:
        """alpha x_0 + sigma epsilon."""
        z = noise.normal(self.x_0.shape, self.x_0, generator)
        return self.signal.alpha * self.x_0 + self.signal.sigma * z

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-density of every entry."""
        return _normal_log_prob(x, self.signal.alpha * self.x_0, self.signal.sigma)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The combination a x_0 + b epsilon of this kind."""
        if kind not in _COMBINATIONS:
            raise CapabilityError(
                f"Expected a target among {[str(k) for k in _COMBINATIONS]} under Gaussian noise, "
                f"got {kind}. Choose one of those."
            )
        epsilon = (x_t - self.signal.alpha * self.x_0) / _positive(self.signal.sigma)
        of_clean, of_noise = _COMBINATIONS[kind](self.signal)
        return of_clean * self.x_0 + of_noise * epsilon


@final
@dataclass(frozen=True)
class NormalKernel(Kernel):
    """N(mean, std^2), entry by entry; std 0 is a point mass."""

    mean: Tensor
    std: Any

    def sample(self, generator: Randomness = None) -> Tensor:
        """mean + std epsilon; without a draw where std is the number 0."""
        if not isinstance(self.std, Tensor) and self.std == 0:
            return self.mean
        z = noise.normal(self.mean.shape, self.mean, generator)
        return _mix(1.0, self.mean, self.std, z)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-density of every entry."""
        return _normal_log_prob(x, self.mean, self.std)

    def divergence(self, other: NormalKernel) -> Tensor:
        """KL(self || other) of every entry, in nats."""
        std, wide = _positive(self.std), _positive(other.std)
        ratio = torch.as_tensor(std / wide) ** 2
        return ((self.mean - other.mean) / wide) ** 2 / 2 + (ratio - 1 - ratio.log()) / 2

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The score; it knows no other kind."""
        if kind is not Kind.SCORE:
            raise CapabilityError(f"Expected a score of a bridge or transition, got {kind}.")
        return (self.mean - x_t) / _positive(self.std) ** 2


@final
@dataclass(frozen=True)
class NormalPrior(Prior):
    """N(0, std^2) on every entry."""

    space: Euclidean
    std: float

    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Tensor:
        """Draw n arrays."""
        shown = torch.empty(()) if like is None else like
        return self.std * noise.normal((n, *self.space.event_shape), shown, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-density of every entry."""
        return _normal_log_prob(x, torch.zeros_like(x), self.std)


def _clean(signal: Any) -> tuple[Any, Any]:
    return 1.0 + 0 * signal.alpha, 0 * signal.alpha


def _noise(signal: Any) -> tuple[Any, Any]:
    return 0 * signal.alpha, 1.0 + 0 * signal.alpha


def _velocity(signal: Any) -> tuple[Any, Any]:
    return signal.alpha_dot, signal.sigma_dot


def _score(signal: Any) -> tuple[Any, Any]:
    return 0 * signal.alpha, -1 / _positive(signal.sigma)


_COMBINATIONS = {
    Kind.CLEAN: _clean,
    Kind.NOISE: _noise,
    Kind.VELOCITY: _velocity,
    Kind.SCORE: _score,
}


def _blend(schedule: SignalSchedule, source: Any, target: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """Solve target = A x_t + B source, all four being combinations of clean and noise."""
    signal = schedule.signal(t)
    (a, b), (c, d) = source(signal), target(signal)
    determinant = signal.alpha * b - signal.sigma * a
    determinant = torch.where(determinant.abs() < _TINY, _TINY, determinant)
    return (c * b - d * a) / determinant, (signal.alpha * d - signal.sigma * c) / determinant


def _mix(a: Any, x: Tensor, b: Any, y: Tensor) -> Tensor:
    """a x + b y, in as few kernels as numbers or tensors allow."""
    if isinstance(a, float) and a == 0:
        return b * y
    first = x if isinstance(a, float) and a == 1 else a * x
    return first + b * y if isinstance(b, Tensor) else torch.add(first, y, alpha=b)


def _positive(value: Any) -> Any:
    return value.clamp_min(_TINY) if isinstance(value, Tensor) else max(value, _TINY)


def _root(value: Any) -> Any:
    """The square root; of learned numbers, with a finite slope at 0."""
    is_learned = isinstance(value, Tensor) and value.requires_grad
    return (value.clamp_min(torch.finfo(value.dtype).tiny) if is_learned else value) ** 0.5


def _exp(value: Any) -> Any:
    return value.exp() if isinstance(value, Tensor) else math.exp(value)


def _normal_log_prob(x: Tensor, mean: Tensor, std: Any) -> Tensor:
    std = _positive(std)
    log_std = std.log() if isinstance(std, Tensor) else math.log(std)
    return -0.5 * ((x - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
