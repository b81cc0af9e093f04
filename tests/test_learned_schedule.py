r"""A learned schedule: monotone, invertible, and trained by the variance of the bound.

For data N(0, s^2) the error of the exact noise estimate is :math:`e \sim N(0, m)` with
:math:`m = s^2 / (s^2 + e^{\gamma})`, so that with :math:`L = \tfrac12 \gamma' e^2`

.. math:: E L = \tfrac12 \int m\, d\gamma = \tfrac12 \Big[-\log(s^2 e^{-\gamma} + 1)\Big], \qquad
   E L^2 = \tfrac34 \int (\gamma' m)^2 dt \ge 3 (E L)^2 .
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reversal as rv
from tests.cases import bent

SPREAD = 0.7
LINE = rv.Euclidean(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nodes(count: int = 64, panels: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's rule on (0, 1), in panels."""
    at, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(count))
    starts = torch.arange(panels, dtype=torch.float64)[:, None]
    return ((starts + (1 + at) / 2) / panels).flatten(), (weights / 2 / panels).repeat(panels)


def left(signal: Any) -> Tensor:
    """m, the mean square of the error of the exact estimate."""
    return SPREAD**2 / (SPREAD**2 + (signal.sigma / signal.alpha) ** 2)


@torch.no_grad()
def moments(schedule: rv.LearnedSchedule) -> tuple[float, float]:
    """E L and E L^2, through the weighting of the library."""
    t, weights = nodes()
    signal = schedule.signal(t)
    rate = rv.LikelihoodWeighting().weigh(left(signal), signal)
    return float(weights @ rate), float(3 * weights @ rate**2)


def bound(least: float, most: float) -> float:
    """E L in closed form."""
    return (math.log1p((SPREAD / least) ** 2) - math.log1p((SPREAD / most) ** 2)) / 2


class Exact(torch.nn.Module):
    """E[epsilon | x_t] of N(0, s^2), from the level that it is shown."""

    def __init__(self, schedule: rv.LearnedSchedule) -> None:
        super().__init__()
        self.first, self.last = 2 * math.log(schedule.least), 2 * math.log(schedule.most)

    def forward(self, x_t: Tensor, level: Tensor, cond: Any) -> Tensor:
        gamma = (self.first + (self.last - self.first) * level)[:, None]
        alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
        return sigma * x_t / (alpha**2 * SPREAD**2 + sigma**2)


def exact(schedule: rv.LearnedSchedule) -> rv.NetworkDenoiser:
    process = rv.Gaussian(LINE, schedule)
    return rv.NetworkDenoiser(Exact(schedule), process, rv.Noise(), time=schedule.level)


@pytest.mark.parametrize("strength", [0.0, 1.0, -2.0, 4.0])
def test_the_log_ratio_falls_and_is_inverted(strength):
    """Whatever the parameters; the ends are where they were put."""
    schedule = bent(strength, least=0.01, most=30.0)
    t = torch.linspace(1e-6, 1, 4001, dtype=torch.float64)
    ratio = schedule.log_ratio(t)
    assert bool((ratio.diff() < 0).all())
    torch.testing.assert_close(schedule.time_of(ratio), t, rtol=0, atol=1e-7)
    ends = schedule.log_ratio(torch.tensor([1e-300, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([-math.log(0.01), -math.log(30.0)], abs=1e-6)
    level = schedule.level(t)
    assert bool((level.diff() > 0).all()) and float(level[-1]) == pytest.approx(1, abs=1e-12)
    stands = torch.tensor([[0.0, 1 - 2.0**-24, 1.0]])
    shown = schedule.level(stands)
    assert shown.tolist()[0] == [0.0, 1 - 2.0**-24, 1.0] and shown.dtype == torch.float32


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_the_diffusion_loss_depends_on_the_ends_alone_and_its_variance_does_not(strength):
    """By quadrature to 1e-9, in closed form; three shapes, variances at least a tenth apart."""
    schedule = bent(strength, least=0.01, most=30.0)
    mean, square = moments(schedule)
    assert mean == pytest.approx(bound(0.01, 30.0), rel=1e-6)
    assert square > 3 * mean**2
    if strength:
        assert abs(square / moments(bent(0.0, least=0.01, most=30.0))[1] - 1) > 0.1


def test_the_loss_of_the_library_is_that_integral():
    """40,000 draws within 4.5 standard errors, mean and mean square; false alarms below 1e-4."""
    schedule = bent(least=0.05, most=20.0)
    x_0 = SPREAD * torch.randn(40_000, 1, dtype=torch.float64, generator=seeded())
    objective = rv.Regression(weighting=rv.LikelihoodWeighting())
    losses = objective(exact(schedule), x_0, generator=seeded(1))
    for draws, known in zip((losses, losses**2), moments(schedule), strict=True):
        assert abs(float(draws.mean()) - known) < 4.5 * float(draws.std()) / 200


def test_training_takes_the_variance_down_and_leaves_the_bound():
    """From the first shape to near the least, 3 (E L)^2; the network is exact throughout."""
    schedule = bent(0.3, least=0.05, most=20.0).requires_grad_()
    schedule.ends.requires_grad_(False)
    denoiser = exact(schedule)
    objective = rv.LeastVariance(rv.Regression(weighting=rv.LikelihoodWeighting()))
    optimizer, g = torch.optim.Adam(denoiser.parameters(), 0.05), seeded(2)
    mean, before = moments(schedule)
    for _ in range(150):
        x_0 = SPREAD * torch.randn(512, 1, dtype=torch.float64, generator=g)
        optimizer.zero_grad()
        objective(denoiser, x_0, generator=g).mean().backward()
        optimizer.step()
    found, after = moments(schedule)
    least = 3 * mean**2
    assert found == pytest.approx(mean, rel=1e-6)
    assert after < 1.1 * least < 1.8 * least < before


def trainable() -> tuple[rv.LearnedSchedule, rv.NetworkDenoiser]:
    schedule = bent(0.3, least=0.05, most=20.0)
    for part in schedule.shape_parameters():
        part.requires_grad_()
    return schedule, exact(schedule)


def gradient(schedule: rv.LearnedSchedule) -> Tensor:
    return torch.cat([p.grad.flatten() for p in schedule.shape_parameters()])


def test_the_shape_is_pulled_by_the_square_and_the_network_by_the_loss():
    """Beside two separate backward passes: equal to 1e-12 of the largest entry."""
    schedule, _ = trainable()
    scale = torch.nn.Parameter(torch.tensor(0.9, dtype=torch.float64))
    inner = Exact(schedule)
    denoiser = rv.NetworkDenoiser(
        lambda x, level, cond: scale * inner(x, level, cond),
        rv.Gaussian(LINE, schedule),
        rv.Noise(),
        time=schedule.level,
    )
    objective = rv.Regression(weighting=rv.LikelihoodWeighting())
    x_0 = torch.randn(300, 1, dtype=torch.float64, generator=seeded())
    losses = objective(denoiser, x_0, generator=seeded(1))
    (expected,) = torch.autograd.grad(losses.mean(), scale, retain_graph=True)
    shape = list(schedule.shape_parameters())
    pulls = torch.autograd.grad((losses**2).mean().log() / 2, shape)
    got = rv.LeastVariance(objective)(denoiser, x_0, generator=seeded(1))
    torch.testing.assert_close(got, losses, rtol=1e-12, atol=1e-12)
    got.mean().backward()
    torch.testing.assert_close(scale.grad, expected, rtol=1e-9, atol=1e-12)
    wanted = torch.cat([pull.flatten() for pull in pulls])
    assert float((gradient(schedule) - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_a_denoiser_has_the_schedule_among_its_modules(tmp_path):
    """Parameters once, weights saved and loaded, and a copy of its own with a copy."""
    schedule, denoiser = trainable()
    assert sum(p is schedule.heights for p in denoiser.parameters()) == 1
    fresh = exact(rv.LearnedSchedule(0.05, 20.0))
    fresh.load_state_dict(denoiser.state_dict())
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    there = fresh.process.schedule
    torch.testing.assert_close(there.log_alpha(t), schedule.log_alpha(t), rtol=0, atol=0)
    other = copy.deepcopy(denoiser)
    assert other.process.schedule is other.learned[0] is not schedule
    assert repr(other.process) == repr(denoiser.process)
    with torch.no_grad():
        other.process.schedule.heights += 1
    assert repr(other.process) != repr(denoiser.process)


@pytest.mark.parametrize("how", ["step", "data", "load"])
def test_a_grid_forgets_what_it_computed_from_other_parameters(how):
    """Coefficients of a grid, of its ticks and of a walk are those of the schedule as it is."""
    schedule, denoiser = trainable()
    grid = rv.Grid.uniform(6)
    x_1 = torch.randn(5, 1, dtype=torch.float64, generator=seeded())
    kept = grid.ticks()

    def walk(grid: rv.Grid) -> Tensor:
        return rv.Heun(gamma=0.1).sample(denoiser, 5, grid=grid, x_1=x_1, generator=seeded(3))

    before = walk(grid), kept[2].at(schedule.signal).sigma
    assert kept[2].at(schedule.signal) is kept[2].at(schedule.signal)
    with torch.no_grad():
        if how == "step":
            schedule.heights += 2.0 * torch.linspace(-1, 1, 16)
        elif how == "data":
            schedule.heights.data = schedule.heights + 2.0 * torch.linspace(-1, 1, 16)
        else:
            schedule.load_state_dict(bent(least=0.05, most=20.0).state_dict())
    after = walk(grid), kept[2].at(schedule.signal).sigma
    torch.testing.assert_close(after[0], walk(rv.Grid.uniform(6)), rtol=0, atol=0)
    now = float(schedule.signal(grid.times[2:3]).sigma.detach())
    assert after[1] == pytest.approx(now, rel=1e-12) != before[1]
    assert float((after[0] - before[0]).abs().max()) > 1e-3


def test_known_and_dropped_sites_leave_finite_gradients(global_seed):
    """Under clocks per site, at t exactly 0 and 1, in float32."""
    schedule = rv.LearnedSchedule()
    plane = rv.Euclidean(3)
    network = torch.nn.Linear(3, 3)
    process = rv.Gaussian(plane, schedule)
    for how in (rv.Noise(), rv.Velocity(), rv.Preconditioned(), rv.Score()):
        denoiser = rv.NetworkDenoiser(
            lambda x, t, cond: network(x), process, how, rv.SiteClocks(0.6, 0.5), schedule.level
        )
        x_0 = torch.randn(200, 3, generator=seeded())
        objective = rv.Regression(weighting=rv.LikelihoodWeighting())
        loss = objective(denoiser, x_0, generator=seeded(1)).mean()
        slopes = torch.autograd.grad(loss, list(schedule.shape_parameters()))
        assert all(bool(slope.isfinite().all()) for slope in slopes)
        assert any(float(slope.abs().max()) > 0 for slope in slopes)


def test_learned_ends_have_a_gradient_of_the_bound():
    """A start too noisy for the data is moved down by the discrete bound, the shape by neither."""
    schedule = rv.LearnedSchedule(0.5, 20.0, learns_ends=True)
    denoiser = exact(schedule)
    x_0 = SPREAD * torch.randn(2000, 1, dtype=torch.float64, generator=seeded())
    rv.StepBound(50)(denoiser, x_0, generator=seeded(1)).mean().backward()
    assert float(schedule.ends.grad[0]) > 0.01
    assert not rv.LearnedSchedule().ends.requires_grad


def test_everything_runs_on_a_schedule_in_training():
    """No part needs numbers without a gradient; the flow ends at the law of the least noise."""
    _, denoiser = trainable()
    process = denoiser.process
    data = rv.GaussianData(process, torch.zeros(1).double(), torch.eye(1).double() * SPREAD**2)
    x = SPREAD * torch.randn(4, 1, dtype=torch.float64, generator=seeded())
    ends = process.schedule.signal(torch.tensor([1e-9, 1.0], dtype=torch.float64))
    first, last = torch.hypot(SPREAD * ends.alpha, ends.sigma).detach()
    prior = torch.distributions.Normal(0.0, 1.0)
    known = prior.log_prob(x * last / first)[:, 0] + (last / first).log()
    for own in (denoiser, data):
        found = rv.flow_log_prob(own, x)
        torch.testing.assert_close(found.value, known, rtol=0, atol=1e-4)
        assert bool(rv.elbo(own, x, num_samples=2, generator=seeded()).value.isfinite().all())
        for sampler in (rv.Multistep(), rv.UniPC(), rv.DEIS(), rv.Adaptive(), rv.Langevin()):
            drawn = sampler.sample(own, 3, steps=5, generator=seeded())
            assert bool(drawn.isfinite().all()) and not drawn.requires_grad
    served = rv.Rescheduled(denoiser, rv.Shortened(rv.Cosine(0.06), 0.9))
    assert bool(rv.Euler().sample(served, 3, steps=5, generator=seeded()).isfinite().all())
    for grid in (rv.Grid.karras(process, 5), rv.Grid.log_snr(process, 5), process.grid(5)):
        assert not grid.times.requires_grad


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(rv.ClockError, match="Expected a schedule"):
        rv.LearnedSchedule(1.0, 0.1)
    with pytest.raises(rv.ClockError, match="Expected a schedule"):
        rv.LearnedSchedule(bends=0)
    _, denoiser = trainable()
    x_0 = torch.zeros(3, 1, dtype=torch.float64)
    for weighting in (None, rv.Simple(), rv.MinSNR()):
        with pytest.raises(rv.CapabilityError, match=r"freeze it: schedule\.requires_grad_"):
            rv.Regression(weighting=weighting)(denoiser, x_0, generator=seeded())
    denoiser.process.schedule.requires_grad_(False)
    assert rv.Regression()(denoiser, x_0, generator=seeded()).shape == (3,)
    fixed = rv.NetworkDenoiser(lambda x, t, cond: x, rv.Gaussian(LINE), rv.Noise())
    with pytest.raises(rv.CapabilityError, match="learned schedule"):
        rv.LeastVariance(rv.Regression())(fixed, torch.zeros(3, 1))
