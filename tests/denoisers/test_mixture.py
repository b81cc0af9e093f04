r"""The mixture oracle is Bayes' rule: against autograd, one normal law, many atoms, quadrature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.Rectified(), rv.VarianceExploding()]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


WEIGHTS = real(2.0, 1.0, 1.0)
MEANS = real([0.5, -0.3], [-1.2, 0.8], [1.5, 1.0])
COVARIANCES = real([[1.0, 0.6], [0.6, 0.8]], [[0.2, -0.1], [-0.1, 0.3]], [[0.05, 0.0], [0.0, 0.4]])
STATES = real([0.9, 0.2], [-1.1, 0.4], [0.3, -1.6], [2.0, 5.0])


def oracle(schedule: Any = None) -> rv.GaussianMixture:
    return rv.GaussianMixture(rv.Gaussian(rv.Euclidean(2), schedule), WEIGHTS, MEANS, COVARIANCES)


@schedules
@pytest.mark.parametrize(
    "clock", [real(0.2, 0.5, 0.9, 0.4), real([0.4, 0.6], [0.6, 0.35], [0.5, 0.5], [0.2, 0.9])]
)
def test_the_score_is_the_gradient_of_the_log_density(schedule, clock):
    x_t = STATES.clone().requires_grad_()
    gradient = torch.autograd.grad(oracle(schedule).log_prob(x_t, clock).sum(), x_t)[0]
    score = oracle(schedule)(STATES, clock).score
    torch.testing.assert_close(score, gradient, atol=1e-9, rtol=1e-9)


@schedules
def test_one_component_is_gaussian_data(schedule):
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    one = rv.GaussianMixture(process, real(3.0), MEANS[:1], COVARIANCES[:1])
    exact = rv.GaussianData(process, MEANS[0], COVARIANCES[0])
    for t in (
        real(0.2, 0.5, 0.9, 0.4),
        real([0.0, 0.4]).expand(4, 2),
        real([1.0, 0.4]).expand(4, 2),
    ):
        torch.testing.assert_close(one(STATES, t).clean, exact(STATES, t).clean)
        torch.testing.assert_close(one.log_prob(STATES, t), exact.log_prob(STATES, t))
    t = real(0.2, 0.5, 0.9, 0.4)
    torch.testing.assert_close(
        one.last(STATES.flip(0), STATES, t), exact.last(STATES.flip(0), STATES, t)
    )


@schedules
def test_a_tick_is_a_clock_shared_by_all(schedule):
    tick = rv.Grid.uniform(4).ticks()[1]
    by_tick, by_clock = (oracle(schedule)(STATES, t).clean for t in (tick, torch.full((4,), 0.75)))
    torch.testing.assert_close(by_tick, by_clock, rtol=1e-12, atol=1e-12)


@schedules
def test_the_law_of_the_data_noised_is_the_law_at_time_t(schedule):
    """log q_t by quadrature over x_0 of the data density times the kernel, on one entry."""
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    exact = rv.GaussianMixture(process, WEIGHTS, MEANS[:, :1], COVARIANCES[:, :1, 0])
    x_0 = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    density = exact.log_prob(x_0, torch.zeros(len(x_0), dtype=torch.float64)).exp()
    width = float(x_0[1] - x_0[0])
    assert abs(float(density.sum()) * width - 1) < 1e-9
    for t in (0.3, 0.8):
        clock = torch.full((len(x_0),), t, dtype=torch.float64)
        x_t = torch.full_like(x_0, 0.4)
        joint = density * process.kernel(x_0, clock).log_prob(x_t).exp() * width
        torch.testing.assert_close(
            exact.log_prob(x_t[:1], clock[:1]).exp(), joint.sum()[None], rtol=1e-7, atol=0
        )
        mean = (joint @ x_0 / joint.sum())[None]
        torch.testing.assert_close(exact(x_t[:1], clock[:1]).clean, mean, rtol=1e-7, atol=1e-9)


def test_draws_have_the_moments_of_the_mixture():
    """200,000 draws, z-tests of mean and second moments at 1e-4 over five statistics."""
    n = 200_000
    x = oracle().sample(n, torch.Generator().manual_seed(0))
    w = WEIGHTS / WEIGHTS.sum()
    second = (w[:, None, None] * (COVARIANCES + MEANS[:, :, None] * MEANS[:, None])).sum(0)
    drawn = torch.cat([x, x**2, x[:, :1] * x[:, 1:]], 1)
    exact = torch.cat([w @ MEANS, second.diagonal(), second[:1, 1]])
    z = (drawn.mean(0) - exact) / drawn.std(0) * n**0.5
    assert float(z.abs().max()) < 4.3


def test_the_three_shapes_of_covariances_agree_on_images():
    """Isotropic, by entry and full; float32 in, float32 out; an empty batch."""
    process = rv.Gaussian(rv.Euclidean(1, 2, 2))
    means = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    variances = torch.tensor([0.5, 1.0, 2.0])
    forms = [
        variances,
        variances[:, None, None, None].expand(3, 1, 2, 2),
        variances[:, None, None] * torch.eye(4),
    ]
    x_t, t = means + 0.3, torch.tensor([0.2, 0.5, 0.9])
    answers = [rv.GaussianMixture(process, variances, means, form)(x_t, t).clean for form in forms]
    assert all(torch.allclose(answers[0], other, atol=1e-6) for other in answers)
    assert answers[0].dtype == torch.float32 and answers[0].shape == x_t.shape
    one = rv.GaussianMixture(process, variances, means, variances)
    assert one(x_t[:0], t[:0]).clean.shape == (0, 1, 2, 2)
    assert one.posterior(x_t, t).sum(-1).allclose(torch.ones(3))


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "match"),
    [
        (WEIGHTS[:2], MEANS, COVARIANCES, "K weights"),
        (WEIGHTS, MEANS, COVARIANCES.float(), "same dtype"),
        (WEIGHTS, MEANS[:, :1], COVARIANCES, "means"),
        (WEIGHTS, MEANS, -COVARIANCES, "positive definite"),
        (-WEIGHTS, MEANS, COVARIANCES, "weights > 0"),
        (WEIGHTS, MEANS * torch.nan, COVARIANCES, "finite means"),
        (WEIGHTS[:0], MEANS[:0], COVARIANCES[:0], "K weights"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, covariances, match):
    with pytest.raises(rv.SpaceError, match=match):
        rv.GaussianMixture(rv.Gaussian(rv.Euclidean(2)), weights, means, covariances)
