r"""Infinitesimal laws, and their reversal, written once per family.

A generator on our spaces has a drift f, a covariance a and jump rates R(x -> y):

.. math:: L h(x) = f \cdot \nabla h + \tfrac12 a : \nabla^2 h + \sum_{y} R(x \to y) (h(y) - h(x)).

Given the generalized score of the marginals q_t, its exact reversal K_1 has drift
:math:`-f + \nabla \cdot a + a \nabla \log q_t`, covariance a, and rates
:math:`R(y \to x) q_t(y) / q_t(x)`. Churn
c >= 0 gives :math:`K_c = K_1 + \frac{c^2 - 1}{2} (L + K_1)`, for diffusions at every c and for
jumps at c >= 1; jumps with c < 1 have the rates :math:`[K_1 - L]_+ + c^2 \min(K_1, L)`. All have
the marginals of the reversal. Source: Anderson (1982); Campbell et al. (2022), Proposition 1;
Benton et al. (2024), section 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.errors import CapabilityError
from reversal.noise import Randomness


class Jumps(ABC):
    """Jump rates of every site: lazily the total and one jump, densely on request."""

    @property
    @abstractmethod
    def total(self) -> Tensor:
        """The rate of leaving, ``(B, *sites)``."""

    @property
    @abstractmethod
    def rates(self) -> Tensor:
        """Rates x -> y for every y, zero at y = x, ``(B, *sites, N)``."""

    @property
    @abstractmethod
    def into(self) -> Tensor:
        """Rates y -> x for every y, zero at y = x, ``(B, *sites, N)``."""

    @abstractmethod
    def sample_jump(self, generator: Randomness = None) -> Tensor:
        """Draw where a jump goes, ``(B, *sites)``; any state where no jump is possible."""


@final
@dataclass(frozen=True)
class DenseJumps(Jumps):
    """Jumps given by the full table of rates out of x, and of those into x where they are known."""

    table: Tensor
    back: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The rate of leaving."""
        return self.table.sum(-1)

    @property
    def rates(self) -> Tensor:
        """The table itself."""
        return self.table

    @property
    def into(self) -> Tensor:
        """The rates into x; refused where the table holds those out of x alone."""
        if self.back is not None:
            return self.back
        raise CapabilityError(
            "Expected a forward generator for the rates into x, got a reversed one, which knows "
            "its rates out of x alone. Ask the process: process.forward(x, t).jumps.into."
        )

    def sample_jump(self, generator: Randomness = None) -> Tensor:
        """Draw a target by its rate."""
        return noise.categorical(self.table, generator)


@final
@dataclass(frozen=True)
class Leap:
    """The law of one step of a site: whether it jumps, then where.

    Args:
        prob: the probability of a jump, ``(B, *sites)``.
        weights: where to, not normalized, zero at the current state, ``(B, *sites, N)``.
    """

    prob: Tensor
    weights: Tensor

    @classmethod
    def of_rates(cls, rates: Tensor) -> Leap:
        """One jump at most, at rates integrated over the step: :math:`1 - e^{-R}`, then R(y)/R."""
        return cls(-torch.expm1(-rates.sum(-1)), rates)

    @classmethod
    def of_masses(cls, stay: Tensor, weights: Tensor) -> Leap:
        """From unnormalized masses of staying, ``(B, *sites)``, and of each other state."""
        moves = weights.sum(-1)
        return cls(moves / (moves + stay).clamp_min(torch.finfo(moves.dtype).tiny), weights)

    def sample(
        self,
        x: Tensor,
        generator: Randomness = None,
        hop: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Draw the next state from ``x``, int64 of shape ``(B, *sites)``.

        Args:
            x: the states.
            generator: where randomness comes from.
            hop: where jump k leads from x; to state k if None.
        """
        jumps = noise.uniform(x.shape, self.prob, generator) < self.prob
        k = noise.categorical(self.weights, generator, jumps)
        return torch.where(jumps, k if hop is None else hop(x, k), x)

    def law(self, x: Tensor) -> Tensor:
        """Return the probabilities of the next state, ``(B, *sites, N)``."""
        mass = self.weights.sum(-1, keepdim=True)
        moved = self.prob[..., None] * self.weights / torch.where(mass > 0, mass, 1.0)
        stay = 1 - torch.where(mass.squeeze(-1) > 0, self.prob, 0.0)
        return moved.scatter_add(-1, x[..., None], stay[..., None])


@final
@dataclass(frozen=True)
class Generator:
    """An infinitesimal law at the states x; an absent part is None.

    Args:
        drift: ``(B, *tangent_shape)``.
        covariance: ``(B, *sites)`` if isotropic (then a number or a tensor that broadcasts so), or
            matrices on the last dimension of the tangent, ``(B, *tangent_shape, d)``.
        jumps: the jump part.
        lift: the number of tangent dimensions beyond the sites (3-vectors of SO(3): 1).
        divergence: div a, ``(B, *tangent_shape)``, where the covariance depends on the state.
    """

    drift: Tensor | None = None
    covariance: Any = None
    jumps: Jumps | None = None
    lift: int = 0
    divergence: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The rate of leaving each site."""
        return self._jumping().total

    @property
    def rates(self) -> Tensor:
        """Jump rates x -> y, dense."""
        return self._jumping().rates

    def sample_jump(self, generator: Randomness = None) -> Tensor:
        """Draw where each site would jump to."""
        return self._jumping().sample_jump(generator)

    def reversal(self, score: Tensor, churn: float = 1.0) -> Generator:
        """Return K_c, given the generalized score of the marginal.

        Args:
            score: a tangent vector ``(B, *tangent_shape)``, or log-ratios ``(B, *sites, N)``.
            churn: c >= 0.
        """
        if self.jumps is not None:
            return Generator(jumps=DenseJumps(_reversed_rates(self.jumps, score, churn)))
        drift = self._flow((1 + churn**2) / 2, score)
        if self.drift is not None:
            drift = drift - self.drift
        return Generator(drift, churn**2 * self.covariance, lift=self.lift)

    def corrector(self, score: Tensor) -> Generator:
        r"""Return L + K_1: reversible with respect to the marginal, in its own pseudo-time."""
        if self.jumps is not None:
            return Generator(jumps=DenseJumps(self.rates + _reversed_rates(self.jumps, score, 1.0)))
        return Generator(self._flow(1.0, score), 2 * self.covariance, lift=self.lift)

    def pull(self, v: Tensor) -> Tensor:
        """Return a v for a tangent vector v, ``(B, *tangent_shape)``."""
        if self._is_matrix(v):
            return (self.covariance @ v[..., None]).squeeze(-1)
        return state.trail(self.covariance, self.lift) * v

    def spread(self, z: Tensor) -> Tensor:
        r"""Return :math:`a^{1/2} z`: normal with covariance a for standard normal z."""
        if not self._is_matrix(z):
            return state.trail(self.covariance, self.lift) ** 0.5 * z
        values, vectors = torch.linalg.eigh(self.covariance)
        root = values.clamp_min(0).sqrt()[..., None]
        return (vectors @ (root * (vectors.mT @ z[..., None]))).squeeze(-1)

    def gap(self, score: Tensor, target: Tensor) -> Tensor:
        r"""The rate of path divergence between the reversals by ``target`` r and ``score`` s.

        .. math:: \tfrac12 |r - s|^2_a, \qquad
           \sum_y R(y \to x) \big[e^{s_y} - e^{r_y} + e^{r_y} (r_y - s_y)\big] .

        Returns ``(B, *sites)``, in nats per unit of the generator's time. Source: Benton et al.
        (2024), the conditional form of Phi; Lou et al. (2024), eq. (5).
        """
        if self.jumps is not None:
            into = self.jumps.into.to(score.dtype)
            ratio = target.exp()
            shift = torch.where(ratio > 0, ratio * (target - score), 0.0)
            return torch.where(into > 0, into * (score.exp() - ratio + shift), 0.0).sum(-1)
        error = target - score
        if self._is_matrix(error):
            return (error * self.pull(error)).sum(-1) / 2
        square = error**2
        return self.covariance / 2 * (square.flatten(-self.lift).sum(-1) if self.lift else square)

    def scaled(self, rate: Any, sites: int) -> Generator:
        """Return the generator per unit of another time, or integrated over a step.

        Args:
            rate: a number, or a tensor that broadcasts over ``(B, *sites)``.
            sites: the number of site dimensions.
        """

        def times(part: Any, dims: int) -> Any:
            if not isinstance(part, Tensor) or not isinstance(rate, Tensor):
                return None if part is None else part * rate
            return part * state.trail(rate, dims).to(part)

        if self.jumps is not None:
            jumps = DenseJumps(times(self.jumps.rates, 1), times(self.jumps.into, 1))
            return Generator(jumps=jumps)
        extra = self.covariance.ndim - 1 - sites if isinstance(self.covariance, Tensor) else 0
        return Generator(
            times(self.drift, self.lift),
            times(self.covariance, extra),
            None,
            self.lift,
            times(self.divergence, self.lift),
        )

    def step(self, space: Any, x: Tensor, generator: Randomness = None) -> Tensor:
        """Draw from x after one Euler step of a generator that is integrated over the step."""
        if self.jumps is not None:
            return space.jump(x, self.rates, generator)
        if self.covariance is None:
            return space.move(x, self.drift)
        v = self.spread(noise.normal((len(x), *space.tangent_shape), x, generator))
        return space.move(x, v if self.drift is None else self.drift + v)

    def _is_matrix(self, v: Tensor) -> bool:
        return isinstance(self.covariance, Tensor) and self.covariance.ndim > v.ndim

    def _flow(self, share: float, score: Tensor) -> Tensor:
        """The share of div a + a score."""
        if self._is_matrix(score):
            flow = share * self.pull(score)
        else:
            flow = state.trail(share * self.covariance, self.lift) * score
        return flow if self.divergence is None else flow + share * self.divergence

    def _jumping(self) -> Jumps:
        if self.jumps is None:
            raise CapabilityError(
                "Expected a generator with jumps, got one with a drift and a covariance alone. "
                "Read .drift and .covariance instead."
            )
        return self.jumps


def _reversed_rates(jumps: Jumps, score: Tensor, churn: float) -> Tensor:
    into = jumps.into.to(score.dtype)
    back = torch.where(into > 0, into * score.exp(), 0.0)
    if churn == 1:
        return back
    rates = jumps.rates.to(score.dtype)
    if churn > 1:
        return back + (churn**2 - 1) / 2 * (rates + back)
    return (back - rates).clamp_min(0) + churn**2 * torch.minimum(back, rates)
