r"""Noise that does not depend on the number of steps: increments of one path, exactly.

In the clock :math:`u = t^{1/3}` increments add up, those of different steps are independent and
normal, and a sample converges as its grid is refined.
Tests reject at 1e-4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import noise
from tests import cases
from tests.samplers.oracles import RATE, five_factors, seeded, slope

DOUBLE = torch.empty((), dtype=torch.float64)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def times(*cells: float, depth: int = 12) -> list[float]:
    """The times at numbers of cells of the clock."""
    return [(cell / 2**depth) ** 3 for cell in cells]


def increment(path: rv.BrownianPath, t: Any, s: Any, n: int, size: int = 1) -> Tensor:
    return noise.normal((n, size), DOUBLE, path.over(t, s))


@pytest.mark.parametrize(
    "cells", [(4096, 2048, 0), (4096, 4095, 4094), (3000.3, 1777, 5.5), (9, 8, 4)]
)
def test_increments_add_up(cells):
    """sqrt(a) z_a + sqrt(b) z_b = sqrt(a + b) z_(a+b), whatever was asked before."""
    path, (t, r, s) = rv.BrownianPath(range(7)), times(*cells)
    a, b = cells[0] - cells[1], cells[1] - cells[2]
    first, second = increment(path, t, r, 7, 3), increment(path, r, s, 7, 3)
    whole = increment(rv.BrownianPath(range(7)), t, s, 7, 3)
    expected = (a**0.5 * first + b**0.5 * second) / (a + b) ** 0.5
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("cells", [(4096, 4000, 3999, 1500, 3, 0), (17, 16.5, 15.2, 12.9, 11.6, 0)])
def test_increments_are_independent_and_normal(size, cells):
    """20,000 paths: Kolmogorov-Smirnov of each step, correlations of all steps and elements."""
    path, n = rv.BrownianPath(range(20_000)), 20_000
    drawn = torch.cat([increment(path, t, s, n, size) for t, s in pairwise(times(*cells))], 1)
    tests = drawn.shape[1] * (drawn.shape[1] + 1) // 2
    for column in drawn.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > RATE / tests
    products = (drawn.T @ drawn / n - torch.eye(drawn.shape[1])) * n**0.5
    limit = stats.norm.isf(RATE / 2 / tests)
    off = products - torch.diag(products.diagonal())
    assert float(off.abs().max()) < limit
    assert float(products.diagonal().abs().max()) < limit * 2**0.5


def test_a_second_draw_inside_a_step_is_of_another_path():
    """So is one of another factor; outside a step draws go on as those of ``ItemNoise``."""
    path = rv.BrownianPath(range(20_000))
    bound = path.over(0.5, 0.4)
    first, second = (noise.normal((20_000, 1), DOUBLE, bound) for _ in range(2))
    assert abs(float((first * second).mean())) < 4 / 20_000**0.5
    assert torch.equal(noise.normal((20_000, 1), DOUBLE, path.over(0.5, 0.4)), first)
    outside, items = rv.BrownianPath(range(5)), rv.ItemNoise(range(5))
    for draw in (noise.normal, noise.uniform):
        assert torch.equal(draw((5, 2), DOUBLE, outside), draw((5, 2), DOUBLE, items))
    t, s = 0.5, 0.4
    nested = path.over(t, s)
    assert nested.over(t, s) is nested


def test_items_do_not_depend_on_their_batch_nor_on_the_order_of_steps():
    grid = pairwise([1.0, 0.7, 0.3, 0.1, 0.0])
    whole = [increment(path, t, s, 9, 4) for path in [rv.BrownianPath(range(9))] for t, s in grid]
    some = rv.BrownianPath([3, 8])
    for k, (t, s) in reversed(list(enumerate(pairwise([1.0, 0.7, 0.3, 0.1, 0.0])))):
        torch.testing.assert_close(increment(some, t, s, 2, 4), whole[k][[3, 8]])


@pytest.mark.parametrize("size", [1, 4, 5])
def test_times_of_their_own_take_their_own_increments(size):
    """A clock per row or per element gives each what a shared one gives it; in float32 too."""
    path = rv.BrownianPath(range(3))
    t, s = real(0.9, 0.5, 0.3), real(0.8, 0.2, 0.0)
    rows = increment(path, t, s, 3, size)
    for row in range(3):
        alone = increment(path, float(t[row]), float(s[row]), 3, size)
        torch.testing.assert_close(rows[row], alone[row], rtol=1e-9, atol=1e-9)
    by_element = increment(path, t[:, None].expand(3, size), s[:, None].expand(3, size), 3, size)
    torch.testing.assert_close(by_element, rows, rtol=1e-9, atol=1e-9)
    single = noise.normal((3, size), torch.empty(()), path.over(t, s))
    assert single.dtype == torch.float32 and torch.allclose(single.double(), rows, atol=1e-6)


def test_steps_inside_one_cell_still_have_a_normal_draw():
    path = rv.BrownianPath(range(20_000))
    z = increment(path, 0.5, 0.5 - 1e-9, 20_000)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > RATE
    t = torch.full((20_000,), 0.5, dtype=torch.float64)
    z = increment(path, t, t - 1e-9, 20_000)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > RATE


@pytest.mark.parametrize("sampler", [rv.Euler(), rv.Ancestral(), rv.Multistep()], ids=str)
@pytest.mark.parametrize("schedule", [rv.VariancePreserving(), rv.Cosine(0.1)], ids=str)
def test_samples_converge_path_by_path(sampler, schedule):
    """Strong order 1 for additive noise: the distance to the sample of 1,024 steps halves."""
    n, counts = 64, [16, 32, 64, 128]
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    means = real([0.7, -0.4], [-0.8, 0.5])
    data = rv.GaussianMixture(process, real(2.0, 1.0), means, real(0.5, 0.6))
    x_1 = process.prior.sample(n, seeded(1), DOUBLE)

    def at(steps: int) -> Tensor:
        grid = rv.Grid.uniform(steps, 0.95, 0.05)
        return sampler.sample(data, n, x_1=x_1, grid=grid, generator=rv.BrownianPath(range(n)))

    fine = at(1024)
    errors = [float((at(steps) - fine).norm(dim=1).mean()) for steps in counts]
    assert slope(counts, errors) > 0.75, errors
    other = sampler.sample(
        data, n, x_1=x_1, grid=rv.Grid.uniform(128, 0.95, 0.05), generator=seeded(2)
    )
    assert float((other - fine).norm(dim=1).mean()) > 10 * errors[-1]


@pytest.mark.parametrize("sampler", cases.SAMPLERS, ids=repr)
def test_it_serves_wherever_a_generator_does(sampler):
    """One factor of every kind, with evidence: equal seeds give equal samples, in any batch."""
    atoms = five_factors()
    given = {"token": torch.tensor([2])}

    def draw(seeds: list[int]) -> dict[str, Tensor]:
        path = rv.BrownianPath(seeds)
        return sampler.sample(atoms.denoiser, len(seeds), 6, given=given, generator=path)

    whole, part = draw([5, 6, 7, 8]), draw([7, 8])
    for name in whole:
        torch.testing.assert_close(part[name], whole[name][2:], rtol=0, atol=1e-9)
    assert (
        sampler.sample(atoms.denoiser, 0, 3, generator=rv.BrownianPath([]))["plane"].shape[0] == 0
    )


def test_the_law_of_a_sample_is_right():
    """The atoms by their weights, with a path for each of 2,000 items."""
    process = rv.Gaussian(rv.Euclidean(2))
    atoms = real([0.5, 0.1], [-1.0, 1.0], [1.2, -0.6])
    oracle = rv.Empirical(process, atoms, real(0.5, 0.3, 0.2))
    n = 2000
    x = rv.Euler().sample(oracle, n, 100, generator=rv.BrownianPath.drawn(n, seeded(3)))
    counts = torch.cdist(x, atoms).argmin(1).bincount(minlength=3)
    assert stats.chisquare(counts.numpy(), [1000, 600, 400]).pvalue > RATE


def test_what_is_no_path_is_refused():
    with pytest.raises(rv.SpaceError, match="depth"):
        rv.BrownianPath([1], depth=0)
    with pytest.raises(rv.SpaceError, match="3 seeds"):
        increment(rv.BrownianPath([1, 2, 3]), 0.5, 0.4, 4)
