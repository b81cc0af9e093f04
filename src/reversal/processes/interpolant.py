r"""Interpolants: a path between any two laws, which need not be a Markov process.

.. math:: x_t = (1 - t) x_0 + t x_1 + \sigma_t z, \qquad
   \sigma_t^2 = \gamma^2 t (1 - t) + \sigma_{\min}^2, \qquad
   u_t = E[x_1 - x_0 + \dot\sigma_t z \mid x_t] .

The flow of the velocity u_t carries the law at 1 to the law at 0. An ``Interpolant`` has no
generator, and hence no bridge and no bound. With noise, its flow may be mixed with any amount of

.. math:: \tfrac{a}{2} \nabla \log q_t\, d\tau + \sqrt{a}\, dW, \qquad
   a = 4 c^2 \sigma_t^2, \quad \nabla \log q_t = -E[z | x_t] / \sigma_t ,

which leaves the marginals as they are: churn c. With noise, too, the same mixture of pinned
Brownian motions has a second reading: ``BrownianBridge`` walks back by the bridge around an
estimate of x_0, which is the Markov process with the same marginals. Source: Albergo and
Vanden-Eijnden (2023), eq. (2.1) and (2.10); Albergo, Boffi and Vanden-Eijnden (2023), section 2,
for the mixture; Lipman et al. (2023); Liu et al. (2023); Peluchetti (2023) and Shi et al. (2023)
for bridges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise as randomness
from reversal.core import Capability, Generator, Kernel, Kind, Path, Prior
from reversal.errors import CapabilityError, SpaceError
from reversal.grids import Grid, evaluate
from reversal.noise import Randomness
from reversal.processes.couplings import Coupling, Paired
from reversal.processes.gaussian import NormalKernel
from reversal.spaces.euclidean import Euclidean

_TINY = 1e-12


class Lines(Path):
    """Straight lines between ends that a coupling pairs, with noise around them."""

    starts_singular = False

    def __init__(
        self, space: Euclidean, coupling: Coupling, noise: float, sigma_min: float
    ) -> None:
        self.space, self.coupling = space, coupling
        self.noise, self.sigma_min = noise, sigma_min

    def __repr__(self) -> str:
        least = f", sigma_min={self.sigma_min}" if self.sigma_min else ""
        name = type(self).__name__
        return f"{name}({self.space}, {self.coupling}, noise={self.noise}{least})"

    @final
    @property
    def noisy_space(self) -> Euclidean:
        """The space itself."""
        return self.space

    @final
    @property
    def prior(self) -> Prior:
        """The law of x_1, if the coupling has one."""
        if self.coupling.source is None:
            raise CapabilityError(
                f"Expected a law to draw x_1 from, but {self.coupling} has none. Pass x_1=..., the "
                f"states to start from."
            )
        return self.coupling.source

    @final
    def kernel(self, x_0: Tensor, t: Any, x_1: Tensor | None = None) -> InterpolantKernel:
        """The law of x_t given both ends, which ``coupling.pair`` puts together.

        Raises:
            SpaceError: if x_1 is not given.
        """
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_0.dtype)
        return InterpolantKernel(x_0, Paired().pair(x_0, x_1), at, self.noise, self.sigma_min)

    @final
    def grid(self, steps: int) -> Grid:
        """Equal steps."""
        return Grid.uniform(steps)


@final
class Interpolant(Lines):
    """Straight lines between paired ends, with noise in between if ``noise`` > 0.

    Args:
        space: ``Euclidean``.
        coupling: how the ends belong together: ``Paired()``, ``Unpaired(source)`` or
            ``OptimalTransport(source)``.
        noise: gamma >= 0, in the units of the data.
        sigma_min: noise that stays at both ends, in the units of the data; what is sampled is then
            the data with as much noise.

    A path, not a process: train it by ``Regression``, sample it by ``Euler(churn=0)`` or ``Heun``;
    both take ``x_1=``, and need it where the coupling has no source. Without noise ``Clean`` and
    ``Velocity`` say the same; with noise they are two networks, and ``Noise`` is a third one, whose
    output is the score. One network with ``Heads(Velocity(), Noise())`` is sampled by
    ``Euler(churn)`` as well.
    """

    def __init__(
        self, space: Euclidean, coupling: Coupling, noise: float = 0.0, sigma_min: float = 0.0
    ) -> None:
        _check_lines(space, coupling, noise >= 0 and sigma_min >= 0, f"{noise} and {sigma_min}")
        super().__init__(space, coupling, noise, sigma_min)
        mixing = {Capability.MIXING} if noise or sigma_min else set()
        self.provides = frozenset({Capability.VELOCITY, Capability.ENDPOINTS} | mixing)

    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> Kernel:
        """Refused: an interpolant is not Markov and has no bridge."""
        raise CapabilityError(
            "Expected a Markov process for a bridge, got an interpolant, which has a velocity "
            "alone. Use Euler(churn=0) or Heun()."
        )

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """Without noise x_t - t u_t is the clean estimate; with noise, -z/sigma_t the score."""
        if self.noise or self.sigma_min:
            return self._score_of_noise if (source, target) == (Kind.NOISE, Kind.SCORE) else None
        rules = {
            (Kind.VELOCITY, Kind.CLEAN): self._clean_of_velocity,
            (Kind.CLEAN, Kind.VELOCITY): self._velocity_of_clean,
        }
        return rules.get((source, target))

    def mixed(self, x_t: Tensor, t: Any, s: Any, estimate: Any, churn: float) -> Generator:
        """The reversed flow and its noise, integrated over the step from t down to s.

        Raises:
            CapabilityError: if the estimate has no velocity, or no noise.
        """
        at, to = evaluate(_both, self.space.align(t), self.space.align(s), dtype=x_t.dtype)
        h, sigma = at - to, _spread(at, self.noise, self.sigma_min)
        pull = 2 * churn**2 * sigma * estimate.read(Kind.NOISE)
        drift = -h * (estimate.read(Kind.VELOCITY) + pull)
        return Generator(drift, 4 * churn**2 * h * sigma**2)

    def _score_of_noise(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_t.dtype)
        return -value / _spread(at, self.noise, self.sigma_min).clamp_min(_TINY)

    def _clean_of_velocity(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_t.dtype)
        return x_t - at * value

    def _velocity_of_clean(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_t.dtype)
        return (x_t - value) / (at.clamp_min(_TINY) if isinstance(at, Tensor) else max(at, _TINY))


@final
class BrownianBridge(Lines):
    r"""Brownian motions pinned at both ends, walked back by their bridge.

    .. math:: q(x_s | x_t, x_0) = N\Big(x_t + \tfrac{t - s}{t} (x_0 - x_t),\,
       \gamma^2 \tfrac{s (t - s)}{t}\Big) .

    Args:
        space: ``Euclidean``.
        coupling: how the ends belong together.
        noise: gamma > 0, in the units of the data.

    Train ``Clean`` by ``Regression``, sample by ``Ancestral``. With the ends of a Schrodinger
    bridge paired, it is that bridge; training it in both directions in turn, each on pairs that the
    other one drew, finds it (iterative Markovian fitting). Source: Shi et al. (2023), eq. (7) and
    Algorithm 1; Peluchetti (2023).
    """

    def __init__(self, space: Euclidean, coupling: Coupling, noise: float = 1.0) -> None:
        _check_lines(space, coupling, noise > 0, noise)
        super().__init__(space, coupling, noise, 0.0)
        self.provides = frozenset({Capability.BRIDGE, Capability.ENDPOINTS})

    def ancestor(
        self, x_t: Tensor, t: Any, s: Any, estimate: Any, eta: float = 1.0
    ) -> NormalKernel:
        """The bridge with the clean estimate in place of x_0; ``eta`` scales its noise.

        Only ``eta`` 1 keeps the marginals.
        """
        share, spread = evaluate(_pinned, self.space.align(t), self.space.align(s), dtype=x_t.dtype)
        mean = x_t + share * (estimate.read(Kind.CLEAN) - x_t)
        return NormalKernel(mean, eta * self.noise * spread)

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """None: it walks by the clean estimate alone."""
        return None


@final
@dataclass(frozen=True)
class InterpolantKernel(Kernel):
    """N((1 - t) x_0 + t x_1, gamma^2 t (1 - t) + sigma_min^2)."""

    x_0: Tensor
    x_1: Tensor
    t: Any
    noise: float
    sigma_min: float = 0.0

    @property
    def mean(self) -> Tensor:
        """The point on the line."""
        return self.x_0 + self.t * (self.x_1 - self.x_0)

    @property
    def std(self) -> Any:
        """sigma_t."""
        return _spread(self.t, self.noise, self.sigma_min)

    def sample(self, generator: Randomness = None) -> Tensor:
        """The line, and noise if there is any."""
        if not self._is_noisy:
            return self.mean
        return self.mean + self.std * randomness.normal(self.x_0.shape, self.x_0, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-density of every entry, where there is noise."""
        if not self._is_noisy:
            raise CapabilityError(
                "Expected an interpolant with noise for a density, got noise=0, a point mass."
            )
        std = self.std.to(x.dtype).clamp_min(_TINY)
        return torch.distributions.Normal(self.mean, std, validate_args=False).log_prob(x)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The velocity of the line; x_0 for the clean estimate; with noise, z and the score."""
        if kind is Kind.CLEAN:
            return self.x_0
        if kind is Kind.VELOCITY:
            return self._velocity(x_t)
        if not self._is_noisy or kind not in (Kind.NOISE, Kind.SCORE):
            raise CapabilityError(
                f"Expected clean or velocity on an interpolant, noise or score where it has noise, "
                f"got {kind}."
            )
        z = (x_t - self.mean) / self.std.clamp_min(_TINY)
        return z if kind is Kind.NOISE else -z / self.std.clamp_min(_TINY)

    @property
    def _is_noisy(self) -> bool:
        return self.noise > 0 or self.sigma_min > 0

    def _velocity(self, x_t: Tensor) -> Tensor:
        line = self.x_1 - self.x_0
        if self.noise == 0:
            return line
        variance = (self.std**2).clamp_min(_TINY)
        return line + self.noise**2 * (1 - 2 * self.t) / (2 * variance) * (x_t - self.mean)


def _check_lines(space: Any, coupling: Any, is_sound: bool, noise: object) -> None:
    if not (isinstance(space, Euclidean) and isinstance(coupling, Coupling) and is_sound):
        raise SpaceError(
            f"Expected a Euclidean space, a coupling and noise of a legal size, got {space}, "
            f"{coupling} and {noise}. Write Interpolant(Euclidean(2), Paired())."
        )


def _spread(t: Any, noise: float, sigma_min: float) -> Tensor:
    return torch.as_tensor(noise**2 * t * (1 - t) + sigma_min**2).sqrt()


def _pinned(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the way to x_0 that a step goes, and its spread."""
    share = 1 - s / t.clamp_min(_TINY)
    return share, (s * share).clamp_min(0).sqrt()


def _both(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return t, s


def _itself(t: Tensor) -> tuple[Tensor]:
    return (t,)
