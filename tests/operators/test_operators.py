"""Operators, their adjoints, reversals and objectives, in float64, on every kind of space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.operators import Linear, Local, Reversal, Sum, Tilt, Timed
from tests.operators.laws import CASES, CONCENTRATION, RATES, WEIGHTS, Case, chain, wright_fisher


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def some(case: Case, count: int = 40) -> object:
    """Every so many nodes, away from where q is negligible."""
    keep = (case.log_q(case.nodes) > -14).nonzero().squeeze(1)
    rows = keep[:: max(1, len(keep) // count)]
    return state.map(lambda part: part[rows], case.nodes)


def close(got: Tensor, expected: Tensor, size: float = 1e-9) -> None:
    gap = (got - expected).detach().abs() / (1 + expected.detach().abs())
    assert float(gap.max()) < size


def test_the_adjoint_is_the_adjoint(case):
    """E_q[L log b] = integral of (L* q) log b."""
    f = case.log_beta
    left = case.mean(case.operator(f)(case.nodes))
    inward = case.operator.adjoint_relative(case.log_q)(case.nodes)
    right = case.mean(torch.where(inward.isfinite(), inward, 0.0) * f(case.nodes))
    close(left, right)


def test_implicit_and_denoising_differ_by_a_constant(case):
    """ISM(b) - ISM(q) = DSM(b) - DSM(q) = ESM(b) for a wrong b."""
    implicit = [
        case.mean(case.operator.implicit(u)(case.nodes)) for u in (case.log_beta, case.log_q)
    ]

    def denoising(u):
        terms = [
            w * case.mean(case.operator.phi(lambda x, p=p: p(x) - u(x))(case.nodes), p)
            for w, p in zip(WEIGHTS, case.conditionals, strict=True)
        ]
        return sum(terms)

    explicit = case.mean(case.operator.phi(lambda x: case.log_q(x) - case.log_beta(x))(case.nodes))
    first = implicit[0] - implicit[1]
    assert first > 0.01
    close(first, denoising(case.log_beta) - denoising(case.log_q))
    close(first, explicit)


def test_phi_is_a_divergence(case):
    """Phi >= 0, and 0 for constants."""
    x = some(case)
    values = case.operator.phi(case.log_beta)(x).detach()
    assert float(values.min()) >= -1e-12
    assert float(values.max()) > 1e-3
    constant = case.operator.phi(lambda y: 0 * case.log_beta(y) + 0.7)(x)
    close(constant, torch.zeros_like(constant), 1e-12)


def test_the_reversal_runs_the_marginals_backwards(case):
    """At beta = q: K* q = -L* q, and a constant in log beta changes nothing."""
    x = some(case)
    back = Reversal(case.operator, case.log_q)
    close(back.adjoint_relative(case.log_q)(x), -case.operator.adjoint_relative(case.log_q)(x))
    shifted = Reversal(case.operator, lambda y: case.log_q(y) + 3.0)
    close(shifted(case.log_beta)(x), back(case.log_beta)(x))


def test_the_reversal_has_an_adjoint(case):
    """E_q[K f] = integral of (K* q) f, at a wrong beta."""
    back = Reversal(case.operator, case.log_beta)
    f = case.log_beta
    left = case.mean(back(f)(case.nodes))
    inward = back.adjoint_relative(case.log_q)(case.nodes)
    right = case.mean(torch.where(inward.isfinite(), inward, 0.0) * f(case.nodes))
    close(left, right)


def test_local_characteristics_of_the_reversal(case):
    """K from beta is the operator of `Generator.reversal` with the score of log beta."""
    operator, space = case.operator, case.operator.space
    names = list(space.factors) if space.factors else [""]
    energy = rv.Energy(lambda x, t, cond: case.log_beta(x), _Of(space))

    def reversed_(x):
        laws = operator.characteristics(x)
        score = energy(x, torch.zeros(state.batch_size(x)).double()).score
        found = {}
        for name in names:
            law = state.take(laws, name)
            if law.jumps is None and law.divergence is None:
                bend = operator.divergence_of_covariance(name)(x)
                law = rv.Generator(law.drift, law.covariance, None, law.lift, bend)
            found[name] = law.reversal(state.take(score, name))
        return found if space.factors else found[""]

    x = some(case)
    f = lambda y: case.log_q(y) * 0.3 + case.log_beta(y) ** 2  # noqa: E731
    close(Local(space, reversed_)(f)(x), Reversal(operator, case.log_beta)(f)(x))


class _Of:
    """What `Energy` reads of a process."""

    def __init__(self, space):
        self.space = self.noisy_space = space
        self.factors = {n: _Of(p) for n, p in space.factors.items()} if space.factors else None

    @property
    def parts(self):
        return self.factors or self


REVERSIBLE = [case for case in CASES if case.name in ("torus", "SO(3)", "simplex")]


@pytest.mark.parametrize("case", REVERSIBLE, ids=str)
def test_doob_where_the_noise_is_reversible(case):
    """With h = q / pi, Doob's transform is the reversal."""
    log_pi = (
        (lambda x: ((CONCENTRATION - 1) * x.log()).sum(1))
        if case.name == "simplex"
        else (lambda x: 0 * case.log_beta(x))
    )
    x = some(case)
    tilt = Tilt(case.operator, lambda y: case.log_q(y) - log_pi(y))
    close(tilt(case.log_beta)(x), Reversal(case.operator, case.log_q)(case.log_beta)(x))


def test_the_generalized_fokker_planck_equation(case):
    """K* v = M v + c v for any v, with M the tilt by 1 / beta and c the potential."""
    x, u, v = some(case), case.log_beta, case.log_q
    back = Reversal(case.operator, u).adjoint_relative(v)(x)
    auxiliary = Tilt(case.operator, lambda y: -u(y)).relative(v)(x)
    close(back, auxiliary + case.operator.potential(u)(x))


def test_sums_and_clocks():
    """(2 L + L)* = 3 L*."""
    case = chain()
    x, u = case.nodes, case.log_beta
    tripled = case.operator * 2.0 + case.operator
    assert isinstance(tripled, Sum)
    assert isinstance(case.operator * 2.0, Timed)
    close(tripled(u)(x), 3 * case.operator(u)(x))
    close(tripled.adjoint(u)(x), 3 * case.operator.adjoint(u)(x))


def test_a_product_is_the_sum_of_its_factors_with_a_clock_each():
    """2 L_word + 3 L_place, each from one factor alone, is the process with both clocks changed."""
    case = next(c for c in CASES if c.name == "product")
    space, given, x = case.operator.space, case.operator.characteristics, some(case)

    def of(scales):
        def scaled(y):
            laws = given(y)
            return {name: law.scaled(scales[name], len(space.factors[name].sites))
                    for name, law in laws.items()}  # fmt: skip

        return Local(space, scaled)

    word, place = of({"word": 1.0, "place": 0.0}), of({"word": 0.0, "place": 1.0})
    both, u = of({"word": 2.0, "place": 3.0}), case.log_beta
    apart = word * 2.0 + place * 3.0
    for name in ("__call__", "adjoint", "phi", "implicit", "potential"):
        close(getattr(apart, name)(u)(x), getattr(both, name)(u)(x))
    close(apart(u)(x), 2 * word(u)(x) + 3 * place(u)(x))
    assert float(word(u)(x).detach().abs().max()) > 0.1
    assert float(place(u)(x).detach().abs().max()) > 0.1


def test_the_reversal_reproduces_every_marginal_from_the_last():
    """dp/ds = K* p from q_T is q_{T - s}: Magnus' rule of order 2, extrapolated, T = 2."""
    operator, states, end = chain().operator, torch.arange(5), 2.0
    matrix = RATES - torch.diag(RATES.sum(1))
    data, units = torch.tensor([0.35, 0.05, 0.3, 0.1, 0.2]).double(), torch.eye(5).double()

    def run(steps):
        p, path = data @ torch.matrix_exp(end * matrix), []
        for k in range(steps):
            log_q = (data @ torch.matrix_exp((end - (k + 0.5) * end / steps) * matrix)).log()
            back = Reversal(operator, lambda x, u=log_q: u[x])
            K = torch.stack([back(lambda x, e=e: e[x])(states) for e in units], 1)
            p = p @ torch.matrix_exp(end / steps * K)
            path.append(p)
        return torch.stack(path)

    coarse, fine = run(100), run(200)[1::2]
    exact = torch.stack(
        [data @ torch.matrix_exp((end - (k + 1) * end / 100) * matrix) for k in range(100)]
    )
    close((4 * fine - coarse) / 3, exact, 1e-7)
    assert float((coarse - exact).abs().max()) > 1e-6


def test_a_map_of_functions_is_an_operator():
    """The chain as a matrix, with and without its adjoint."""
    case, matrix = chain(), RATES - torch.diag(RATES.sum(1))
    x, u = case.nodes, case.log_beta

    def action(m):
        return lambda f: lambda y: (m[y] * f(torch.arange(5))).sum(1)

    close(Linear(action(matrix))(u)(x), case.operator(u)(x))
    with pytest.raises(rv.CapabilityError, match="adjoint is available"):
        Linear(action(matrix)).implicit(u)(x)


def test_a_beta_that_is_not_positive_is_refused():
    """At a state of no mass there is no reversal; towards one there is, at rate 0 there."""
    operator, states = chain().operator, torch.arange(5)
    u = torch.tensor([0.3, -0.4, -torch.inf, 0.1, -0.9], dtype=torch.float64)
    back = Reversal(operator, lambda x: u[x])
    for word in (back(lambda x: x.double()), operator.implicit(lambda x: u[x])):
        with pytest.raises(rv.CapabilityError, match=r"beta > 0 .* got log beta = -inf"):
            word(states)
    ratios = torch.where(states == 2, 0.0, (u - u[0]).exp())
    expected = (RATES[:, 0] * ratios * states).sum()
    close(back(lambda x: x.double())(states[:1]), expected[None])
    with pytest.raises(rv.CapabilityError, match="beta > 0"):
        operator.phi(lambda x: x / 0.0 * 0)(states)


def test_the_elbo_is_exact_on_a_chain():
    """E log p_0(Y_T) - int E[L* b / b + L log b] dt = E log p_data at b = q_t and p_0 = q_T.

    Means under q_t are enumerated; Gauss-Legendre in time, T = 2.
    """
    operator, end = chain().operator, 2.0
    matrix = RATES - torch.diag(RATES.sum(1))
    data = torch.tensor([0.35, 0.05, 0.3, 0.1, 0.2], dtype=torch.float64)
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(24))
    states, total = torch.arange(5), torch.zeros((), dtype=torch.float64)
    for t, w in zip(end * (nodes + 1) / 2, end * weights / 2, strict=True):
        q = data @ torch.matrix_exp(t * matrix)
        total += w * (q * operator.implicit(lambda x, u=q.log(): u[x])(states)).sum()
    last = data @ torch.matrix_exp(end * matrix)
    close((last * last.log()).sum() - total, (data * data.log()).sum(), 1e-12)


def test_feynman_and_kac_give_the_density_of_a_wrong_reversal():
    """d/dt v + M v + c v = 0 solves the marginals of K for a wrong beta that depends on t."""
    operator, states = chain().operator, torch.arange(5)
    slope = torch.tensor([0.5, -0.3, 0.2, 0.4, -0.6], dtype=torch.float64)
    prior = torch.full((5,), 0.2, dtype=torch.float64)

    def matrices(t):
        u = lambda x: (1 + t) * slope[x]  # noqa: E731
        back, tilt = Reversal(operator, u), Tilt(operator, lambda x: -u(x))
        units = torch.eye(5, dtype=torch.float64)

        def matrix(of):
            return torch.stack([of(lambda x, e=e: e[x])(states) for e in units], 1)

        return matrix(back), matrix(tilt) + torch.diag(operator.potential(u)(states))

    forward, backward, steps = prior.clone(), prior.clone(), 400
    for k in range(steps):
        h, t = 1 / steps, 1 - (k + 0.5) / steps
        K, M = matrices(t)
        forward = forward @ torch.matrix_exp(h * K)
        backward = torch.matrix_exp(h * M) @ backward
    close(backward, forward, 1e-12)


def test_hyvarinen_and_wright_fisher_at_their_minimum():
    """On the simplex the implicit minimizer for Dir(a) data is log beta = (a - 1) log x."""
    simplex = next(c for c in CASES if c.name == "simplex")
    law = torch.distributions.Dirichlet(torch.tensor([4.0, 5.0, 6.0]).double())
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def log_beta(x):
        return (scale * torch.tensor([3.0, 4.0, 5.0]).double() * x.log()).sum(1)

    mass = (law.log_prob(simplex.nodes) + simplex.log_weights).exp()
    loss = (mass * Local(rv.Simplex(3), wright_fisher).implicit(log_beta)(simplex.nodes)).sum()
    assert float(torch.autograd.grad(loss, scale)[0].abs().max()) < 1e-9
