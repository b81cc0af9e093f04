"""Runs that were written once load for ever, and give the samples and bounds that they gave.

A version with a new format keeps reading these and gets folders of its own beside them. After a
change of results write the answers again, and those runs that are missing:
``REVERSAL_FREEZE=1 pytest tests/training/test_golden.py``.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import reversal as rv
from reversal.training import checkpoint

GOLDEN = Path(__file__).resolve().parent / "golden"
LARGEST = 100_000
TINY = {"hidden_features": 8, "num_blocks": 1, "steps": 60, "show_progress": False}
SPACE = rv.Product(pose=rv.SO3(), angle=rv.Torus(2), word=rv.Categorical(3, 4), x=rv.Euclidean(2))


def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=40), "n": rng.poisson(3, 40)})
    frame["kind"] = rng.choice(["a", "b", "c"], 40)
    frame["yes"] = rng.random(40) < 0.5
    frame.loc[::9, "x"] = np.nan
    return frame


def arrays():
    rng = np.random.default_rng(0)
    pose = np.linalg.qr(rng.normal(size=(40, 3, 3)))[0]
    pose[:, :, 0] *= np.linalg.det(pose)[:, None]
    return {
        "pose": pose,
        "angle": rng.uniform(-3, 3, (40, 2)),
        "word": rng.integers(0, 3, (40, 4)),
        "x": rng.normal(size=(40, 2)),
    }


def columns():
    """Every type of column."""
    rng = np.random.default_rng(1)
    days = pd.to_timedelta(rng.integers(0, 300, 60), "D")
    return pd.DataFrame(
        {
            "key": [f"k{j:03d}" for j in range(60)],
            "price": rng.exponential(size=60).round(2),
            "rain": np.where(rng.random(60) < 0.4, 0.0, rng.exponential(size=60)),
            "rooms": rng.integers(0, 3, 60),
            "day": pd.Timestamp("2024-01-01") + days,
            "at": pd.Timestamp("2024-03-30", tz="Europe/Berlin") + 24 * days / 300,
            "size": pd.Categorical(rng.choice(["S", "L"], 60), ["S", "M", "L"], ordered=True),
            "yes": rng.random(60) < 0.5,
            "one": 1,
        }
    )


RUNS = {"table": (table, None), "arrays": (arrays, SPACE), "columns": (columns, None)}


def answers(model, data):
    """Samples, fillings and bounds of a model, as plain JSON types."""
    return {
        "sample": plain(model.sample(6, seed=1, steps=10)),
        "impute": plain(model.impute(data.head(10), draws=2, seed=1, steps=5))
        if isinstance(data, pd.DataFrame)
        else None,
        "log_prob": model.log_prob(data, num_samples=16).value.tolist(),
        "checks": [list(check) for check in model.trace_.checks],
        "steps": model.trace_.steps,
    }


def plain(data):
    if isinstance(data, pd.DataFrame):
        return json.loads(
            data.reset_index(drop=True).to_json(
                orient="columns", double_precision=15, date_format="iso"
            )
        )
    return {name: array.tolist() for name, array in data.items()}


@pytest.mark.parametrize("name", RUNS)
def test_a_golden_run_answers_as_it_did(name):
    make, space = RUNS[name]
    folder, data = GOLDEN / name, make()
    if os.environ.get("REVERSAL_FREEZE"):
        if not folder.exists():
            rv.Model(**TINY).fit(data, space, run=folder)
        text = json.dumps(answers(rv.load(folder), data), indent=1)
        (GOLDEN / f"{name}.json").write_text(text)
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert_close(json.loads(json.dumps(answers(rv.load(folder), data))), expected)


def test_the_golden_runs_are_small_and_whole():
    for name in RUNS:
        files = list((GOLDEN / name).iterdir())
        assert sum(file.stat().st_size for file in files) < LARGEST
        assert {"README.md", "config.json", "log.jsonl", "model.safetensors"} <= {
            file.name for file in files
        }
    assert (GOLDEN / "columns" / "space.yaml").is_file()


def test_a_run_of_the_first_format_is_read(tmp_path):
    """It named the checksum of its weights alone, and had no records."""
    shutil.copytree(GOLDEN / "table", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["checksum"], config["training"]
    config |= {"format": 1, "weights": config.pop("files")["model.safetensors"]}
    config["checksum"] = checkpoint.bundle.digest(json.dumps(config, sort_keys=True).encode())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    for name in ("log.jsonl", "README.md"):
        (tmp_path / "run" / name).unlink()
    first, second = rv.load(tmp_path / "run"), rv.load(GOLDEN / "table")
    pd.testing.assert_frame_equal(first.sample(5, steps=3), second.sample(5, steps=3))
    first.save(tmp_path / "again")
    pd.testing.assert_frame_equal(
        rv.load(tmp_path / "again").sample(5, steps=3), second.sample(5, steps=3)
    )


def assert_close(ours, theirs, path=""):
    """Compare plain JSON types, numbers to 1e-6."""
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for name in ours:
            assert_close(ours[name], theirs[name], f"{path}/{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_close(*pair, f"{path}/{number}")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6), path
    else:
        assert ours == theirs, path
