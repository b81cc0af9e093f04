r"""Brownian motion on a compact manifold, run for an operational time v(t).

.. math:: L_t = \tfrac12 \dot v(t) \Delta, \qquad
   q(x_t | x_0) = \text{heat kernel of the manifold at time } v(t),

with respect to the uniform probability. The reversal needs the score alone; the probability flow is
:math:`-\tfrac12 \dot v \nabla \log q_t`. Source: De Bortoli et al. (2022), sections 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Capability, Generator, Kernel, Kind, Prior, Process, Space
from reversal.errors import CapabilityError, ClockError, SpaceError
from reversal.grids import Grid, evaluate
from reversal.noise import Randomness
from reversal.processes import heat_so3, wrapped_normal
from reversal.schedules import QuadraticVariance, Variance, VarianceSchedule
from reversal.spaces import rotations
from reversal.spaces.so3 import SO3
from reversal.spaces.torus import Torus

_TINY = 1e-12


class HeatKernel(ABC):
    """The heat kernel of one manifold; v is an operational time that broadcasts over the sites."""

    @abstractmethod
    def log_density(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """Log-density of every site with respect to the uniform probability."""

    @abstractmethod
    def score(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """Its gradient in x_t, a tangent vector."""

    @abstractmethod
    def sample(self, x_0: Tensor, v: Tensor, generator: Randomness) -> Tensor:
        """Draw x_t."""

    @abstractmethod
    def sample_bridge(
        self, x_0: Tensor, x_t: Tensor, v_s: Tensor, v_t: Tensor, generator: Randomness
    ) -> Tensor:
        """Draw x_s given both ends, exactly."""

    @abstractmethod
    def sample_uniform(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """Draw from the uniform law; ``shape`` is ``(n, *E)``."""


@final
class CircleHeat(HeatKernel):
    """The wrapped normal law, angle by angle."""

    def log_density(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """The wrapped normal at x_t - x_0."""
        return wrapped_normal.log_density(wrapped_normal.wrap(x_t - x_0), v)

    def score(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """Its derivative."""
        return wrapped_normal.score(wrapped_normal.wrap(x_t - x_0), v)

    def sample(self, x_0: Tensor, v: Tensor, generator: Randomness) -> Tensor:
        """A wrapped normal step."""
        return wrapped_normal.wrap(x_0 + v.sqrt() * noise.normal(x_0.shape, x_0, generator))

    def sample_bridge(
        self, x_0: Tensor, x_t: Tensor, v_s: Tensor, v_t: Tensor, generator: Randomness
    ) -> Tensor:
        """A winding number, then a normal bridge."""
        return wrapped_normal.sample_bridge(x_0, x_t, v_s, v_t, generator)

    def sample_uniform(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """Uniform angles."""
        return (2 * noise.uniform(shape, like, generator) - 1) * torch.pi


@final
class RotationHeat(HeatKernel):
    """The heat kernel of SO(3) by its image sum in logs."""

    def log_density(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """The isotropic Gaussian of SO(3) at the angle between the two rotations."""
        return heat_so3.log_density(rotations.angle(rotations.compose(x_0.mT, x_t)), v)

    def score(self, x_0: Tensor, x_t: Tensor, v: Tensor) -> Tensor:
        """A body-frame rotation vector."""
        return heat_so3.score(x_0, x_t, v)

    def sample(self, x_0: Tensor, v: Tensor, generator: Randomness) -> Tensor:
        """A random angle about a uniform axis."""
        return heat_so3.sample(x_0, v, generator)

    def sample_bridge(
        self, x_0: Tensor, x_t: Tensor, v_s: Tensor, v_t: Tensor, generator: Randomness
    ) -> Tensor:
        """The angle from x_0, then the angle to x_t, each by inversion."""
        return heat_so3.sample_bridge(x_0, x_t, v_s, v_t, generator)

    def sample_uniform(self, shape: tuple[int, ...], like: Tensor, generator: Randomness) -> Tensor:
        """Haar: a normalized normal quaternion (Shoemake 1992)."""
        quaternion = noise.normal((*shape[:-2], 4), like, generator)
        return rotations.matrix_from_quaternion(quaternion)


_HEAT: dict[type[Space], HeatKernel] = {Torus: CircleHeat(), SO3: RotationHeat()}


@final
class Brownian(Process):
    """Brownian motion on ``Torus`` or ``SO3``; the prior is uniform.

    Args:
        space: the manifold.
        schedule: the operational time, ``QuadraticVariance`` by default.
    """

    provides = frozenset(Capability) - {Capability.ENDPOINTS, Capability.MIXING}
    starts_singular = False

    def __init__(self, space: Any, schedule: VarianceSchedule | None = None) -> None:
        heat = _HEAT.get(type(space))
        if heat is None:
            raise SpaceError(
                f"Expected Brownian motion on Torus or SO3, got {space}. "
                f"Use Gaussian on Euclidean spaces, Mask or Uniform on categories."
            )
        if not isinstance(schedule, VarianceSchedule | None):
            raise ClockError(
                f"Expected a variance schedule for Brownian motion, got {schedule}. Use "
                f"QuadraticVariance()."
            )
        self.space, self.heat = space, heat
        self.schedule = schedule if schedule is not None else QuadraticVariance()
        self._lift = len(space.tangent_shape) - len(space.sites)
        self._rules = {pair: self._rule(*pair) for pair in permutations(_FACTORS, 2)}

    def __repr__(self) -> str:
        return f"Brownian({self.space}, {self.schedule})"

    @property
    def noisy_space(self) -> Any:
        """The space itself."""
        return self.space

    @property
    def prior(self) -> Prior:
        """The uniform probability."""
        return UniformPrior(self)

    def kernel(self, x_0: Tensor, t: Any) -> HeatLaw:
        """The heat kernel at v(t)."""
        at = self._variance(t, x_0.dtype)
        return HeatLaw(self, x_0, _tensor(at.variance, x_0), _tensor(at.rate, x_0))

    def transition(self, x_s: Tensor, s: Any, t: Any) -> HeatLaw:
        """The heat kernel at v(t) - v(s)."""
        step = self._step(t, s, x_s.dtype)
        return HeatLaw(self, x_s, _tensor(step.at - step.to, x_s), None)

    def bridge(self, x_0: Tensor, x_t: Tensor, s: Any, t: Any) -> BridgeLaw:
        """The Brownian bridge at v(s), sampled exactly."""
        step = self._step(t, s, x_t.dtype)
        return BridgeLaw(self, x_0, x_t, _tensor(step.to, x_t), _tensor(step.at, x_t))

    def ancestor(self, x_t: Tensor, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> StepLaw:
        r"""A normal step in the tangent at x_t, as DDIM's in flat space: order 1, exact for v -> 0.

        .. math:: v_t \nabla - \sqrt{v_s - \eta^2 \tau}\, \sqrt{v_t} \nabla + \eta \sqrt\tau z,
           \qquad \tau = v_s (v_t - v_s) / v_t .
        """
        step = self._step(t, s, x_t.dtype)
        ratio = step.to / _positive(step.at)
        spread = step.to * (1 - ratio)
        kept = (1 - eta**2) * step.to + eta**2 * step.to * ratio
        pull = step.at - (kept * step.at) ** 0.5
        return StepLaw(
            self.space,
            x_t,
            state.trail(pull, self._lift) * estimate.read(Kind.SCORE),
            state.trail(eta * spread**0.5, self._lift),
        )

    def around(self, center: Tensor, t: Any) -> HeatLaw:
        """The heat kernel at v(t) around a point: the usual last step of a bound."""
        return self.kernel(center, t)

    def elapsed(self, s: Any, t: Any) -> Any:
        """v(t) - v(s)."""
        step = self._step(t, s, torch.float64)
        return step.at - step.to

    def forward(self, x: Tensor, t: Any) -> Generator:
        """Covariance dv/dt, no drift."""
        rate = _tensor(self._variance(t, x.dtype).rate, x)
        return self._generator(rate.expand(len(x), *self.space.sites))

    def increment(self, x: Tensor, t: Any, s: Any) -> Generator:
        """Covariance v(t) - v(s)."""
        step = self._step(t, s, x.dtype)
        return self._generator(step.at - step.to)

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """Score, noise (minus the score in units of its spread) and velocity: all proportional."""
        return self._rules.get((source, target))

    def grid(self, steps: int) -> Grid:
        """Equal steps in t: equal steps in sqrt(v) under the default schedule."""
        return Grid.uniform(steps)

    def _generator(self, covariance: Any) -> Generator:
        return Generator(covariance=covariance, lift=self._lift)

    def _variance(self, t: Any, dtype: torch.dtype) -> Any:
        return evaluate(self.schedule.variance, self.space.align(t), dtype=dtype)

    def _step(self, t: Any, s: Any, dtype: torch.dtype) -> Any:
        return evaluate(self.schedule.step, self.space.align(t), self.space.align(s), dtype=dtype)

    def _rule(self, source: Kind, target: Kind) -> Callable[[Tensor, Tensor, Any], Tensor]:
        ratio = partial(_ratio, self.schedule, _FACTORS[source], _FACTORS[target])

        def rule(value: Tensor, x_t: Tensor, t: Any) -> Tensor:
            (scale,) = evaluate(ratio, self.space.align(t), dtype=value.dtype)
            return state.trail(scale, self._lift) * value

        return rule


@final
@dataclass(frozen=True)
class HeatLaw(Kernel):
    """The heat kernel around x_0."""

    process: Brownian
    x_0: Tensor
    v: Tensor
    rate: Any

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw x_t."""
        return self.process.heat.sample(self.x_0, self._spread(), generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """Log-density with respect to the uniform probability."""
        return self.process.heat.log_density(self.x_0, x, self._spread())

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The score, or what is proportional to it."""
        score = self.process.heat.score(self.x_0, x_t, self._spread())
        if kind is Kind.SCORE:
            return score
        if kind not in _FACTORS or self.rate is None:
            raise CapabilityError(
                f"Expected score, noise or velocity on {self.process.space}, got {kind}."
            )
        factor = _FACTORS[kind](Variance(self.v, self.rate))
        return state.trail(factor, score.ndim - factor.ndim) * score

    def _spread(self) -> Tensor:
        return self.v.expand(len(self.x_0), *self.process.space.sites)


@final
@dataclass(frozen=True)
class BridgeLaw(Kernel):
    """The Brownian bridge between x_0 and x_t."""

    process: Brownian
    x_0: Tensor
    x_t: Tensor
    v_s: Tensor
    v_t: Tensor

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw x_s."""
        v_s, v_t = self._spread(self.v_s), self._spread(self.v_t)
        return self.process.heat.sample_bridge(self.x_0, self.x_t, v_s, v_t, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """Bayes: q(x | x_0) q(x_t | x) / q(x_t | x_0)."""
        heat, v_s, v_t = self.process.heat, self._spread(self.v_s), self._spread(self.v_t)
        joint = heat.log_density(self.x_0, x, v_s) + heat.log_density(x, self.x_t, v_t - v_s)
        return joint - heat.log_density(self.x_0, self.x_t, v_t)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The score; it knows no other kind."""
        if kind is not Kind.SCORE:
            raise CapabilityError(f"Expected the score of a bridge, got {kind}.")
        heat, v_s, v_t = self.process.heat, self._spread(self.v_s), self._spread(self.v_t)
        return heat.score(self.x_0, x_t, v_s) + heat.score(self.x_t, x_t, v_t - v_s)

    def _spread(self, v: Tensor) -> Tensor:
        return v.expand(len(self.x_0), *self.process.space.sites)


@final
@dataclass(frozen=True)
class StepLaw(Kernel):
    """x moved by a tangent vector N(mean, std^2): it can be drawn from, not scored."""

    space: Any
    x: Tensor
    mean: Tensor
    std: Any

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw, then walk along the exponential map."""
        z = noise.normal(self.mean.shape, self.mean, generator)
        return self.space.move(self.x, self.mean + self.std * z)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """Refused: the law of an approximate step has no closed density."""
        raise CapabilityError(
            "Expected an exact kernel for a density, got an approximate step on a manifold. "
            "Use process.bridge(x_0, x_t, s, t)."
        )

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """Refused likewise."""
        return self.site_log_prob(x_t)


@final
@dataclass(frozen=True)
class UniformPrior(Prior):
    """The uniform probability of the manifold."""

    process: Brownian

    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Tensor:
        """Draw n states."""
        shown = torch.empty(()) if like is None else like
        return self.process.heat.sample_uniform(
            (n, *self.process.space.event_shape), shown, generator
        )

    def site_log_prob(self, x: Tensor) -> Tensor:
        """Zero: the uniform probability is the reference measure."""
        return x.new_zeros((len(x), *self.process.space.sites))


def _of_score(at: Variance) -> Tensor:
    return torch.ones_like(at.variance)


def _of_noise(at: Variance) -> Tensor:
    return -at.variance.clamp_min(_TINY).sqrt()


def _of_velocity(at: Variance) -> Tensor:
    return -at.rate.clamp_min(_TINY) / 2


_FACTORS = {Kind.SCORE: _of_score, Kind.NOISE: _of_noise, Kind.VELOCITY: _of_velocity}


def _ratio(schedule: VarianceSchedule, source: Any, target: Any, t: Tensor) -> tuple[Tensor]:
    at = schedule.variance(t)
    return (target(at) / source(at),)


def _positive(value: Any) -> Any:
    return value.clamp_min(_TINY) if isinstance(value, Tensor) else max(value, _TINY)


def _tensor(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
