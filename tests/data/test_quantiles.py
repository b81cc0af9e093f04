"""The maps to the normal law and the lattices under them: increasing, inverted, exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reversal.data.lattice import Lattice, digits
from reversal.data.quantiles import QuantileMap, cell_knots, sample_knots


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=2, max_size=600, unique=True),
    st.integers(1, 9),
)
def test_the_map_of_a_sample_increases_strictly_and_has_an_inverse(numbers, times):
    knots, normals = sample_knots(np.repeat(numbers, times))
    assert_increasing_with_inverse(knots, normals)


@settings(max_examples=60)
@given(st.sets(st.integers(0, 2**40), min_size=2, max_size=300), st.integers(0, 2**32))
def test_the_map_of_cells_increases_strictly_and_has_an_inverse(cells, seed):
    counts = rng(seed).geometric(0.01, len(cells))
    knots, normals = cell_knots(np.sort(np.array(list(cells), dtype=float)), counts)
    assert knots[0] == min(cells) - (0.5 if counts[0] > 3 else 0)
    assert knots[-1] == max(cells) + (0.5 if counts[-1] > 3 else 0)
    end = -stats.norm.ppf(0.5 / counts.sum())
    assert max(-normals[0], normals[-1]) <= end + 1e-12
    assert_increasing_with_inverse(knots, normals)


def assert_increasing_with_inverse(knots, normals):
    assert len(knots) <= 1025
    assert (np.diff(knots) > 0).all() and (np.diff(normals) > 0).all()
    chart = QuantileMap.pack([(knots, normals)])
    span = knots[-1] - knots[0]
    z = torch.linspace(2 * normals[0], 2 * normals[-1], 1001, dtype=torch.float64)[:, None]
    values = chart.inverse(z)
    assert (values.diff(dim=0) >= -(2.0**-52) * span).all()
    slope = (-chart.log_jacobian(z)).exp()
    ulp = 2.0**-52 * (values.abs() + abs(knots[0]) + abs(knots[-1]) + slope * z.abs())
    assert ((chart.inverse(chart.forward(values)) - values).abs() <= 8 * ulp + 1e-9 * span).all()


def test_the_map_is_linear_between_knots_and_goes_on_beyond_them_by_one_per_range_at_most():
    chart = QuantileMap.pack([((0.0, 1.0, 3.0), (-1.0, 0.0, 0.5)), ((0.0, 4.0), (-2.0, 2.0))])
    values = torch.tensor([[-1.0, -1.0], [0.5, 1.0], [2.0, 2.0], [5.0, 5.0]], dtype=torch.float64)
    normals = torch.tensor([[-4 / 3, -2.25], [-0.5, -1], [0.25, 0], [1, 2.25]], dtype=torch.float64)
    slopes = torch.tensor([[1 / 3, 0.25], [1, 1], [0.25, 1], [0.25, 0.25]], dtype=torch.float64)
    exact = {"rtol": 0, "atol": 1e-15}
    torch.testing.assert_close(chart.forward(values), normals, **exact)
    torch.testing.assert_close(chart.inverse(normals), values, rtol=0, atol=1e-14)
    torch.testing.assert_close(chart.log_jacobian(normals), slopes.log(), **exact)


def test_packed_columns_are_mapped_as_each_alone():
    draw = rng(7)
    scales = np.array([1e2, 1e-3, 1e50, 1.0])
    sizes = zip((2, 3, 50, 1000), scales, strict=True)
    columns = [sample_knots(draw.normal(size=n) * scale) for n, scale in sizes]
    packed = QuantileMap.pack(columns)
    values = torch.tensor(draw.normal(size=(64, 4)) * scales)
    for k, column in enumerate(columns):
        alone = QuantileMap.pack([column])
        for method in ("forward", "forward_float", "inverse", "log_jacobian"):
            whole = getattr(packed, method)(values)[:, k]
            assert torch.equal(whole, getattr(alone, method)(values[:, k : k + 1])[:, 0])


def test_log_jacobian_is_the_logarithm_of_the_slope():
    draw = rng(8)
    columns = [sample_knots(draw.lognormal(size=5000)), sample_knots(draw.normal(size=40))]
    chart = QuantileMap.pack(columns)
    values = torch.tensor(draw.normal(size=(500, 2)) * 3)
    h = 1e-7
    slope = (chart.forward(values + h) - chart.forward(values - h)) / (2 * h)
    near = torch.stack([(chart.knots[k] - values[:, k, None]).abs().min(1)[0] for k in (0, 1)], 1)
    inside = near > 2 * h
    assert inside.sum() > 900
    error = (slope.log() - chart.log_jacobian(chart.forward(values))).abs()[inside]
    assert error.max() < 1e-6


@pytest.mark.parametrize(
    ("low", "high"), [(-(2**63), 2**63 - 1), (0, 2**64 - 1), (2**63, 2**64 - 1), (-5, -2)]
)
def test_a_lattice_of_any_64_bit_integers_keeps_its_ends(low, high):
    dtype = np.int64 if low < 0 else np.uint64
    numbers = np.array([low, high, low + 1], dtype=dtype)
    lattice = Lattice.through(numbers)
    assert (lattice.low, lattice.last) == (low, high - low)
    positions = lattice.positions(numbers)
    back = lattice.numbers(positions)
    assert back.dtype == dtype
    assert back[0] == low and back[1] == high
    assert (lattice.numbers(np.array([-1e30, 1e30])) == [low, high]).all()


def test_a_lattice_is_the_coarsest_that_enough_numbers_share():
    numbers = np.array([3750, 3800, 3250] * 10)
    assert Lattice.through(numbers) == Lattice(3250, 50, 11)
    assert Lattice.through(numbers[:3]) == Lattice(3250, 1, 550)
    units, decimals = digits(np.array([9.99, 19.99, 4.99] * 10))
    assert Lattice.through(units, decimals) == Lattice(499, 500, 3, 2)
    assert digits(np.array([0.1 + 0.2])) is None
    assert digits(rng(9).normal(size=100).astype(np.float32)) is None
