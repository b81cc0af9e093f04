"""The facade: what goes in comes out, every conditional is right, and runs survive a disk."""

import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import reversal as rv
from reversal.datasets import penguins
from reversal.errors import DataError

N = 400
TINY = {"hidden_features": 16, "num_blocks": 1, "show_progress": False}


def mixed(n: int = N) -> pd.DataFrame:
    """Rows of every type, with gaps: ``high`` is the sign of ``x``, ``kind`` is drawn by it."""
    rng = np.random.default_rng(0)
    high = rng.random(n) < 0.5
    x = np.where(high, 3.0, -3.0) + 0.5 * rng.normal(size=n)
    kind = np.where(rng.random(n) < 0.8, np.where(high, "a", "b"), "c")
    frame = pd.DataFrame({"kind": kind, "x": x, "count": rng.poisson(4, n), "high": high})
    frame["kind"] = frame["kind"].astype("category")
    frame.loc[::10, "x"] = np.nan
    frame.loc[5::20, "kind"] = None
    return frame


@pytest.fixture(scope="module")
def quick():
    """A model that learned next to nothing, for what holds of any weights."""
    return rv.Model(steps=3, **TINY).fit(mixed())


@pytest.fixture(scope="module")
def clusters():
    """A model that learned two clusters."""
    plan = {"steps": 600, "learning_rate": 3e-3, "show_progress": False}
    return rv.Model(hidden_features=64, num_blocks=2, **plan).fit(mixed())


def weights(model):
    return model.denoiser_.network.state_dict()


LIBRARIES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


def as_pandas(frame):
    return frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()


# What comes back


@pytest.mark.parametrize("library", LIBRARIES)
def test_samples_have_the_library_order_and_types_of_the_data(library):
    data = LIBRARIES[library](mixed())
    drawn = rv.Model(steps=2, **TINY).fit(data).sample(7, steps=5)
    assert type(drawn) is type(data)
    assert len(drawn) == 7
    if library == "pandas":
        assert list(drawn.dtypes.items()) == list(data.dtypes.items())
    else:
        assert drawn.schema == data.schema


def test_a_gap_is_never_sampled_unless_asked(quick):
    assert not quick.sample(300, steps=5).isna().any().any()
    asked = quick.sample(3000, steps=2, missing=True).isna().mean()
    rates = mixed().isna().mean()
    deviation = 4.5 * np.sqrt(rates * (1 - rates) / 3000)
    assert ((asked - rates).abs() <= deviation).all()


def test_no_rows_are_legal(quick):
    assert list(quick.sample(0, given={"kind": "a"}).columns) == list(mixed().columns)
    assert len(quick.impute(mixed().head(0), draws=2)) == 0
    assert quick.predict_proba(mixed().head(0), "kind").shape == (0, 3)


@pytest.mark.parametrize(
    "given", [{"x": 1.2345678901}, {"count": 4, "kind": "b"}, {"high": True}, {"high": "false"}]
)
def test_given_values_stand_in_every_sample_to_the_last_bit(quick, given):
    drawn = quick.sample(20, given=given, steps=5)
    for name, value in given.items():
        wanted = {"false": False}.get(value, value)
        assert (drawn[name] == wanted).all()
    assert (drawn.dtypes == mixed().dtypes).all()


@pytest.mark.parametrize("library", LIBRARIES)
def test_imputation_keeps_known_cells_and_fills_the_others(library):
    rows = mixed().head(45)
    rows.loc[1, "x"] = 0.1 + 1e-13  # float32 does not hold it
    data = LIBRARIES[library](rows)
    model = rv.Model(steps=2, **TINY).fit(data)
    filled = as_pandas(model.impute(data, draws=3, steps=5))
    assert filled.columns[0] == "draw"
    assert filled["draw"].tolist() == [d for d in range(3) for _ in range(45)]
    for draw in range(3):
        part = filled[filled["draw"] == draw].drop(columns="draw").reset_index(drop=True)
        assert not part.isna().any().any()
        for name in rows:
            known = rows[name].notna()
            assert part.loc[known, name].tolist() == rows.loc[known, name].tolist()


def test_imputation_keeps_the_index_of_the_rows(quick):
    rows = mixed().iloc[[10, 5, 20]]
    assert quick.impute(rows, draws=2, steps=3).index.tolist() == [10, 5, 20] * 2


# What it learned


def test_conditional_frequencies_are_those_of_the_clusters(clusters):
    drawn = clusters.sample(1000, given={"high": True}, seed=1)
    assert (drawn["x"] > 0).mean() > 0.93
    assert (drawn["kind"] == "b").mean() < 0.04
    assert abs((drawn["kind"] == "a").mean() - 0.8) < 0.08
    joint = clusters.sample(1000, seed=2)
    assert ((joint["x"] > 0) == joint["high"]).mean() > 0.93
    assert abs(joint["high"].mean() - 0.5) < 0.1


def test_probabilities_are_those_of_the_sampler(clusters):
    rows = pd.DataFrame({"x": [2.9], "count": [4], "high": [True]})
    probs = clusters.predict_proba(rows, "kind")
    assert probs.columns.tolist() == ["a", "b", "c"]
    assert abs(probs.sum(axis=1) - 1).max() < 1e-6
    drawn = clusters.sample(4000, given={"x": 2.9, "count": 4, "high": True}, steps=1)["kind"]
    for name in probs:  # one site under a mask: its posterior is the sampler's law at any step
        p = float(probs[name].iloc[0])
        assert abs((drawn == name).mean() - p) < 4.5 * math.sqrt(p * (1 - p) / 4000) + 1e-3


def test_the_target_is_not_looked_at(quick):
    rows = mixed().head(30)
    other = rows.assign(kind=rows["kind"].cat.rename_categories({"a": "b", "b": "a"}))
    pd.testing.assert_frame_equal(
        quick.predict_proba(rows, "kind"), quick.predict_proba(other, "kind")
    )


def test_likelihood_tells_likely_rows_from_unlikely_ones(clusters):
    rows = pd.DataFrame({"kind": "a", "x": [3.0, -3.0], "count": 4, "high": True})
    bound = clusters.log_prob(rows, num_samples=128)
    assert bound.kind == "lower bound"
    assert bound.measure == {"x": "Lebesgue", "kind": "counting", "count": "counting",
                             "high": "counting"}  # fmt: skip
    assert bound.value[0] - bound.value[1] > 2 * bound.stderr.sum()
    truth = math.log(0.5 * 0.8) + math.log(2 / math.sqrt(2 * math.pi)) + math.log(0.195)
    assert abs(float(bound.value[0]) - truth) < 1.0 + 4 * float(bound.stderr[0])


# Reproducibility and runs on disk


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    first, second, third = (
        weights(rv.Model(steps=4, seed=seed, **TINY).fit(mixed(60))) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_samples_depend_on_the_seed_alone(quick):
    first = quick.sample(20, seed=3, steps=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        pd.testing.assert_frame_equal(quick.sample(20, seed=3, steps=5), first)
    assert not quick.sample(20, seed=4, steps=5).equals(first)


def test_a_loaded_model_samples_the_same(quick, tmp_path):
    quick.save(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "README.md", "config.json", "log.jsonl", "model.safetensors", "space.yaml"]  # fmt: skip
    loaded = rv.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.sample(9, steps=5), quick.sample(9, steps=5))
    rows = mixed().head(20)
    pd.testing.assert_frame_equal(
        loaded.impute(rows, draws=2, steps=3), quick.impute(rows, draws=2, steps=3)
    )


SPACE = rv.Product(image=rv.Euclidean(1, 2, 2), label=rv.Categorical(3))


def arrays():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, 60)
    return {"image": 5.0 + 2 * rng.normal(size=(60, 2, 2)) + label[:, None, None], "label": label}


@pytest.fixture(scope="module")
def pictures():
    return rv.Model(steps=3, **TINY).fit(arrays(), SPACE)


def test_arrays_come_back_in_their_shape_dtype_and_scale(pictures):
    drawn = pictures.sample(500, steps=20)
    assert {k: (v.shape[1:], v.dtype) for k, v in drawn.items()} == {
        "image": ((2, 2), np.dtype(float)), "label": ((), np.dtype(np.int64))}  # fmt: skip
    assert abs(drawn["image"].mean() - arrays()["image"].mean()) < 1
    whole = {"image": (10 * arrays()["image"]).astype(np.uint8), "label": arrays()["label"]}
    drawn = rv.Model(steps=3, **TINY).fit(whole, SPACE).sample(50, steps=5)["image"]
    assert drawn.dtype == np.uint8
    assert drawn.min() >= whole["image"].min()
    assert drawn.max() <= whole["image"].max()


def test_known_pixels_and_labels_stand_to_the_last_bit(pictures):
    image = arrays()["image"][0]
    known = np.array([[True, False], [True, False]])
    drawn = pictures.sample(
        6, given={"image": (image, known), "label": [0, 1, 2, 0, 1, 2]}, steps=5
    )
    assert (drawn["image"][:, known] == image[known]).all()
    assert not (drawn["image"][:, ~known] == image[~known]).any()
    assert drawn["label"].tolist() == [0, 1, 2, 0, 1, 2]


def test_gaps_in_arrays_are_filled_and_the_rest_stays(pictures):
    rows = {name: array[:5].copy() for name, array in arrays().items()}
    rows["image"][:, 0, 0] = np.nan
    rows["label"][3] = -1
    filled = pictures.impute(rows, draws=4, steps=5)
    assert filled["image"].shape == (4, 5, 2, 2)
    assert np.isfinite(filled["image"]).all()
    known = np.isfinite(rows["image"])
    assert (filled["image"][:, known] == rows["image"][known]).all()
    assert (np.delete(filled["label"], 3, 1) == np.delete(rows["label"], 3)).all()
    assert (filled["label"] >= 0).all()


def test_a_density_of_arrays_is_in_the_scale_of_the_caller():
    """Scaling the data by s subtracts d log s from their log-density: change of variables."""
    data = arrays()["image"]
    one, ten = (rv.Model(steps=3, **TINY).fit(s * data, rv.Euclidean(1, 2, 2)) for s in (1, 16))
    difference = one.log_prob(data[:8]).value - ten.log_prob(16 * data[:8]).value
    torch.testing.assert_close(
        difference, torch.full((8,), 4 * math.log(16), dtype=torch.float64), rtol=0, atol=1e-3
    )


def test_a_plain_space_takes_and_gives_one_array():
    data = np.random.default_rng(0).normal(size=(50, 2))
    model = rv.Model(steps=3, **TINY).fit(data, rv.Euclidean(2))
    drawn = model.sample(4, given=(np.array([1.5, 0.0]), np.array([True, False])), steps=5)
    assert drawn.shape == (4, 2)
    assert (drawn[:, 0] == 1.5).all()


def test_any_process_trains_samples_and_survives_a_disk(tmp_path):
    rng = np.random.default_rng(0)
    process = rv.Independent(
        angle=rv.Brownian(rv.Torus(2)),
        pose=rv.Brownian(rv.SO3()),
        code=rv.Uniform(rv.Categorical((2, 5))),
        word=rv.Mask(rv.Categorical(3, 4), rv.CosineSurvival()),
        real=rv.Gaussian(rv.Euclidean(3), rv.VariancePreserving()),
    )
    data = {
        "angle": rng.uniform(-3, 3, (40, 2)),
        "pose": np.tile(np.eye(3), (40, 1, 1)),
        "code": np.stack([rng.integers(0, 2, 40), rng.integers(0, 5, 40)], 1),
        "word": rng.integers(0, 3, (40, 4)),
        "real": rng.normal(size=(40, 3)),
    }
    model = rv.Model(steps=3, **TINY).fit(data, process)
    given = {"pose": np.eye(3), "angle": (np.array([1.0, 0.0]), np.array([True, False]))}
    drawn = model.sample(5, given=given, steps=4)
    assert {name: part.shape[1:] for name, part in drawn.items()} == {
        name: part.shape[1:] for name, part in data.items()
    }
    assert (drawn["angle"][:, 0] == 1.0).all()
    model.save(tmp_path)
    again = rv.load(tmp_path).sample(5, given=given, steps=4)
    assert all((again[name] == drawn[name]).all() for name in drawn)


def test_a_wide_column_does_not_widen_the_others():
    rng = np.random.default_rng(0)
    words = ["v0", *(f"v{i}" for i in range(400))]
    data = pd.DataFrame({"w": words, "c": rng.choice(["p", "q"], 401)})
    model = rv.Model(steps=3, **TINY).fit(data)
    widths = {name: space.num_values for name, space in model.process_.space.parts.items()}
    assert widths == {"category": 2, "category_0": 400}
    assert (model.sample(3, given={"w": "v7"}, steps=5)["w"] == "v7").all()
    assert model.predict_proba(data.head(2), "w").shape == (2, 400)
    assert model.predict_proba(data.head(2), "c").shape == (2, 2)


# Bad input


REFUSED = [
    (lambda m: m.sample(2, given={"kin": "a"}), "did you mean 'kind'"),
    (lambda m: m.sample(2, given={"kind": "z"}), "choose from 'a', 'b', 'c'"),
    (lambda m: m.sample(-1), "n=-1"),
    (lambda m: m.sample(2, steps=0), "steps=0"),
    (lambda m: m.impute(mixed()[["x", "kind"]]), "none named 'count' and 'high'"),
    (lambda m: m.impute(mixed(), draws=0), "draws >= 1"),
    (lambda m: m.predict_proba(mixed(), "x"), "category or boolean column"),
    (lambda m: m.fit(mixed().head(0)), "at least two rows, got no row"),
    (lambda m: m.fit(mixed().head(1)), "at least two rows, got one row"),
    (lambda m: m.fit(arrays()), "Expected a space"),
    (lambda m: m.fit({"image": arrays()["image"]}, SPACE), "none for label"),
    (lambda m: m.fit("nowhere.csv"), "nowhere.csv"),
]


@pytest.mark.parametrize(("ask", "said"), REFUSED)
def test_bad_input_is_refused_with_the_cure(ask, said, quick):
    with pytest.raises(DataError, match=said):
        ask(quick)


def test_refused_data_leave_a_fitted_model_as_it_was(quick):
    before = quick.denoiser_
    with pytest.raises(DataError):
        quick.fit(mixed().head(1))
    assert quick.denoiser_ is before


def test_what_does_not_fit_the_space_is_refused(pictures):
    with pytest.raises(rv.SpaceError, match="label"):
        pictures.sample(2, given={"label": 3})
    with pytest.raises(rv.SpaceError, match="label"):
        rv.Model(**TINY).fit(arrays() | {"label": arrays()["label"] + 1}, SPACE)
    with pytest.raises(rv.SpaceError, match="factors of this table"):
        rv.Model(**TINY).fit(mixed(), SPACE)
    with pytest.raises(rv.CapabilityError, match="generator and a bridge"):
        rv.Model(**TINY).fit(np.ones((9, 2)), rv.Interpolant(rv.Euclidean(2), rv.Paired()))
    with pytest.raises(DataError, match="minutes > 0"):
        rv.Model(minutes=0).fit(mixed())


def test_a_model_that_was_not_fitted_says_so():
    for ask in (lambda m: m.sample(1), lambda m: m.save("x"), lambda m: m.log_prob(mixed())):
        with pytest.raises(rv.NotFittedError, match="fit"):
            ask(rv.Model())


# Real data


@pytest.mark.slow
def test_penguins_look_like_penguins():
    data = penguins()
    model = rv.Model(steps=1500, show_progress=False).fit(data)
    drawn = model.sample(1000, seed=1)
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    shift = (drawn[numbers].mean() - data[numbers].mean()).abs() / data[numbers].std()
    assert (shift < 0.15).all()
    ratio = drawn[numbers].std() / data[numbers].std()
    assert ((ratio > 0.85) & (ratio < 1.15)).all()
    share = drawn["species"].value_counts(normalize=True)
    assert (share - data["species"].value_counts(normalize=True)).abs().max() < 0.08
    gentoo = model.sample(500, given={"species": "Gentoo"})["body_mass_g"]
    heavy = data[data["species"] == "Gentoo"]["body_mass_g"]
    assert abs(gentoo.mean() - heavy.mean()) < 0.35 * heavy.std()
    gaps = data[data["body_mass_g"].isna()]
    draws = model.impute(gaps, draws=50)
    masses = draws["body_mass_g"].to_numpy().reshape(50, len(gaps))
    assert (masses.std(0) > 100).all()
    assert (masses[:, 1] - masses[:, 0]).mean() > 500  # row 271 is a Gentoo, row 3 an Adelie


def test_the_configuration_holds_no_number_that_json_lacks(quick, tmp_path):
    quick.save(tmp_path)
    json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)
