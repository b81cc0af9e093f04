"""Implicit score matching: the generic objective, its special cases, and processes simulated."""

from __future__ import annotations

import math

import pytest
import torch

import reversal as rv
from reversal import state
from reversal.objectives.implicit import implicit_rate
from reversal.operators import Traces
from tests.operators.laws import CASES, RATES, chain, generator_of_chain

T = 0.4
PROCESSES = {"R^2": 0.4, "torus": 0.35, "SO(3)": 0.45, "product": 0.5}


def clock(x, t):
    return torch.full((state.batch_size(x),), t, dtype=torch.float64)


def close(got, expected, size=1e-9):
    gap = (got - expected).detach().abs() / (1 + expected.detach().abs())
    assert float(gap.max()) < size


class Fixed(rv.core.Prior):
    """Uniform over five states."""

    def sample(self, n, generator=None, like=None):
        return torch.randint(5, (n,), generator=generator)

    def site_log_prob(self, x):
        return torch.full(x.shape, -math.log(5.0), dtype=torch.float64)


def process_of(name):
    return {
        "R^2": rv.Gaussian(rv.Euclidean(2)),
        "torus": rv.Brownian(rv.Torus(2)),
        "SO(3)": rv.Brownian(rv.SO3()),
        "product": rv.Independent(
            word=rv.Uniform(rv.Categorical(3)), place=rv.Gaussian(rv.Euclidean(1), rv.Cosine())
        ),
    }[name]


@pytest.mark.parametrize("name", PROCESSES)
def test_the_rate_is_the_operators_objective(name):
    """With a coherent beta the loss of a state is L* b / b + L log b, to 1e-9."""
    case, t = next(c for c in CASES if c.name == name), PROCESSES[name]
    x = state.map(lambda part: part[:: max(1, len(part) // 60)], case.nodes)
    process = process_of(name)
    energy = rv.Energy(lambda y, t, cond: case.log_beta(y), process)
    at = clock(x, t)
    got = implicit_rate(process, at, lambda y: energy(y, at).score, x)
    close(got, case.operator.implicit(case.log_beta)(x))


@pytest.mark.parametrize("name", ["R^2", "SO(3)"])
def test_probes_are_unbiased(name):
    """Hutchinson's estimate: 4,000 draws within 4.5 standard errors; false alarms below 1e-4."""
    case, t = next(c for c in CASES if c.name == name), PROCESSES[name]
    process, count = process_of(name), 4000
    row = state.map(lambda part: part[len(part) // 2 + 3 :][:1], case.nodes)
    x = row.expand(count, *row.shape[1:])
    energy, at = rv.Energy(lambda y, t, cond: case.log_beta(y), process), clock(x, t)
    source = torch.Generator().manual_seed(0)
    draws = implicit_rate(process, at, lambda y: energy(y, at).score, x, Traces(1, None, source))
    draws, exact = draws.detach(), case.operator.implicit(case.log_beta)(row).detach()
    assert abs(float(draws.mean() - exact)) < 4.5 * float(draws.std()) / count**0.5 + 1e-9


def free_scores():
    """Log-ratios that are no ratios of any beta."""
    return torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def of_chain(**options):
    return rv.FromGenerator(rv.Categorical(5), generator_of_chain, Fixed(), **options)


def test_free_ratios_are_trained_by_a_divergence():
    """J(s) - J(log q) is the mean path divergence for ratios that are not coherent."""
    case, process, table = chain(), of_chain(), free_scores()
    x, log_q = case.nodes, case.log_q(case.nodes)
    exact = log_q[None, :] - log_q[:, None]
    at = clock(x, T)
    rates = [case.mean(implicit_rate(process, at, lambda y, s=s: s[y], x)) for s in (table, exact)]
    gap = case.mean(process.forward(x, at).gap(table[x], exact[x]))
    assert gap > 0.1
    close(rates[0] - rates[1], gap)


def test_drawn_jumps_are_unbiased():
    """One jump per item in place of every neighbor: 20,000 draws within 4.5 standard errors."""
    process, table, count = of_chain(), free_scores(), 20_000
    x = torch.full((count,), 2)
    at, source = clock(x, T), torch.Generator().manual_seed(2)
    draws = implicit_rate(process, at, lambda y: table[y], x, Traces(None, 1, source))
    exact = implicit_rate(process, at[:1], lambda y: table[y], x[:1])
    assert abs(float(draws.mean() - exact)) < 4.5 * float(draws.std()) / count**0.5


def test_hyvarinen_is_the_special_case_of_brownian_motion():
    """Under a process without drift: g^2 (|grad log p|^2 / 2 + Laplacian of log p)."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    precision = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(3), rv.VarianceExploding())
    loss = rv.ScoreMatching(lambda y: (precision * y**2).sum(1) / 2, process, at=0.5)(x)
    g2 = process.forward(x, clock(x, 0.5)).covariance[:, 0]
    close(loss, g2 * (((precision * x) ** 2).sum(1) / 2 - precision.sum()))


def test_ratio_matching_is_the_special_case_of_flips():
    """On bits: rate times the sum over flips of p(y)/p(x) - 1 - log p(x)/p(y)."""
    x = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0]])
    couple = torch.tensor([[0.0, 0.5, -0.3], [0.5, 0.0, 0.8], [-0.3, 0.8, 0.0]]).double()

    def energy(y):
        return -torch.einsum("bi,ij,bj->b", y.double(), couple, y.double())

    process = rv.Uniform(rv.Categorical(2, 3))
    loss = rv.ScoreMatching(energy, process)(x)
    rate = process.forward(x, clock(x, 0.5)).total[:, 0]
    expected = torch.zeros(3, dtype=torch.float64)
    for site in range(3):
        y = x.clone()
        y[:, site] = 1 - y[:, site]
        log_ratio = energy(x) - energy(y)
        expected += log_ratio.exp() - 1 + log_ratio
    close(loss, rate * expected)


def test_score_matching_finds_the_data():
    """The gradient of the loss vanishes at the law of the data: three bits, enumerated."""
    states = torch.cartesian_prod(*[torch.arange(2)] * 3)
    table = torch.randn(8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p = table.softmax(0)
    theta = table.clone().requires_grad_()
    index = torch.tensor([4, 2, 1])
    loss = rv.ScoreMatching(lambda y: -theta[(y * index).sum(1)], rv.Uniform(rv.Categorical(2, 3)))
    slope = torch.autograd.grad((p * loss(states)).sum(), theta)[0]
    assert float(slope.abs().max()) < 1e-12


def test_dsm_is_the_generic_objective():
    """Half the squared distance of scores is Phi(q_t|0 / beta), state by state."""
    for name in ("R^2", "torus", "SO(3)"):
        case, t, process = next(c for c in CASES if c.name == name), PROCESSES[name], None
        process = process_of(name)
        x = case.nodes[:: len(case.nodes) // 40]
        if name == "R^2":
            x = x / 3
        energy = rv.Energy(lambda y, t, cond, u=case.log_beta: u(y), process)
        at, p = clock(x, t), case.conditionals[0]
        kernel = rv.operators.Tangent(process.space).gradient(p, x)
        gap = state.sum_sites(process.forward(x, at).gap(energy(x, at).score, kernel))
        close(gap, case.operator.phi(lambda y, p=p, u=case.log_beta: p(y) - u(y))(x))


def test_score_entropy_is_the_generic_objective():
    """On the mean, for coherent ratios: E Phi(q_t|0 / beta), summed over x_0, by both forms."""
    case, process = chain(), of_chain()
    x, at, beta = case.nodes, clock(case.nodes, T), case.log_beta(case.nodes)
    rate, ratios = process.schedule.variance(at).rate, beta[None, :] - beta[:, None]
    for law in case.conditionals:
        log_p = law(x)
        known = log_p[None, :] - log_p[:, None]
        gap = process.forward(x, at).gap(ratios, known)
        r = known.exp()
        by_hand = RATES.T * (ratios.exp() - r * ratios + r * (known - 1))
        close(gap, rate * by_hand.fill_diagonal_(0).sum(1))
        phi = rate * case.operator.phi(lambda y, p=law: p(y) - case.log_beta(y))(x)
        close(case.mean(gap, law), case.mean(phi, law))
        assert float((gap - phi).abs().max()) > 0.01


def test_masked_cross_entropy_is_the_generic_objective():
    """At a mask the divergence is R alpha / (1 - alpha) times the cross-entropy."""
    process = rv.Mask(rv.Categorical(4))
    posterior = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    x_0, x = torch.arange(4), torch.full((4,), 4)
    at = clock(x, 0.3)
    estimate = rv.Estimate(process, x, at, rv.Kind.POSTERIOR, posterior.expand(4, -1))
    forward, kernel = process.forward(x, at), process.kernel(x_0, at)
    survival = process.schedule.survival(at)
    alpha = survival.log_alpha.exp()
    expected = survival.rate * alpha / (1 - alpha) * -posterior[x_0]
    close(forward.gap(estimate.score, kernel.score(x)), expected)


def test_the_implicit_bound_is_exact_for_gaussian_data():
    """At the exact score it is log p of every row, within 4.5 standard errors and the prior gap."""
    process = rv.Gaussian(rv.Euclidean(2))
    mean = torch.tensor([0.4, -0.7], dtype=torch.float64)
    covariance = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=torch.float64)
    source = torch.Generator().manual_seed(5)
    x = mean + torch.randn(8, 2, generator=source, dtype=torch.float64) * 0.7
    exact = rv.GaussianData(process, mean, covariance)
    found = rv.implicit_elbo(exact, x, num_samples=1500, generator=source)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    gap = (found.value - law.log_prob(x)).abs()
    assert bool((gap < 4.5 * found.stderr + 2e-3).all())
    assert float(found.stderr.max()) < 0.2


def test_the_implicit_bound_is_exact_on_a_chain_without_a_kernel():
    """On five states, simulated: log p by 4.5 standard errors, and the order of the simulation."""
    process = of_chain(schedule=rv.QuadraticVariance(4.0), steps=60)
    data = torch.tensor([0.35, 0.05, 0.3, 0.1, 0.2], dtype=torch.float64)
    matrix = RATES - torch.diag(RATES.sum(1))

    def log_q(x, t, cond=None):
        v = process.schedule.variance(t.double()).variance
        laws = data @ torch.matrix_exp(v[:, None, None] * matrix)
        return laws.gather(1, x[:, None]).squeeze(1).log()

    x, source = torch.arange(5).repeat_interleave(400), torch.Generator().manual_seed(6)
    found = rv.implicit_elbo(rv.Energy(log_q, process), x, num_samples=4, generator=source)
    draws = found.value.view(5, 400)
    stderr = draws.std(1) / 400**0.5
    last = data @ torch.matrix_exp(4.0 * matrix)
    prior_gap = (last * (last / 0.2).log()).sum()
    gap = draws.mean(1) + prior_gap - data.log()
    assert float(stderr.max()) < 0.1
    assert bool((gap.abs() < 4.5 * stderr + 0.03).all())
    assert found.measure == "counting"


@pytest.mark.parametrize("family", [rv.Uniform, rv.Mask])
@pytest.mark.parametrize("jumps", [None, 1])
def test_gradients_are_finite_on_packed_sites(family, jumps, global_seed):
    """Codes that a site cannot take have no rate and give no NaN."""
    process = family(rv.Categorical((2, 3, 5)))
    layer = torch.nn.Linear(3, 15, dtype=torch.float64)

    def network(x, t, cond):
        return layer(x.double()).view(-1, 3, 5)

    denoiser = rv.NetworkDenoiser(network, process)
    source = torch.Generator().manual_seed(0)
    x_0 = torch.tensor([[0, 1, 2], [1, 2, 4]])
    rv.Implicit(jumps=jumps)(denoiser, x_0, generator=source).sum().backward()
    assert bool(layer.weight.grad.isfinite().all())


@pytest.mark.parametrize(
    "process", [rv.Uniform(rv.Categorical(3, 2)), rv.Gaussian(rv.Euclidean(2))]
)
@pytest.mark.parametrize("draws", [None, 2])
def test_an_empty_batch_has_no_losses(process, draws):
    energy = rv.Energy(lambda x, t, cond: (x.double() ** 2).sum(1), process)
    x_0 = process.space.example(0, torch.zeros((), dtype=torch.float64))
    source = torch.Generator().manual_seed(0)
    assert rv.Implicit(draws, draws)(energy, x_0, generator=source).shape == (0,)
    assert rv.ScoreMatching(lambda x: (x.double() ** 2).sum(1), process)(x_0).shape == (0,)


def test_a_weight_is_a_factor():
    process = rv.Gaussian(rv.Euclidean(2))
    energy = rv.Energy(lambda x, t, cond: -(x**2).sum(1), process)
    x_0 = torch.ones(3, 2, dtype=torch.float64)
    plain, twice = (
        rv.Implicit(weight=weight)(energy, x_0, generator=torch.Generator().manual_seed(0))
        for weight in (None, lambda t: 2 + 0 * t)
    )
    close(twice, 2 * plain)


def test_known_sites_are_refused():
    process = rv.Brownian(rv.SO3())
    energy = rv.Energy(lambda x, t, cond: x[:, 0, 0], process, rv.SiteClocks())
    x_0 = process.space.example(8, torch.zeros((), dtype=torch.float64))
    with pytest.raises(rv.ClockError, match="SharedClock"):
        rv.Implicit()(energy, x_0, generator=torch.Generator().manual_seed(0))
