"""Heat kernels of the circle and of SO(3): identities, quadrature, the laws of their samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reversal.processes import heat_so3, wrapped_normal
from reversal.spaces import rotations
from tests.processes.heat_laws import (
    PI,
    about,
    angle_cdf,
    angle_density,
    assert_law,
    cdf_of,
    double,
    gauss,
    seeded,
)

# (v, omega, log f, its derivative), from the image sum in 60 digits.
EXACT = [
    (1e-12, 1.0, -499999999956.89937, -999999999999.91526),
    (1e-4, 0.5, -1234.5619527736931, -4999.9581586823227),
    (0.01, 1.0, -41.436889501427875, -99.915243860856224),
    (0.01, 3.1415, -483.81397688471158, -9.1141985366606677),
    (0.09, 1.0, -0.27828192298776072, -11.026354971967337),
    (0.09, 3.1, -47.660400609609693, -30.44581833016398),
    (0.5, 0.01, 2.714210651274676, -0.019166665277773898),
    (0.5, 2.0, -1.1130885087840921, -3.8210313944730123),
    (0.95, 3.0, -2.1641112507974597, -1.0659457230160309),
    (1.05, 1e-3, 1.6701505342737624, -0.00086904196126932966),
    (1.05, 3.0, -1.8229876340880763, -0.85237830654324831),
    (4.0, 2.0, 0.009138057126914843, -0.098980415230393197),
    (30.0, 2.0, 4.7079977300181085e-14, -5.1053174920625198e-13),
]
TIMES = [1e-12, 1e-6, 0.01, 0.09, 0.39, 0.41, 0.7, 0.99, 1.01, 2.0, 4.0, 20.0]


# SO(3): the density


@pytest.mark.parametrize(("v", "omega", "log_density", "score"), EXACT)
def test_density_and_score_are_those_of_60_digits(v, omega, log_density, score):
    got = (
        heat_so3.log_density(double(omega), double(v)),
        heat_so3.score_magnitude(double(omega), double(v)),
    )
    torch.testing.assert_close(got[0], double(log_density), rtol=3e-15, atol=3e-15)
    torch.testing.assert_close(got[1], double(score), rtol=1e-14, atol=0)


@pytest.mark.parametrize("v", [0.02, 0.1, 0.5, 0.99, 1.01, 3.0])
def test_density_is_the_sum_over_characters(v):
    omega, level = double(np.linspace(1e-3, PI, 50)), torch.arange(2000, dtype=torch.float64)
    characters = ((level + 0.5) * omega[:, None]).sin() / (omega[:, None] / 2).sin()
    series = ((2 * level + 1) * (-level * (level + 1) * v / 2).exp() * characters).sum(1)
    density = heat_so3.log_density(omega, double(v)).exp()
    torch.testing.assert_close(density, series, rtol=0, atol=2e-12 * float(series.max()))


@pytest.mark.parametrize("v", TIMES)
def test_density_integrates_to_1_and_the_first_character_to_3_exp_minus_v(v):
    omega, weights = gauss(0.0, min(PI, 12 * v**0.5))
    mass = angle_density(omega, v) * weights
    torch.testing.assert_close(mass.sum(), double(1.0), rtol=1e-11, atol=0)
    character = (mass * (1 + 2 * omega.cos())).sum()
    torch.testing.assert_close(character, double(3 * math.exp(-v)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("v", TIMES[2:])
def test_density_solves_the_heat_equation(v):
    omega = double([1e-3, 0.1, 0.49, 0.51, 1.0, 2.0, 3.0, PI - 1e-3]).requires_grad_()
    time = torch.full_like(omega, v, requires_grad=True)
    score = heat_so3.score_magnitude(omega, time)
    (curvature,) = torch.autograd.grad(score.sum(), omega)
    (rate,) = torch.autograd.grad(heat_so3.log_density(omega, time).sum(), time)
    laplacian = curvature + score**2 + score / (omega / 2).tan()
    torch.testing.assert_close(rate, laplacian / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("v", TIMES)
def test_score_magnitude_is_the_derivative_of_the_log_density(v):
    omega = double([0.0, 1e-9, 1e-3, 0.3, 0.5, 1.0, 2.5, 3.1, PI]).requires_grad_()
    (slope,) = torch.autograd.grad(heat_so3.log_density(omega, double(v)).sum(), omega)
    score = heat_so3.score_magnitude(omega, double(v))
    torch.testing.assert_close(score, slope, rtol=1e-9, atol=1e-14 * PI / v)


@pytest.mark.parametrize("v", TIMES)
def test_score_magnitude_is_linear_at_both_ends(v):
    ends = double([1e-14, 2e-14, 1e-9, 2e-9])
    near = heat_so3.score_magnitude(ends * v**0.5, double(v))
    torch.testing.assert_close(near[1::2], 2 * near[::2], rtol=1e-12, atol=0)
    if 0.01 < v < 4:
        far = heat_so3.score_magnitude(PI - double([1e-9, 2e-9]), double(v))
        torch.testing.assert_close(far[1], 2 * far[0], rtol=1e-5, atol=0)
        assert far[0] < 0


def test_the_cut_locus_is_where_one_image_fails():
    omega, v = double([2.0, 3.1, PI]), double(0.09)
    one_image = -omega / v + 1 / omega - 0.5 / (omega / 2).tan()
    exact = heat_so3.score_magnitude(omega, v)
    assert (exact - one_image)[0].abs() < 1e-9
    torch.testing.assert_close(one_image[1], double(-34.13), rtol=0, atol=5e-3)
    torch.testing.assert_close(exact[1:], double([-30.45, 0.0]), rtol=0, atol=5e-3)


@pytest.mark.parametrize("v", [1e-4, 0.09, 0.6, 3.0])
def test_score_is_the_gradient_in_the_body_frame(v):
    R_0 = about([0.6, 0.0, 0.8], [0.5, 1.0, 2.0, 3.0])
    R_t = rotations.compose(R_0, about([0.0, 0.6, -0.8], [1e-3, 0.4, 1.5, 3.1]))
    step = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    moved = rotations.compose(R_0.mT, rotations.compose(R_t, rotations.exp(step)))
    log_density = heat_so3.log_density(rotations.angle(moved), double(v))
    (gradient,) = torch.autograd.grad(log_density.sum(), step)
    torch.testing.assert_close(heat_so3.score(R_0, R_t, double(v)), gradient, rtol=1e-9, atol=1e-9)


def test_score_vanishes_at_the_start_and_is_smooth_there():
    R = about([0.6, 0.0, 0.8], [0.7])
    assert (heat_so3.score(R, R, double(0.1)).abs() < 1e-14).all()
    step = torch.zeros(1, 3, dtype=torch.float64)

    def score(x):
        return heat_so3.score(R, rotations.compose(R, rotations.exp(x)), double(0.1))

    slope = torch.autograd.functional.jacobian(score, step)[0, :, 0]
    expected = heat_so3.score_magnitude(double(1e-6), double(0.1)) / 1e-6
    torch.testing.assert_close(
        slope, expected * torch.eye(3, dtype=torch.float64), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize(("v", "u"), [(0.05, 0.1), (0.3, 0.8), (0.7, 0.7), (0.2, 3.0), (2.0, 1.5)])
def test_two_steps_are_one_longer_step(v, u):
    rho, rho_weights = gauss(0.0, PI, 10)
    cosine, weights = gauss(-1.0, 1.0, 10)
    for distance in (0.0, 0.5, 2.0, 3.1, PI):
        half = (rho / 2).cos()[:, None] * math.cos(distance / 2)
        half = half + (rho / 2).sin()[:, None] * math.sin(distance / 2) * cosine
        rest = 2 * half.abs().clamp(max=1).acos()
        inner = (heat_so3.log_density(rest, double(u)).exp() * weights / 2).sum(1)
        total = (angle_density(rho, v) * inner * rho_weights).sum()
        expected = heat_so3.log_density(double(distance), double(v + u)).exp()
        torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_infinite_at_any_time_and_angle(dtype):
    ends = [0.0, 1e-30, 1e-12, 1e-8, 1e-4, 0.1, 0.4999, 0.5, 1.0, 2.0, 3.0, 3.1415, PI - 1e-7, PI]
    omega = torch.tensor(ends, dtype=dtype)[:, None].expand(-1, 40).clone().requires_grad_()
    v = torch.cat([torch.zeros(1), torch.logspace(-12, math.log10(50), 39)]).to(dtype)
    log_density, score = heat_so3.log_density(omega, v), heat_so3.score_magnitude(omega, v)
    for value in (log_density, score):
        (slope,) = torch.autograd.grad(value.sum(), omega, retain_graph=True)
        assert value.isfinite().all() and slope.isfinite().all()
    assert (score < 1e-6).all() and (score[0] == 0).all()
    assert torch.equal(log_density[:, 0], log_density[:, v <= heat_so3.floor(dtype)][:, -1])


def test_float32_agrees_with_float64():
    omega, v = torch.linspace(0, 3.14, 200)[:, None], torch.logspace(-8, 1.6, 100)
    for function in (heat_so3.log_density, heat_so3.score_magnitude):
        single, exact = function(omega, v), function(omega.double(), v.double())
        assert ((single - exact).abs() <= 3e-6 * (1 + exact.abs())).all()


# SO(3): samples


@pytest.mark.parametrize("v", TIMES)
def test_sample_angle_inverts_the_distribution_function(v):
    levels = double([1e-9, 1e-4, 0.1, 0.3, 0.499, 0.5, 0.7, 0.95, 0.999])
    omega = heat_so3.sample_angle(double(v), levels)
    nodes, weights = gauss(torch.zeros(9, 1, dtype=torch.float64), omega[:, None])
    mass = (angle_density(nodes, v) * weights).sum(1)
    torch.testing.assert_close(mass, levels, rtol=1e-11, atol=0)


@pytest.mark.parametrize("v", TIMES)
def test_sample_angle_keeps_both_tails_in_float32(v):
    levels = torch.tensor([2.0**-24, 1e-4, 0.3, 0.5, 0.9, 0.9999, 1 - 2.0**-24])
    v = torch.tensor(max(v, 1e-10))
    exact = heat_so3.sample_angle(v.double(), levels.double())
    torch.testing.assert_close(heat_so3.sample_angle(v, levels).double(), exact, rtol=1e-6, atol=0)


def test_sample_angle_is_finite_at_both_ends_and_zero_at_time_zero():
    for dtype in (torch.float32, torch.float64):
        levels = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
        v = torch.tensor([0.0, 1e-30, 1e-12, 1e-3, 0.99, 1.0, 50.0], dtype=dtype)[:, None]
        omega = heat_so3.sample_angle(v, levels)
        assert omega.isfinite().all() and (omega >= 0).all() and (omega <= PI + 1e-6).all()
        assert (omega[0] == 0).all()


@pytest.mark.parametrize("v", [1e-4, 0.1, 1.0, 10.0])
def test_samples_have_the_law_of_the_heat_kernel(v):
    generator, n = seeded(), 20_000
    R_0 = about([0.6, 0.0, 0.8], [1.0]).expand(n, 3, 3)
    R_t = heat_so3.sample(R_0, double(v).expand(n), generator)
    vector = rotations.log(rotations.compose(R_0.mT, R_t))
    angle = vector.norm(dim=-1)
    assert_law(angle, angle_cdf(v))
    for component in (vector / angle[:, None]).T:
        assert_law(component, lambda x: (1 + x) / 2)


def test_sampling_at_time_zero_returns_the_start_to_the_bit():
    R_0 = about([0.6, 0.0, 0.8], [[0.0, 1.0], [2.0, 3.0]])
    v = double([[0.0, 0.3], [0.2, 0.0]])
    R_t = heat_so3.sample(R_0, v, seeded())
    assert torch.equal(R_t[v == 0], R_0[v == 0])
    assert (R_t[v > 0] - R_0[v > 0]).abs().amax((-2, -1)).min() > 1e-2


# The circle


def test_wrap_keeps_what_lies_in_the_interval_and_is_2_pi_periodic():
    for dtype in (torch.float32, torch.float64):
        inside = torch.linspace(-PI, PI, 1001, dtype=dtype)[:-1]
        assert torch.equal(wrapped_normal.wrap(inside), inside)
        turned = wrapped_normal.wrap(inside[:, None] + 2 * PI * torch.arange(-3, 4, dtype=dtype))
        assert (turned >= -PI).all() and (turned < torch.tensor(PI, dtype=dtype)).all()
        error = torch.remainder(turned - inside[:, None] + 1, 2 * PI) - 1
        assert error.abs().max() < 100 * torch.finfo(dtype).eps
    assert wrapped_normal.wrap(double(PI)) == -PI


@pytest.mark.parametrize("v", [0.01, 0.3, 0.99, 1.01, 3.0, 30.0])
def test_the_images_are_the_fourier_series(v):
    delta = double(np.linspace(-PI, PI, 101))
    n = torch.arange(1, 400, dtype=torch.float64)
    turns = 2 * PI * torch.arange(-30, 31, dtype=torch.float64)
    images = (-((delta[:, None] + turns) ** 2) / (2 * v)).exp().sum(1) * math.sqrt(2 * PI / v)
    series = 1 + 2 * ((-n * n * v / 2).exp() * (n * delta[:, None]).cos()).sum(1)
    log_density = wrapped_normal.log_density(delta, double(v))
    torch.testing.assert_close(log_density, images.log(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(log_density.exp(), series, rtol=0, atol=1e-12 * float(series.max()))


@pytest.mark.parametrize("v", TIMES)
def test_the_wrapped_normal_is_a_probability_and_solves_the_heat_equation(v):
    edge = min(PI, 12 * v**0.5)
    nodes, weights = gauss(-edge, edge)
    mass = wrapped_normal.log_density(nodes, double(v)).exp() * weights / (2 * PI)
    torch.testing.assert_close(mass.sum(), double(1.0), rtol=1e-11, atol=0)
    delta = double([-3.0, -1.0, -1e-6, 0.0, 1e-3, 0.99, 1.01, PI - 1e-3]).requires_grad_()
    time = torch.full_like(delta, v, requires_grad=True)
    score, log_density = wrapped_normal.score(delta, time), wrapped_normal.log_density(delta, time)
    (curvature,) = torch.autograd.grad(score.sum(), delta)
    slope, rate = torch.autograd.grad(log_density.sum(), (delta, time))
    torch.testing.assert_close(score, slope, rtol=1e-9, atol=1e-14 * PI / v)
    if v >= 1e-2:
        torch.testing.assert_close(rate, (curvature + score**2) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_wrapped_normal_is_finite_at_any_time_and_angle(dtype):
    ends = [0.0, 1e-30, 1e-8, 0.1, 0.999, 1.0, 2.0, 3.1415, PI, -PI, 10.0]
    delta = torch.tensor(ends, dtype=dtype)[:, None].expand(-1, 40).clone().requires_grad_()
    v = torch.cat([torch.zeros(1), torch.logspace(-12, 3, 39)]).to(dtype)
    for value in (wrapped_normal.log_density(delta, v), wrapped_normal.score(delta, v)):
        (slope,) = torch.autograd.grad(value.sum(), delta)
        assert value.isfinite().all() and slope.isfinite().all()


CIRCLE_BRIDGES = [
    (0.3, 0.1, 0.4),
    (3.1, 0.5, 1.0),
    (-3.0, 2.0, 2.5),
    (2.0, 10.0, 300.0),
    (1.0, 0.01, 9.0),
]


@pytest.mark.parametrize(("distance", "v_s", "v_t"), CIRCLE_BRIDGES)
def test_circle_bridges_follow_bayes(distance, v_s, v_t):
    n = 20_000
    x_0 = torch.full((n,), 2.9, dtype=torch.float64)
    x_t = wrapped_normal.wrap(x_0 + distance)
    times = double(v_s).expand(n), double(v_t).expand(n)

    def density(x):
        ends = x_0[:1], x, x_t[:1], double(v_s), double(v_t)
        return wrapped_normal.bridge_log_density(*ends).exp()

    nodes, weights = gauss(-PI, PI, 100)
    total = (density(nodes) * weights).sum() / (2 * PI)
    torch.testing.assert_close(total, double(1.0), rtol=1e-9, atol=0)
    x_s = wrapped_normal.sample_bridge(x_0, x_t, *times, seeded())
    assert (x_s >= -PI).all() and (x_s < PI).all()
    assert_law(x_s, cdf_of(density, -PI, PI, 1000))


def test_circle_bridges_end_where_they_should():
    for dtype in (torch.float32, torch.float64):
        ends = torch.tensor([0.0, 1e-12, 1e-6, 0.1, 1.0, 50.0, 1e3], dtype=dtype)
        x_0 = torch.linspace(-PI, 3.1, 20, dtype=dtype)[:, None].expand(20, 7)
        x_t, v_t = wrapped_normal.wrap(3 * x_0 + 1), ends.expand(20, 7)
        zero = torch.zeros_like(v_t)
        assert torch.equal(wrapped_normal.sample_bridge(x_0, x_t, zero, v_t, seeded()), x_0)
        at_end = wrapped_normal.sample_bridge(x_0, x_t, v_t, v_t, seeded())
        assert torch.equal(at_end[:, 1:], x_t[:, 1:])
        middle = wrapped_normal.sample_bridge(x_0, x_t, v_t / 3, v_t, seeded())
        assert middle.isfinite().all()
        assert wrapped_normal.bridge_log_density(x_0, middle, x_t, v_t / 3, v_t).isfinite().all()
