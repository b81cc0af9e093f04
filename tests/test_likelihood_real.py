r"""The bound is tight on real spaces: Gaussian data in the plane, heat mixtures on manifolds.

.. math:: \log p(x_0) = E\big[\log q_1(x_1) - \log q(x_1 | x_0)\big]
   - \int_\epsilon^1 E[\Phi_t \mid x_0] dt + E[\log p(x_0 | x_\epsilon)] .

Expectations are Gauss-Hermite sums in the plane and trapezoidal sums on the circle, and the time
integral is Gauss-Legendre in log t. The integrand is the library's own ``gap``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.core import Denoiser
from reversal.likelihood.bound import _last_time, _reference_integral
from reversal.schedules import Variance, VarianceSchedule

GAUSSIAN = {
    "preserving": rv.VariancePreserving(),
    "half_preserving": rv.VariancePreserving(beta_max=2.0),
    "cosine": rv.Cosine(),
    "rectified": rv.Rectified(),
    "exploding": rv.VarianceExploding(),
}
MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
POINTS = torch.tensor([[0.4, 0.1], [-1.2, 0.9], [2.5, -2.0]], dtype=torch.float64)
schedules = pytest.mark.parametrize("schedule", GAUSSIAN.values(), ids=GAUSSIAN)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def legendre(nodes: int, low: float = 0.0, high: float = 1.0) -> list[tuple[float, float]]:
    x, w = np.polynomial.legendre.leggauss(nodes)
    half = (high - low) / 2
    return [(low + half * (1 + a), half * b) for a, b in zip(x.tolist(), w.tolist(), strict=True)]


def hermite(x_0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every x_0 with 3 x 3 noises and their weights: exact for what is quadratic in the noise."""
    root = 3**0.5
    nodes = torch.tensor([-root, 0.0, root], dtype=torch.float64)
    masses = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    noise = torch.cartesian_prod(nodes, nodes)
    weights = torch.cartesian_prod(masses, masses).prod(1)
    return x_0.repeat_interleave(9, 0), noise.repeat(len(x_0), 1), weights


@final
class GaussianBound:
    """ELBO plus prior gap for Gaussian data, term by term, as expectations given x_0."""

    def __init__(self, schedule: Any) -> None:
        self.process = rv.Gaussian(rv.Euclidean(2), schedule)
        self.denoiser = rv.GaussianData(self.process, MEAN, COVARIANCE)

    def expect(self, t: float, value: Any) -> Tensor:
        """E[value(x_0, x_t, t) | x_0]."""
        ends, noise, weights = hermite(POINTS)
        clock = torch.full((len(ends),), t, dtype=torch.float64)
        signal = self.process.schedule.signal(clock)
        x_t = signal.alpha[:, None] * ends + signal.sigma[:, None] * noise
        return value(ends, x_t, clock).view(len(POINTS), 9) @ weights

    def rate(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        target = self.process.kernel(x_0, t).score(x_t)
        gap = self.process.forward(x_t, t).gap(self.denoiser(x_t, t).score, target)
        return gap.sum(1)

    def first(self, x_0: Tensor, x_1: Tensor, one: Tensor) -> Tensor:
        conditional = self.process.kernel(x_0, one).log_prob(x_1)
        return self.denoiser.log_prob(x_1, one) - conditional

    def before_last(self, eps: float) -> Tensor:
        """All but the last step, with time on a logarithmic scale."""
        nodes = [(math.exp(v), w) for v, w in legendre(120, math.log(eps), 0.0)]
        return self.expect(1.0, self.first) - sum(
            t * w * self.expect(t, self.rate) for t, w in nodes
        )

    def around_mean(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The usual last step, around the clean estimate."""
        return self.process.around(self.denoiser(x_t, t).clean, t).log_prob(x_0)

    def around_state(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The usual last step without a denoiser, around x / alpha."""
        alpha = self.process.schedule.signal(t).alpha[:, None]
        return self.process.around(x_t / alpha, t).log_prob(x_0)


def log_density(x: Tensor) -> Tensor:
    return torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(x)


@schedules
@pytest.mark.parametrize("eps", [1e-4, 1e-2, 0.1, 0.5])
def test_gaussian_bound_with_the_exact_last_step_is_the_log_likelihood_at_any_last_time(
    schedule, eps
):
    bound = GaussianBound(schedule)
    value = bound.before_last(eps) + bound.expect(eps, bound.denoiser.last)
    torch.testing.assert_close(value, log_density(POINTS), atol=1e-7, rtol=0)


@schedules
def test_gap_of_the_usual_last_step_has_the_order_of_its_center(schedule):
    """Order (sigma/alpha)^2 around x/alpha, and (sigma/alpha)^4 around the clean estimate."""
    bound = GaussianBound(schedule)
    fine = torch.linspace(1e-6, 0.5, 200_001, dtype=torch.float64)
    signal = schedule.signal(fine)
    levels = torch.tensor([0.02, 0.04], dtype=torch.float64)
    times = fine[torch.searchsorted(signal.sigma / signal.alpha, levels)]
    at = schedule.signal(times)
    square = ((at.sigma / at.alpha) ** 2).log()
    for last, order in ((bound.around_state, 1), (bound.around_mean, 2)):
        gaps = [
            bound.expect(t, bound.denoiser.last) - bound.expect(t, last) for t in times.tolist()
        ]
        slope = (gaps[1].abs().log() - gaps[0].abs().log()) / (square[1] - square[0])
        torch.testing.assert_close(slope, torch.full_like(slope, order), atol=0.1, rtol=0)


@schedules
def test_elbo_of_gaussian_data_with_either_last_step_is_within_four_standard_errors(schedule):
    bound = GaussianBound(schedule)
    copies = POINTS.repeat(256, 1)
    prior = bound.process.prior.log_prob
    gap = bound.expect(1.0, lambda x, x_1, one: bound.denoiser.log_prob(x_1, one) - prior(x_1))
    for eps, last in ((1e-2, bound.denoiser.last), (1e-3, None)):
        result = rv.elbo(bound.denoiser, copies, generator=seeded(4), last_time=eps, last=last)
        value = result.value.view(256, 3).mean(0) + gap
        stderr = (result.stderr.view(256, 3) ** 2).mean(0).sqrt() / 16
        assert ((value - log_density(POINTS)).abs() < 4 * stderr).all()
        assert stderr.max() < 0.4


@final
@dataclass(frozen=True)
class Shifted(VarianceSchedule):
    """The default operational time, started at ``first``: atoms become heat kernels."""

    first: float

    def variance(self, t: Tensor) -> Variance:
        """first + 9 t^2."""
        return Variance(self.first + 9 * t**2, 18 * t)


@final
class HeatMixture(Denoiser):
    """The exact denoiser of a mixture of heat kernels at operational time ``first``."""

    def __init__(self, space: Any, atoms: Tensor, weights: Tensor, first: float = 0.3) -> None:
        super().__init__()
        self.process = rv.Brownian(space)
        self.later = rv.Empirical(rv.Brownian(space, Shifted(first)), atoms, weights)
        self.clocks = self.later.clocks

    @property
    def like(self) -> Tensor:
        return self.later.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> rv.Estimate:
        return rv.Estimate(self.process, x_t, t, rv.Kind.SCORE, self.later(x_t, t).score)

    def log_prob(self, x_t: Tensor, t: float) -> Tensor:
        """log q_t."""
        count = len(self.later.atoms)
        clock = torch.full((len(x_t) * count,), t, dtype=torch.float64)
        atoms = self.later.atoms.repeat(len(x_t), *[1] * (x_t.ndim - 1))
        kernel = self.later.process.kernel(atoms, clock)
        logs = kernel.log_prob(x_t.repeat_interleave(count, 0)).view(len(x_t), count)
        return (logs + self.later.log_weights).logsumexp(1)


ANGLES = torch.tensor([[-2.0], [0.2], [1.1]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def test_bound_on_the_circle_plus_prior_gap_is_the_log_density():
    """Expectations over x_t by the trapezoidal rule, which is spectral on the circle."""
    denoiser = HeatMixture(rv.Torus(1), ANGLES, WEIGHTS)
    process, eps, points = denoiser.process, 0.02, 800
    circle = torch.linspace(-math.pi, math.pi, points + 1, dtype=torch.float64)[:-1, None]
    x_0 = torch.tensor([[0.0], [2.5], [-2.0]], dtype=torch.float64)

    def expect(t: float, value: Any) -> Tensor:
        clock = torch.full((len(x_0) * points,), t, dtype=torch.float64)
        kernel = process.kernel(x_0.repeat_interleave(points, 0), clock)
        x_t = circle.repeat(len(x_0), 1)
        weight = kernel.log_prob(x_t).exp() / points
        return (weight * value(kernel, x_t, clock)).view(len(x_0), points).sum(1)

    def rate(kernel: Any, x_t: Tensor, clock: Tensor) -> Tensor:
        score = denoiser(circle, clock[:points]).score.repeat(len(x_0), 1)
        return process.forward(x_t, clock).gap(score, kernel.score(x_t)).sum(1)

    def change(t: float) -> Tensor:
        """E[log q_t(x_t) - log q(x_t | x_0)]: minus this is the exact last step's surprise."""
        return expect(t, lambda kernel, x, _: denoiser.log_prob(x, t) - kernel.log_prob(x))

    nodes = [(math.exp(v), w) for v, w in legendre(60, math.log(eps), 0.0)]
    bound = change(1.0) - sum(t * w * expect(t, rate) for t, w in nodes)
    bound = bound + denoiser.log_prob(x_0, 0.0) - change(eps)
    torch.testing.assert_close(bound, denoiser.log_prob(x_0, 0.0), atol=1e-6, rtol=0)


def rotations(count: int) -> Tensor:
    prior = rv.Brownian(rv.SO3()).prior
    return prior.sample(count, seeded(5), torch.empty((), dtype=torch.float64))


@pytest.mark.parametrize("space", [rv.Torus(1), rv.SO3()], ids=["torus", "rotations"])
def test_elbo_on_a_manifold_is_below_the_log_density_and_close(space):
    atoms = ANGLES if isinstance(space, rv.Torus) else rotations(3)
    denoiser = HeatMixture(space, atoms, WEIGHTS)
    x = denoiser.process.kernel(atoms, torch.full((3,), 0.2, dtype=torch.float64)).sample(seeded(6))
    copies = x.repeat(64, *[1] * (x.ndim - 1))
    result = rv.elbo(denoiser, copies, generator=seeded(7), last_time=0.01)
    value = result.value.view(64, 3).mean(0)
    stderr = (result.stderr.view(64, 3) ** 2).mean(0).sqrt() / 8
    truth = denoiser.log_prob(x, 0.0)
    assert (value < truth + 4 * stderr).all()
    assert (value > truth - 4 * stderr - 0.01).all()
    assert stderr.max() < 0.4
    assert result.measure == "uniform probability"


@pytest.mark.parametrize("eps", [1e-3, 1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("schedule", [rv.Cosine(), rv.Cosine(exponent=2.0)], ids=str)
def test_the_integral_of_the_control_variate_keeps_its_digits(schedule, eps):
    """Half of [log(s / (1 + s)) + 1 / (1 + s)] and of -x^2 / (1 + s), s = tan(theta t^p)^2."""
    x = torch.tensor([[0.0, 1.5]], dtype=torch.float64)
    found = _reference_integral(
        rv.Gaussian(rv.Euclidean(2), schedule), x, torch.tensor([eps], dtype=torch.float64)
    )
    theta = math.acos(schedule.last_alpha)
    low, high = (math.tan(theta * t**schedule.exponent) ** 2 for t in (eps, 1.0))
    logs = [math.log(s) - math.log1p(s) for s in (low, high)]
    gone = high / (1 + high) - low / (1 + low)
    exact = (logs[1] - logs[0] - gone) / 2 + gone / 2 * x**2
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=0)


def test_the_default_last_time_is_no_noise_below_rounding():
    """At the default epsilon sigma / alpha is about 1e-3 under every schedule, never 1e-6."""
    for schedule in (rv.Cosine(), rv.Cosine(exponent=2.0), rv.Rectified(), rv.VariancePreserving()):
        eps = _last_time(rv.Gaussian(rv.Euclidean(2), schedule))
        signal = schedule.signal(torch.tensor(eps, dtype=torch.float64))
        assert 9e-4 <= float(signal.sigma / signal.alpha) < 0.02
    assert _last_time(rv.Gaussian(rv.Euclidean(2), rv.Cosine())) == 1e-3
    assert _last_time(rv.Mask(rv.Categorical(3))) == 0.0
