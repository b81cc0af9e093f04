"""What the facade refuses in a sentence, and what it takes though it looks odd."""

import hashlib
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import reversal as rv
from reversal.errors import CheckpointError, DataError, ReversalError

TINY = {"hidden_features": 16, "num_blocks": 1, "show_progress": False}
SPACE = rv.Product(image=rv.Euclidean(1, 2, 2), label=rv.Categorical(3))


def table(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    kinds = np.where(rng.random(n) < 0.5, "a", "b")
    return pd.DataFrame({"c": kinds, "x": rng.normal(size=n).round(1), "draw": rng.poisson(3, n)})


def arrays(n: int = 40) -> dict:
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(n, 1, 2, 2)), "label": rng.integers(0, 3, n)}


@pytest.fixture(scope="module")
def quick():
    return rv.Model(steps=2, **TINY).fit(table())


@pytest.fixture(scope="module")
def digits():
    return rv.Model(steps=2, **TINY).fit(arrays(), SPACE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dropout": 2}, "0 <= dropout < 1, got 2"),
        ({"dropout": -0.1}, "0 <= dropout < 1"),
        ({"learning_rate": -1}, "learning_rate > 0, got -1"),
        ({"learning_rate": float("nan")}, "learning_rate > 0, got nan"),
        ({"minutes": "1"}, "minutes > 0, got '1'"),
        ({"minutes": float("inf")}, "minutes > 0, got inf"),
        ({"steps": 0}, "steps >= 1, got steps=0"),
        ({"steps": 2.5}, "steps >= 1, got steps=2.5"),
        ({"hidden_features": 0}, "hidden_features >= 1, got hidden_features=0"),
        ({"num_blocks": -1}, "num_blocks >= 0"),
        ({"seed": 2**63}, "seed >= 0 and <= .*, got seed=9223372036854775808"),
        ({"seed": 2**70}, "seed >= 0"),
        ({"seed": None}, "seed >= 0"),
        ({"seed": True}, "got seed=True"),
    ],
)
def test_an_argument_out_of_its_range_is_refused_by_name(arguments, said):
    with pytest.raises(DataError, match=said):
        rv.Model(**{"steps": 2} | TINY | arguments).fit(table())


def test_numbers_of_numpy_are_numbers(tmp_path, quick):
    """The same run, and the same draws, as by Python's own."""
    sizes = {"hidden_features": np.int64(16), "num_blocks": np.int8(1), "dropout": np.float32(0.5)}
    odd = {"steps": np.int64(2), "learning_rate": np.float32(0.25), "seed": np.uint8(3)}
    model = rv.Model(**sizes, **odd, show_progress=False).fit(table(), run=tmp_path / "odd")
    plain = rv.Model(steps=2, learning_rate=0.25, seed=3, dropout=0.5, **TINY)
    plain.fit(table(), run=tmp_path / "plain")
    configs = [json.loads((tmp_path / run / "config.json").read_text()) for run in ("odd", "plain")]
    assert configs[0]["model"] == configs[1]["model"]
    assert configs[0]["training"]["identity"] == configs[1]["training"]["identity"]
    drawn = model.sample(np.int32(4), seed=np.int64(5), steps=np.int64(3))
    pd.testing.assert_frame_equal(drawn, plain.sample(4, seed=5, steps=3))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m: m.sample(2.5), "n >= 0, got n=2.5"),
        (lambda m: m.sample(2, seed=2**70), "seed >= 0"),
        (lambda m: m.impute(table(), seed=2**64), "seed >= 0"),
        (lambda m: m.log_prob(table(), seed=-1), "seed >= 0"),
        (lambda m: m.sample(2, given="c == 3"), "a dict of names and values"),
        (lambda m: m.sample(2, given=3), "a dict of names and values"),
    ],
)
def test_a_question_that_is_none_is_refused(quick, ask, said):
    with pytest.raises(DataError, match=said):
        ask(quick)


def test_the_greatest_seed_is_legal(quick):
    seed = 2**62 - 1
    rv.Model(steps=2, seed=seed, **TINY).fit(table())
    quick.sample(2, seed=seed, steps=2, missing=True)
    quick.impute(table().assign(x=np.nan).head(2), draws=2, seed=seed, steps=2)


@pytest.mark.parametrize("code", [-2, 3, 7])
def test_a_code_outside_its_space_is_refused_by_every_question(digits, code):
    wrong = arrays(5) | {"label": np.full(5, code)}
    for ask in (
        lambda: rv.Model(steps=2, **TINY).fit(arrays(40) | {"label": np.full(40, code)}, SPACE),
        lambda: digits.impute(wrong, draws=1, steps=2),
        lambda: digits.log_prob(wrong, num_samples=8),
        lambda: digits.sample(5, given={"label": code}, steps=2),
    ):
        with pytest.raises(ReversalError, match=r"label|code"):
            ask()


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_samples_have_the_scale_of_the_data(scale):
    rows = arrays() | {"image": arrays()["image"] * scale}
    drawn = rv.Model(steps=20, **TINY).fit(rows, SPACE).sample(50, steps=10)["image"] / scale
    assert np.isfinite(drawn).all()
    assert 0.2 < drawn.std() < 5


@pytest.mark.parametrize("rows", [60, 8], ids=["held out", "nothing held out"])
def test_training_that_diverges_is_no_success(rows):
    with pytest.raises(DataError, match="Lower learning_rate, now 1e\\+30"):
        rv.Model(steps=60, learning_rate=1e30, **TINY).fit(table(rows))


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"c": ["a", None], "x": pd.array([1, None], "Int64"), "draw": [1, 2]}),
        pd.DataFrame({"c": ["a", None], "x": [1, 0], "draw": [1, 2]}),
        pl.DataFrame({"c": ["a", None], "x": [1, None], "draw": [1, 2]}),
        pa.table({"c": ["a", None], "x": [1, None], "draw": [1, 2]}),
    ],
    ids=["nullable", "pandas", "polars", "arrow"],
)
def test_a_decimal_column_may_happen_to_hold_whole_numbers(quick, rows):
    filled = quick.impute(rows, draws=3, steps=3)
    filled = filled if isinstance(filled, pd.DataFrame) else filled.to_pandas()
    assert filled["x"].dtype.kind == "f"
    assert filled["x"].tolist()[::2] == [1.0] * 3
    assert not filled.isna().any(axis=None)


def test_a_column_named_draw_stays_and_the_new_one_has_another_name(quick):
    rows = table(3).assign(x=np.nan)
    filled = quick.impute(rows, draws=2, steps=3)
    assert list(filled.columns) == ["draw_", "c", "x", "draw"]
    assert filled["draw_"].tolist() == [0, 0, 0, 1, 1, 1]
    assert filled["draw"].tolist() == rows["draw"].tolist() * 2


def test_an_unknown_name_is_refused_in_whole_sentences(quick):
    with pytest.raises(DataError, match=r"got 'zz' as well; choose from .*'draw'\. Rename it"):
        quick.impute(table(3).assign(zz=1))
    with pytest.raises(DataError, match=r"got 'zzz'; choose from 'a', 'b'\.$"):
        quick.sample(2, given={"c": "zzz"})


def changed(folder, change) -> None:
    """Change the configuration of a run, with a checksum that fits."""
    config = json.loads((folder / "config.json").read_text())
    del config["checksum"]
    change(config)
    text = json.dumps(config, sort_keys=True).encode()
    config["checksum"] = hashlib.sha256(text).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(note=float("nan")),
        lambda c: c.pop("files"),
        lambda c: c["files"].pop("model.safetensors"),
        lambda c: c.update(training={"steps": 3}),
        lambda c: c.pop("model"),
        lambda c: c["model"].update(hidden_features=0),
        lambda c: c["source"].update(type="stream"),
        lambda c: c["source"]["codec"]["columns"][0].update(type="color"),
        lambda c: c["source"]["codec"].update(version=3),
        lambda c: c["process"].update(type="Poisson"),
        lambda c: c.update(process=None),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(quick, tmp_path, change):
    quick.save(tmp_path)
    changed(tmp_path, change)
    with pytest.raises(CheckpointError, match="Expected"):
        rv.load(tmp_path)
