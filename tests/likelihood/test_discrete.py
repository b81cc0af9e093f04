r"""Bounds in discrete time: their gap is a sum of divergences, in closed form for Gaussian data.

With the exact denoiser of N(m, C) the mean of every step is exact, so that

.. math:: E[\log p(x_0) - bound] = \sum_{k \ge 2} KL\big(N(0, V_k) \| N(0, v_k)\big)
   + KL\big(N(0, V_1) \| N(0, v_1)\big) + KL(q_1 \| prior)

with V_k the covariance of x_s given x_t under the data, and v_k the variance that was chosen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.processes.decoders import log_normal_interval
from reversal.processes.reverse_chain import ReverseChain
from tests.cases import chain as cyclic
from tests.test_likelihood import every_state

SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.VarianceExploding(), rv.Rectified()]
VARIANCES = [
    rv.SmallVariance(),
    rv.LargeVariance(),
    rv.LearnedVariance(lambda x, t, c: x * 0 + 0.3),
]
DOUBLE = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gauss_hermite(nodes: int) -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.tensor(x), torch.tensor(w / w.sum())


def normal_kl(covariance: Tensor, mean: Tensor, variance: Any) -> Tensor:
    """KL(N(mean, covariance) || N(0, variance))."""
    d = len(covariance)
    spread = covariance.trace() + mean @ mean
    return (spread / variance - d - covariance.logdet() + d * math.log(variance)) / 2


def closed_gap(schedule: Any, mean: Tensor, cov: Tensor, times: Tensor, nu: float) -> Tensor:
    """The gap of the equation above; nu chooses between the two variances, in logs."""
    at = schedule.signal(times)
    alpha, square = at.alpha.tolist(), (at.sigma**2).tolist()
    eye, total, above = torch.eye(len(cov), dtype=DOUBLE), torch.zeros((), dtype=DOUBLE), None
    for k in range(len(times) - 1):
        a, b, v, w = alpha[k], alpha[k + 1], square[k], square[k + 1]
        added = v - (a / b) ** 2 * w
        small, large = added * w / v, added * (b**2 + w) / (a**2 + v)
        left = cov - a**2 * cov @ torch.linalg.inv(a**2 * cov + v * eye) @ cov
        spread = small * eye + (b * added / v) ** 2 * left
        if w == 0:
            small = large if above is None or nu == 0 else above
        chosen = math.exp(nu * math.log(large) + (1 - nu) * math.log(small))
        total, above = total + normal_kl(spread, mean * 0, chosen), small
    last = alpha[0] ** 2 + square[0]
    return total + normal_kl(alpha[0] ** 2 * cov + square[0] * eye, alpha[0] * mean, last)


def expected_bound(denoiser: rv.GaussianData, chain: ReverseChain) -> Tensor:
    """E of the library's own terms, which are quadratic: three nodes of Gauss-Hermite are exact."""
    nodes, weights = gauss_hermite(3)
    d = len(denoiser.mean)
    grid = torch.cartesian_prod(*[nodes] * (2 * d)).view(-1, 2 * d)
    weight = torch.cartesian_prod(*[weights] * (2 * d)).view(-1, 2 * d).prod(1)
    x_0 = denoiser.mean + grid[:, :d] @ torch.linalg.cholesky(denoiser.covariance).T
    total = (weight * chain.prior_divergence(x_0).sum(1)).sum()
    for k in range(1, chain.steps + 1):
        number = torch.full((len(x_0),), k)
        t = chain.time(number)
        signal = denoiser.process.schedule.signal(t)
        x_t = signal.alpha[:, None] * x_0 + signal.sigma[:, None] * grid[:, d:]
        estimate = denoiser(x_t, t)
        if k == 1:
            term = -chain.log_decoded(x_0, x_t, estimate)
        else:
            term = chain.divergence(x_0, x_t, number, estimate)
        total = total + (weight * term.sum(1)).sum()
    return -total


def exact_case(schedule: Any) -> rv.GaussianData:
    mean = torch.tensor([0.5, -0.3], dtype=DOUBLE)
    cov = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=DOUBLE)
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(2), schedule), mean, cov)


@pytest.mark.parametrize("variance", VARIANCES, ids=["small", "large", "learned"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_gap_of_gaussian_data_is_the_closed_form(schedule, variance):
    denoiser = exact_case(schedule)
    grid = rv.Grid.power(6, 2.0)
    nu = {rv.SmallVariance: 0.0, rv.LargeVariance: 1.0}.get(type(variance), 0.3)
    chain = ReverseChain.of(denoiser.process, grid, variance)
    entropy = torch.distributions.MultivariateNormal(denoiser.mean, denoiser.covariance).entropy()
    gap = -entropy - expected_bound(denoiser, chain)
    wanted = closed_gap(schedule, denoiser.mean, denoiser.covariance, grid.times, nu)
    assert wanted > 0.01
    torch.testing.assert_close(gap, wanted, atol=1e-9, rtol=1e-9)


def test_the_large_variance_is_exact_for_standard_normal_data_under_every_schedule():
    """Ho et al. (2020), section 3.2: then only the prior is off; the small one never is exact."""
    for schedule in SCHEDULES:
        process = rv.Gaussian(rv.Euclidean(1), schedule)
        mean, one = torch.zeros(1, dtype=DOUBLE), torch.eye(1, dtype=DOUBLE)
        denoiser = rv.GaussianData(process, mean, one)
        entropy = 0.5 * math.log(2 * math.pi * math.e)
        for variance, exact in ((rv.LargeVariance(), True), (rv.SmallVariance(), False)):
            chain = ReverseChain.of(process, rv.Grid.uniform(5), variance)
            gap = -entropy - float(expected_bound(denoiser, chain))
            assert (abs(gap) < 1e-9) is exact


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_step_with_the_small_variance_is_half_the_change_of_signal_to_noise(schedule):
    """Kingma et al. (2021), eq. (14): (SNR(s) - SNR(t)) / 2 times the squared error."""
    denoiser = exact_case(schedule)
    chain = ReverseChain.of(denoiser.process, rv.Grid.uniform(8), rv.SmallVariance())
    x_0 = torch.randn(7, 2, generator=seeded(0), dtype=DOUBLE)
    k = torch.arange(2, 9)
    t, s = chain.time(k), chain.time(k - 1)
    x_t = denoiser.process.kernel(x_0, t).sample(seeded(1))
    estimate = denoiser(x_t, t)
    ratio = [(at.alpha / at.sigma) ** 2 for at in (schedule.signal(s), schedule.signal(t))]
    wanted = (ratio[0] - ratio[1])[:, None] / 2 * (x_0 - estimate.clean) ** 2
    found = chain.divergence(x_0, x_t, k, estimate)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-9)


def test_as_steps_grow_the_gap_of_the_large_variance_falls_as_one_over_their_number():
    """To that of the continuous bound, which is the prior's alone; the small one keeps a gap."""
    denoiser = exact_case(rv.VariancePreserving())
    arguments = (denoiser.process.schedule, denoiser.mean, denoiser.covariance)
    last = arguments[0].signal(torch.ones((), dtype=DOUBLE))
    cov = last.alpha**2 * arguments[2] + last.sigma**2 * torch.eye(2, dtype=DOUBLE)
    prior = normal_kl(cov, last.alpha * arguments[1], 1.0)
    for nu, slope in ((1.0, 1.0), (0.0, 0.25)):
        gaps = []
        for steps in (250, 500, 1000):
            grid = denoiser.process.grid(steps)
            gaps.append(float(closed_gap(*arguments, grid.times, nu) - prior))
        assert gaps[2] > 0
        slopes = [math.log2(gaps[0] / gaps[1]), math.log2(gaps[1] / gaps[2])]
        assert slopes == pytest.approx([slope, slope], abs=0.2)


def test_elbo_discrete_of_gaussian_data_is_within_four_standard_errors():
    denoiser = exact_case(rv.Cosine())
    law = torch.distributions.MultivariateNormal(denoiser.mean, denoiser.covariance)
    root = torch.linalg.cholesky(denoiser.covariance)
    x = denoiser.mean + torch.randn(4000, 2, generator=seeded(2), dtype=DOUBLE) @ root.T
    grid = rv.Grid.power(6, 2.0)
    found = rv.elbo_discrete(denoiser, x, grid, rv.LargeVariance(), generator=seeded(3))
    wanted = -closed_gap(rv.Cosine(), denoiser.mean, denoiser.covariance, grid.times, 1.0)
    gap = found.value - law.log_prob(x)
    assert abs(gap.mean() - wanted) < 4 * gap.std() / len(x) ** 0.5
    assert (found.kind, found.measure, found.law, found.bias) == ("lower bound", "Lebesgue", "", 0)
    some = rv.elbo_discrete(
        denoiser, x, grid, rv.LargeVariance(), num_samples=3, generator=seeded(4)
    )
    gap = some.value - law.log_prob(x)
    assert abs(gap.mean() - wanted) < 4 * gap.std() / len(x) ** 0.5


def test_the_standard_error_is_not_below_the_spread_of_repeated_bounds():
    denoiser = exact_case(rv.VariancePreserving())
    x = torch.tensor([[0.7, -0.9]], dtype=DOUBLE).repeat(3000, 1)
    found = rv.elbo_discrete(denoiser, x, 20, generator=seeded(5))
    said, spread = found.stderr.square().mean().sqrt(), found.value.std()
    assert 0.95 * spread < said < 3 * spread


def finite_bound(denoiser: Any, grid: rv.Grid, law: Tensor) -> Tensor:
    """E[bound] over the data by enumeration of every pair (x_0, x_t)."""
    process = denoiser.process
    chain = ReverseChain.of(process, grid)
    x_0, noisy = every_state(process.space), every_state(process.noisy_space)
    ends = state.map(lambda x: x.repeat_interleave(len(noisy), 0), x_0)
    x_t = noisy.repeat(len(x_0), 1)
    total = torch.zeros((), dtype=DOUBLE)
    for k in range(1, chain.steps + 1):
        number = torch.full((len(ends),), k)
        t = chain.time(number)
        prob = process.kernel(ends, t).log_prob(x_t).exp()
        estimate = denoiser(x_t, t)
        if k == 1:
            term = -chain.log_decoded(ends, x_t, estimate).sum(1)
        else:
            term = chain.divergence(ends, x_t, number, estimate).sum(1)
        cost = torch.where(prob > 0, prob * term, 0.0).view(len(x_0), -1).sum(1)
        total = total + (law.flatten() * cost).sum()
    return -total


@pytest.mark.parametrize("name", ["mask", "uniform", "chain"])
def test_elbo_discrete_on_finite_sets_is_the_enumerated_bound(name):
    """D3PM's bound; the last step is the posterior's own probability, not its law of T kernels."""
    space = rv.Categorical(4, 2)
    process = {"mask": rv.Mask(space), "uniform": rv.Uniform(space), "chain": cyclic(2)}[name]
    weights = torch.rand((4, 4), generator=seeded(6), dtype=DOUBLE) + 0.05
    law = weights / weights.sum()
    denoiser = rv.Enumerated(process, law)
    grid = rv.Grid.uniform(4)
    wanted = finite_bound(denoiser, grid, law)
    rows = torch.multinomial(law.flatten(), 3000, True, generator=seeded(7))
    for samples in (None, 2):
        found = rv.elbo_discrete(
            denoiser, denoiser.states[rows], grid, num_samples=samples, generator=seeded(8)
        )
        assert abs(found.value.mean() - wanted) < 4 * found.value.std() / len(rows) ** 0.5
    assert wanted < (law * law.log()).sum()
    assert found.measure == "counting"


def test_a_product_of_numbers_and_categories_is_bounded_by_the_sum_of_its_parts():
    """Independent factors; given one, the bound is that of the other."""
    place, label = exact_case(rv.Cosine()), rv.Mask(rv.Categorical(3))
    table = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)
    joint = rv.Independent(place=place.process, label=label)
    parts = {"place": place, "label": rv.Enumerated(label, table)}

    class Both(rv.core.Denoiser):
        process: Any = joint
        clocks: Any = rv.AnyClock()
        like = property(lambda self: place.mean)  # pyright: ignore

        def forward(self, x_t: Any, t: Any, cond: Any = None) -> rv.JointEstimate:
            times = t if isinstance(t, dict) else dict.fromkeys(parts, t)
            return rv.JointEstimate({k: p(x_t[k], times[k]) for k, p in parts.items()})

    x = {"place": torch.randn(2000, 2, generator=seeded(9), dtype=DOUBLE),
         "label": torch.arange(2000) % 3}  # fmt: skip
    grid = rv.Grid.uniform(5)
    found = rv.elbo_discrete(Both(), x, grid, generator=seeded(10))
    alone = {k: rv.elbo_discrete(parts[k], x[k], grid, generator=seeded(11)) for k in parts}
    gap = found.value - alone["place"].value - alone["label"].value
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
    assert found.measure == {"place": "Lebesgue", "label": "counting"}
    given = rv.elbo_discrete(Both(), x, grid, given={"place": True}, generator=seeded(12))
    gap = given.value - alone["label"].value
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5


def test_probabilities_of_levels_sum_to_one_and_keep_their_digits_in_the_tails():
    levels = rv.Levels()
    x = levels.encode(torch.arange(256)).double()
    for mean, std in ((0.1, 0.05), (-0.999, 1e-3), (3.0, 0.1), (0.0, 1e-4)):
        law = rv.processes.gaussian.NormalKernel(torch.full_like(x, mean), std)
        logs = rv.DiscretizedDecoder(levels).log_prob(law, x)
        assert logs.isfinite().all()
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    low, high = torch.tensor([30.0, -31.0], dtype=DOUBLE), torch.tensor([31.0, -30.0], dtype=DOUBLE)
    tail = -(30.0**2) / 2 - math.log(30 * math.sqrt(2 * math.pi)) + math.log1p(-1 / 30**2)
    torch.testing.assert_close(
        log_normal_interval(low, high), torch.tensor([tail] * 2, dtype=DOUBLE), atol=1e-5, rtol=0
    )


def discretized(mean: float, std: float, levels: rv.Levels) -> Tensor:
    """The probabilities of the levels under a normal law, by differences of its distribution."""
    edges = levels.low + (torch.arange(levels.count - 1, dtype=DOUBLE) + 0.5) * levels.spacing
    below = torch.distributions.Normal(mean, std).cdf(edges.double())
    ends = torch.tensor([0.0], dtype=DOUBLE), torch.tensor([1.0], dtype=DOUBLE)
    return torch.cat([ends[0], below, ends[1]]).diff()


def test_bits_per_dimension_of_levels_are_above_their_entropy_and_close():
    """Data that are levels of a normal law, with the exact denoiser of the levels."""
    levels = rv.Levels(16)
    law = discretized(0.1, 0.4, levels)
    atoms = levels.encode(torch.arange(16)).double()[:, None]
    process = rv.Gaussian(rv.Euclidean(1), rv.VariancePreserving())
    denoiser = rv.Empirical(process, atoms, law)
    rows = torch.multinomial(law, 2000, True, generator=seeded(13))
    decoder = rv.DiscretizedDecoder(levels)
    gaps = []
    for steps in (80, 160):
        found = rv.elbo_discrete(
            denoiser, atoms[rows], steps, decoder=decoder, generator=seeded(14)
        )
        bits = rv.bits_per_dim(found, process.space)
        gap = bits.value + law[rows].log2()
        assert gap.mean() > 4 * gap.std() / len(rows) ** 0.5
        gaps.append(float(gap.mean()))
    assert gaps[1] < 0.5 * gaps[0]
    assert gaps[1] < 0.5
    assert bits.kind == "upper bound, bits per dimension"
    assert (bits.measure, bits.law) == ("counting", "16 levels, discretized normal decoder")
    with pytest.raises(rv.SpaceError, match="one of 16 levels"):
        rv.elbo_discrete(denoiser, atoms + 0.02, 10, decoder=decoder)


def test_what_has_no_closed_divergence_and_what_is_no_grid_is_refused():
    torus = rv.Empirical(rv.Brownian(rv.Torus(1)), torch.zeros(1, 1))
    with pytest.raises(rv.CapabilityError, match=r"closed form.* Use elbo\(\)"):
        rv.elbo_discrete(torus, torch.zeros(1, 1), 10)
    denoiser = exact_case(rv.Cosine())
    x = torch.zeros(1, 2, dtype=DOUBLE)
    with pytest.raises(rv.ClockError, match="from 1 to 0"):
        rv.elbo_discrete(denoiser, x, rv.Grid.uniform(4, start=0.9))
    with pytest.raises(rv.ClockError, match="at least one step"):
        rv.elbo_discrete(denoiser, x, 0)
    with pytest.raises(rv.ClockError, match="num_samples"):
        rv.elbo_discrete(denoiser, x, 4, num_samples=0)
    wrong = rv.LearnedVariance(lambda x, t, c: x[:, :1])
    with pytest.raises(rv.SpaceError, match="one variance per entry"):
        rv.elbo_discrete(denoiser, x, 4, wrong, generator=seeded(0))
    with pytest.raises(rv.SpaceError, match="integers from 0 to 255"):
        rv.Levels().encode(torch.tensor([256]))
    assert rv.elbo_discrete(denoiser, x[:0], 4, generator=seeded(0)).value.shape == (0,)
    assert rv.elbo_discrete(denoiser, x, 1, generator=seeded(0)).value.isfinite().all()
