r"""Signal schedules against closed forms, one another, and the linear equations that define them.

.. math:: \frac{d\sigma^2}{dt} = 2 f \sigma^2 + g^2, \qquad f = \frac{d \log \alpha}{dt} .
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.integrate import quad

import reversal as rv
from tests.cases import SIGNALS

TIMES = torch.tensor([1e-4, 0.03, 0.2, 0.5, 0.83, 0.995], dtype=torch.float64)
SCHEDULES = [*SIGNALS, rv.Betas.linear(7, 0.05, 0.9)]
"""That of DDPM has jumps in its rate, which the quadrature of the generic checks does not meet."""
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


@schedules
def test_the_variance_solves_its_equation(schedule):
    """Central differences of width 1e-5 t, relative error 1e-6."""
    h = 1e-5 * TIMES.clamp(max=0.3)
    at, ahead, behind = (schedule.signal(t) for t in (TIMES, TIMES + h, TIMES - h))
    slope = (ahead.sigma**2 - behind.sigma**2) / (2 * h)
    torch.testing.assert_close(
        slope, 2 * at.drift * at.sigma**2 + at.diffusion, rtol=1e-6, atol=1e-9
    )
    drift = (schedule.log_alpha(TIMES + h) - schedule.log_alpha(TIMES - h)) / (2 * h)
    torch.testing.assert_close(drift, at.drift, rtol=1e-6, atol=1e-9)


@schedules
def test_what_has_diffused_is_the_integral_of_the_diffusion(schedule):
    """Adaptive quadrature over [0, t], relative error 1e-7."""

    def rate(t: float) -> float:
        return float(schedule.signal(torch.tensor(t, dtype=torch.float64)).diffusion)

    for t in (0.02, 0.4, 0.9):
        integral = quad(rate, 0, t, epsabs=1e-12, epsrel=1e-10, limit=200)[0]
        got = schedule.diffused(torch.tensor(t, dtype=torch.float64))
        assert float(got) == pytest.approx(integral, rel=1e-7)


@schedules
def test_a_time_is_found_by_its_ratio(schedule):
    found = schedule.time_of(schedule.log_ratio(TIMES))
    torch.testing.assert_close(found, TIMES, rtol=1e-9, atol=1e-12)
    ends = schedule.time_of(torch.tensor([-1e9, 1e9], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_sub_variance_preserving_is_the_published_variance():
    """(1 - exp(-int beta))^2, at the signal of VariancePreserving."""
    sub, full = rv.SubVariancePreserving(), rv.VariancePreserving()
    total = 0.1 * TIMES + 19.9 * TIMES**2 / 2
    torch.testing.assert_close(sub.signal(TIMES).sigma, 1 - torch.exp(-total), rtol=1e-9, atol=0)
    torch.testing.assert_close(sub.signal(TIMES).alpha, full.signal(TIMES).alpha)
    torch.testing.assert_close(sub.signal(TIMES).sigma, full.signal(TIMES).sigma ** 2)


def test_an_ornstein_uhlenbeck_process_forgets_at_its_rate():
    signal = rv.OrnsteinUhlenbeck(3.0).signal(TIMES)
    torch.testing.assert_close(signal.alpha, torch.exp(-3 * TIMES))
    torch.testing.assert_close(signal.diffusion, torch.full_like(TIMES, 6.0))


def test_equal_steps_of_karras_are_those_of_edm():
    """Karras et al. (2022), eq. (5), in an implementation of its own."""
    low, high, rho, n = 0.002, 80.0, 7.0, 18
    i = torch.arange(n, dtype=torch.float64)
    published = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    first = (low / high) ** (1 / rho)
    times = torch.linspace(1, first, n, dtype=torch.float64)
    torch.testing.assert_close(rv.Karras(high, rho).signal(times).sigma, published)


def test_two_functions_make_the_schedule_they_describe():
    """The cosine again, from its logarithm and its noise alone."""
    angle = math.acos(0.01)
    own = rv.Signals(
        lambda t: torch.log1p(-2 * torch.sin(angle * t / 2) ** 2), lambda t: torch.sin(angle * t)
    )
    named = rv.Cosine()
    for one, other in zip(own.signal(TIMES), named.signal(TIMES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(own.diffused(TIMES), named.diffused(TIMES), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rv.Signals(lambda t: -t, lambda t: 0.1 + t),
        lambda: rv.Signals(lambda t: -t, lambda t: t * (1 - t)),
        lambda: rv.Signals(lambda t: 0.5 - t, lambda t: t),
        lambda: rv.Signals(lambda t: t * float("nan"), lambda t: t),
        lambda: rv.Shortened(rv.Rectified(), 1.5),
        lambda: rv.Karras(-1.0),
        lambda: rv.OrnsteinUhlenbeck(0.0),
        lambda: rv.QuadraticBeta(2.0, 1.0),
    ],
)
def test_what_is_no_schedule_is_refused(make):
    with pytest.raises(rv.ClockError, match="Expected"):
        make()


def test_a_part_of_a_schedule_is_the_same_process():
    whole, part = rv.Rectified(), rv.Shortened(rv.Rectified(), 0.9)
    t, s = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    for one, other in zip(part.step(t, s), whole.step(0.9 * t, 0.9 * s), strict=True):
        torch.testing.assert_close(one, other)


MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)


def exact(schedule: Any) -> rv.GaussianData:
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(2), schedule), MEAN, COVARIANCE)


@schedules
@pytest.mark.parametrize("clock", ["shared", "sites"])
def test_a_rescheduled_denoiser_is_that_of_the_other_schedule(schedule, clock):
    """Closed form under both schedules, with known, dropped and running sites."""
    trained = exact(rv.Rectified())
    served = rv.Rescheduled(trained, schedule)
    g = torch.Generator().manual_seed(3)
    x = torch.randn(6, 2, dtype=torch.float64, generator=g)
    t = TIMES
    if clock == "sites":
        t = torch.stack([TIMES, torch.tensor([0, 1, 1, 0, 0.4, 1.0], dtype=torch.float64)], 1)
    torch.testing.assert_close(
        served(x, t).clean, exact(schedule)(x, t).clean, rtol=1e-7, atol=1e-9
    )


def test_a_rescheduled_walk_is_the_walk_of_the_other_schedule():
    """Through ticks, with evidence, bit by bit up to rounding."""
    served, own = rv.Rescheduled(exact(rv.Rectified()), rv.Cosine()), exact(rv.Cosine())
    given = (torch.tensor([0.7, 0.0], dtype=torch.float64), torch.tensor([True, False]))
    for sampler in (rv.Multistep(), rv.Euler(), rv.Heun()):
        draws = [
            sampler.sample(d, 5, 12, given=given, generator=torch.Generator().manual_seed(1))
            for d in (served, own)
        ]
        torch.testing.assert_close(*draws, rtol=1e-6, atol=1e-7)


def test_less_signal_than_was_trained_is_refused_with_the_part_that_fits():
    trained = exact(rv.Cosine())
    with pytest.raises(rv.CapabilityError, match=r"Shortened\(Rectified\(\), 0\.99") as refusal:
        rv.Rescheduled(trained, rv.Rectified())
    last = float(str(refusal.value).split(", ")[-1].rstrip(")."))
    rv.Rescheduled(trained, rv.Shortened(rv.Rectified(), last))
    with pytest.raises(rv.CapabilityError, match="Gaussian"):
        rv.Rescheduled(rv.Empirical(rv.Brownian(rv.Torus(1)), torch.zeros(1, 1)), rv.Cosine())
