r"""The probability flow to a tolerance: exact flow maps, rows on their own, clocks, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.testing import check_sampler
from tests import cases
from tests.samplers import oracles
from tests.samplers.oracles import seeded

SCHEDULES = [*cases.SIGNALS]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gaussian(schedule: Any) -> rv.GaussianData:
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    return rv.GaussianData(process, real(0.7, -0.4), real([0.6, 0.3], [0.3, 0.4]))


def flowed(data: rv.GaussianData, x: Tensor, t: float, s: float) -> Tensor:
    """The exact flow map, along the axes of the covariance."""
    at, to = (data.process.schedule.signal(real(time)) for time in (t, s))
    values, axes = torch.linalg.eigh(data.covariance)
    ratio = (to.alpha**2 * values + to.sigma**2) / (at.alpha**2 * values + at.sigma**2)
    return to.alpha * data.mean + ((x - at.alpha * data.mean) @ axes * ratio.sqrt()) @ axes.T


@schedules
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_the_flow_of_gaussian_data_is_met_to_the_tolerance(schedule, tolerance):
    """From 1 to 0: the tolerance times the steps, and what the bridge at ``last`` leaves."""
    data, n = gaussian(schedule), 32
    x_1 = data.process.prior.sample(n, seeded(1), data.like)
    sampler = rv.Adaptive(tolerance, tolerance)
    x = sampler.sample(data, n, x_1=x_1, generator=seeded(2))
    error = (x - flowed(data, x_1, 1.0, 0.0)).abs().max()
    assert float(error) < 200 * tolerance + 5e-6
    assert sampler.calls is not None and sampler.calls.shape == (n,)
    assert int(sampler.calls.min()) > 6


@schedules
def test_a_grid_is_met_at_each_of_its_times(schedule):
    data, n, seen = gaussian(schedule), 8, []
    x_1 = data.process.kernel(real([0.3, 1.0]).expand(n, 2), torch.full((n,), 0.95)).sample(
        seeded(3)
    )
    grid = rv.Grid(real(0.95, 0.6, 0.3, 0.2))
    rv.Adaptive(1e-9, 1e-9).sample(
        data, n, x_1=x_1, grid=grid, generator=seeded(0), on_step=lambda k, x: seen.append(x)
    )
    assert len(seen) == 3
    for x, s in zip(seen, (0.6, 0.3, 0.2), strict=True):
        torch.testing.assert_close(x, flowed(data, x_1, 0.95, s), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "process", [rv.Gaussian(rv.Euclidean(2)), rv.Brownian(rv.Torus(2))], ids=repr
)
def test_a_row_is_the_same_alone_and_together(process):
    """Rows are integrated by their own steps: the same numbers in a batch of one."""
    atoms = process.prior.sample(3, seeded(4), torch.empty((), dtype=torch.float64))
    oracle = rv.Empirical(process, atoms, real(0.5, 0.3, 0.2))
    x_1 = process.prior.sample(4, seeded(5), oracle.like)
    sampler = rv.Adaptive(1e-4, 1e-4)
    whole = sampler.sample(oracle, 4, x_1=x_1, generator=seeded(0))
    calls = sampler.calls
    assert calls is not None and len(calls.unique()) > 1
    for row in range(4):
        alone = sampler.sample(oracle, 1, x_1=x_1[row : row + 1], generator=seeded(0))
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-12)
        assert sampler.calls is not None and int(sampler.calls) == int(calls[row])


@pytest.mark.parametrize("space", [rv.Torus(2), rv.SO3()], ids=str)
def test_flows_on_manifolds_agree_with_many_small_steps(space):
    """Against Heun at 100 and 200 steps on [0.4, 1], extrapolated by its order."""
    process, n = rv.Brownian(space), 3
    atoms = process.prior.sample(3, seeded(6), torch.empty((), dtype=torch.float64))
    oracle = rv.Empirical(process, atoms, real(0.5, 0.3, 0.2))
    x_1 = process.prior.sample(n, seeded(7), oracle.like)
    got = rv.Adaptive(1e-7, 1e-7).sample(oracle, n, x_1=x_1, grid=rv.Grid(real(1, 0.4)))

    def gap(steps: int) -> float:
        grid = rv.Grid.uniform(steps, 1, 0.4)
        pairs = oracles.distance(space, rv.Heun().sample(oracle, n, x_1=x_1, grid=grid), got)
        return float(torch.stack([pairs[i, i].max() for i in range(n)]).max())

    coarse, fine = gap(50), gap(100)
    assert fine < 1e-3
    assert 3 < coarse / fine < 5


def real_factors() -> rv.Independent:
    return rv.Independent(
        place=rv.Gaussian(rv.Euclidean(2), rv.Cosine()),
        angle=rv.Brownian(rv.Torus(1)),
        pose=rv.Brownian(rv.SO3()),
    )


@pytest.mark.parametrize(
    "process",
    [
        rv.Gaussian(rv.Euclidean(2)),
        pytest.param(rv.Brownian(rv.Torus(2)), marks=pytest.mark.slow),
        pytest.param(rv.Brownian(rv.SO3()), marks=pytest.mark.slow),
        pytest.param(real_factors(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_it_conforms(process):
    check_sampler(rv.Adaptive(1e-4, 1e-4), process, n=1000)


def test_evidence_stands_and_the_rest_is_conditional():
    """A known entry of Gaussian data: the other follows the flow of its conditional law."""
    data, n = gaussian(rv.Cosine()), 16
    values = real([1.5, 0.0]).expand(n, 2)
    known = torch.tensor([True, False])
    x_1 = data.process.prior.sample(n, seeded(8), data.like)
    x = rv.Adaptive(1e-8, 1e-8).sample(data, n, given=(values, known), x_1=x_1, generator=seeded(0))
    assert torch.equal(x[:, 0], values[:, 0])
    mean, variance = -0.4 + 0.3 / 0.6 * (1.5 - 0.7), 0.4 - 0.3**2 / 0.6
    alone = rv.GaussianData(rv.Gaussian(rv.Euclidean(1), rv.Cosine()), real(mean), real([variance]))
    torch.testing.assert_close(x[:, 1:], flowed(alone, x_1[:, 1:], 1.0, 0.0), rtol=0, atol=1e-5)


def test_an_interpolant_is_followed_to_its_end():
    """The velocity of a pair of normal laws is known; there is no bridge to finish with."""
    path = rv.Interpolant(rv.Euclidean(1), rv.Paired())

    class Straight(rv.core.Denoiser):
        process, clocks, like = path, rv.AnyClock(), torch.empty((), dtype=torch.float64)

        def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> rv.Estimate:
            var = (1 - t) ** 2 * 0.25 + t**2
            rate = (t - (1 - t) * 0.25) / var
            return rv.Estimate(path, x_t, t, rv.Kind.VELOCITY, rate[:, None] * x_t)

    x_1 = real([1.0], [-2.0])
    x = rv.Adaptive(1e-9, 1e-9).sample(Straight(), 2, x_1=x_1)
    torch.testing.assert_close(x, x_1 / 2, rtol=1e-7, atol=1e-7)


def test_jumps_and_paths_without_a_velocity_are_refused_before_the_first_step():
    for process in (rv.Mask(rv.Categorical(3)), cases.mixed(), cases.chain()):
        oracle = rv.Empirical(process, process.space.example(2, torch.empty(())))
        with pytest.raises(rv.CapabilityError, match="velocity"):
            rv.Adaptive().sample(oracle, 2)
    with pytest.raises(rv.CapabilityError, match="rtol >= 0"):
        rv.Adaptive(atol=0.0)


def test_a_velocity_that_is_no_number_is_an_error_that_says_where():
    network = rv.NetworkDenoiser(lambda x, t, cond: x / 0 * 0, rv.Gaussian(rv.Euclidean(1)))
    with pytest.raises(rv.ConvergenceError, match="row 0 it has shrunk"):
        rv.Adaptive().sample(network, 2, generator=seeded(0))
