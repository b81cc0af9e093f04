r"""Grids that are fitted to a denoiser: the cheapest way exactly, and what it is worth."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.samplers.fitted import _costs, cheapest
from tests.samplers.oracles import seeded


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_way_is_the_cheapest_of_all(steps):
    """Against every choice of nodes, for costs that no rule made."""
    nodes = 8
    costs = torch.rand(nodes, nodes, generator=seeded(steps), dtype=torch.float64)
    costs[torch.ones(nodes, nodes).tril().bool()] = torch.inf

    def price(way: Any) -> float:
        return float(sum(costs[a, b] for a, b in pairwise(way)))

    ways = [(0, *inner, nodes - 1) for inner in combinations(range(1, nodes - 1), steps - 1)]
    assert tuple(cheapest(costs, steps)) == min(ways, key=price)


def test_a_step_costs_what_its_error_comes_to_at_the_data():
    """Under normal data the flow is a scaling: miss by a step, and go on without an error."""
    process, std, n = rv.Gaussian(rv.Euclidean(1)), 0.3, 4096
    data = rv.GaussianData(process, real(0.0), real([std**2]))
    grid = process.grid(64)
    signal = process.schedule.signal(grid.times)
    size = ((signal.alpha * std) ** 2 + signal.sigma**2).sqrt()
    x_1 = size[0] * torch.randn((n, 1), generator=seeded(5), dtype=torch.float64)
    found = _costs(data, grid, x_1, None)
    x, ticks = x_1 * size[:, None, None] / size[0], grid.ticks()
    for i, j in ((0, 12), (16, 36), (40, 60)):
        estimate = data(x[i], ticks[i], None)
        end = process.ancestor(x[i], ticks[i], ticks[j], estimate, 0.0).mean
        arrived = size[-1] / size[j] * (end - x[j])
        assert float(found[i, j]) == pytest.approx(float(arrived.square().mean()), rel=0.1)


def mixtures() -> dict[str, rv.GaussianMixture]:
    """Two tight modes on a line, and ten wide ones in 16 dimensions."""
    line = rv.Gaussian(rv.Euclidean(1))
    high = rv.Gaussian(rv.Euclidean(16))
    means = torch.randn(10, 16, generator=seeded(7), dtype=torch.float64)
    ones = torch.ones(10, dtype=torch.float64)
    return {
        "two": rv.GaussianMixture(line, ones[:2], real([-1.0], [1.0]), 0.01 * ones[:2]),
        "ten": rv.GaussianMixture(high, ones, means, 0.05 * ones),
    }


@pytest.mark.parametrize("name", ["two", "ten"])
def test_it_errs_less_than_equal_steps_and_than_log_snr(name):
    """Ten steps of the default sampler's rule along the flow, against its limit."""
    data = mixtures()[name]
    process, n = data.process, 128
    fitted = rv.fitted_grid(data, 10, n=128, nodes=64, generator=seeded(1))
    assert fitted.steps == 10 and float(fitted.times[0]) == 1 and float(fitted.times[-1]) == 0
    x_1 = process.prior.sample(n, seeded(2), data.like)
    exact = rv.Heun().sample(data, n, x_1=x_1, grid=process.grid(300))

    def error(grid: rv.Grid) -> float:
        x = rv.Multistep(eta=0).sample(data, n, x_1=x_1, grid=grid)
        return float((x - exact).norm(dim=1).mean())

    assert error(fitted) < 0.8 * error(rv.Grid.uniform(10))
    assert error(fitted) < error(rv.Grid.log_snr(process, 10))


def test_the_law_of_the_default_sampler_is_closer_too():
    """The Wasserstein distance of 4,000 draws on a line to the quantiles of the mixture."""
    data, n = mixtures()["two"], 4000
    levels = (torch.arange(n // 2, dtype=torch.float64) + 0.5) / (n // 2)
    half = 0.1 * torch.special.ndtri(levels)
    exact = torch.cat([half - 1, half + 1])

    def error(grid: rv.Grid) -> float:
        x = rv.Multistep().sample(data, n, grid=grid, generator=seeded(4))
        low = x[x < 0].sort().values
        high = x[x > 0].sort().values
        return sum(
            float((part - torch.quantile(half_of, _levels(len(part)))).abs().mean())
            for part, half_of in ((low, exact[: n // 2]), (high, exact[n // 2 :]))
        )

    fitted = error(rv.fitted_grid(data, 10, n=128, nodes=64, generator=seeded(1)))
    assert fitted < 0.8 * error(rv.Grid.uniform(10))
    assert fitted < error(rv.Grid.log_snr(data.process, 10))


def _levels(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def test_it_is_a_value_that_can_be_kept_and_walked_again():
    data = mixtures()["two"]
    grid = rv.fitted_grid(data, 5, n=32, nodes=20, generator=seeded(1))
    kept = rv.Grid(torch.tensor(json.loads(json.dumps(grid.times.tolist())), dtype=torch.float64))
    assert torch.equal(kept.times, grid.times)
    one, other = (
        rv.Multistep().sample(data, 3, grid=at, generator=seeded(0)) for at in (grid, kept)
    )
    assert torch.equal(one, other)
    assert torch.equal(
        rv.fitted_grid(data, 20, n=32, nodes=20, generator=seeded(1)).times,
        data.process.grid(20).times,
    )


def test_what_cannot_be_fitted_is_refused():
    data = mixtures()["two"]
    mask = rv.Enumerated(rv.Mask(rv.Categorical(3)), real(0.2, 0.3, 0.5))
    with pytest.raises(rv.ClockError, match=r"process\.grid"):
        rv.fitted_grid(mask, 5)
    for settings in ({"nodes": 4}, {"n": 1}, {"nodes": 9.5}):
        with pytest.raises(rv.ClockError, match="n >= 2 states"):
            rv.fitted_grid(data, 5, **settings)
    with pytest.raises(rv.ClockError, match="integer >= 1"):
        rv.fitted_grid(data, 0)
    with pytest.raises(rv.SpaceError, match="32 items"):
        rv.fitted_grid(data, 5, n=32, x_1=torch.zeros(3, 1))
    broken = rv.NetworkDenoiser(lambda x, t, cond: x / 0, data.process, rv.Noise())
    with pytest.raises(rv.ConvergenceError, match="fine walk"):
        rv.fitted_grid(broken, 3, n=4, nodes=5, generator=seeded(0))
