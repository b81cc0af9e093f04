r"""Products: every factor is noised on its own, L = sum of the L_i; only the reversal couples them.

.. math:: q(x_t | x_0) = \prod_i q_i(x_t^i | x_0^i), \qquad K = \sum_i K_i, \quad
   K_i \text{ reads the whole } x_t .
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reversal import state
from reversal.core import Capability, Generator, Kernel, Kind, Path, Prior, Process
from reversal.errors import SpaceError
from reversal.grids import Grid
from reversal.noise import Randomness
from reversal.spaces.product import Product


@final
class Independent(Process):
    """One path per factor: ``Independent(pose=Brownian(SO3()), label=Mask(Categorical(10)))``.

    ``.space`` is the product of the spaces. What every factor provides, the product provides.
    """

    def __init__(self, factors: Mapping[str, Path] | None = None, /, **named: Path) -> None:
        if not isinstance(factors, Mapping | None):
            factors = {"": factors}
        given = {**(factors or {}), **named}
        opened = {k: p.parts if isinstance(p, Independent) else p for k, p in given.items()}
        self.factors: dict[str, Any] = state.flatten(opened)
        wrong = [k for k, path in self.factors.items() if not k or not isinstance(path, Path)]
        if wrong or not self.factors:
            raise SpaceError(
                f"Expected Independent to take named paths, got {given}. "
                f"Write Independent(pose=Brownian(SO3()), label=Mask(Categorical(10)))."
            )
        self.space = Product({name: path.space for name, path in self.factors.items()})
        self.provides = frozenset.intersection(*(p.provides for p in self.factors.values()))

    def __repr__(self) -> str:
        return f"Independent({', '.join(f'{k}={p}' for k, p in self.factors.items())})"

    @property
    def noisy_space(self) -> Product:
        """The product of the noisy spaces."""
        return Product({name: path.noisy_space for name, path in self.factors.items()})

    @property
    def prior(self) -> Prior:
        """The product of the priors."""
        return JointPrior({name: path.prior for name, path in self.factors.items()})

    def kernel(self, x_0: Any, t: Any, x_1: Any = None) -> JointKernel:
        """The product of the kernels; ``x_1`` goes to the factors that take both endpoints."""
        ends = dict.fromkeys(self.factors) if x_1 is None else x_1
        return JointKernel(state.map(_kernel, self.factors, x_0, t, ends))

    def transition(self, x_s: Any, s: Any, t: Any) -> JointKernel:
        """The product of the transitions."""
        return JointKernel(state.map(lambda p, *a: p.transition(*a), self.factors, x_s, s, t))

    def bridge(self, x_0: Any, x_t: Any, s: Any, t: Any) -> JointKernel:
        """The product of the bridges."""
        return JointKernel(state.map(lambda p, *a: p.bridge(*a), self.factors, x_0, x_t, s, t))

    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> JointKernel:
        """The product of the factors' steps, each with its own estimate."""
        return JointKernel(
            state.map(lambda p, *a: p.ancestor(*a, eta), self.factors, x_t, t, s, estimate)
        )

    def elapsed(self, s: Any, t: Any) -> dict[str, Any]:
        """Operational times, per factor."""
        return state.map(lambda p, *a: p.elapsed(*a), self.factors, s, t)

    def forward(self, x: Any, t: Any) -> dict[str, Generator]:
        """The factors' generators: L is their sum."""
        return state.map(lambda p, *a: p.forward(*a), self.factors, x, t)

    def increment(self, x: Any, t: Any, s: Any) -> dict[str, Generator]:
        """The factors' increments."""
        return state.map(lambda p, *a: p.increment(*a), self.factors, x, t, s)

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """None: estimates of a product convert factor by factor."""
        return None

    def grid(self, steps: int) -> dict[str, Grid]:
        """One grid per factor."""
        return {name: path.grid(steps) for name, path in self.factors.items()}


def _kernel(path: Any, x_0: Tensor, t: Any, x_1: Tensor | None) -> Kernel:
    takes_ends = x_1 is not None and Capability.ENDPOINTS in path.provides
    return path.kernel(x_0, t, x_1) if takes_ends else path.kernel(x_0, t)


@final
@dataclass(frozen=True)
class JointKernel(Kernel):
    """A product of kernels."""

    parts: dict[str, Kernel]

    def sample(self, generator: Randomness = None) -> dict[str, Tensor]:
        """Draw every factor, in order."""
        return {name: part.sample(generator) for name, part in self.parts.items()}

    def site_log_prob(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-densities of the sites, per factor."""
        return {name: part.site_log_prob(x[name]) for name, part in self.parts.items()}

    def target(self, kind: Kind, x_t: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The targets, per factor."""
        return {name: part.target(kind, x_t[name]) for name, part in self.parts.items()}


@final
@dataclass(frozen=True)
class JointPrior(Prior):
    """A product of priors."""

    parts: dict[str, Prior]

    def sample(
        self, n: int, generator: Randomness = None, like: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Draw every factor, in order."""
        return {name: part.sample(n, generator, like) for name, part in self.parts.items()}

    def site_log_prob(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-densities of the sites, per factor."""
        return {name: part.site_log_prob(x[name]) for name, part in self.parts.items()}
