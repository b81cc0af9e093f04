r"""Heun with churn is Algorithm 2 of Karras et al. (2022), on any Gaussian schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.grids import time_at
from reversal.schedules import Signal, SignalSchedule
from reversal.testing import check_sampler
from tests import cases
from tests.samplers.oracles import seeded


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Straight(SignalSchedule):
    """sigma = 80 t and alpha = 1: the schedule of EDM, with its sigma measured in units of 80."""

    def signal(self, t: Tensor) -> Signal:
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        return Signal(one, 80 * t, zero, 80 * one, zero, 2 * 80**2 * t)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffused(self, t: Tensor) -> Tensor:
        return (80 * t) ** 2


def mixture(schedule: Any) -> rv.GaussianMixture:
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    means = real([0.7, -0.4], [-0.8, 0.5])
    return rv.GaussianMixture(process, real(2.0, 1.0), means, real(0.3, 0.2))


def algorithm_2(
    denoise: Any, x: Tensor, t: list[float], churn: tuple[float, float, float, float], rng: Any
) -> Tensor:
    """Karras et al. (2022), Algorithm 2, line by line."""
    total, least, most, noise = churn
    steps = len(t) - 1
    for i in range(steps):
        gamma = min(total / steps, math.sqrt(2) - 1) if least <= t[i] <= most else 0.0
        hat = t[i] + gamma * t[i]
        if gamma:
            eps = noise * torch.randn(x.shape, generator=rng, dtype=x.dtype)
            x = x + math.sqrt(hat**2 - t[i] ** 2) * eps
        d = (x - denoise(x, hat)) / hat
        after = x + (t[i + 1] - hat) * d
        if t[i + 1] != 0:
            after_d = (after - denoise(after, t[i + 1])) / t[i + 1]
            after = x + (t[i + 1] - hat) * (d / 2 + after_d / 2)
        x = after
    return x


@pytest.mark.parametrize("steps", [6, 18])
@pytest.mark.parametrize(
    "churn", [(40.0, 0.05, 50.0, 1.003), (3.0, 0.01, 1.0, 1.007), (0, 0, 1, 1)]
)
def test_it_is_algorithm_2(steps, churn):
    """Equal trajectories for equal noise, on their grid with rho = 7, in float64."""
    data, n = mixture(Straight()), 16
    k = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    sigmas = (80 ** (1 / 7) + k * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = torch.cat([sigmas, torch.zeros(1)])

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return data(x, torch.full((n,), sigma / 80, dtype=torch.float64)).clean

    x_1 = 80 * torch.randn(n, 2, generator=seeded(1), dtype=torch.float64)
    exact = algorithm_2(denoise, x_1, times.tolist(), churn, seeded(2))
    sampler = rv.Heun.edm(steps, *churn)
    x = sampler.sample(data, n, grid=rv.Grid(times / 80), x_1=x_1, generator=seeded(2))
    torch.testing.assert_close(x, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [*cases.SIGNALS, Straight()], ids=repr)
def test_a_ratio_of_noise_to_signal_is_found_again(schedule):
    t = torch.linspace(1e-4, 1 - 1e-6, 101, dtype=torch.float64)
    signal = schedule.signal(t)
    found = time_at(schedule.signal, (signal.sigma / signal.alpha).log())
    torch.testing.assert_close(found, t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", cases.SIGNALS, ids=repr)
def test_churn_keeps_the_law(schedule):
    """At 40 steps, mean and variance of 4,000 draws of a mixture, z-tests at 1e-4 of four."""
    data, n = mixture(schedule), 4000
    x = rv.Heun(0.3).sample(data, n, steps=40, generator=seeded(3))
    exact = data.sample(200_000, seeded(4))
    z = (x.mean(0) - exact.mean(0)) / exact.std(0) * n**0.5
    spread = (exact - exact.mean(0)) ** 2
    ratio = (((x - x.mean(0)) ** 2).mean(0) - spread.mean(0)) / spread.std(0) * n**0.5
    assert float(torch.cat([z, ratio]).abs().max()) < 4.4
    flow = rv.Heun().sample(data, n, steps=40, generator=seeded(3))
    assert not torch.allclose(x, flow)


def test_it_conforms_and_shares_a_clock_over_factors():
    check_sampler(rv.Heun(0.2), rv.Gaussian(rv.Euclidean(2)), n=1000, steps=40)
    pair = rv.Independent(
        a=rv.Gaussian(rv.Euclidean(2)), b=rv.Gaussian(rv.Euclidean(1), rv.VarianceExploding())
    )
    check_sampler(rv.Heun(0.2), pair, n=1000, steps=40)
    atoms = {"a": real([0.5, 0.1], [-1.0, 1.0]), "b": real([0.3], [-0.7])}
    oracle = rv.Empirical(pair, atoms)
    x = rv.Heun(0.2).sample(oracle, 50, grid=rv.Grid.power(30, 2.0), generator=seeded(5))
    nearest = torch.cdist(torch.cat([x["a"], x["b"]], 1), torch.cat([atoms["a"], atoms["b"]], 1))
    assert float(nearest.min(1).values.max()) < 0.05


def test_rows_with_times_of_their_own_go_back_by_their_own_noise():
    """Tensors of times give what ticks give, with the same draws."""
    data = mixture(rv.Cosine())
    tick, later = rv.Grid.uniform(4).ticks()[2:4]
    x = data.sample(5, seeded(6))
    t, s = (torch.full((5,), at, dtype=torch.float64) for at in (0.5, 0.25))
    by_tick = rv.Heun(0.3).step(data, x, tick, later, generator=seeded(7))
    by_tensor = rv.Heun(0.3).step(data, x, t, s, generator=seeded(7))
    torch.testing.assert_close(by_tick, by_tensor, rtol=1e-9, atol=1e-9)


def test_churn_where_there_is_no_gaussian_noise_is_refused():
    for process in (rv.Brownian(rv.Torus(1)), rv.Mask(rv.Categorical(3))):
        oracle = rv.Empirical(process, process.space.example(1, torch.empty(())))
        with pytest.raises(rv.CapabilityError, match="Gaussian noise"):
            rv.Heun(0.1).sample(oracle, 2)
    with pytest.raises(rv.CapabilityError, match="gamma >= 0"):
        rv.Heun(-0.1)
    assert repr(rv.Heun()) == "Heun()"
