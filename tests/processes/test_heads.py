r"""One network with a velocity and a noise head: the flow and every churn have the same marginals.

With independent normal ends and :math:`C_t = (1 - t)^2 S_0 + t^2 S_1 + \sigma_t^2` both heads are
affine: :math:`E[z | x] = \sigma_t C_t^{-1} (x - m_t)` and

.. math:: u_t = m_1 - m_0
   + \big(t S_1 - (1 - t) S_0 + \tfrac{\gamma^2}{2} (1 - 2t)\big) C_t^{-1} (x - m_t) .
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

PLANE = rv.Euclidean(2)
M_0, M_1 = torch.tensor([[0.5, -1.0], [-0.3, 0.4]], dtype=torch.float64)
S_0 = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
S_1 = torch.tensor([[0.5, -0.2], [-0.2, 1.2]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
NOISES = [(0.8, 0.0), (0.8, 0.1), (0.0, 0.3)]
noises = pytest.mark.parametrize(("gamma", "least"), NOISES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Normal(rv.core.Prior):
    """The law of x_1."""

    def sample(self, n: int, generator: Any = None, like: Tensor | None = None) -> Tensor:
        z = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return M_1 + z @ torch.linalg.cholesky(S_1).T

    def site_log_prob(self, x: Tensor) -> Tensor:
        whole = torch.distributions.MultivariateNormal(M_1, S_1).log_prob(x)
        return whole[:, None].expand_as(x) / 2


def marginal(t: Tensor, gamma: float, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and the variance of z's term, at times ``(B,)``."""
    at = t[:, None, None]
    variance = gamma**2 * at * (1 - at) + least**2
    covariance = (1 - at) ** 2 * S_0 + at**2 * S_1 + variance * EYE
    return (1 - t[:, None]) * M_0 + t[:, None] * M_1, covariance, variance


@dataclass(frozen=True)
class Exact:
    """Both heads in closed form, ``(B, 2, 2)``."""

    gamma: float
    least: float

    def __call__(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        at = t.double()
        mean, covariance, variance = marginal(at, self.gamma, self.least)
        solved = torch.linalg.solve(covariance, (x - mean)[..., None])
        at = at[:, None, None]
        slope = at * S_1 - (1 - at) * S_0 + self.gamma**2 / 2 * (1 - 2 * at) * EYE
        velocity = M_1 - M_0 + (slope @ solved).squeeze(-1)
        return torch.stack([velocity, (variance.sqrt() * solved).squeeze(-1)], 1)


def denoiser(gamma: float, least: float, how: Any = None) -> rv.NetworkDenoiser:
    path = rv.Interpolant(PLANE, rv.Unpaired(Normal()), gamma, least)
    return rv.NetworkDenoiser(Exact(gamma, least), path, how or rv.Heads())


@noises
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 2.0])
def test_every_churn_keeps_the_moments(gamma, least, churn):
    r"""With drift A x + b and covariance a: -(A m + b) = dm/dt, -(A S + S A^T + a) = dS/dt."""
    exact = denoiser(gamma, least)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for time in (0.1, 0.5, 0.9):
        t, s = (torch.full((3,), v, dtype=torch.float64) for v in (time, time - 0.01))
        law = exact.process.mixed(points, t, s, exact(points, t), churn)
        b, A = law.drift[0] / 0.01, (law.drift[1:] - law.drift[0]).T / 0.01
        mean, S, _ = (part[0] for part in marginal(t, gamma, least))
        spread = law.covariance.expand(3, 2)[0] / 0.01
        torch.testing.assert_close(-(A @ mean + b), M_1 - M_0, rtol=0, atol=1e-9)
        S_dot = -2 * (1 - time) * S_0 + 2 * time * S_1 + gamma**2 * (1 - 2 * time) * EYE
        got = -(A @ S + S @ A.T + torch.diag(spread))
        torch.testing.assert_close(got, S_dot, rtol=0, atol=1e-9)
        assert (float(spread.max()) > 0) == (churn > 0)


@noises
def test_the_second_head_is_the_score(gamma, least):
    """The gradient of the log-density of the marginal, by automatic differentiation."""
    exact = denoiser(gamma, least)
    x = torch.randn(5, 2, dtype=torch.float64, generator=seeded()).requires_grad_()
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    mean, covariance, _ = marginal(t, gamma, least)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    for estimate in (exact(x, t), exact(x, t).to(rv.Kind.SCORE), exact(x, t).to(rv.Velocity())):
        torch.testing.assert_close(estimate.score, gradient, rtol=1e-9, atol=1e-12)
        assert estimate.velocity is exact(x, t).velocity or estimate.velocity.shape == x.shape
    one = rv.NetworkDenoiser(lambda x, t, cond: x, exact.process, rv.Velocity())
    with pytest.raises(rv.CapabilityError, match="Train a denoiser that outputs score"):
        _ = one(x, t).score


@noises
def test_the_heads_are_what_the_loss_is_least_at(gamma, least):
    """Least squares on points with the moments of (x_0, x_1, z) finds both, to 1e-10."""
    path = denoiser(gamma, least).process
    signs = torch.cat([torch.eye(6), -torch.eye(6)]).double() * 6**0.5
    x_0 = M_0 + signs[:, :2] @ torch.linalg.cholesky(S_0).T
    x_1 = M_1 + signs[:, 2:4] @ torch.linalg.cholesky(S_1).T
    for time in (0.2, 0.7):
        t = torch.full((12,), time, dtype=torch.float64)
        kernel = path.kernel(x_0, t, x_1)
        x_t = kernel.mean + kernel.std * signs[:, 4:]
        wanted = Exact(gamma, least)(x_t, t, None)
        design = torch.cat([x_t, torch.ones(12, 1, dtype=torch.float64)], 1)
        for head, kind in enumerate((rv.Kind.VELOCITY, rv.Kind.NOISE)):
            fit = torch.linalg.lstsq(design, kernel.target(kind, x_t)).solution
            torch.testing.assert_close(design @ fit, wanted[:, head], rtol=0, atol=1e-10)


def test_the_loss_is_the_sum_of_two_regressions():
    """On the same draws, to 1e-12."""
    both = denoiser(0.8, 0.1)
    x_0 = torch.randn(40, 2, dtype=torch.float64, generator=seeded())
    parts = []
    for head, how in enumerate((rv.Velocity(), rv.Noise())):

        def network(x: Tensor, t: Tensor, cond: Any, head: int = head) -> Tensor:
            return both.network(x, t, cond)[:, head]

        alone = rv.NetworkDenoiser(network, both.process, how)
        parts.append(rv.Regression()(alone, x_0, generator=seeded(1)))
    got = rv.Regression()(both, x_0, generator=seeded(1))
    torch.testing.assert_close(got, sum(parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "sampler",
    [rv.Euler(0.0), rv.Euler(1.0), rv.Euler(2.0), rv.Heun(), rv.Adaptive()],
    ids=lambda s: str(s),
)
def test_flow_and_diffusion_draw_the_data(sampler):
    """20,000 draws: moments within 4.5 standard errors and Euler's own error, of order 1/N."""
    exact, n = denoiser(0.8, 0.1), 20_000
    drawn = sampler.sample(exact, n, steps=100, generator=seeded(2))
    slack = 0.02 if isinstance(sampler, rv.Euler) else 1e-3
    target = S_0 + 0.01 * EYE
    assert float((drawn.mean(0) - M_0).abs().max()) < 4.5 / n**0.5 + slack
    assert float((torch.cov(drawn.T) - target).abs().max()) < 4.5 * 1.5 / n**0.5 + slack


def test_euler_is_of_order_one_under_churn():
    """The law after N steps is normal; its covariance errs half as much at twice the steps."""
    exact = denoiser(0.8, 0.1)

    def error(steps: int) -> float:
        mean, S, _ = (part[0] for part in marginal(torch.ones(1).double(), 0.8, 0.1))
        points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        for k in range(steps, 0, -1):
            t, s = (torch.full((3,), v / steps, dtype=torch.float64) for v in (k, k - 1))
            law = exact.process.mixed(points, t, s, exact(points, t), 1.0)
            b, A = law.drift[0], EYE + (law.drift[1:] - law.drift[0]).T
            spread = torch.diag(law.covariance.expand(3, 2)[0])
            mean, S = A @ mean + b, A @ S @ A.T + spread
        return float((S - S_0 - 0.01 * EYE).abs().max())

    assert error(80) / error(160) == pytest.approx(2, abs=0.2)


def test_the_heads_have_a_likelihood_and_guidance_keeps_both():
    """log p of data with the noise that stays, to 1e-4; half of two equal estimates is both."""
    exact = denoiser(0.8, 0.1)
    x = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    law = torch.distributions.MultivariateNormal(M_0, S_0 + 0.01 * EYE)
    # The prior of the path is the law of x_1; with sigma_min there is a bit more of it.
    start = torch.distributions.MultivariateNormal(M_1, S_1 + 0.01 * EYE)
    found = rv.flow_log_prob(exact, x, prior=start.log_prob)
    torch.testing.assert_close(found.value, law.log_prob(x), rtol=0, atol=1e-4)
    guided = rv.ClassifierFree(exact, 1.7)
    t = torch.full((4,), 0.3, dtype=torch.float64)
    cond = torch.zeros(4, 1)
    for kind in (rv.Kind.VELOCITY, rv.Kind.SCORE):
        got, own = (each(x, t, cond).read(kind) for each in (guided, exact))
        torch.testing.assert_close(got, own, rtol=1e-9, atol=1e-12)


def test_what_has_no_two_heads_is_refused():
    plain = rv.Interpolant(PLANE, rv.Unpaired(Normal()))
    with pytest.raises(rv.CapabilityError, match=r"Euler\(churn=0\)"):
        rv.Euler(1.0).check(plain)
    one = rv.NetworkDenoiser(lambda x, t, cond: x, denoiser(0.8, 0.1).process, rv.Velocity())
    with pytest.raises(rv.CapabilityError, match="Train a denoiser that outputs noise"):
        rv.Euler(1.0).sample(one, 3, steps=2, generator=seeded())
    for pair in ((rv.Velocity(), rv.Velocity()), (rv.Score(), rv.Noise())):
        with pytest.raises(rv.CapabilityError, match="two different ones"):
            rv.Heads(*pair)
    wrong = rv.NetworkDenoiser(lambda x, t, cond: x, denoiser(0.8, 0.1).process, rv.Heads())
    with pytest.raises(rv.SpaceError, match=r"\(3, 2, 2\)"):
        wrong(torch.zeros(3, 2), torch.full((3,), 0.5))
    with pytest.raises(rv.CapabilityError, match="Leave out the weighting"):
        x_0 = torch.zeros(3, 2, dtype=torch.float64)
        rv.Regression(weighting=rv.MinSNR())(denoiser(0.8, 0.1), x_0, generator=seeded())
    none = rv.Euler(1.0).sample(denoiser(0.8, 0.0), 0, steps=2, generator=seeded())
    assert none.shape == (0, 2)
