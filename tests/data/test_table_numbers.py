"""Numbers of a table: their codes are normal, and come back as they were, within what was seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from reversal.data import Schema, TableCodec
from reversal.datasets import penguins
from tests.data.test_table import assert_same, rng

FAILURE_RATE = 1e-4
# P(sup |F_n - F| > x / sqrt(n)) <= 2 exp(-2 x^2) (Dvoretzky, Kiefer, Wolfowitz; Massart 1990)
DKW = np.sqrt(np.log(2 / (FAILURE_RATE / 2)) / 2)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e290])
def test_real_numbers_come_back_within_half_a_float32_step_of_z(scale):
    frame = pd.DataFrame({"x": rng(4).lognormal(sigma=2, size=3000) * scale})
    codec = TableCodec.infer(frame)
    state, _ = codec.encode(frame)
    z = state["numeric"].double()
    pieces = [codec.log_jacobian({"numeric": z * (1 + k * 2.0**-23)}) for k in (-1, 0, 1)]
    slope = (-torch.stack(pieces)).exp().amax(0).squeeze(1).numpy()
    error = (codec.decode(state)["x"] - frame["x"]).abs().to_numpy()
    assert codec.columns[0].kind == "real"
    assert (error <= 2.0**-24 * z.abs().squeeze(1).numpy() * slope + 1e-12 * frame["x"]).all()


SKEWED = {
    "lognormal": lambda draw, n: draw.lognormal(sigma=1.5, size=n),
    "cents": lambda draw, n: draw.lognormal(sigma=1.0, size=n).round(2),
    "counts": lambda draw, n: draw.geometric(0.03, size=n),
    "mostly zero": lambda draw, n: draw.lognormal(size=n).round(2) * (draw.random(n) < 0.2),
    "few values": lambda draw, n: draw.binomial(3, 0.3, size=n),
    "spread out": lambda draw, n: draw.choice(
        [1, 10, 100, 1000, 10**6], p=[0.5, 0.2, 0.2, 0.05, 0.05], size=n
    ),
}


def on_a_line(frame):
    """The codec that takes whole numbers for positions, however few there are."""
    whole = "version: 1\ncolumns: {x: integer}"
    return TableCodec.infer(frame, Schema.parse(whole) if frame["x"].dtype.kind == "i" else None)


@pytest.mark.parametrize("name", SKEWED)
def test_an_encoded_column_is_normal_and_so_is_a_new_sample_of_its_law(name):
    n, m = 20_000, 10_000
    draw = rng(5)
    seen, new = (pd.DataFrame({"x": SKEWED[name](draw, size)}) for size in (n, m))
    codec = on_a_line(seen)
    z = codec.encode(seen)[0]["numeric"][:, 0].numpy()
    assert stats.kstest(z, "norm").pvalue > FAILURE_RATE
    z = codec.encode(new)[0]["numeric"][:, 0].numpy()
    distance = stats.kstest(z, "norm").statistic
    assert distance <= DKW * (1 / np.sqrt(n) + 1 / np.sqrt(m))


@pytest.mark.parametrize("name", ["few values", "spread out"])
def test_normal_draws_decode_to_the_frequencies_that_were_seen(name):
    frame = pd.DataFrame({"x": SKEWED[name](rng(6), 2000)})
    codec = on_a_line(frame)
    points = 200_001
    z = torch.special.ndtri((torch.arange(points, dtype=torch.float64) + 0.5) / points)
    decoded = codec.decode({"numeric": z[:, None]})["x"].value_counts(normalize=True)
    seen = frame["x"].value_counts(normalize=True)
    assert set(decoded.index) == set(seen.index)
    assert (decoded - seen).abs().max() < 0.5 / points + 2e-6 + 0.5 / points


def test_log_jacobian_of_a_state_is_in_the_units_of_the_caller():
    frame = pd.DataFrame({"g": penguins()["body_mass_g"], "mm": penguins()["bill_length_mm"]})
    frame = frame.dropna().reset_index(drop=True)
    scaled = frame * [1000, 10]
    codecs = [TableCodec.infer(part) for part in (frame, scaled)]
    states = [codec.encode(part)[0] for codec, part in zip(codecs, (frame, scaled), strict=True)]
    assert torch.equal(states[0]["numeric"], states[1]["numeric"])
    assert codecs[0].units.tolist() == [25, 0.1] and codecs[1].units.tolist() == [25_000, 1]
    difference = codecs[0].log_jacobian(states[0]) - codecs[1].log_jacobian(states[1])
    expected = torch.tensor([1000.0, 10.0], dtype=torch.float64).log().expand_as(difference)
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-9)


def test_numbers_beyond_what_was_seen_are_encoded_in_order_and_clamped_when_decoded():
    codec = TableCodec.infer(penguins())
    heavy = penguins().head(3).assign(body_mass_g=[6300, 7000, 9000])
    state, _ = codec.encode(heavy)
    assert (state["numeric"][:, 3].diff() > 0).all()
    assert codec.decode(state)["body_mass_g"].tolist() == [6300.0, 6300.0, 6300.0]


def test_samples_stay_within_what_was_seen():
    draw = rng(11)
    frame = pd.DataFrame({"real": draw.normal(size=99), "whole": draw.integers(-9, 9, 99)})
    codec = TableCodec.infer(frame)
    far = codec.decode({"numeric": torch.tensor([[-50.0, -50.0], [50.0, 50.0]])})
    pd.testing.assert_frame_equal(
        far, frame.agg(["min", "max"]).astype({"whole": int}).reset_index(drop=True)
    )


def test_whole_numbers_come_back_wherever_float32_tells_them_apart():
    numbers = rng(12).permutation(300_000) + 7
    frame = pd.DataFrame({"x": numbers, "y": numbers // 50 * 10**6 + 10**15})
    codec = TableCodec.infer(frame)
    for seed in range(3):
        state, _ = codec.encode(frame, torch.Generator().manual_seed(seed))
        assert_same(codec.decode(state), frame)
