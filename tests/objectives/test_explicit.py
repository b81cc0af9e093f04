"""Explicit score matching is implicit score matching with its constant; sliced is Hutchinson."""

from __future__ import annotations

import pytest
import torch

import reversal as rv
from reversal import noise, state
from reversal.core import DenseJumps
from reversal.objectives import explicit_rate, implicit_rate
from reversal.objectives.sameness import is_same
from reversal.operators import Traces
from tests.objectives.test_implicit import PROCESSES, T, clock, close, of_chain, process_of
from tests.operators.laws import CASES
from tests.operators.test_wright_fisher import process as on_the_simplex

OTHERS = {"chain": (of_chain, T), "simplex": (on_the_simplex, 0.5)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_explicit_is_implicit_with_its_constant(case):
    """ESM(b) = ISM(b) - ISM(q), by the quadrature of every space."""
    if case.name in OTHERS:
        make, t = OTHERS[case.name]
        process = make()
    else:
        process, t = process_of(case.name), PROCESSES[case.name]
    keep = (case.log_q(case.nodes) + case.log_weights) > -60
    x, weight = state.map(lambda part: part[keep], case.nodes), case.log_weights[keep]
    mass, at = (case.log_q(x) + weight).exp().detach(), clock(x, t)
    beta, exact = (
        rv.Energy(lambda y, t, cond, u=u: u(y), process) for u in (case.log_beta, case.log_q)
    )
    implicit = [
        (mass * implicit_rate(process, at, lambda y, d=d: d(y, at).score, x)).sum().detach()
        for d in (beta, exact)
    ]
    rate = explicit_rate(process, at, beta(x, at).score, exact(x, at).score, x).detach()
    explicit = (mass * rate).sum()
    assert float(rate.min()) > -1e-12
    assert float(explicit) > 0.01
    close(implicit[0] - implicit[1], explicit)


def oracle(mean):
    process = rv.Gaussian(rv.Euclidean(2))
    center = torch.full((2,), mean, dtype=torch.float64)
    return rv.GaussianData(process, center, torch.eye(2, dtype=torch.float64))


def test_the_loss_is_zero_at_its_target_alone():
    """And half the squared distance of the scores by g^2 elsewhere."""
    x_0 = torch.zeros(6, 2, dtype=torch.float64)
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    same = rv.Explicit(oracle(0.5))(oracle(0.5), x_0, generator=seeded())
    other = rv.Explicit(oracle(0.5))(oracle(-1.0), x_0, generator=seeded())
    assert float(same.abs().max()) == 0
    assert float(other.min()) > 0
    process, source = oracle(0.5).process, seeded()
    t = rv.SharedClock().sample(process.space, 6, x_0, source).time
    x_t = process.kernel(x_0, t).sample(source)
    gap = oracle(0.5)(x_t, t).score - oracle(-1.0)(x_t, t).score
    g2 = process.forward(x_t, t).covariance
    close(other, (g2 * gap**2).sum(1) / 2)
    twice = rv.Explicit(oracle(0.5), lambda t: 2 + 0 * t)(oracle(-1.0), x_0, generator=seeded())
    close(twice, 2 * other)


def test_a_network_is_distilled_from_an_oracle(global_seed):
    """A linear score has the oracle's after training: standard normal data, where it is -x."""
    process = rv.Gaussian(rv.Euclidean(2))
    teacher = rv.GaussianData(process, torch.zeros(2), torch.eye(2))
    layer = torch.nn.Linear(2, 2)
    student = rv.NetworkDenoiser(lambda x, t, cond: layer(x), process, rv.Score())
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    source = torch.Generator().manual_seed(0)
    loss = rv.Explicit(teacher, lambda t: 1 / (1 + 10 * t))
    for _ in range(300):
        x_0 = torch.randn(64, 2, generator=source)
        optimizer.zero_grad()
        loss(student, x_0, generator=source).mean().backward()
        optimizer.step()
    close(layer.weight, -torch.eye(2), 1e-3)
    close(layer.bias, torch.zeros(2), 1e-3)


def test_what_does_not_fit_is_refused():
    x_0 = torch.zeros(3, 2, dtype=torch.float64)
    other = rv.Gaussian(rv.Euclidean(2), rv.Cosine())
    stranger = rv.GaussianData(other, torch.zeros(2).double(), torch.eye(2).double())
    with pytest.raises(rv.CapabilityError, match="target of the process of the denoiser"):
        rv.Explicit(stranger)(oracle(0.0), x_0)
    with pytest.raises(rv.ClockError, match="no gaps"):
        observed = torch.tensor([True, False])
        source = torch.Generator().manual_seed(0)
        rv.Explicit(oracle(0.0))(oracle(0.0), x_0, observed=observed, generator=source)
    assert rv.Explicit(oracle(0.0))(oracle(0.0), x_0[:0], generator=torch.Generator()).shape == (0,)


def chain_of(rates, steps=50):
    """A process whose name does not show its rates, which its generator captures."""
    space = rv.Categorical(3)
    law = rv.Uniform(space).prior
    jumps = lambda x: rv.Generator(jumps=DenseJumps(rates[x]))  # noqa: E731
    return rv.FromGenerator(space, jumps, law, steps=steps)


def exploding(last):
    return rv.Gaussian(rv.Euclidean(2), rv.VarianceExploding(0.01, last))


RING = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
PAIRS = {
    "rates": (lambda: chain_of(RING.clone()), lambda: chain_of(2 * RING)),
    "steps of a simulation": (lambda: chain_of(RING.clone()), lambda: chain_of(RING, 60)),
    "betas": (
        lambda: rv.Gaussian(rv.Euclidean(2), rv.Betas.linear(50)),
        lambda: rv.Gaussian(rv.Euclidean(2), rv.Betas.cosine(50)),
    ),
    "own signals": (
        lambda: rv.Gaussian(rv.Euclidean(2), rv.Signals(*fading(2.0))),
        lambda: rv.Gaussian(rv.Euclidean(2), rv.Signals(*fading(3.0))),
    ),
    "a factor": (
        lambda: rv.Independent(a=rv.Mask(rv.Categorical(3)), b=exploding(10.0)),
        lambda: rv.Independent(a=rv.Mask(rv.Categorical(3)), b=exploding(20.0)),
    ),
}


def fading(rate):
    return (lambda t: -rate * t), (lambda t: (-torch.expm1(-2 * rate * t)).sqrt())


@pytest.mark.parametrize("name", PAIRS)
def test_processes_are_told_apart_by_their_definition(name):
    """One made twice is the same, also after use; most of the others have the same name."""
    first, second, other = PAIRS[name][0](), *(make() for make in PAIRS[name])
    source = torch.Generator().manual_seed(0)
    first.kernel(first.prior.sample(2, source), torch.full((2,), 0.5)).sample(source)
    assert is_same(first, second)
    assert is_same(second, first)
    assert not is_same(first, other)
    if name != "a factor":
        assert repr(first) == repr(other)


def test_a_target_of_other_rates_is_refused():
    """Two processes of one name, which differ in what their generators capture."""

    def denoiser(rates):
        return rv.Energy(lambda x, t, cond: 0.3 * x.double(), chain_of(rates))

    x_0, source = torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0)
    same = rv.Explicit(denoiser(RING.clone()))(denoiser(RING.clone()), x_0, generator=source)
    assert float(same.detach().abs().max()) == 0
    with pytest.raises(rv.CapabilityError, match="one of another, FromGenerator"):
        rv.Explicit(denoiser(2 * RING))(denoiser(RING), x_0, generator=source)


def test_what_cannot_be_looked_into_is_the_same_only_as_itself():
    """Generators of random numbers; objects that hold each other; numbers and names."""
    one, other = torch.Generator(), torch.Generator()
    assert is_same([one], [one])
    assert not is_same([one], [other])
    rings = []
    for value in (1, 1, 2):
        ring = {"value": value}
        ring["self"] = [ring]
        rings.append(ring)
    assert is_same(rings[0], rings[1])
    assert not is_same(rings[0], rings[2])
    assert not is_same(1, 1.0)
    assert is_same(torch.float32, torch.float32)


def test_implicit_with_one_probe_is_sliced_score_matching():
    """Without drift: g^2 (z^T grad s z + |s|^2 / 2), Song et al. (2019) with reduced variance."""
    process = rv.Gaussian(rv.Euclidean(3), rv.VarianceExploding())
    couple = torch.tensor([[1.0, 0.4, 0.0], [0.4, 2.0, -0.3], [0.0, -0.3, 0.5]]).double()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at, seed = clock(x, 0.5), 7
    traces = Traces(1, None, torch.Generator().manual_seed(seed))
    loss = implicit_rate(process, at, lambda y: -y @ couple, x, traces)
    z = 1 - 2 * (noise.uniform((5, 3), x, torch.Generator().manual_seed(seed)) < 0.5).double()
    g2 = process.forward(x, at).covariance[:, 0]
    score = -x @ couple
    close(loss, g2 * (-((z @ couple) * z).sum(1) + (score**2).sum(1) / 2))
