r"""Interpolants: a path between any two laws, which need not be a Markov process.

.. math:: x_t = (1 - t) x_0 + t x_1 + \gamma \sqrt{t (1 - t)}\, z, \qquad
   u_t = E[x_1 - x_0 + \gamma \tfrac{1 - 2t}{2 \sqrt{t (1 - t)}} z \mid x_t] .

The flow of the velocity u_t carries the law at 1 to the law at 0. There is no generator, and hence
no churn, no bridge and no bound. Source: Albergo and Vanden-Eijnden (2023), eq. (2.1) and (2.10);
Lipman et al. (2023); Liu et al. (2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise as randomness
from reversal.core import Capability, Kernel, Kind, Path, Prior
from reversal.errors import CapabilityError, SpaceError
from reversal.grids import Grid, evaluate
from reversal.noise import Randomness
from reversal.spaces.euclidean import Euclidean

_TINY = 1e-12


class Coupling(ABC):
    """How the two ends of a path belong together; ``prior`` is the law of x_1, if it has one."""

    prior: Prior | None

    @abstractmethod
    def pair(self, x_0: Tensor, x_1: Tensor | None) -> Tensor:
        """Return the x_1 that belongs to each x_0."""


@final
@dataclass(frozen=True)
class Paired(Coupling):
    """The ends come in pairs: every x_0 with its x_1, in training and in sampling."""

    prior = None

    def pair(self, x_0: Tensor, x_1: Tensor | None) -> Tensor:
        """The x_1 that was handed over.

        Raises:
            SpaceError: if there is none, or of another shape.
        """
        if x_1 is None or x_1.shape != x_0.shape:
            got = "none" if x_1 is None else f"shape {tuple(x_1.shape)}"
            raise SpaceError(
                f"Expected one x_1 for every x_0, of shape {tuple(x_0.shape)}, under a paired "
                f"coupling, got {got}. Pass x_1=... beside x_0."
            )
        return x_1


@final
class Interpolant(Path):
    """Straight lines between paired ends, with noise in between if ``noise`` > 0.

    Args:
        space: ``Euclidean``.
        coupling: how the ends belong together, ``Paired()``.
        noise: gamma >= 0, in the units of the data.

    A path, not a process: train it by ``Regression`` with ``x_1=``, sample it by ``Euler(churn=0)``
    or ``Heun`` with ``x_1=``.
    """

    def __init__(self, space: Euclidean, coupling: Coupling, noise: float = 0.0) -> None:
        sound = isinstance(space, Euclidean) and isinstance(coupling, Coupling)
        if not sound or not noise >= 0:
            raise SpaceError(
                f"Expected an interpolant on a Euclidean space with a coupling and noise >= 0, got "
                f"{space}, {coupling} and {noise}. Write Interpolant(Euclidean(2), Paired())."
            )
        self.space, self.coupling, self.noise = space, coupling, noise
        self.provides = frozenset({Capability.VELOCITY, Capability.ENDPOINTS})
        self.starts_singular = False

    def __repr__(self) -> str:
        return f"Interpolant({self.space}, {self.coupling}, noise={self.noise})"

    @property
    def noisy_space(self) -> Euclidean:
        """The space itself."""
        return self.space

    @property
    def prior(self) -> Prior:
        """The law of x_1, if the coupling has one."""
        if self.coupling.prior is None:
            raise CapabilityError(
                f"Expected a law to draw x_1 from, but {self.coupling} has none. Pass x_1=..., the "
                f"states to start from."
            )
        return self.coupling.prior

    def kernel(self, x_0: Tensor, t: Any, x_1: Tensor | None = None) -> InterpolantKernel:
        """The law of x_t given both ends."""
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_0.dtype)
        return InterpolantKernel(x_0, self.coupling.pair(x_0, x_1), at, self.noise)

    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> Kernel:
        """Refused: an interpolant is not Markov and has no bridge."""
        raise CapabilityError(
            "Expected a Markov process for a bridge, got an interpolant, which has a velocity "
            "alone. Use Euler(churn=0) or Heun()."
        )

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """Without noise x_t - t u_t is the clean estimate; with noise there is none."""
        if self.noise:
            return None
        rules = {
            (Kind.VELOCITY, Kind.CLEAN): self._clean_of_velocity,
            (Kind.CLEAN, Kind.VELOCITY): self._velocity_of_clean,
        }
        return rules.get((source, target))

    def grid(self, steps: int) -> Grid:
        """Equal steps."""
        return Grid.uniform(steps)

    def _clean_of_velocity(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_t.dtype)
        return x_t - at * value

    def _velocity_of_clean(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        (at,) = evaluate(_itself, self.space.align(t), dtype=x_t.dtype)
        return (x_t - value) / (at.clamp_min(_TINY) if isinstance(at, Tensor) else max(at, _TINY))


@final
@dataclass(frozen=True)
class InterpolantKernel(Kernel):
    """N((1 - t) x_0 + t x_1, gamma^2 t (1 - t))."""

    x_0: Tensor
    x_1: Tensor
    t: Any
    noise: float

    @property
    def mean(self) -> Tensor:
        """The point on the line."""
        return self.x_0 + self.t * (self.x_1 - self.x_0)

    @property
    def std(self) -> Any:
        """gamma sqrt(t (1 - t))."""
        return self.noise * (self.t * (1 - self.t)) ** 0.5

    def sample(self, generator: Randomness = None) -> Tensor:
        """The line, and noise if there is any."""
        if self.noise == 0:
            return self.mean
        return self.mean + self.std * randomness.normal(self.x_0.shape, self.x_0, generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-density of every entry, where there is noise."""
        if self.noise == 0:
            raise CapabilityError(
                "Expected an interpolant with noise for a density, got noise=0, a point mass."
            )
        std = torch.as_tensor(self.std, dtype=x.dtype).clamp_min(_TINY)
        return torch.distributions.Normal(self.mean, std, validate_args=False).log_prob(x)

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The velocity of the line; x_0 for the clean estimate."""
        if kind is Kind.CLEAN:
            return self.x_0
        if kind is not Kind.VELOCITY:
            raise CapabilityError(f"Expected clean or velocity on an interpolant, got {kind}.")
        line = self.x_1 - self.x_0
        if self.noise == 0:
            return line
        spread = torch.as_tensor(self.t * (1 - self.t), dtype=x_t.dtype).clamp_min(_TINY)
        return line + (1 - 2 * self.t) / (2 * spread) * (x_t - self.mean)


def _itself(t: Tensor) -> tuple[Tensor]:
    return (t,)
