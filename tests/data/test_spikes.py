"""Values that repeat off a lattice: flat pieces of the inverse, of an exact probability."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reversal.data import TableCodec
from reversal.data.quantiles import QuantileMap, spiked_knots
from reversal.data.rows import TableSource
from reversal.data.source import Encoded

FAILURE_RATE = 1e-4


def rng(seed=0):
    return np.random.default_rng(seed)


def inflated(seed=0, n=4000, share=0.4, spike=0.0):
    draw = rng(seed)
    return np.where(draw.random(n) < share, spike, draw.lognormal(sigma=1.5, size=n))


def pieces(column, spike):
    """Return the ends in z of a spike's piece."""
    knots, normals = np.array(column.knots), np.array(column.normals)
    low, high = normals[knots == spike]
    return low, high


SHAPES = {
    "zeros below all others": lambda: (inflated(), [0.0]),
    "a cap above all others": lambda: (np.minimum(rng(1).lognormal(size=3000), 3.3), [3.3]),
    "a value in the middle": lambda: (inflated(2, spike=math.pi), [math.pi]),
    "three values": lambda: (
        np.where(
            rng(3).random(3000) < 0.2,
            rng(4).choice([-1.5, 0.7, 2.9], 3000),
            rng(5).normal(size=3000),
        ),
        [-1.5, 0.7, 2.9],
    ),
    "nothing but spikes": lambda: (
        rng(6).choice([1 / 3, 2 / 3, math.sqrt(2)], 900),
        [1 / 3, 2 / 3, math.sqrt(2)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_mass_of_a_spike_under_the_normal_law_is_its_frequency(name):
    numbers, spikes = SHAPES[name]()
    column = TableCodec.infer(pd.DataFrame({"x": numbers})).columns[0]
    assert list(column.spikes) == spikes
    for spike in spikes:
        low, high = pieces(column, spike)
        mass = stats.norm.cdf(high) - stats.norm.cdf(low)
        assert abs(mass - (numbers == spike).mean()) < 1e-10


@pytest.mark.parametrize("name", SHAPES)
def test_a_spike_comes_back_exactly_and_nothing_else_becomes_one(name):
    numbers, spikes = SHAPES[name]()
    codec = TableCodec.infer(pd.DataFrame({"x": numbers}))
    for seed in range(3):
        frame = pd.DataFrame({"x": numbers})
        state, _ = codec.encode(frame, torch.Generator().manual_seed(seed))
        back = codec.decode(state)["x"].to_numpy()
        on = np.isin(numbers, spikes)
        assert (back[on] == numbers[on]).all()
        assert not np.isin(back[~on], spikes).any()
        assert state["numeric"].isfinite().all()


@pytest.mark.parametrize("name", SHAPES)
def test_an_encoded_spike_is_spread_evenly_in_probability(name):
    numbers, _ = SHAPES[name]()
    codec = TableCodec.infer(pd.DataFrame({"x": numbers}))
    z = codec.encode(pd.DataFrame({"x": numbers}))[0]["numeric"][:, 0].numpy()
    assert stats.kstest(z, "norm").pvalue > FAILURE_RATE


@pytest.mark.parametrize("name", SHAPES)
def test_under_the_normal_law_a_spike_has_the_log_probability_of_its_frequency_for_every_level(
    name,
):
    numbers, spikes = SHAPES[name]()
    source = TableSource(TableCodec.infer(pd.DataFrame({"x": numbers})))
    encoded = source.encode(pd.DataFrame({"x": numbers}))
    z = encoded.state["numeric"].double()
    normal = -z.square().sum(1) / 2 - math.log(2 * math.pi) / 2
    log_prob = (normal + source.log_jacobian(encoded)).numpy()
    for spike in spikes:
        expected = math.log((numbers == spike).mean())
        assert np.abs(log_prob[numbers == spike] - expected).max() < 1e-9


def test_density_and_spikes_together_have_mass_one():
    numbers, _ = SHAPES["three values"]()
    codec = TableCodec.infer(pd.DataFrame({"x": numbers}))
    column = codec.columns[0]
    knots, normals = (
        torch.tensor(part, dtype=torch.float64) for part in (column.knots, column.normals)
    )
    chart = QuantileMap.pack([(column.knots, column.normals)])
    total = 0.0
    for k in range(len(knots) - 1):
        middle = (normals[k : k + 1] + normals[k + 1 : k + 2])[:, None] / 2
        slope = chart.log_jacobian(middle).exp().item()
        if knots[k] == knots[k + 1]:
            total += slope * math.exp(-(middle.item() ** 2) / 2) / math.sqrt(2 * math.pi)
        else:
            x = torch.linspace(knots[k], knots[k + 1], 2001, dtype=torch.float64)[:, None]
            z = chart.forward(x)
            density = stats.norm.pdf(z.numpy()[:, 0]) * chart.log_jacobian(z).exp().numpy()[:, 0]
            total += np.trapezoid(density[1:], x.numpy()[1:, 0])
    tails = stats.norm.cdf(column.normals[0]) + stats.norm.sf(column.normals[-1])
    assert abs(total + tails - 1) < 2e-3


def test_normal_draws_decode_to_the_spike_as_often_as_it_was_seen():
    numbers = inflated(share=0.917)
    codec = TableCodec.infer(pd.DataFrame({"x": numbers}))
    points = 200_001
    z = torch.special.ndtri((torch.arange(points, dtype=torch.float64) + 0.5) / points)
    shares = (codec.decode({"numeric": z[:, None]})["x"] == 0).mean()
    assert abs(shares - (numbers == 0).mean()) <= 1 / points


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=3, max_size=400, unique=True),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_the_map_increases_and_its_inverse_stands_still_on_spikes_alone(values, count, seed):
    draw = rng(seed)
    spikes = np.sort(draw.choice(values, min(count, len(values) - 1), replace=False))
    numbers = np.append(values, np.repeat(spikes, draw.integers(5, 500, len(spikes))))
    knots, normals = spiked_knots(numbers, spikes)
    assert len(knots) <= 1025
    assert (np.diff(normals) > 0).all()
    repeated = [low for low, high in pairwise(knots) if low == high]
    assert (np.diff(knots) >= 0).all() and repeated == spikes.tolist()
    chart = QuantileMap.pack([(knots, normals)])
    levels = torch.rand((len(numbers), 1), generator=torch.Generator().manual_seed(0)).double()
    z = chart.forward_float(torch.tensor(numbers)[:, None], levels)
    back = chart.inverse(z)[:, 0].numpy()
    on = np.isin(numbers, spikes)
    assert (back[on] == numbers[on]).all()
    assert chart.log_jacobian(z).isfinite().all()


def test_what_lies_beyond_a_spike_at_the_end_is_encoded_in_order_and_clamped():
    codec = TableCodec.infer(pd.DataFrame({"x": inflated()}))
    far = pd.DataFrame({"x": [-1e9, -100.0, -1.0, 0.0, 1e9]})
    state, _ = codec.encode(far)
    z = state["numeric"][:, 0]
    assert (z.diff() > 0).all() and z.isfinite().all()
    assert codec.decode(state)["x"].tolist()[:4] == [0.0] * 4


def test_numbers_far_beyond_a_heavy_tail_move_z_by_one_per_range_at_most():
    numbers = rng(9).standard_cauchy(2000)
    codec = TableCodec.infer(pd.DataFrame({"x": numbers}))
    assert "heavy tails" in codec.columns[0].detail
    span = np.ptp(numbers)
    beyond = pd.DataFrame({"x": [numbers.max(), numbers.max() + span, numbers.max() + 5 * span]})
    z = codec.encode(beyond)[0]["numeric"][:, 0]
    assert z[0] < z[1] <= z[0] + 1 + 1e-5 and z[2] <= z[0] + 5 + 1e-5
    decoded = codec.decode({"numeric": torch.tensor([[-60.0], [60.0]])})["x"]
    assert decoded.tolist() == [numbers.min(), numbers.max()]


def test_the_schema_names_spikes_and_heavy_tails_and_nothing_on_plain_columns():
    draw = rng(8)
    n = 2000
    frame = pd.DataFrame(
        {
            "gain": np.where(draw.random(n) < 0.9, 0, draw.integers(1, 10**5, n)),
            "amount": inflated(n=n, share=0.5),
            "normal": draw.normal(size=n),
            "exponential": draw.exponential(size=n),
            "dice": draw.integers(1, 7, n),
        }
    )
    details = {column.name: column.detail for column in TableCodec.infer(frame).columns}
    assert f"0 in {100 * (frame.gain == 0).mean():.1f} % of rows" in details["gain"]
    assert (
        f"0 in {100 * (frame.amount == 0).mean():.1f} % of rows, heavy tails" in details["amount"]
    )
    for name in ("normal", "exponential", "dice"):
        assert "rows" not in details[name] and "heavy" not in details[name]


def test_the_measure_says_where_it_counts():
    frame = pd.DataFrame(
        {"x": inflated(), "y": rng().normal(size=4000), "k": rng().integers(0, 9, 4000)}
    )
    codec = TableCodec.infer(frame)
    assert TableSource(codec).measure == {
        "x": "Lebesgue, counting at 0",
        "y": "Lebesgue",
        "k": "counting",
    }
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    assert rebuilt == codec and TableSource(rebuilt).measure == TableSource(codec).measure


def test_the_ends_of_a_spike_bound_what_lies_at_it():
    codec = TableCodec.infer(pd.DataFrame({"x": inflated(spike=1.25)}))
    low, high = codec.quantiles.ends(torch.tensor([[1.25], [2.0]], dtype=torch.float64))
    assert (low[0, 0].item(), high[0, 0].item()) == pieces(codec.columns[0], 1.25)
    assert low[1, 0] == high[1, 0] == codec.quantiles.forward(torch.tensor([[2.0]]).double())[0, 0]


def test_gaps_and_spikes_live_together():
    numbers = inflated(share=0.3)
    numbers[::7] = np.nan
    frame = pd.DataFrame({"x": numbers})
    source = TableSource(TableCodec.infer(frame))
    state, present = source.encode(frame)
    assert not present["numeric"][::7].any()
    assert source.log_jacobian(Encoded(state, present))[::7].abs().max() == 0
