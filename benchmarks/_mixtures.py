r"""Mixtures of normal laws: the exact denoiser, the exact flow map, and distances.

In the coordinates :math:`y = x_t / \alpha_t` and :math:`\rho = \sigma_t / \alpha_t` every Gaussian
schedule is the same flow, :math:`dy / d\rho = (y - E[x_0 | y]) / \rho`, so that samplers of any
schedule and library start on one trajectory and are held against one end of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from reversal.ode import integrate

MOST, LEAST = 1e5, 1e-5
"""The noise-to-signal ratios at which the exact trajectories begin and end."""


@dataclass(frozen=True)
class Problem:
    """A law with normal components of one width each, and trajectories of its exact flow."""

    weights: Tensor
    means: Tensor
    widths: Tensor
    noise: Tensor

    def clean(self, y: Tensor, ratio: Tensor | float) -> Tensor:
        """E[x_0 | y] at a ratio, or at one per row."""
        ratio = torch.as_tensor(ratio, dtype=torch.float64).reshape(-1, 1)
        total = self.widths**2 + ratio**2
        off = y[:, None] - self.means
        logs = self.weights.log() - y.shape[1] / 2 * total.log() - off.square().sum(-1) / total / 2
        share = self.widths**2 / total
        shrunk = self.means + share[..., None] * off
        return (logs.softmax(-1)[..., None] * shrunk).sum(1)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Exact draws."""
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = torch.randn((n, self.means.shape[1]), generator=rng, dtype=torch.float64)
        return self.means[chosen] + self.widths[chosen, None] * z

    def flow(self, y: Tensor, start: float, stop: float) -> Tensor:
        """Follow the flow from one ratio to another, in log rho, to 1e-8."""
        ends = [torch.full((len(y),), at, dtype=torch.float64).log() for at in (start, stop)]

        def velocity(x: Tensor, u: Tensor) -> Tensor:
            return x - self.clean(x, u.exp())

        return integrate(velocity, y, *ends, 1e-8, 1e-8, max_steps=20_000).x

    @cached_property
    def _states(self) -> dict[float, Tensor]:
        return {MOST: MOST * self.noise}

    def at(self, ratio: float) -> Tensor:
        """The states of the exact trajectories at a ratio."""
        if ratio not in self._states:
            above = min(known for known in self._states if known > ratio)
            self._states[ratio] = self.flow(self._states[above], above, ratio)
        return self._states[ratio]

    @property
    def ends(self) -> Tensor:
        """Where the flow ends."""
        return self.clean(self.at(LEAST), LEAST)


@dataclass(frozen=True)
class Kind:
    """How the problems of one table are drawn."""

    name: str
    components: int
    size: int
    width: float

    def problem(self, seed: int, trajectories: int) -> Problem:
        """The mixture of this seed: means of variance 1, weights within a factor of 3."""
        rng = torch.Generator().manual_seed(seed)
        means = torch.randn((self.components, self.size), generator=rng, dtype=torch.float64)
        weights = 0.5 + torch.rand(self.components, generator=rng, dtype=torch.float64)
        widths = torch.full((self.components,), self.width, dtype=torch.float64)
        noise = torch.randn((trajectories, self.size), generator=rng, dtype=torch.float64)
        return Problem(weights / weights.sum(), means, widths, noise)


@dataclass(frozen=True)
class Single:
    """N(0.3, 0.5^2), the diagnostic: its flow is linear."""

    name: str = "one normal law"

    def problem(self, seed: int, trajectories: int) -> Problem:
        """The same law for every seed, other trajectories."""
        rng = torch.Generator().manual_seed(seed)
        one = torch.ones(1, dtype=torch.float64)
        noise = torch.randn((trajectories, 1), generator=rng, dtype=torch.float64)
        return Problem(one, 0.3 * one[:, None], 0.5 * one, noise)


Distance = Callable[[Tensor, Tensor], float]


def sliced(x: Tensor, y: Tensor) -> float:
    """The sliced Wasserstein distance of order 2 of equally many draws, over 200 directions."""
    rng = torch.Generator().manual_seed(0)
    ways = torch.randn((200, x.shape[1]), generator=rng, dtype=torch.float64)
    ways = torch.nn.functional.normalize(ways, dim=1)
    gap = (x @ ways.mT).sort(0).values - (y @ ways.mT).sort(0).values
    return float(gap.square().mean().sqrt())


def off_the_flow(x: Tensor, exact: Tensor) -> float:
    """The root mean square distance of rows that belong together, per dimension."""
    return float((x - exact).square().mean().sqrt())
