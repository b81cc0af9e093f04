r"""Integers of a normal law: their probabilities are known, and every bound is below them.

.. math:: P(c) = \Phi\Big(\frac{x(c) + h/2 - m}{s}\Big) - \Phi\Big(\frac{x(c) - h/2 - m}{s}\Big) .
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

LEVELS = rv.Levels(5)
LAW = torch.distributions.Normal(torch.tensor(0.1).double(), torch.tensor(0.3).double())
CODES = torch.arange(5)[:, None]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def density(x: Tensor) -> Tensor:
    return LAW.log_prob(x.double()).flatten(1).sum(1)


def likelihood(x: Tensor) -> rv.Likelihood:
    return rv.Likelihood(density(x), torch.zeros(len(x)), 0.0, "log-density", "Lebesgue")


def probabilities() -> Tensor:
    """log P of every code."""
    center, half = LEVELS.encode(CODES).double()[:, 0], LEVELS.spacing / 2
    return (LAW.cdf(center + half) - LAW.cdf(center - half)).log()


def uniform_bound() -> Tensor:
    """E_u of the log-density by quadrature, plus the logarithm of the width."""
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    center = LEVELS.encode(CODES).double()
    return LAW.log_prob(center + (u - 0.5) * LEVELS.spacing).mean(1) + math.log(LEVELS.spacing)


def test_the_uniform_bound_is_its_integral_and_below_the_probability():
    codes = CODES.repeat(4000, 1)
    found = rv.dequantized_log_prob(
        likelihood, codes, rv.UniformDequantization(LEVELS), num_samples=2, generator=seeded(0)
    )
    values = found.value.view(4000, 5)
    error = values.mean(0) - uniform_bound()
    assert (error.abs() < 4.4 * values.std(0) / 4000**0.5).all()
    assert (uniform_bound() < probabilities()).all()
    said = found.stderr.view(4000, 5).square().mean(0).sqrt()
    torch.testing.assert_close(said, values.std(0), rtol=0.1, atol=0)
    assert (found.kind, found.measure) == ("lower bound", "counting")
    assert found.law == "5 levels, uniform dequantization"


def test_places_lie_in_their_cells_and_the_levels_come_back():
    codes = torch.arange(256).repeat(40)[:, None]
    x = rv.dequantized(codes, generator=seeded(1))
    levels = rv.Levels()
    assert torch.equal(levels.decode(x), codes)
    offset = (x.double() - levels.encode(codes).double()) / levels.spacing
    assert offset.abs().max() < 0.5 + 1e-4
    assert abs(offset.mean()) < 4 * (1 / 12) ** 0.5 / len(codes) ** 0.5


class Table(torch.nn.Module):
    """A mean and a log-scale for every level."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.tensor([0.0, 0.5]).repeat(5, 1)
        self.table = torch.nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        return self.table[LEVELS.decode(x)]


def test_a_learned_law_closes_most_of_the_gap_and_stays_below_the_probability():
    law = rv.VariationalDequantization(Table(), LEVELS)
    optimizer = torch.optim.Adam(law.parameters(), 0.05)
    generator, codes = seeded(2), CODES.repeat(100, 1)
    for _ in range(200):
        loss = -rv.dequantized_bound(density, codes, law, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    many = CODES.repeat(4000, 1)
    found = rv.dequantized_log_prob(likelihood, many, law, 2, generator=generator)
    values = found.value.view(4000, 5)
    spread = values.std(0) / 4000**0.5
    gap = probabilities() - values.mean(0)
    assert (gap > -4.4 * spread).all()
    assert gap.sum() < 0.25 * (probabilities() - uniform_bound()).sum()
    assert found.law == "5 levels, variational dequantization"
    assert not found.value.requires_grad


def test_the_density_of_places_integrates_to_one():
    """E[1 / q(u)] = 1 over the draws of q, for a law with light tails in its logit."""
    law = rv.VariationalDequantization(lambda x: torch.tensor([0.3, 0.8]).expand(*x.shape, 2))
    spread = law.draw(torch.zeros(200_000, 1, dtype=torch.int64), seeded(3))
    bins = torch.histc(spread.u, 20, 0, 1) / 200_000 * 20
    logit = torch.special.logit((torch.arange(20) + 0.5) / 20)
    normal = torch.distributions.Normal(0.3, math.exp(0.8))
    center = (torch.arange(20) + 0.5) / 20
    wanted = (normal.log_prob(logit) - (center * (1 - center)).log()).exp()
    torch.testing.assert_close(bins[1:-1], wanted[1:-1], atol=0.05, rtol=0.05)
    own = normal.log_prob(torch.special.logit(spread.u[:, 0].double()))
    own = own - (spread.u[:, 0].double() * (1 - spread.u[:, 0].double())).log()
    inner = (spread.u[:, 0] > 0.01) & (spread.u[:, 0] < 0.99)
    torch.testing.assert_close(spread.log_prob[inner], own[inner], atol=1e-3, rtol=0)


def test_bits_per_dimension_of_images_by_the_flow():
    """2 x 2 images of 8 bits under a wide normal law: P(c) is the density times the cell."""
    levels, space = rv.Levels(), rv.Euclidean(1, 2, 2)
    process = rv.Gaussian(space, rv.Rectified())
    one = torch.ones(1, dtype=torch.float64)
    denoiser = rv.GaussianMixture(process, one, torch.zeros(1, 1, 2, 2).double(), one)
    codes = torch.randint(0, 256, (3, 1, 2, 2), generator=seeded(4))
    found = rv.dequantized_log_prob(
        lambda x: rv.flow_log_prob(denoiser, x), codes, num_samples=2, generator=seeded(5)
    )
    bits = rv.bits_per_dim(found, space)
    x = levels.encode(codes).double()
    log_cell = torch.distributions.Normal(0.0, 1.0).log_prob(x) + math.log(levels.spacing)
    wanted = -log_cell.flatten(1).sum(1) / (4 * math.log(2))
    torch.testing.assert_close(bits.value, wanted, atol=0.02, rtol=0)
    assert bits.kind == "upper bound, bits per dimension"
    assert bits.law == "256 levels, uniform dequantization"
    assert (bits.bias < 1e-3).all()


def test_a_flow_that_did_not_converge_is_named_in_the_bound():
    process = rv.Gaussian(rv.Euclidean(1), rv.VariancePreserving())
    denoiser = rv.GaussianData(process, torch.zeros(1), torch.full((1, 1), 0.01))
    few = rv.RungeKutta(2)
    found = rv.dequantized_log_prob(
        lambda x: rv.flow_log_prob(denoiser, x, solver=few),
        CODES, rv.UniformDequantization(LEVELS),
        generator=seeded(6),
    )  # fmt: skip
    assert found.kind.startswith("lower bound by a log-density, not converged in")


def test_what_is_no_integer_is_refused_with_the_cure():
    for codes in (torch.tensor([[5]]), torch.tensor([[0.5]]), torch.tensor([[-1]])):
        with pytest.raises(rv.SpaceError, match=r"integers from 0 to 4.* as they are stored"):
            rv.dequantized_log_prob(
                likelihood, codes, rv.UniformDequantization(LEVELS), generator=seeded(0)
            )
    with pytest.raises(rv.SpaceError, match="mean and a log-scale"):
        rv.VariationalDequantization(lambda x: x, LEVELS).draw(CODES, seeded(0))
    with pytest.raises(rv.ClockError, match="num_samples >= 1"):
        rv.dequantized_log_prob(likelihood, CODES, num_samples=0)
    with pytest.raises(rv.SpaceError, match="at least 2 levels"):
        rv.Levels(1)
    none: Any = rv.dequantized_log_prob(likelihood, CODES[:0], generator=seeded(0))
    assert none.value.shape == (0,)
