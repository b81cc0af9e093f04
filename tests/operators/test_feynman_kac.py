r"""Feynman and Kac in the plane: the auxiliary process and its potential give the density.

Under :math:`L f = -x \cdot \nabla f / 2 + \Delta f / 2` normal data stay normal, and a normal beta
makes the drift of the reversal linear, so that its law at 0 is known in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import reversal as rv
from reversal.operators import Local, Tilt
from reversal.testing.statistics import require_mean

LAST, STEPS, WALKERS = 0.5, 25, 6000
MEAN = torch.tensor([0.4, -0.7], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=torch.float64)
PRECISION = torch.tensor([[1.6, 0.5], [0.5, 0.6]], dtype=torch.float64)
"""Of the wrong beta, which does not depend on t; its center is at 0."""
ONE = torch.eye(2, dtype=torch.float64)
START = torch.tensor([[0.1, -0.5]], dtype=torch.float64)


def ornstein_uhlenbeck(x: Tensor) -> rv.Generator:
    return rv.Generator(-x / 2, torch.ones_like(x))


def marginal(t: float) -> MultivariateNormal:
    """The law of x_t."""
    kept = torch.tensor(-t, dtype=torch.float64).exp()
    return MultivariateNormal(kept.sqrt() * MEAN, kept * COVARIANCE + (1 - kept) * ONE)


def generated() -> MultivariateNormal:
    """The law at 0 of the reversal by the wrong beta, from the exact law at the end."""
    a, end = ONE / 2 - PRECISION, marginal(LAST)
    flow = torch.matrix_exp(LAST * a)
    grown = torch.linalg.solve(2 * a, torch.matrix_exp(2 * LAST * a) - ONE)
    return MultivariateNormal(flow @ end.mean, flow @ end.covariance_matrix @ flow.mT + grown)


def densities(log_beta: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Draws whose mean is the density at START: p_1(Z_T) times the exponential of int c.

    Z by the stochastic Heun rule, of weak order 2 with additive noise; the integral by trapezoids.
    """
    operator = Local(rv.Euclidean(2), ornstein_uhlenbeck)

    def look(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        tilt = Tilt(operator, lambda y: -log_beta(y, t))
        drift = torch.stack([tilt(lambda y, i=i: y[:, i])(z) for i in range(2)], 1)
        return drift.detach(), operator.potential(lambda y: log_beta(y, t))(z).detach()

    source, h = torch.Generator().manual_seed(0), LAST / STEPS
    z, total = START.expand(WALKERS, 2), torch.zeros(WALKERS, dtype=torch.float64)
    drift, c = look(z, 0.0)
    for k in range(1, STEPS + 1):
        total += h / 2 * c
        kick = h**0.5 * torch.randn(WALKERS, 2, generator=source, dtype=torch.float64)
        further, _ = look(z + h * drift + kick, k * h)
        z = z + h / 2 * (drift + further) + kick
        drift, c = look(z, k * h)
        total += h / 2 * c
    return (marginal(LAST).log_prob(z) + total).exp()


def exact(x: Any, t: float) -> Tensor:
    return marginal(t).log_prob(x)


def wrong(x: Any, t: float) -> Tensor:
    return -((x @ PRECISION) * x).sum(1) / 2


@pytest.mark.parametrize(("log_beta", "law"), [(exact, marginal(0.0)), (wrong, generated())])
def test_the_density_is_the_mean_over_the_auxiliary_process(log_beta, law):
    """6,000 walks, an error of 1 %; a failure rate of 1e-4. The steps leave 0.1 % at most."""
    draws, density = densities(log_beta), law.log_prob(START).exp()
    error = draws.std() / WALKERS**0.5
    assert float(error / density) < 0.02
    require_mean(draws[:, None], density, of="the density by Feynman and Kac")
    apart = abs(float(marginal(0.0).log_prob(START).exp() - generated().log_prob(START).exp()))
    assert apart > 8 * float(error)
