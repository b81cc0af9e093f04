r"""Couplings keep both marginals and, where they should, shorten the lines; bridges by closed form.

For one-dimensional normal laws with standard deviations a, b the entropic plan at
:math:`\epsilon = 2 \gamma^2` for the cost of squared distance has the covariance
:math:`(\sqrt{4 a^2 b^2 + \gamma^4} - \gamma^2) / 2` (Janati et al. 2020, Theorem 1).
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal.metrics import straightness
from reversal.processes.couplings import sinkhorn

LINE, PLANE = rv.Euclidean(1), rv.Euclidean(2)
SOURCE = rv.NormalPrior(PLANE, 1.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(n: int, d: int = 2, seed: int = 0) -> Tensor:
    return torch.randn((n, d), generator=seeded(seed), dtype=torch.float64)


def test_the_exact_plan_is_the_best_of_all_permutations():
    x_0, x_1 = draws(6), draws(6, seed=1)
    paired = rv.OptimalTransport().pair(x_0, x_1)
    best = min(float(((x_0 - x_1[list(p)]) ** 2).sum()) for p in permutations(range(6)))
    assert float(((x_0 - paired) ** 2).sum()) == pytest.approx(best, rel=1e-12)
    assert torch.equal(paired.sort(0).values, x_1.sort(0).values)


def test_an_entropic_plan_has_uniform_marginals_and_tends_to_the_exact_one():
    x_0, x_1 = draws(7), draws(7, seed=1)
    cost = torch.cdist(x_0, x_1) ** 2
    exact = float(((x_0 - rv.OptimalTransport().pair(x_0, x_1)) ** 2).sum() / 7)
    costs = []
    for entropy in (10.0, 1.0, 0.3, 0.15):
        plan = sinkhorn(cost, entropy)
        for axis in (0, 1):
            torch.testing.assert_close(
                plan.sum(axis), torch.full((7,), 1 / 7).double(), rtol=1e-4, atol=0
            )
        costs.append(float((plan * cost).sum()))
    assert costs == sorted(costs, reverse=True)
    assert exact < costs[-1] < 1.1 * exact


def test_the_entropic_plan_of_normal_laws_is_the_known_one():
    """Both laws as 400 quantiles: relative error of the covariance 5e-3."""
    a, b, gamma = 1.0, 0.6, 0.8
    z = torch.special.ndtri((torch.arange(400).double() + 0.5) / 400)
    plan = sinkhorn((a * z[:, None] - b * z) ** 2, 2 * gamma**2)
    got = float(a * z @ plan @ (b * z))
    expected = ((4 * a**2 * b**2 + gamma**4) ** 0.5 - gamma**2) / 2
    assert got == pytest.approx(expected, rel=5e-3)


def test_a_source_is_drawn_from_and_samples_are_its_rows():
    rows = draws(5)
    paired = rv.Unpaired(rv.Samples(rows)).pair(draws(2000, seed=2), generator=seeded(3))
    counts = (paired[:, None] == rows).all(-1).sum(0)
    assert int(counts.sum()) == 2000
    assert stats.chisquare(counts).pvalue > 1e-4
    with pytest.raises(rv.CapabilityError, match="density"):
        rv.Samples(rows).log_prob(rows)


def test_a_plan_that_knows_conditions_leaves_the_source_independent_of_them():
    """Two classes at -3 and 3: a plain plan gives each half the source; failure rate 1e-4."""
    label = (torch.arange(512) % 2).long()
    x_0 = draws(512) * 0.1 + 3 * (2 * label[:, None] - 1)
    plain = rv.OptimalTransport(SOURCE).pair(x_0, cond=label, generator=seeded(4))
    aware = rv.OptimalTransport(SOURCE, condition=1e6).pair(x_0, cond=label, generator=seeded(4))
    p_plain, p_aware = (
        stats.ks_2samp(x[label == 0].sum(1), x[label == 1].sum(1)).pvalue for x in (plain, aware)
    )
    assert p_plain < 1e-50
    assert p_aware > 1e-4
    within = x_0 - 3 * (2 * label[:, None] - 1)
    assert float(torch.corrcoef(torch.stack([within[:, 0], aware[:, 0]]))[0, 1]) > 0.9


class Exact(torch.nn.Module):
    """The velocity between normal laws on the line: x_0 ~ N(m, a^2), x_1 ~ N(0, 1), correlated."""

    def __init__(self, m: float, a: float, covariance: float) -> None:
        super().__init__()
        self.m, self.a, self.covariance = m, a, covariance

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t[:, None].double()
        variance = (1 - t) ** 2 * self.a**2 + t**2 + 2 * t * (1 - t) * self.covariance
        with_line = t - (1 - t) * self.a**2 + (1 - 2 * t) * self.covariance
        return -self.m + with_line / variance * (x_t - (1 - t) * self.m)


def flow(m: float, a: float, covariance: float, coupling: Any) -> rv.NetworkDenoiser:
    return rv.NetworkDenoiser(Exact(m, a, covariance), rv.Interpolant(LINE, coupling))


def test_straightness_is_the_integral_and_zero_once_reflowed():
    """Along the flow x = (1 - t) m + v_t z with v_t^2 = (1 - t)^2 a^2 + t^2, z = x_1 / 1."""
    m, a = 2.0, 0.5
    x_1 = draws(20_000, 1, seed=5)
    curved = straightness(flow(m, a, 0.0, rv.Unpaired(rv.NormalPrior(LINE, 1.0))), x_1, 1000)
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    v = ((1 - t) ** 2 * a**2 + t**2).sqrt()
    slope = (t - (1 - t) * a**2) / v
    expected = torch.trapezoid((1 - a - slope) ** 2, t) * (x_1**2).mean()
    assert float(curved) == pytest.approx(float(expected), rel=5e-3)
    assert float(straightness(flow(m, a, a, rv.Paired()), x_1, 100)) < 1e-20


class Posterior(torch.nn.Module):
    """E[x_0 | x_t] of a Brownian bridge between correlated normal laws on the line."""

    def __init__(self, a: float, b: float, covariance: float, gamma: float) -> None:
        super().__init__()
        self.a, self.b, self.covariance, self.gamma = a, b, covariance, gamma

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t[:, None].double()
        both = (1 - t) ** 2 * self.a**2 + t**2 * self.b**2 + 2 * t * (1 - t) * self.covariance
        variance = both + self.gamma**2 * t * (1 - t)
        return ((1 - t) * self.a**2 + t * self.covariance) / variance * x_t


@pytest.mark.parametrize("is_optimal", [True, False])
def test_a_bridge_walks_to_the_law_of_x_0_and_keeps_the_coupling_only_if_it_is_entropic(is_optimal):
    """The coupling of ends survives where it is the Schrodinger bridge's; failure rate 1e-4."""
    a, b, gamma, n = 0.7, 1.2, 0.9, 40_000
    optimal = ((4 * a**2 * b**2 + gamma**4) ** 0.5 - gamma**2) / 2
    covariance = optimal if is_optimal else 0.0
    path = rv.BrownianBridge(LINE, rv.Paired(), gamma)
    denoiser = rv.NetworkDenoiser(Posterior(a, b, covariance, gamma), path)
    x_1 = b * draws(n, 1, seed=6)
    x_0 = rv.Ancestral().sample(denoiser, n, 200, x_1=x_1, generator=seeded(7))
    assert stats.kstest(x_0[:, 0], stats.norm(0, a).cdf).pvalue > 1e-4
    got = float((x_0 * x_1).mean())
    stderr = ((a * b) ** 2 + covariance**2) ** 0.5 / n**0.5
    kept = abs(got - covariance) < 3.9 * stderr + 0.004
    assert kept is is_optimal


def test_interpolants_train_on_sources_alone_and_products_pair_their_own_factors():
    """The loss of a constant is the mean square of x_1 - x_0, here 4 + 1 + 1; failure rate 1e-4."""

    class Constant(torch.nn.Module):
        def forward(self, x: Any, t: Any, cond: Any = None) -> Any:
            return {"a": 0 * x["a"] - 2, "b": 0 * x["b"]}

    path = rv.Independent(
        a=rv.Interpolant(LINE, rv.Unpaired(rv.NormalPrior(LINE, 1.0))),
        b=rv.Gaussian(LINE, rv.Rectified()),
    )
    denoiser = rv.NetworkDenoiser(Constant(), path, {"b": rv.Velocity()}, rv.SharedClock())
    x_0 = {"a": 2 + draws(20_000, 1), "b": draws(20_000, 1, seed=1)}
    loss = rv.Regression()(denoiser, x_0, generator=seeded(2))
    assert float(loss.mean()) == pytest.approx(4.0, abs=3.9 * float(loss.std()) / 20_000**0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rv.OptimalTransport(entropy=-1.0), "entropy >= 0"),
        (lambda: rv.OptimalTransport().pair(draws(3)), "Pass x_1"),
        (lambda: rv.OptimalTransport(SOURCE, condition=1.0).pair(draws(3), draws(3)), "conditions"),
        (lambda: rv.Unpaired().pair(draws(3), draws(4)), "every x_0"),
        (lambda: rv.BrownianBridge(PLANE, rv.Paired(), 0.0), "legal size"),
        (lambda: rv.Interpolant(PLANE, rv.Paired(), sigma_min=-0.1), "legal size"),
        (lambda: rv.Interpolant(PLANE, rv.Paired()).kernel(draws(2), torch.ones(2)), "Pass x_1"),
        (lambda: rv.Interpolant(PLANE, rv.Paired()).prior, "Pass x_1"),
    ],
)
def test_what_cannot_be_paired_is_refused(make, words):
    with pytest.raises(rv.ReversalError, match=words):
        make()


@pytest.mark.parametrize("entropy", [0.0, 0.5])
def test_a_batch_of_none_or_one_has_a_plan(entropy):
    for n in (0, 1):
        paired = rv.OptimalTransport(SOURCE, entropy).pair(draws(n), generator=seeded(0))
        assert paired.shape == (n, 2)
