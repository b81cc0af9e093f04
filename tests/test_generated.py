"""Processes given by a generator: the three of the examples, and what is refused."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

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


def test_a_prior_that_is_not_stationary_is_found():
    module = example("jump_diffusion")
    process = module.process()

    def faster(x):
        laws = module.switching(x)
        place = dataclasses.replace(laws["place"], covariance=1.1 * laws["place"].covariance)
        return {**laws, "place": place}

    wrong = rv.FromGenerator(process.space, faster, process.prior)
    with pytest.raises(AssertionError, match="prior is stationary"):
        check_process(wrong)


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


def test_the_exact_reversal_of_counts_is_of_order_one():
    """The law of the data, pushed through Euler's steps on states 0..44: error halves with h."""
    module = example("birth_death")
    process, n, states = module.process(), torch.arange(40), torch.arange(45)
    law = sum(
        w * torch.distributions.Poisson(torch.tensor(m).double()).log_prob(n).exp()
        for w, m in ((0.6, 2.0), (0.4, 12.0))
    )
    oracle = rv.Empirical(process, n, law)

    def error(steps):
        q = process.prior.site_log_prob(states).exp()
        ticks = rv.Grid.uniform(steps).ticks()
        for t, s in pairwise(ticks):
            rates = process.increment(states, t, s).reversal(oracle(states, t).score).rates
            leap = rv.core.Leap.of_rates(rates)
            moved = q[:, None] * leap.prob[:, None] * rates / rates.sum(1, keepdim=True)
            q = q * (1 - leap.prob)
            q[1:] += moved[:-1, 1]
            q[:-1] += moved[1:, 0]
        return float((q[:40] - law).abs().sum() / 2)

    coarse, fine = error(40), error(80)
    assert fine < 0.1
    assert 1.6 < coarse / fine < 2.4


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
    wrong = rv.FromGenerator(
        rv.Counts(),
        lambda x: rv.Generator(jumps=DenseJumps(torch.stack((-x - 1.0, x + 1.0), -1))),
        prior,
    )
    with pytest.raises(rv.CapabilityError, match="at least 0"):
        wrong.laws(torch.arange(1, 4))


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

    Euler's error halves with the step, Heun's is a quarter of it at most: 20,000 draws have a
    standard error of 0.01, a thirtieth of what is compared.
    """
    process, n = example("birth_death").process(), 20_000

    def log_beta(x, t, cond):
        kept = (-process.schedule.variance(t.double()).variance).exp()
        mean = 2 * kept + 5 * (1 - kept)
        return x * mean.log() - torch.lgamma(x.double() + 1)

    exact = rv.Energy(log_beta, process)

    def error(sampler, steps):
        source = torch.Generator().manual_seed(3)
        x = sampler.sample(exact, n, steps=steps, generator=source).double()
        return abs(float(x.mean()) - 2)

    coarse, fine = (error(rv.Euler(), steps) for steps in (60, 120))
    assert 1.6 < coarse / fine < 2.4
    assert error(rv.Heun(), 60) < coarse / 4


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
