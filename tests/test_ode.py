r"""Rows are integrated to their tolerance, each on its own, on flat and curved spaces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.ode import integrate
from reversal.spaces import rotations


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ZERO, ONE = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
RATES = real(0.0, 1.0, 5.0, -20.0)


def growth(x: Tensor, t: Tensor) -> Tensor:
    """dx/dt = rate x cos t: x = x_0 exp(rate sin t)."""
    return RATES[: len(x), None] * x * t.cos()[:, None]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_the_error_is_of_the_order_of_the_tolerance(tolerance):
    x = real([1.0, 2.0]).expand(4, 2)
    got = integrate(growth, x, ZERO, 2 * ONE, tolerance, tolerance)
    exact = x * (RATES * math.sin(2)).exp()[:, None]
    error = ((got.x - exact).abs() / (1 + exact.abs())).amax(1)
    assert float(error.max()) < 100 * tolerance
    assert got.calls[0] < min(got.calls[1:])


@pytest.mark.parametrize("tolerance", [1e-6, 1e-10])
def test_a_row_may_start_at_the_origin(tolerance):
    """Dx/dt = 1 + x from 0: x = exp(t) - 1; what is 0 has no size to take a hundredth of."""
    got = integrate(
        lambda x, t: 1 + x, torch.zeros(2, 3).double(), 0 * ONE[:2], ONE[:2], *[tolerance] * 2
    )
    assert float((got.x - math.expm1(1)).abs().max()) < 10 * tolerance


def test_the_order_is_five():
    """The slope of log error against log calls, over six decades of the tolerance."""
    x, logs = real([1.0, 0.0]).expand(4, 2), []

    def turn(y: Tensor, t: Tensor) -> Tensor:
        return torch.stack([-y[:, 1], y[:, 0]], 1)

    for k in range(4, 11):
        got = integrate(turn, x, ZERO, 20 * ONE, 10.0**-k, 10.0**-k)
        exact = real([math.cos(20), math.sin(20)])
        logs.append([math.log(float(got.calls[0])), math.log(float((got.x[0] - exact).norm()))])
    calls, errors = torch.tensor(logs).T
    slope = ((calls - calls.mean()) * (errors - errors.mean())).sum()
    assert abs(-float(slope / ((calls - calls.mean()) ** 2).sum()) - 5) < 0.5


def test_a_row_does_not_know_the_others():
    """Rows alone and together, with their own starts and stops, forward and backward in time."""
    x, generator = real([1.0, 2.0, -1.0]).expand(4, 3), torch.Generator().manual_seed(0)
    stiff = torch.rand(4, 3, generator=generator, dtype=torch.float64) * real(1, 5, 20, 80)[:, None]
    start, stop = real(0.0, 1.0, 0.5, 0.3), real(1.0, 0.2, 0.5, 0.9)

    def make(rows: slice) -> Any:
        return lambda y, t: -stiff[rows] * (y - t.cos()[:, None] ** 2)

    whole = integrate(make(slice(4)), x, start, stop, 1e-7, 1e-9)
    for row in range(4):
        at = slice(row, row + 1)
        alone = integrate(make(at), x[at], start[at], stop[at], 1e-7, 1e-9)
        assert torch.equal(alone.x, whole.x[at]), row
        assert torch.equal(alone.calls, whole.calls[at])
        assert torch.equal(alone.rejected, whole.rejected[at])
    assert whole.calls[2] == 0 and torch.equal(whole.x[2], x[2])


def test_there_and_back_again():
    x = real([1.0, 2.0]).expand(3, 2)
    there = integrate(growth, x, ZERO[:3], ONE[:3], 1e-10, 1e-10).x
    back = integrate(growth, there, ONE[:3], ZERO[:3], 1e-10, 1e-10).x
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-9])
def test_rotations_turn_about_a_fixed_axis_and_about_two(tolerance):
    """v = R^T c gives exp(t c) R_0; v = exp(-t b) a + b gives exp(t a) exp(t b)."""
    start = rotations.exp(real([0.4, -0.3, 0.2], [0.0, 2.2, 0.5]))
    a, b = real(2.0, -1.0, 0.5), real(-0.3, 4.0, 1.0)
    zero, one = ZERO[:2], ONE[:2]

    def fixed(R: Tensor, t: Tensor) -> Tensor:
        return (R.mT @ a[:, None]).squeeze(-1)

    def two(R: Tensor, t: Tensor) -> Tensor:
        return (rotations.exp(t[:, None] * b).mT @ a[:, None]).squeeze(-1) + b

    got = integrate(fixed, start, zero, one, tolerance, tolerance, rv.SO3())
    assert float(rotations.angle(got.x.mT @ rotations.exp(a) @ start).max()) < 100 * tolerance
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    got = integrate(two, eye, zero, one, tolerance, tolerance, rv.SO3())
    exact = rotations.exp(a) @ rotations.exp(b)
    assert float(rotations.angle(got.x.mT @ exact).max()) < 100 * tolerance


@pytest.mark.parametrize("length", [1e-9, 0.1, 0.49, 0.51, 3.0, 6.0])
def test_the_chart_rate_is_the_inverse_of_the_differential_of_exp(length):
    """exp(u + h pull(u, v)) = exp(u) exp(h v) to second order: central differences in h."""
    u, v, h = real(0.6, -0.48, 0.64) * length, real(0.2, 1.0, -0.7), 1e-5
    rate = rotations.pull(u, v)
    by_chart = (rotations.exp(u + h * rate) - rotations.exp(u - h * rate)) / (2 * h)
    by_body = rotations.exp(u) @ (rotations.exp(h * v) - rotations.exp(-h * v)) / (2 * h)
    torch.testing.assert_close(by_chart, by_body, rtol=1e-7, atol=1e-7)


def test_a_product_shares_one_step():
    """A torus, a flat part and a number that sums up the flow, in one tree."""
    spaces = {"angle": rv.Torus(1), "place": rv.Euclidean(2), "total": None}
    x = {"angle": ONE[:2, None], "place": real([1.0, 2.0], [3.0, 4.0]), "total": ZERO[:2]}

    def velocity(y: Any, t: Tensor) -> Any:
        return {"angle": 0 * y["angle"] + 7.0, "place": -y["place"], "total": y["place"].sum(1)}

    got = integrate(velocity, x, ZERO[:2], ONE[:2], 1e-9, 1e-9, spaces).x
    torch.testing.assert_close(got["place"], x["place"] * math.exp(-1), rtol=1e-7, atol=0)
    torch.testing.assert_close(got["total"], x["place"].sum(1) * (1 - math.exp(-1)))
    torch.testing.assert_close(got["angle"], 0 * ONE[:2, None] + 8.0 - 2 * math.pi)


def test_single_precision_stays_single_and_none_is_legal():
    x = torch.ones(2, 3)
    got = integrate(growth, x.float(), ZERO[:2], ONE[:2], 1e-4, 1e-4)
    assert got.x.dtype == torch.float32
    empty = integrate(growth, x[:0], ZERO[:0], ONE[:0], 1e-4, 1e-4)
    assert empty.x.shape == (0, 3) and empty.calls.shape == (0,)


def test_what_cannot_be_integrated_is_named():
    x = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(rv.ConvergenceError, match="row 1 it has shrunk"):
        integrate(lambda y, t: y * real([0.0], [torch.nan]), x, ZERO[:2], ONE[:2], 1e-6, 1e-6)
    with pytest.raises(rv.ConvergenceError, match="row 0 it has shrunk"):
        integrate(lambda y, t: y**2, 2 * x, ZERO[:2], ONE[:2], 1e-6, 1e-6)
    with pytest.raises(rv.ConvergenceError, match="at most 5 steps"):
        integrate(lambda y, t: -50 * y, x, ZERO[:2], ONE[:2], 1e-9, 1e-9, max_steps=5)
    with pytest.raises(rv.CapabilityError, match="exponential chart"):
        integrate(growth, x, ZERO[:2], ONE[:2], 1e-6, 1e-6, rv.Simplex(3))
