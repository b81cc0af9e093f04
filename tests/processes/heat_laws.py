"""Quadrature and the Kolmogorov-Smirnov test for the laws of heat kernels."""

from __future__ import annotations

import math

import numpy as np
import torch

from reversal.processes import heat_so3
from reversal.spaces import rotations

FAILURE_RATE = 1e-4
PI = math.pi


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def seeded():
    return torch.Generator().manual_seed(0)


def gauss(low, high, panels=40):
    """Gauss-Legendre nodes and weights on panels; the ends may be tensors with a last axis of 1."""
    x, w = (double(part) for part in np.polynomial.legendre.leggauss(20))
    start = torch.arange(panels, dtype=torch.float64)[:, None]
    unit = ((start + (1 + x) / 2) / panels).flatten()
    return low + (high - low) * unit, (high - low) * (w / 2 / panels).repeat(panels)


def assert_law(points, cdf):
    """Kolmogorov-Smirnov with the asymptotic critical value of the failure rate."""
    levels = cdf(points.double().sort().values)
    steps = torch.arange(len(points) + 1, dtype=torch.float64) / len(points)
    distance = torch.maximum((levels - steps[:-1]).abs().max(), (levels - steps[1:]).abs().max())
    critical = math.sqrt(-math.log(FAILURE_RATE / 2) / 2 / len(points))
    assert distance < critical, f"distance {distance:.4f}, critical {critical:.4f}"


def cdf_of(density, low, high, panels=200):
    """The distribution function of an unnormalized density, by quadrature and interpolation."""
    nodes, weights = gauss(low, high, panels)
    mass = (density(nodes) * weights).unflatten(0, (panels, 20)).sum(1).cumsum(0)
    grid, levels = np.linspace(low, high, panels + 1), np.append(0.0, mass / mass[-1])
    return lambda x: double(np.interp(x.numpy(), grid, levels))


def angle_density(omega, v):
    return heat_so3.log_density(omega, double(v)).exp() * 2 * (omega / 2).sin() ** 2 / PI


def angle_cdf(v):
    return cdf_of(lambda omega: angle_density(omega, v), 0.0, min(PI, 12 * v**0.5))


def about(axis, angle):
    return rotations.exp(double(angle)[..., None] * double(axis))
