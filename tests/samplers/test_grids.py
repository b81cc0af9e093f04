r"""Grids as values: their equations, their ends, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from tests import cases
from tests.samplers.oracles import seeded
from tests.samplers.test_heun import Straight


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


signals = pytest.mark.parametrize("schedule", [*cases.SIGNALS, Straight()], ids=repr)


def ratio(schedule: Any, times: Tensor) -> Tensor:
    signal = schedule.signal(times)
    return signal.sigma / signal.alpha


def test_powers_and_cosines():
    k = torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(rv.Grid.quadratic(5).times, (1 - k / 5) ** 2)
    expected = 0.1 + 0.8 * (1 + torch.cos(math.pi * k / 5)) / 2
    torch.testing.assert_close(rv.Grid.cosine(5, 0.9, 0.1).times, expected)


def test_karras_on_the_schedule_of_edm_is_their_equation():
    """t_i = (80^(1/7) + i/(N-1) (0.002^(1/7) - 80^(1/7)))^7 and t_N = 0."""
    i = torch.arange(18, dtype=torch.float64)
    edm = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = rv.Grid.karras(Straight(), 18).times * 80
    torch.testing.assert_close(times, torch.cat([edm, torch.zeros(1)]), rtol=1e-9, atol=1e-12)


@signals
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_ratios_are_spaced_as_said(schedule, steps):
    """Equal steps of the power and of the log, from 1 to 0, on every Gaussian schedule."""
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    karras, logs = rv.Grid.karras(process, steps), rv.Grid.log_snr(schedule, steps)
    for grid in (karras, logs):
        assert grid.steps == steps and float(grid.times[0]) == 1 and float(grid.times[-1]) == 0
    if steps < 7:
        return
    powers = ratio(schedule, karras.times[1:-1]) ** (1 / 7)
    torch.testing.assert_close(powers.diff(), powers.diff().mean().expand(steps - 2))
    lam = ratio(schedule, logs.times[1:-1]).log()
    torch.testing.assert_close(lam.diff(), lam.diff().mean().expand(steps - 2))
    assert abs(float(ratio(schedule, logs.times[-2])) - 2e-3) < 1e-9


@signals
def test_shares_of_noise_are_spaced_as_said(schedule):
    """Equal steps of (ratio / (c + ratio))^(1 / p), with c from the dimension and the steps."""
    for shape, steps, c in (((2,), 7, 1.0), ((1,), 7, 1.0), ((2, 9), 7, 3.0), ((2, 9), 20, 2.0)):
        grid = rv.Grid.share(rv.Gaussian(rv.Euclidean(*shape), schedule), steps, exponent=2.0)
        assert float(grid.times[0]) == 1 and float(grid.times[-1]) == 0
        signal = schedule.signal(grid.times)
        shares = (signal.sigma / (c * signal.alpha + signal.sigma)) ** 0.5
        torch.testing.assert_close(shares.diff(), shares.diff().mean().expand(steps))
    with pytest.raises(rv.ClockError, match=r"scale=1\.0"):
        rv.Grid.share(schedule, 7)
    for wrong in ({"scale": -1.0}, {"scale": 1.0, "exponent": 0.0}):
        with pytest.raises(rv.ClockError, match="finite numbers"):
            rv.Grid.share(schedule, 7, **wrong)


def test_few_steps_of_unipc_err_less_by_shares_in_many_dimensions():
    """Ten components in 16 dimensions: at 5 and 10 calls less than on the process's own grid."""
    z = torch.randn(74, 16, generator=seeded(4), dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(16))
    data = rv.GaussianMixture(process, real(*[1.0] * 10), z[:10], real(*[0.02] * 10))
    exact = rv.UniPC(3).sample(data, 64, grid=rv.Grid.share(process, 400), x_1=z[10:])

    def error(grid: rv.Grid) -> float:
        x = rv.UniPC().sample(data, 64, x_1=z[10:], grid=grid)
        return float((x - exact).square().mean().sqrt())

    for steps in (5, 10):
        assert error(rv.Grid.share(process, steps)) < error(process.grid(steps))


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("schedule", [rv.VariancePreserving(), rv.Cosine()], ids=repr)
def test_the_own_grid_errs_less_than_ratio_grids_on_two_tight_modes(schedule, steps):
    """What docs/choose.md says: at least three times less along the flow, by Multistep(eta=0)."""
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    data = rv.GaussianMixture(process, real(1.0, 1.0), real([-1.0], [1.0]), real(0.01, 0.01))
    x_1 = process.prior.sample(128, seeded(3), data.like)
    exact = rv.Adaptive(1e-7, 1e-7).sample(data, 128, x_1=x_1, generator=seeded(0))

    def error(grid: rv.Grid) -> float:
        x = rv.Multistep(eta=0).sample(data, 128, x_1=x_1, grid=grid)
        return float((x - exact).abs().mean())

    others = [rv.Grid.karras(process, steps), rv.Grid.log_snr(process, steps)]
    assert 3 * error(process.grid(steps)) < min(map(error, others))


def test_what_has_no_ratio_is_refused():
    for process in (rv.Mask(rv.Categorical(3)), rv.Brownian(rv.Torus(1))):
        with pytest.raises(rv.ClockError, match="Gaussian process"):
            rv.Grid.karras(process, 5)
    for settings in ({"least": 0.0}, {"least": 90.0}, {"steps": 0}):
        with pytest.raises(rv.ClockError, match="0 < least < most"):
            rv.Grid.log_snr(**{"process": rv.Cosine(), "steps": 5, **settings})
