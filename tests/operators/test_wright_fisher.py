"""A covariance that is a matrix and depends on the state, through the whole core."""

from __future__ import annotations

import pytest
import torch

import reversal as rv
from reversal import state
from reversal.objectives.implicit import implicit_rate
from reversal.operators import Local, Reversal
from reversal.testing import check_process
from tests.operators.laws import CASES, CONCENTRATION, wright_fisher

SIMPLEX = next(case for case in CASES if case.name == "simplex")
LAW = torch.distributions.Dirichlet(CONCENTRATION)


class Stationary(rv.core.Prior):
    """Dirichlet, drawn as normalized gammas."""

    def sample(self, n, generator=None, like=None):
        shape = CONCENTRATION.expand(n, 3).contiguous()
        gammas = torch._standard_gamma(shape, generator=generator)
        return gammas / gammas.sum(1, keepdim=True)

    def site_log_prob(self, x):
        return LAW.log_prob(x)


def process():
    return rv.FromGenerator(rv.Simplex(3), wright_fisher, Stationary(), rv.QuadraticVariance(4.0))


def clock(x, t=0.5):
    return torch.full((len(x),), t, dtype=torch.float64)


def close(got, expected, size=1e-9):
    gap = (got - expected).detach().abs() / (1 + expected.detach().abs())
    assert float(gap.max()) < size


def some():
    return SIMPLEX.nodes[::61]


def test_it_passes_the_checks():
    check_process(process())


@pytest.mark.parametrize("seed", range(4))
def test_the_checks_do_not_depend_on_the_seed(seed):
    check_process(process(), seed=seed)


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 2.0])
def test_every_churn_has_the_marginals(churn):
    """K_c* q = -L* q, from local characteristics."""
    p, x = process(), some()
    energy = rv.Energy(lambda y, t, cond: SIMPLEX.log_q(y), p)

    def reversed_(y):
        at = clock(y)
        law = p.reverse(y, at, energy(y, at).score, churn)
        return rv.Generator(law.drift, law.covariance, lift=1)

    back = Local(p.space, reversed_).adjoint_relative(SIMPLEX.log_q)(x)
    close(back, -Local.of(p, 0.5).adjoint_relative(SIMPLEX.log_q)(x))


def test_the_implicit_rate_is_the_operators():
    p, x = process(), some()
    energy, at = rv.Energy(lambda y, t, cond: SIMPLEX.log_beta(y), p), clock(some())
    rate = p.schedule.variance(at).rate
    got = implicit_rate(p, at, lambda y: energy(y, at).score, x)
    close(got, rate * p.operator.implicit(SIMPLEX.log_beta)(x))
    close(Local.of(p, 0.5).implicit(SIMPLEX.log_beta)(x), got)


def test_the_gap_is_phi():
    """|r - s|_a^2 / 2 is Phi of the ratio."""
    p, x, at = process(), some(), clock(some())
    scores = [
        rv.Energy(lambda y, t, cond, u=u: u(y), p)(x, at).score
        for u in (SIMPLEX.log_beta, SIMPLEX.log_q)
    ]
    phi = Local.of(p, 0.5).phi(lambda y: SIMPLEX.log_q(y) - SIMPLEX.log_beta(y))(x)
    close(p.forward(x, at).gap(*scores), phi)


def test_noise_has_the_covariance():
    """One spread of 40,000: every entry within 5 standard errors; false alarms below 1e-5."""
    x = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).expand(40_000, 3)
    z = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = wright_fisher(x).spread(z)
    products = drawn[:, :, None] * drawn[:, None]
    error = products.std(0) / 200
    assert bool(((products.mean(0) - wright_fisher(x[:1]).covariance[0]).abs() < 5 * error).all())


@pytest.mark.parametrize("churn", [0.5, 1.0, 2.0])
def test_samples_are_stationary(churn):
    """With the stationary score the reversal keeps Dirichlet's means: 5 errors and a bias of h."""
    p, source = process(), torch.Generator().manual_seed(1)
    exact = rv.Energy(lambda y, t, cond: LAW.log_prob(y.clamp_min(1e-300)), p)
    x = rv.Euler(churn).sample(exact, 4000, steps=100, generator=source)
    p.space.check(x)
    error = x.std(0) / 4000**0.5
    assert bool(((x.mean(0) - LAW.mean).abs() < 5 * error + 0.01).all())


def test_the_reversal_of_local_characteristics_needs_their_divergence():
    """K_1 of `Generator.reversal` is `Reversal` for a wrong beta, div a and all."""
    p, x, at = process(), some(), clock(some())
    energy = rv.Energy(lambda y, t, cond: SIMPLEX.log_beta(y), p)
    law = p.reverse(x, at, energy(x, at).score)
    exact = Reversal(Local.of(p, 0.5), SIMPLEX.log_beta)
    for i in range(2):
        close(law.drift[:, i], exact(lambda y, i=i: y[:, i])(x))
    assert state.batch_size(x) > 20
