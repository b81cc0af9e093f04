"""The bridge of Brownian motion on SO(3): exact levels, the laws of its samples, both ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from reversal.noise import ItemNoise
from reversal.processes import heat_so3
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

BRIDGES = [
    (0.0, 0.3, 0.7), (1e-6, 0.2, 0.3), (0.4, 0.03, 0.1), (1.5, 0.9, 1.0), (3.0, 0.15, 0.3),
    (PI, 0.5, 1.0), (PI - 0.05, 0.02, 0.1), (2.0, 0.01, 4.0), (2.0, 3.5, 4.0), (2.5, 8.0, 20.0),
    (1.0, 1.5, 2.2),
]  # fmt: skip


def bridge_rest(rho, distance, cosine):
    """The angle from R_s to R_t, in [0, pi]."""
    half = (rho / 2).cos() * math.cos(distance / 2)
    half = half + (rho / 2).sin() * math.sin(distance / 2) * cosine
    return 2 * half.abs().clamp(max=1).acos()


def bridge_marginal(distance, v, u):
    """The law of the angle from one end, at variance v from it, by quadrature over the axis."""
    cosine, weights = gauss(-1.0, 1.0, 30)

    def density(rho):
        rest = bridge_rest(rho[:, None], distance, cosine)
        return angle_density(rho, v) * (heat_so3.log_density(rest, double(u)).exp() * weights).sum(
            1
        )

    mean, deviation = distance * v / (v + u), math.sqrt(v * u / (v + u))
    low, high = max(0.0, mean - 9 * deviation), min(PI, mean + 9 * deviation)
    return cdf_of(density, low, high, 40)


def draw_bridge(distance, v_s, v_t, n, dtype=torch.float64):
    R_0 = about([0.6, 0.0, 0.8], [1.0]).expand(n, 3, 3)
    axis = double([0.0, 0.28, -0.96])
    R_t = rotations.compose(R_0, rotations.exp(distance * axis).expand(n, 3, 3))
    times = torch.full((n,), v_s, dtype=dtype), torch.full((n,), v_t, dtype=dtype)
    R_s = heat_so3.sample_bridge(R_0.to(dtype), R_t.to(dtype), *times, seeded())
    return R_0, R_s.double(), R_t, axis


@pytest.mark.parametrize(("distance", "v_s", "v_t"), BRIDGES)
def test_bridge_samples_have_the_angles_of_the_bridge(distance, v_s, v_t):
    from_start = bridge_marginal(distance, v_s, v_t - v_s)
    to_end = bridge_marginal(distance, v_t - v_s, v_s)
    for dtype in (torch.float64, torch.float32):
        R_0, R_s, R_t, axis = draw_bridge(distance, v_s, v_t, 2000, dtype)
        vector = rotations.log(rotations.compose(R_0.mT, R_s))
        rho, rest = vector.norm(dim=-1), rotations.angle(rotations.compose(R_s.mT, R_t))
        assert_law(rho, from_start)
        assert_law(rest, to_end)
        across = vector - (vector @ axis)[:, None] * axis
        azimuth = torch.atan2(across[:, 1] * 0.96 + across[:, 2] * 0.28, across[:, 0])
        assert_law(azimuth, lambda x: (x + PI) / (2 * PI))


@pytest.mark.parametrize(("distance", "v_s", "v_t"), BRIDGES[1:])
def test_bridge_samples_have_the_axis_of_the_bridge_given_the_angle(distance, v_s, v_t):
    R_0, R_s, _, axis = draw_bridge(distance, v_s, v_t, 2000)
    vector = rotations.log(rotations.compose(R_0.mT, R_s))
    rho = vector.norm(dim=-1)
    cosine = ((vector @ axis) / rho).clamp(-1, 1)
    nodes, weights = gauss(-torch.ones(2000, 1, dtype=torch.float64), cosine[:, None], 5)
    below = bridge_mass(rho, distance, v_t - v_s, nodes, weights)
    nodes, weights = gauss(cosine[:, None], torch.ones(2000, 1, dtype=torch.float64), 5)
    above = bridge_mass(rho, distance, v_t - v_s, nodes, weights)
    assert_law(below / (below + above), lambda x: x)


def bridge_mass(rho, distance, u, cosine, weights):
    log_density = heat_so3.log_density(bridge_rest(rho[:, None], distance, cosine), double(u))
    return (log_density.exp() * weights).sum(1)


def draw_at(monkeypatch, distance, v, u, rho_levels, phi_levels):
    """Draw the bridge at given levels of its two uniform variables; return rho and cos(phi)."""
    levels, z = [rho_levels, phi_levels], double([0.3, -0.2, 0.9]).expand(len(phi_levels), 3)
    draws = SimpleNamespace(uniform=lambda *_: levels.pop(0), normal=lambda *_: z)
    monkeypatch.setattr(heat_so3, "noise", draws)
    R_0 = torch.eye(3, dtype=torch.float64).expand(len(phi_levels), 3, 3)
    axis = double([0.0, 0.28, -0.96])
    times = double(v).expand(len(phi_levels)), double(v + u).expand(len(phi_levels))
    R_s = heat_so3.sample_bridge(R_0, about(axis, distance).expand_as(R_0), *times)
    vector = rotations.log(R_s)
    rho = vector.norm(dim=-1)
    return rho, ((vector @ axis) / rho).clamp(-1, 1)


EXACT_BRIDGES = [
    (0.0, 0.2, 0.3), (0.01, 1e-4, 0.99), (0.3, 0.01, 0.02), (1.5, 0.1, 0.4), (2.9, 0.3, 0.7),
    (2.0, 0.9, 0.999), (PI, 0.4, 0.999), (PI, 0.4, 1.01), (2.5, 0.7, 1.2), (1.0, 3.0, 5.0),
]  # fmt: skip


@pytest.mark.parametrize(("distance", "v", "u"), EXACT_BRIDGES)
def test_the_bridge_inverts_the_distribution_of_its_angle(monkeypatch, distance, v, u):
    levels = double([1e-4, 0.03, 0.2, 0.5, 0.8, 0.97, 0.9999])
    rho, _ = draw_at(monkeypatch, distance, v, u, levels, torch.full_like(levels, 0.2))
    cosine, weights = gauss(-1.0, 1.0, 8)

    def mass(low, high):
        nodes, outer = gauss(low, high, 3)
        rest = bridge_rest(nodes[..., None], distance, cosine)
        inner = (heat_so3.log_density(rest, double(u)).exp() * weights).sum(-1)
        return (angle_density(nodes, v) * inner * outer).sum(-1)

    end = min(PI, distance * v / (v + u) + 12 * v**0.5)
    edges = torch.cat([double([0.0]), rho, double([end])])[:, None]
    below = mass(edges[:-1], edges[1:]).cumsum(0)
    torch.testing.assert_close(below[:-1] / below[-1], levels, rtol=0, atol=1e-9)


def lift_mass(rho, distance, u, nodes, weights, far=False):
    """The heat kernel of the double cover at one lift of R_t, integrated over cos(phi)."""
    half = (rho / 2).cos()[:, None] * math.cos(distance / 2)
    half = half + (rho / 2).sin()[:, None] * math.sin(distance / 2) * nodes
    half = (-half if far else half).clamp(-1, 1)
    image = 2 * half.acos()[..., None] + 4 * PI * torch.arange(-4, 5)
    kernel = (image * (-(image**2) / (2 * u)).exp()).sum(-1) / (1 - half**2).sqrt()
    return (kernel * weights).sum(1).abs()


@pytest.mark.parametrize(("distance", "v", "u"), EXACT_BRIDGES[1:])
def test_the_bridge_keeps_the_mass_of_every_interval_of_its_axis(monkeypatch, distance, v, u):
    levels = torch.cat([double([1e-5, 1e-3]), torch.linspace(0.01, 0.999, 60, dtype=torch.float64)])
    for level in (0.05, 0.5, 0.99):
        rho, cosine = draw_at(monkeypatch, distance, v, u, torch.full_like(levels, level), levels)
        whole = rho[:1], distance, u, *gauss(double([[-1.0]]), double([[1.0]]), 30)
        total = lift_mass(*whole) + lift_mass(*whole, far=True)
        part = rho[1:], distance, u, *gauss(cosine[:-1, None], cosine[1:, None], 2)
        near, far = lift_mass(*part), lift_mass(*part, far=True)
        lift = torch.where(cosine.diff() < 0, near, far) if u < 1 else near + far
        off = (lift / total - levels.diff()).abs() > 1e-8
        assert off.sum() <= (u < 1), "only the interval where the lift changes may differ"


def test_a_kernel_then_its_bridge_is_the_shorter_kernel():
    n, generator = 10_000, seeded()
    R_0 = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    for v_s, v_t in ((0.1, 0.15), (0.4, 3.0), (1.2, 1.6)):
        times = double(v_s).expand(n), double(v_t).expand(n)
        R_t = heat_so3.sample(R_0, times[1], generator)
        R_s = heat_so3.sample_bridge(R_0, R_t, *times, generator)
        assert_law(rotations.angle(R_s), angle_cdf(v_s))
        assert_law(rotations.angle(rotations.compose(R_s.mT, R_t)), angle_cdf(v_t - v_s))
        assert_law(rotations.log(R_s)[:, 0] / rotations.angle(R_s), lambda x: (1 + x) / 2)


def test_the_bridge_density_is_bayes_and_integrates_to_1():
    distance, v_s, v_t = 2.0, 0.3, 0.8
    rho, rho_weights = gauss(0.0, PI, 4)
    cosine, weights = gauss(-1.0, 1.0, 4)
    axis = double([1.0, 0.0, 0.0])
    sine = (1 - cosine**2).sqrt()
    direction = torch.stack([cosine, sine, torch.zeros_like(sine)], -1)
    R_0 = about([0.6, 0.0, 0.8], [1.0])[0]
    R_s = rotations.compose(R_0, rotations.exp(rho[:, None, None] * direction))
    R_t = rotations.compose(R_0, rotations.exp(distance * axis))
    density = heat_so3.bridge_log_density(R_0, R_s, R_t, double(v_s), double(v_t)).exp()
    mass = density * ((1 - rho.cos()) / PI * rho_weights)[:, None] * weights / 2
    torch.testing.assert_close(mass.sum(), double(1.0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bridges_are_rotations_at_every_time_and_distance_and_end_where_they_should(dtype):
    angles = double([0.0, 1e-12, 1e-5, 0.1, 1.0, 3.0, PI - 1e-5, PI])
    ends = double([0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.9, 1.1, 5.0, 60.0, 1e3])
    v_t, share, angle = torch.meshgrid(
        ends, double([0.0, 1e-6, 0.3, 0.5, 0.9, 1.0]), angles, indexing="ij"
    )
    R_t = about([0.0, 0.6, 0.8], angle).to(dtype)
    R_0 = torch.eye(3, dtype=dtype).expand_as(R_t)
    v_t = v_t.to(dtype)
    v_s = torch.where(share == 1, v_t, share.to(dtype) * v_t)
    R_s = heat_so3.sample_bridge(R_0, R_t, v_s, v_t, seeded())
    gap = R_s @ R_s.mT - torch.eye(3, dtype=dtype)
    assert gap.abs().max() < 20 * torch.finfo(dtype).eps
    assert torch.equal(R_s[v_s == 0], R_0[v_s == 0])
    is_end = (v_s == v_t) & (v_s > 0)
    assert torch.equal(R_s[is_end], R_t[is_end])
    assert heat_so3.bridge_log_density(R_0, R_s, R_t, v_s, v_t).isfinite().all()


def test_an_item_is_the_same_in_any_batch():
    R_0, R_t = (about([0.6, 0.0, 0.8], angles) for angles in ([0.1, 1.0, 2.0], [1.0, 1.1, -1.0]))
    v_s, v_t = double([0.1, 0.2, 0.3]), double([0.4, 0.3, 3.0])
    full = heat_so3.sample_bridge(R_0, R_t, v_s, v_t, ItemNoise([1, 2, 3]))
    one = heat_so3.sample_bridge(R_0[1:2], R_t[1:2], v_s[1:2], v_t[1:2], ItemNoise([2]))
    torch.testing.assert_close(one, full[1:2], rtol=0, atol=1e-10)
    full, one = (
        heat_so3.sample(R_0, v_t, ItemNoise([1, 2, 3])),
        heat_so3.sample(R_0[1:2], v_t[1:2], ItemNoise([2])),
    )
    torch.testing.assert_close(one, full[1:2], rtol=0, atol=1e-10)
    assert heat_so3.sample_bridge(R_0[:0], R_t[:0], v_s[:0], v_t[:0]).shape == (0, 3, 3)
