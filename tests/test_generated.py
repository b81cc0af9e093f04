"""Processes given by a generator: the three of the examples, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import reversal as rv
from reversal.core import DenseJumps, Kind
from reversal.processes.from_generator import Transition
from reversal.testing import check_process
from tests.example import example
from tests.operators.laws import RATES, generator_of_chain


@pytest.mark.parametrize("name", ["birth_death", "reflected_polytope", "jump_diffusion"])
def test_the_processes_of_the_examples_are_right(name):
    check_process(example(name).process())


def test_a_prior_of_another_generator_is_found():
    """A tenth more diffusion: neither stationary nor within the mismatch."""
    module = example("jump_diffusion")
    process = module.process()

    def faster(x):
        laws = module.switching(x)
        place = dataclasses.replace(laws["place"], covariance=1.1 * laws["place"].covariance)
        return {**laws, "place": place}

    wrong = rv.FromGenerator(process.space, faster, process.prior, process.schedule, steps=30)
    with pytest.raises(AssertionError, match=r"not stationary .*, nor the law at t = 1: a mean"):
        check_process(wrong)


def test_a_process_too_short_for_its_prior_is_found():
    """The stationary law at a fraction of the time: by simulation and by the kernel."""
    module = example("jump_diffusion")
    short = rv.FromGenerator(
        module.process().space, module.switching, module.Stationary(), rv.QuadraticVariance(1.0)
    )
    with pytest.raises(AssertionError, match="too short to reach it: a mean"):
        check_process(short)
    module = example("birth_death")
    counts = rv.FromGenerator(
        rv.Counts(),
        module.immigration_and_death,
        module.Poisson(),
        rv.QuadraticVariance(0.5),
        kernel=module.Survivors,
    )
    with pytest.raises(AssertionError, match=r"too short to reach it: KL\(q_1 \| prior\) is 0"):
        check_process(counts)


class Normal(rv.core.Prior):
    """Normal of a variance."""

    def __init__(self, variance):
        self.deviation = variance**0.5

    def sample(self, n, generator=None, like=None):
        return self.deviation * torch.randn(n, 1, generator=generator, dtype=torch.float64)

    def site_log_prob(self, x):
        return torch.distributions.Normal(0.0, self.deviation).log_prob(x)


def spreading(variance, of_prior, exact):
    """Brownian motion of the line, which has no stationary law, run up to a variance."""

    def kernel(x_0, v):
        return Shifted(x_0, v)

    return rv.FromGenerator(
        rv.Euclidean(1),
        lambda x: rv.Generator(covariance=torch.ones_like(x)),
        Normal(of_prior),
        rv.QuadraticVariance(variance),
        kernel=kernel if exact else None,
        steps=4,
    )


class Shifted(rv.core.Kernel):
    """Normal around x_0."""

    def __init__(self, x_0, v):
        self.law = torch.distributions.Normal(x_0, v[:, None].sqrt())
        self.x_0 = x_0

    def sample(self, generator=None):
        z = torch.randn(self.x_0.shape, generator=generator, dtype=torch.float64)
        return self.x_0 + self.law.scale * z

    def site_log_prob(self, x):
        return self.law.log_prob(x)

    def target(self, kind, x_t):
        return (self.x_0 - x_t) / self.law.scale**2


@pytest.mark.parametrize("exact", [True, False])
def test_a_prior_need_not_be_stationary(exact):
    """Brownian motion: right at its own variance, wrong at 1.2 of it (0.008 nats)."""
    check_process(spreading(2500.0, 2500.0, exact))
    with pytest.raises(AssertionError, match="nor the law at t = 1"):
        check_process(spreading(2500.0, 3000.0, exact))
    check_process(spreading(2500.0, 3000.0, exact), mismatch=0.03)


def test_a_prior_that_is_not_stationary_has_the_burden_of_proof():
    """At 1.07 of the variance, 0.0011 nats: draws that may belong to a right prior do not do."""
    with pytest.raises(AssertionError, match=r"not stationary .*, nor the law at t = 1: a mean"):
        check_process(spreading(2500.0, 2675.0, False))


def test_a_simulation_that_does_not_follow_its_generator_is_found(monkeypatch):
    process = example("jump_diffusion").process()
    walk = rv.FromGenerator.walk
    monkeypatch.setattr(
        rv.FromGenerator, "walk", lambda self, x, h, g=None: walk(self, x, 1.5 * h, g)
    )
    with pytest.raises(AssertionError, match="Dynkin"):
        check_process(process)


def test_a_kernel_of_another_process_is_found():
    module = example("birth_death")

    class Slower(module.Survivors):
        def __init__(self, n_0, v):
            super().__init__(n_0, 0.9 * v)

    process = module.process()
    wrong = rv.FromGenerator(
        process.space, module.immigration_and_death, process.prior, kernel=Slower
    )
    with pytest.raises(AssertionError, match="forward equation"):
        check_process(wrong)


def test_what_cannot_be_reversed_is_refused():
    space = rv.Categorical(5)
    with pytest.raises(rv.CapabilityError, match="prior"):
        rv.FromGenerator(space, generator_of_chain, None)  # pyright: ignore
    stuck = RATES.clone()
    stuck[:, 3] = 0
    with pytest.raises(rv.CapabilityError, match="irreducible"):
        rv.FromGenerator(
            space,
            lambda x: rv.Generator(jumps=DenseJumps(stuck[x])),
            example("birth_death").Poisson(),
        )


def test_a_simulated_process_says_what_it_lacks():
    process = example("reflected_polytope").process()
    x = process.prior.sample(2, torch.Generator().manual_seed(0))
    t = torch.full((2,), 0.3)
    with pytest.raises(rv.CapabilityError, match="Implicit"):
        process.kernel(x, t).log_prob(x)
    with pytest.raises(rv.CapabilityError, match="generator"):
        rv.Ancestral().sample(rv.Energy(lambda x, t, c: x.sum(1), process), 2, steps=2)
    with pytest.raises(rv.CapabilityError, match="beta > 0"):
        rv.Energy(lambda x, t, c: x.sum(1) / 0, process)(x, t)
    flat, source = rv.Energy(lambda x, t, c: 0 * x.sum(1), process), torch.Generator()
    for n in (0, 1):
        assert rv.Euler().sample(flat, n, steps=2, generator=source).shape == (n, 2)


def test_evidence_is_refused_where_the_parts_are_coupled():
    """A known part would keep drifting the other by rates that were never learned for it."""
    process = example("jump_diffusion").process()
    energy = rv.Energy(lambda x, t, c: -(x["place"] ** 2).sum(1), process, rv.AnyClock())
    given = {"label": torch.zeros(3, dtype=torch.int64)}
    with pytest.raises(rv.CapabilityError, match="nothing can be given"):
        rv.Euler().sample(energy, 3, steps=2, given=given, generator=torch.Generator())
    with pytest.raises(rv.CapabilityError, match=r"Euler\(\)"):
        rv.Heun().sample(energy, 3, steps=2, generator=torch.Generator())


def test_a_generator_matrix_may_keep_its_diagonal():
    """What jumps onto x itself is no jump; a negative rate elsewhere is refused."""
    whole = RATES - torch.diag(RATES.sum(1))
    prior = example("birth_death").Poisson()
    process = rv.FromGenerator(
        rv.Categorical(5), lambda x: rv.Generator(jumps=DenseJumps(whole[x])), prior
    )
    assert torch.equal(process.laws(torch.arange(5)).rates, RATES)
    with pytest.raises(rv.CapabilityError, match="at least 0"):
        rv.FromGenerator(
            rv.Counts(),
            lambda x: rv.Generator(jumps=DenseJumps(torch.stack((-x - 1.0, x + 1.0), -1))),
            prior,
        )


def test_a_queue_stops_at_zero():
    """Served at rate 1, joined at 1/2, at 0 too: geometric, and L* pi = 0 at 0."""
    rates = torch.tensor([1.0, 0.5], dtype=torch.float64)
    process = rv.FromGenerator(
        rv.Counts(),
        lambda x: rv.Generator(jumps=DenseJumps(rates.expand(len(x), 2))),
        example("birth_death").Poisson(),
    )
    half = torch.tensor(0.5, dtype=torch.float64).log()
    flow = process.operator.adjoint_relative(lambda x: x * half)(torch.arange(6))
    assert float(flow.abs().max()) < 1e-12
    assert torch.equal(
        rv.Counts().hop(torch.tensor([0, 3]), torch.tensor([0, 0])), torch.tensor([0, 2])
    )


def test_numbers_of_draws_are_checked():
    with pytest.raises(rv.CapabilityError, match="at least one step"):
        rv.FromGenerator(
            rv.Categorical(5), generator_of_chain, example("birth_death").Poisson(), steps=0
        )
    for wrong in (0, -1, 1.5):
        with pytest.raises(rv.CapabilityError, match="at least 1"):
            rv.Implicit(probes=wrong)  # pyright: ignore


def test_noise_is_minus_the_score_in_units_of_the_spread():
    process = example("reflected_polytope").process()
    x, t = process.prior.sample(3, torch.Generator().manual_seed(0)), torch.full((3,), 0.3)
    estimate = rv.Estimate(process, x, t, rv.Kind.NOISE, torch.ones(3, 2))
    assert torch.allclose(estimate.score, torch.full((3, 2), -1 / (4.0 * 0.3**2) ** 0.5))
    assert torch.allclose(estimate.to(rv.Kind.SCORE).noise, torch.ones(3, 2))
    assert torch.allclose(process.transition(x, t / 3, t).v, 4.0 * (t.double() ** 2 * 8 / 9))


def test_the_flow_of_a_real_process_needs_the_score_alone():
    """Churn 0 on Brownian motion in the pentagon: no noise, and two runs agree."""
    process = example("reflected_polytope").process()
    energy = rv.Energy(lambda x, t, c: -(x**2).sum(1), process)
    start = process.prior.sample(4, torch.Generator().manual_seed(0))
    runs = [
        rv.Euler(0.0).sample(
            energy, 4, steps=5, x_1=start, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 2)
    ]
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], start)


def test_counts_come_back_to_a_poisson_law():
    """Poisson(2) data stay Poisson under the noise, so the score is known, and come back to 2.

    Euler's error halves with the step, 0.41 and 0.20 at 5 and 10 steps, and Heun's is a quarter of
    it: 40,000 draws have a standard error of 0.007, so the ratio is within 0.4 by six of its own.
    """
    process, n = example("birth_death").process(), 40_000

    def log_beta(x, t, cond):
        kept = (-process.schedule.variance(t.double()).variance).exp()
        mean = 2 * kept + 5 * (1 - kept)
        return x * mean.log() - torch.lgamma(x.double() + 1)

    exact = rv.Energy(log_beta, process)

    def error(sampler, steps):
        source = torch.Generator().manual_seed(3)
        x = sampler.sample(exact, n, steps=steps, generator=source).double()
        return abs(float(x.mean()) - 2)

    coarse, fine = (error(rv.Euler(), steps) for steps in (5, 10))
    assert 1.6 < coarse / fine < 2.4
    assert error(rv.Heun(), 10) < coarse / 4


def test_nothing_is_given_to_a_process_whose_sites_read_one_another():
    """Two numbers of one factor, pulled to each other: a known one is refused."""
    space = rv.Euclidean(2)

    def pulled(x):
        return rv.Generator(x.flip(1) - 2 * x, torch.ones_like(x))

    prior = rv.Gaussian(space).prior
    process = rv.FromGenerator(space, pulled, prior)
    energy = rv.Energy(lambda x, t, c: -(x**2).sum(1), process, rv.AnyClock())
    given = (torch.zeros(3, 2), torch.tensor([True, False]))
    with pytest.raises(rv.CapabilityError, match="nothing can be given"):
        rv.Euler().sample(energy, 3, steps=2, given=given, generator=torch.Generator())


class Pulled(Transition):
    """The Ornstein-Uhlenbeck process dx = -x/2 dv + dB: N(x_0 e^{-v/2}, 1 - e^{-v})."""

    def __init__(self, x_0, v):
        self.mean, self.variance = x_0 * (-v / 2).exp()[:, None], -torch.expm1(-v)[:, None]

    def sample(self, generator=None):
        z = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.variance.sqrt() * z

    def site_log_prob(self, x):
        return torch.distributions.Normal(self.mean, self.variance.sqrt()).log_prob(x)


def test_the_score_of_a_transition_law_is_derived():
    space, normal = rv.Euclidean(2), rv.Gaussian(rv.Euclidean(2)).prior
    process = rv.FromGenerator(
        space, lambda x: rv.Generator(-x / 2, torch.ones_like(x)), normal, kernel=Pulled
    )
    source = torch.Generator().manual_seed(0)
    x_0 = torch.randn(5, 2, generator=source, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    kernel, law = process.kernel(x_0, t), Pulled(x_0, process.schedule.variance(t).variance)
    x = kernel.sample(source)
    assert torch.allclose(kernel.score(x), (law.mean - x) / law.variance, rtol=1e-12, atol=0)
    with pytest.raises(rv.CapabilityError, match="return a Kernel"):
        kernel.target(Kind.NOISE, x)
    check_process(process)


def test_the_log_ratios_of_a_transition_law_are_derived():
    """Binomial survivors and Poisson newcomers from no one at all are Poisson: ratios mu/n."""
    process = example("birth_death").process()
    n, t = torch.tensor([0, 1, 4, 30]), torch.full((4,), 0.5, dtype=torch.float64)
    mean = 5.0 * -torch.expm1(-process.schedule.variance(t).variance)
    ratios = process.kernel(torch.zeros(4, dtype=torch.int64), t).score(n)
    assert torch.allclose(ratios[:, 1], (mean / (n + 1)).log(), rtol=1e-12, atol=1e-14)
    assert torch.allclose(ratios[1:, 0], (n / mean).log()[1:], rtol=1e-12, atol=1e-14)
