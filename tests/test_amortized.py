r"""Amortized inference against a conjugate model whose posterior is known.

theta ~ N(0, P), xi | theta ~ N(A theta, S): theta | xi ~ N(G xi, C) with
:math:`C = (P^{-1} + A^T S^{-1} A)^{-1}` and :math:`G = C A^T S^{-1}`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import reversal as rv
from reversal.networks import Whitening
from reversal.networks.evidence import RIDGE
from reversal.testing.statistics import require_mean

DOUBLE = torch.float64
P = torch.tensor([[1.0, 0.3], [0.3, 0.6]], dtype=DOUBLE)
A = torch.tensor([[1.0, 0.5], [0.0, 1.0], [0.7, -1.0]], dtype=DOUBLE)
S = torch.diag(torch.tensor([0.5, 0.3, 0.8], dtype=DOUBLE))
C = (P.inverse() + A.T @ S.inverse() @ A).inverse()
G = C @ A.T @ S.inverse()
XI = torch.tensor([0.8, -0.5, 1.2], dtype=DOUBLE)
PROCESS = rv.Gaussian(rv.Euclidean(2))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simulated(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Parameters of the prior and what the simulator makes of them."""
    normal = torch.randn(num, 5, generator=seeded(seed), dtype=DOUBLE)
    theta = normal[:, :2] @ torch.linalg.cholesky(P).T
    return theta, theta @ A.T + normal[:, 2:] @ S.sqrt()


def exact() -> rv.NetworkDenoiser:
    """The conditional denoiser in closed form, as a network that takes the evidence."""
    centered = rv.GaussianData(PROCESS, torch.zeros(2, dtype=DOUBLE), C)

    def network(x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        mean = cond @ G.T
        alpha = PROCESS.schedule.signal(t).alpha[:, None]
        return mean + centered(x_t - alpha * mean, t).clean

    return rv.NetworkDenoiser(network, PROCESS, rv.Clean())


def require_posterior(drawn: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """z-tests of the five first and second moments, each at its share of 1e-4."""
    apart = drawn - mean
    pairs = torch.stack([apart[:, i] * apart[:, j] for i, j in ((0, 0), (0, 1), (1, 1))], 1)
    moments = torch.cat([apart, pairs - covariance[[0, 0, 1], [0, 1, 1]]], 1)
    require_mean(moments, 0.0, of="the posterior's moments", rate=1e-4)


def test_the_conditional_reversal_draws_from_the_posterior():
    drawn = rv.Heun().sample(exact(), 20_000, steps=60, cond=XI[None], generator=seeded(0))
    require_posterior(drawn, G @ XI, C)


def test_evidence_beside_every_item_is_that_items_own():
    evidence = torch.stack([XI, -2 * XI]).repeat(10_000, 1)
    drawn = rv.Heun().sample(exact(), 20_000, steps=60, cond=evidence, generator=seeded(0))
    for first, scale in ((0, 1.0), (1, -2.0)):
        require_posterior(drawn[first::2], scale * (G @ XI), C)


def test_the_joint_law_with_the_evidence_known_is_the_same_posterior():
    """Two ways to condition, one answer: `cond`, and a site that stands known."""
    cross = P @ A.T
    joint = torch.cat([torch.cat([P, cross], 1), torch.cat([cross.T, A @ cross + S], 1)])
    process = rv.Gaussian(rv.Euclidean(5))
    denoiser = rv.GaussianData(process, torch.zeros(5, dtype=DOUBLE), joint)
    known = torch.tensor([False, False, True, True, True])
    values = torch.cat([torch.zeros(2, dtype=DOUBLE), XI])
    x_t = torch.randn(64, 2, generator=seeded(0), dtype=DOUBLE)
    t = torch.linspace(0.05, 0.95, 64, dtype=DOUBLE)
    clock = torch.where(known, 0.0, t[:, None])
    inside = denoiser(torch.cat([x_t, XI.expand(64, -1)], 1), clock).clean[:, :2]
    torch.testing.assert_close(inside, exact()(x_t, t, XI.expand(64, -1)).clean, rtol=0, atol=1e-10)
    drawn = rv.Heun().sample(denoiser, 20_000, steps=60, given=(values, known), generator=seeded(0))
    require_posterior(drawn[:, :2], G @ XI, C)


def test_the_conditional_bound_is_the_posterior_density_less_the_measured_gap():
    """With the exact denoiser and last step the gap is the prior's, E log q_1 - log p_prior."""
    theta, evidence = simulated(50, 3)
    centered = rv.GaussianData(PROCESS, torch.zeros(2, dtype=DOUBLE), C)
    mean = evidence @ G.T

    def last(x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        alpha = PROCESS.schedule.signal(t).alpha[:, None]
        return centered.last(x_0 - mean, x_t - alpha * mean, t)

    found = rv.elbo(exact(), theta, cond=evidence, num_samples=400, last=last, generator=seeded(0))
    log_prob = MultivariateNormal(torch.zeros(2, dtype=DOUBLE), C).log_prob(theta - mean)
    one = torch.ones(50, dtype=DOUBLE)
    x_1 = [PROCESS.kernel(theta, one).sample(seeded(k)) for k in range(200)]
    alpha = PROCESS.schedule.signal(one).alpha[:, None]
    gap = torch.stack(
        [centered.log_prob(x - alpha * mean, one) - PROCESS.prior.log_prob(x) for x in x_1]
    ).mean(0)
    z = (found.value + gap - log_prob) / found.stderr
    assert z.abs().max() < 5
    assert abs(z.mean()) * 50**0.5 < 3.9
    assert gap.mean() > 0
    assert (found.value <= log_prob + 5 * found.stderr).all()


def divergence(drawn: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """KL of the normal law with the moments of draws from the posterior, in nats."""
    own, apart = torch.cov(drawn.T), drawn.mean(0) - mean
    ratio = torch.linalg.solve(covariance, own)
    shift = apart @ torch.linalg.solve(covariance, apart)
    return float((ratio.trace() + shift - len(mean) - torch.logdet(ratio)) / 2)


@pytest.fixture(scope="module")
def fitted() -> rv.AmortizedPosterior:
    posterior = rv.AmortizedPosterior(
        steps=400, hidden_features=48, num_blocks=2, show_progress=False
    )
    return posterior.fit(*simulated(20_000, 0))


def test_a_small_network_comes_within_five_hundredths_of_a_nat(fitted):
    """On average over ten evidences; 2,000 draws alone come to about 0.001."""
    _, evidence = simulated(10, 1)
    drawn = fitted.sample(2000, evidence, seed=0, steps=30)
    found = [divergence(drawn[:, i], G @ row, C) for i, row in enumerate(evidence)]
    assert sum(found) / 10 < 0.05
    assert divergence(drawn[:, 0], G @ -evidence[0], C) > 0.2


def test_the_bound_of_a_network_is_below_the_density_and_near_it(fitted):
    theta, evidence = simulated(200, 2)
    found = fitted.log_prob(theta, evidence, num_samples=64)
    truth = MultivariateNormal(torch.zeros(2, dtype=DOUBLE), C).log_prob(theta - evidence @ G.T)
    gap = truth - found.value
    error = gap.std() / 200**0.5
    assert -3.9 * error < gap.mean() < 0.1
    assert found.kind == "lower bound"


def test_draws_never_leave_the_box_and_the_bound_is_a_density_on_it():
    r"""xi = theta + noise, theta uniform on [2, 6]: a truncated normal, near the edge."""
    random = seeded(0)
    theta = 2 + 4 * torch.rand(20_000, 1, generator=random)
    evidence = theta + 0.5 * torch.randn(20_000, 1, generator=random)
    posterior = rv.AmortizedPosterior(
        rv.Box([2.0], [6.0]), steps=400, hidden_features=48, num_blocks=2, show_progress=False
    ).fit(theta, evidence)
    drawn = posterior.sample(4000, torch.tensor([2.1]), seed=0)
    assert ((drawn >= 2) & (drawn <= 6)).all()
    grid = torch.linspace(2, 6, 20_001, dtype=DOUBLE)
    weight = torch.exp(-((grid - 2.1) ** 2) / 0.5)
    weight /= torch.trapezoid(weight, grid)
    mean = float(torch.trapezoid(grid * weight, grid))
    assert abs(float(drawn.mean()) - mean) < 0.04
    inner = torch.linspace(2.002, 5.998, 200, dtype=DOUBLE)[:, None]
    bound = posterior.log_prob(inner, torch.tensor([2.1]), num_samples=64).value
    mass = float(torch.trapezoid(bound.exp(), inner[:, 0]))
    assert 0.85 < mass < 1.03
    assert posterior.log_prob(torch.tensor([[6.5]]), torch.tensor([2.1])).value == -math.inf


def test_a_posterior_of_two_modes_is_more_than_the_normal_law():
    """xi = theta^2 + noise: both roots, against quadrature, and the normal law sees neither."""
    random = seeded(0)
    theta = torch.randn(20_000, 1, generator=random)
    evidence = theta**2 + 0.3 * torch.randn(20_000, 1, generator=random)
    posterior = rv.AmortizedPosterior(
        steps=800, normal_steps=100, hidden_features=48, num_blocks=2, show_progress=False
    ).fit(theta, evidence)
    drawn = posterior.sample(4000, torch.tensor([1.5]), seed=0)[:, 0]
    grid = torch.linspace(-4, 4, 8001, dtype=DOUBLE)
    weight = torch.exp(-(grid**2) / 2 - (1.5 - grid**2) ** 2 / (2 * 0.3**2))
    law = weight.cumsum(0) / weight.sum()
    shares = (drawn[:, None] < grid[::40]).double().mean(0)
    assert (shares - law[::40]).abs().max() < 0.08
    mean, factor = posterior.normal_(torch.tensor([[1.5]]))
    normal = torch.special.ndtr((grid - mean.item()) / factor.item())
    assert (normal - law).abs().max() > 0.15


def test_whitened_evidence_has_the_variances_of_its_ridge():
    """lambda / (lambda + rho) along each direction; an entry that never varies says nothing."""
    mixing = torch.tensor([[1.0, 50.0], [0.0, 20.0]])
    sample = torch.randn(5000, 2, generator=seeded(0)) @ mixing
    sample = torch.cat([sample, torch.full((5000, 1), 7.0)], 1)
    whitening = Whitening(3)
    whitening.take(sample)
    found = torch.cov(whitening(sample).T, correction=0)
    values = torch.linalg.eigvalsh(torch.corrcoef(sample[:, :2].T))
    wanted = torch.cat([torch.zeros(1), values / (values + RIDGE)])
    torch.testing.assert_close(found, wanted.diag(), rtol=0, atol=1e-4)


def test_a_uniform_prior_becomes_standard_normal_and_the_slope_is_the_derivative():
    box = rv.Box([-1.0, 2.0], [3.0, 2.5])
    theta = torch.tensor([[0.1, 2.4], [2.9, 2.01]], dtype=DOUBLE, requires_grad=True)
    z = box.to_real(theta)
    torch.testing.assert_close(box.from_real(z), theta, rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(z.sum(), theta)
    torch.testing.assert_close(box.log_slope(theta), slope.log().sum(1), rtol=0, atol=1e-10)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + box.log_slope(theta)
    torch.testing.assert_close(density, torch.full_like(density, -math.log(4 * 0.5)))


def test_a_box_is_closed_and_far_draws_stay_in_it():
    box = rv.Box([0.0], [0.1])
    far = torch.tensor([[-50.0], [50.0], [8.5]], dtype=DOUBLE)
    assert box.contains(box.from_real(far)).all()
    assert box.to_real(torch.tensor([[0.0], [0.1]], dtype=DOUBLE)).isfinite().all()
    assert not box.contains(torch.tensor([[-1e-9], [0.1001], [math.nan]])).any()


def test_the_same_seed_gives_the_same_draws_and_rows_keep_their_place(fitted):
    one = fitted.sample(3, XI, seed=1, steps=5)
    assert one.shape == (3, 2)
    assert torch.equal(one, fitted.sample(3, XI[None], seed=1, steps=5)[:, 0])
    single = fitted.sample(3, XI.float(), seed=1, steps=5)
    torch.testing.assert_close(one, single, rtol=0, atol=1e-5)
    assert torch.equal(one, fitted.sample(3, XI.numpy(), seed=1, steps=5))
    assert fitted.sample(0, XI).shape == (0, 2)
    assert fitted.sample(3, XI[:0].reshape(0, 3)).shape == (3, 0, 2)


@pytest.mark.parametrize(
    ("theta", "evidence", "sentence"),
    [
        (torch.zeros(40, 2), torch.zeros(30, 1), "Give one row per simulation"),
        (torch.zeros(40), torch.zeros(40, 1), "Give one row per simulation"),
        (torch.ones(1, 2), torch.ones(1, 1), "N >= 10 simulations"),
        (torch.zeros(40, 0), torch.zeros(40, 1), r"parameters \(N, d\)"),
        (torch.eye(40, 2), torch.full((40, 1), math.inf), "write NaN where"),
        (torch.full((40, 2), math.nan), torch.ones(40, 1), "40 rows of parameters that are not"),
        (torch.zeros(40, 2), torch.eye(40, 1), "Expected parameters that vary"),
        (torch.ones(40, 2, dtype=torch.int64), torch.ones(40, 1), "may be categories"),
        (np.ones((40, 2), int), torch.ones(40, 1), "may be categories"),
        (np.full((40, 1), "a"), torch.ones(40, 1), "array or a tensor of numbers"),
        (torch.eye(40, 2), torch.ones(40, 1) * 1j, "real and imaginary parts"),
    ],
)
def test_simulations_that_cannot_be_learned_are_refused(theta, evidence, sentence):
    with pytest.raises(rv.DataError, match=sentence):
        rv.AmortizedPosterior().fit(theta, evidence)


def test_questions_that_were_not_learned_are_refused(fitted):
    with pytest.raises(rv.NotFittedError, match="never fitted"):
        rv.AmortizedPosterior().sample(1, XI)
    with pytest.raises(rv.DataError, match="evidence of length 3"):
        fitted.sample(1, XI[:2])
    for odd in (math.nan, math.inf):
        with pytest.raises(rv.DataError, match="Expected finite evidence"):
            fitted.sample(1, torch.full((3,), odd))
    with pytest.raises(rv.DataError, match="Expected parameters that are numbers"):
        fitted.log_prob(torch.full((1, 2), math.nan), XI)
    with pytest.raises(rv.DataError, match=r"Expected parameters \(B, 2\)"):
        fitted.log_prob(torch.zeros(4, 3), XI)
    with pytest.raises(rv.DataError, match="Expected parameters inside"):
        rv.AmortizedPosterior(rv.Box([0, 0], [1, 1])).fit(*simulated(20, 0))
    with pytest.raises(rv.DataError, match="Expected 1 parameters"):
        rv.AmortizedPosterior(rv.Box([-9.0], [9.0])).fit(*simulated(20, 0))
    with pytest.raises(rv.DataError, match="near what was simulated"):
        fitted.sample(1, 1e35 * XI)
    with pytest.raises(rv.DataError, match="steps >= 1, got steps=0"):
        rv.AmortizedPosterior(steps=0, show_progress=False).fit(*simulated(20, 0))
    with pytest.raises(rv.DataError, match="low < high"):
        rv.Box([0.0, 1.0], [1.0, 1.0])
    with pytest.raises(rv.DataError, match="low < high"):
        rv.Box([0.0], [1.0, 2.0])
