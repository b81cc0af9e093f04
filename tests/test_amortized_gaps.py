r"""Posteriors given a part of the evidence, on a linear simulator where each is known.

theta ~ N(0, 1), xi_j = theta + N(0, s_j^2): given the entries O the posterior is normal with
precision :math:`1 + \sum_{j \in O} s_j^{-2}` and mean :math:`C \sum_{j \in O} s_j^{-2} \xi_j`.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import reversal as rv
from reversal.networks import ConditionalGaussian, Whitening

DOUBLE = torch.float64
NOISE = torch.tensor([0.5, 1.0], dtype=DOUBLE)
XI = torch.tensor([1.2, -0.6], dtype=DOUBLE)
SMALL = {"hidden_features": 32, "num_blocks": 2, "batch_size": 128, "show_progress": False}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simulated(num: int, seed: int) -> tuple[Tensor, Tensor]:
    normal = torch.randn(num, 3, generator=seeded(seed), dtype=DOUBLE)
    return normal[:, :1], normal[:, :1] + NOISE * normal[:, 1:]


def exact(shown: Tensor) -> tuple[float, float]:
    """Mean and standard deviation given evidence that is NaN where it is hidden."""
    weight = torch.where(shown.isnan(), 0.0, NOISE**-2)
    variance = 1 / (1 + weight.sum())
    return float(variance * (weight * shown.nan_to_num()).sum()), float(variance.sqrt())


def require_law(drawn: Tensor, mean: float, deviation: float, tolerance: float = 0.12) -> None:
    """Mean within a share of a standard deviation, the logarithm of the deviation as well."""
    assert abs(float(drawn.mean()) - mean) < tolerance * deviation
    assert abs(math.log(float(drawn.std()) / deviation)) < tolerance


def parts() -> list[Tensor]:
    """The evidence with each of its parts hidden."""
    masks = itertools.product([False, True], repeat=2)
    return [XI.masked_fill(torch.tensor(mask), torch.nan) for mask in masks]


@pytest.fixture(scope="module")
def masked() -> rv.AmortizedPosterior:
    posterior = rv.AmortizedPosterior(steps=300, normal_steps=500, hide=0.7, **SMALL)
    return posterior.fit(*simulated(8000, 0))


@pytest.mark.parametrize("shown", parts(), ids=["all", "first", "second", "none"])
def test_hidden_evidence_is_marginalized_out(masked, shown):
    require_law(masked.sample(4000, shown, seed=0, steps=30), *exact(shown))


def test_the_bound_given_a_part_is_below_the_density_and_near_it(masked):
    theta, evidence = simulated(300, 1)
    evidence[:, 1] = torch.nan
    laws = torch.tensor([exact(row) for row in evidence])
    truth = Normal(laws[:, 0], laws[:, 1]).log_prob(theta[:, 0])
    gap = truth - masked.log_prob(theta, evidence, num_samples=32).value
    error = float(gap.std()) / 300**0.5
    assert -3.9 * error < gap.mean() < 0.1


def test_gaps_of_the_simulator_are_learned_as_they_come():
    """The second entry is lost by a third of the runs; in the first one there is never a gap."""
    theta, evidence = simulated(8000, 2)
    lost = torch.rand(8000, generator=seeded(3)) < 1 / 3
    evidence[lost, 1] = torch.nan
    posterior = rv.AmortizedPosterior(steps=200, normal_steps=400, **SMALL).fit(theta, evidence)
    assert posterior.gaps_.tolist() == [False, True]
    for shown in (XI, torch.tensor([1.2, torch.nan], dtype=DOUBLE)):
        require_law(posterior.sample(4000, shown, seed=0, steps=30), *exact(shown))
    with pytest.raises(rv.DataError, match=r"gaps in entries \[0\].*hide=0.5"):
        posterior.sample(1, torch.tensor([torch.nan, 0.0]))


def test_a_gap_that_depends_on_the_parameter_is_evidence():
    """An entry is lost where theta > 0: that it is lost says the sign, which else has even odds."""
    theta = torch.randn(8000, 1, generator=seeded(4))
    evidence = torch.randn(8000, 1, generator=seeded(5)).masked_fill(theta > 0, torch.nan)
    posterior = rv.AmortizedPosterior(steps=300, normal_steps=300, **SMALL).fit(theta, evidence)
    lost = posterior.sample(2000, torch.tensor([torch.nan]), seed=0, steps=30)
    assert abs(float(lost.mean()) - math.sqrt(2 / math.pi)) < 0.08
    assert (lost > 0).double().mean() > 0.8
    assert posterior.sample(2000, torch.zeros(1), seed=0, steps=30).mean() < -0.6


def test_a_gap_stands_at_the_mean_and_says_that_it_is_one():
    """Moments of what is there alone; a complete row is whitened as without gaps, but for zeros."""
    sample = torch.randn(4000, 2, generator=seeded(0), dtype=DOUBLE) * 3 + 7
    sample[::4, 1] = torch.nan
    whitening = Whitening(2, gaps=True)
    whitening.take(sample)
    torch.testing.assert_close(whitening.center, sample.nanmean(0), rtol=0, atol=1e-12)
    kept = sample[~sample[:, 1].isnan(), 1]
    torch.testing.assert_close(whitening.unit[1], kept.std(correction=0), rtol=0, atol=1e-10)
    filled = whitening.center.clone()[None]
    filled[0, 0] += 1
    shown = filled.clone()
    shown[0, 1] = torch.nan
    first, second = whitening(filled), whitening(shown)
    assert torch.equal(first[:, :2], second[:, :2])
    assert second[0, 2:].tolist() == [0.0, 1.0] and first[0, 2:].tolist() == [0.0, 0.0]


def test_the_normal_law_starts_at_the_posterior_of_a_linear_simulator(global_seed):
    """Least squares of N rows: off by about sqrt(3 / N) standard deviations, times the ridge."""
    theta, evidence = simulated(50_000, 6)
    normal = ConditionalGaussian(1, 2, hidden_features=8)
    normal.take(theta, evidence)
    with torch.no_grad():
        mean, factor = normal(XI)
    wanted, deviation = exact(XI)
    assert abs(float(mean) - wanted) < 0.03 * deviation
    assert abs(math.log(float(factor) / deviation)) < 0.02


def test_entries_that_never_vary_or_are_never_there_do_no_harm():
    theta, evidence = simulated(400, 7)
    constant = torch.full((400, 1), 1e9)
    never = torch.full((400, 1), torch.nan)
    posterior = rv.AmortizedPosterior(steps=20, normal_steps=20, **SMALL)
    posterior.fit(theta, torch.cat([evidence, constant, never], 1))
    shown = torch.cat([XI, constant[0], never[0]])
    assert posterior.sample(50, shown, steps=10).isfinite().all()
    assert posterior.log_prob(theta[:5], shown, num_samples=4).value.isfinite().all()


def test_evidence_far_from_zero_keeps_its_digits():
    """1e8 + xi in float64: units are taken off before anything is rounded to float32."""
    _, evidence = simulated(400, 8)
    near, far = Whitening(2), Whitening(2)
    near.take(evidence)
    far.take(evidence + 1e8)
    first, second = near(evidence), far(evidence + 1e8)
    torch.testing.assert_close(first.abs(), second.abs(), rtol=0, atol=1e-5)
    assert first.std() > 0.9
