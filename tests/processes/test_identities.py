r"""Identities of the processes against dense matrices, normal laws and characters.

The conformance suite checks them locally, through the public interface; here they are checked
whole, against references that share no code with it: on finite sets the dense generator on all
joint states, on R^d the moments of normal laws, on the circle and on SO(3) the eigenfunctions of
the Laplacian, :math:`E[\cos n\theta] = e^{-n^2 v/2}` and
:math:`E[\chi_l] = (2l+1) e^{-l(l+1)v/2}`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch

import reversal as rv
from reversal.spaces import rotations
from tests import cases

EYE = torch.eye(2, dtype=torch.float64)
CHURNS = [0.0, 0.5, 1.0, 2.0]
FINITE = [
    family(space, at)
    for family, at in cases.JUMPS
    for space in (rv.Categorical(3, 2), rv.Categorical((2, 3)))
]


def clock(t: float, n: int) -> torch.Tensor:
    return torch.full((n,), t, dtype=torch.float64)


def joint_states(process):
    """All legal noisy states, ``(M, sites)``."""
    space = process.noisy_space
    sizes = space.cardinalities or [space.num_values] * space.sites[0]
    extra = [space.num_values] if space.masked else []
    return torch.tensor(list(itertools.product(*([*range(k), *extra] for k in sizes))))


def data_law(process):
    """An enumerated law without symmetries, as a table."""
    space = process.space
    sizes = space.cardinalities or (space.num_values,) * space.sites[0]
    table = torch.arange(1, 1 + math.prod(sizes), dtype=torch.float64) ** 1.5
    return (table / table.sum()).reshape(sizes)


def marginal(process, oracle, states, t):
    """q_t on all joint states, by summing the kernel over the data."""
    x_0, weights = oracle.states, data_law(process).flatten()
    rows = [
        process.kernel(x_0[i : i + 1].expand_as(states), clock(t, len(states))).log_prob(states)
        for i in range(len(x_0))
    ]
    return (torch.stack(rows).exp() * weights[:, None]).sum(0)


def dense(states, rates):
    """The generator matrix on joint states from rates per site, ``(M, sites, N)``."""
    index = {tuple(row.tolist()): k for k, row in enumerate(states)}
    matrix = torch.zeros(len(states), len(states), dtype=torch.float64)
    for k, row in enumerate(states):
        for site, code in itertools.product(range(states.shape[1]), range(rates.shape[-1])):
            new = row.clone()
            new[site] = code
            to = index.get(tuple(new.tolist()))
            if to is not None and to != k:
                matrix[k, to] = rates[k, site, code]
    return matrix - torch.diag(matrix.sum(1))


@pytest.mark.parametrize("process", FINITE, ids=repr)
def test_the_kernel_is_the_exponential_of_the_integrated_generator(process):
    states = joint_states(process)
    n = len(states)
    s, t = clock(0.2, n), clock(0.7, n)
    law = process.forward(states, clock(0.4, n))
    unit = dense(states, law.rates) / process.elapsed(s[:1], t[:1]).double().reshape(-1)[0]
    speed = process.schedule.rate(torch.tensor(0.4, dtype=torch.float64))
    moved = unit / speed * process.elapsed(s[:1], t[:1]).reshape(-1)[0] ** 2
    expected = torch.as_tensor(scipy.linalg.expm(moved.numpy()))
    for k in range(n):
        got = process.transition(states[k : k + 1].expand_as(states), s, t).log_prob(states).exp()
        torch.testing.assert_close(got, expected[k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("churn", CHURNS)
@pytest.mark.parametrize("process", FINITE, ids=repr)
def test_the_dense_reversal_run_backward_carries_the_marginals(process, churn):
    """RK4 of d/dt q = -q K_c from t = 0.8 down to 0.3 in 40 steps: an error of order h^4."""
    oracle, states = rv.Enumerated(process, data_law(process)), joint_states(process)

    def slope(q, t):
        at = clock(t, len(states))
        rates = process.reverse(states, at, oracle(states, at).score, churn).rates
        return q @ dense(states, torch.where(rates.isfinite(), rates, 0.0))

    q, h = marginal(process, oracle, states, 0.8), 0.5 / 40
    for k in range(40):
        t = 0.8 - k * h
        a = slope(q, t)
        b = slope(q + h / 2 * a, t - h / 2)
        c = slope(q + h / 2 * b, t - h / 2)
        d = slope(q + h * c, t - h)
        q = q + h / 6 * (a + 2 * b + 2 * c + d)
    torch.testing.assert_close(q, marginal(process, oracle, states, 0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("process", FINITE, ids=repr)
def test_the_dense_corrector_is_symmetric_under_the_marginal(process):
    oracle, states = rv.Enumerated(process, data_law(process)), joint_states(process)
    at = clock(0.6, len(states))
    flow = marginal(process, oracle, states, 0.6)[:, None] * dense(
        states, process.corrector(states, at, oracle(states, at).score).rates
    )
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-12)


def test_posterior_and_cavity_differ_under_uniform_noise_and_agree_on_masks():
    """They are different predictions wherever q(x | k) depends on k."""
    for family in (rv.Uniform, rv.Mask):
        process = family(rv.Categorical(3, 2))
        oracle, states = rv.Enumerated(process, data_law(process)), joint_states(process)
        estimate = oracle(states, clock(0.5, len(states)))
        if family is rv.Uniform:
            gap = (estimate.cavity.softmax(-1) - estimate.posterior.softmax(-1)).abs()
            assert gap.amax() > 0.1
        else:
            with pytest.raises(rv.CapabilityError, match="cavity"):
                _ = estimate.cavity


@pytest.mark.parametrize("schedule", cases.SIGNALS, ids=repr)
def test_gaussian_kernels_compose_as_normal_laws(schedule):
    """N(alpha_s, sigma_s^2) after the transition is N(alpha_t, sigma_t^2), in closed form."""
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    one = torch.ones(1, 1, dtype=torch.float64)
    for s, t in [(0.0, 0.3), (0.1, 0.5), (0.5, 0.95)]:
        step = process.transition(one, clock(s, 1), clock(t, 1))
        at, to = (schedule.signal(clock(v, 1)) for v in (t, s))
        torch.testing.assert_close(step.mean[0] * to.alpha, at.alpha, rtol=1e-9, atol=1e-12)
        variance = (step.mean[0] * to.sigma) ** 2 + step.std.reshape(-1) ** 2
        torch.testing.assert_close(variance, at.sigma**2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("churn", CHURNS)
@pytest.mark.parametrize("schedule", cases.SIGNALS, ids=repr)
def test_gaussian_reversals_keep_the_moments_of_normal_data(schedule, churn):
    r"""K_c is linear: d/dt m = -(A m + b), d/dt S = -(A S + S A^T + a) with exact m_t, S_t."""
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    oracle = rv.GaussianData(process, mean, covariance)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for t in (0.2, 0.5, 0.8):
        at = clock(t, 3)
        law = process.reverse(points, at, oracle(points, at).score, churn)
        b, A = law.drift[0], (law.drift[1:] - law.drift[0]).T
        level = schedule.signal(torch.tensor(t, dtype=torch.float64))
        m, S = level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * EYE
        m_dot = level.alpha_dot * mean
        S_dot = 2 * level.alpha * level.alpha_dot * covariance
        S_dot = S_dot + 2 * level.sigma * level.sigma_dot * EYE
        scale = 1 + float(law.drift.abs().max()) * float(S.abs().max())
        torch.testing.assert_close(-(A @ m + b), m_dot, rtol=0, atol=1e-9 * scale)
        spread = A @ S + S @ A.T + torch.diag(law.covariance[0])
        torch.testing.assert_close(-spread, S_dot, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("t", [0.05, 0.2, 0.5, 1.0])
def test_the_heat_kernel_of_the_circle_has_its_characters(t):
    process = rv.Brownian(rv.Torus(1))
    n = 4096
    angle = (torch.arange(n, dtype=torch.float64) / n * 2 - 1)[:, None] * math.pi
    start = torch.full_like(angle, 0.7)
    density = process.kernel(start, clock(t, n)).site_log_prob(angle).exp()
    v = process.schedule.total * t**2
    for k in range(6):
        got = (density * torch.cos(k * (angle - 0.7))).mean()
        assert abs(float(got) - math.exp(-(k**2) * v / 2)) < 1e-11


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6, 1.0])
def test_the_heat_kernel_of_rotations_has_its_characters(t):
    """By Gauss-Legendre quadrature over the angle, whose Haar density is (1 - cos w) / pi."""
    process = rv.Brownian(rv.SO3())
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = torch.as_tensor((nodes + 1) * math.pi / 2)
    share = torch.as_tensor(weights * math.pi / 2) * (1 - angle.cos()) / math.pi
    start = rotations.exp(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)).expand(400, 3, 3)
    axis = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), dim=0)
    x = start @ rotations.exp(angle[:, None] * axis)
    density = process.kernel(start, clock(t, 400)).site_log_prob(x).exp()
    v = process.schedule.total * t**2
    for degree in range(4):
        character = torch.sin((degree + 0.5) * angle) / torch.sin(angle / 2)
        expected = (2 * degree + 1) * math.exp(-degree * (degree + 1) * v / 2)
        assert abs(float((share * density * character).sum()) - expected) < 1e-10


def test_the_ends_of_a_chain_are_products_of_its_kernels():
    process = cases.chain()
    product = torch.eye(4, dtype=torch.float64)
    for k, kernel in enumerate(process.kernels, start=1):
        product = product @ kernel
        for row in range(4):
            x_0 = torch.full((4,), row)
            got = process.kernel(x_0, clock(k / 8, 4)).log_prob(torch.arange(4)).exp()
            torch.testing.assert_close(got, product[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [rv.LinearSurvival(), rv.CosineSurvival()], ids=str)
@pytest.mark.parametrize("s", [0.0, 0.3])
def test_the_short_leap_of_masks_is_bayes_rule(schedule, s):
    """Lifting with probability (alpha_s - alpha_t) / (1 - alpha_t) is the family's blend."""
    process = rv.Mask(rv.Categorical((2, 3)), schedule)
    states = joint_states(process)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(len(states), 2, 3, generator=generator, dtype=torch.float64)
    posterior = rv.Posterior().estimate(process, states, clock(0.8, len(states)), raw).posterior
    at, to = clock(0.8, len(states)), clock(s, len(states))
    short = process.lifted(posterior, states, at, to).law(states)
    whole = process.blended(posterior, states, at, to).law(states)
    assert torch.allclose(short, whole, atol=1e-12)
    assert torch.allclose(short.sum(-1), torch.ones(len(states), 2, dtype=torch.float64))
