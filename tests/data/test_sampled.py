"""Of a large file a sample is kept; what is said of its columns is what all rows say."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import csv

from reversal.data import Schema, TableCodec, evidence, frames, reservoir
from reversal.data.census import infer_codec
from reversal.data.evidence import witness_of
from reversal.data.rows import TableSource
from reversal.data.spilled import encode
from reversal.data.table_file import open_table
from reversal.errors import DataError
from tests.data.streams import ROWS, column, config, mixed, shown, small_sample, written

pytestmark = pytest.mark.usefixtures("streams")


def test_of_a_sample_all_but_the_knots_is_that_of_all_rows(path, monkeypatch):
    small_sample(monkeypatch)
    written(mixed(), path)
    codec, whole = infer_codec(open_table(path)), TableCodec.infer(frames.read(path))
    assert shown(codec) == shown(whole)
    assert codec.form == whole.form
    assert config(codec) != config(whole)
    parts = [TableSource(c).encode(frames.read(path), 0).state["numeric"] for c in (codec, whole)]
    seen = (parts[0] != 0) & (parts[1] != 0)
    # a sample of 500 has a Kolmogorov distance below 0.1 but for a probability of 1e-4
    normal = [torch.special.ndtr(part) for part in parts]
    assert float((normal[0] - normal[1]).abs()[seen].max()) < 0.1 + 0.02


def test_the_sample_is_uniform(monkeypatch):
    """Each of ten stretches of the stream has its share, by a chi-square at 1e-4."""
    small_sample(monkeypatch, 1000)
    kept = reservoir.Reservoir(1, seed=4)
    for start in range(0, 20_000, 777):
        kept.add(pa.table({"k": np.arange(start, min(20_000, start + 777))}))
    numbers = kept.table()["k"].to_numpy()
    assert len(numbers) == 1000
    assert (np.diff(numbers) > 0).all()
    assert not kept.is_whole
    counts = np.bincount(numbers // 2000, minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < 33.7


def test_a_sample_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(reservoir, "MOST_BYTES", 100_000)
    kept = reservoir.Reservoir(1)
    for _ in range(50):
        kept.add(pa.table({"text": ["x" * 1000] * 60}))
        assert kept._bytes <= 100_000 + 70_000
    assert 10 <= kept.table().num_rows <= 60


def test_a_category_of_the_last_rows_is_known(path, monkeypatch):
    small_sample(monkeypatch)
    frame = mixed()
    frame.loc[ROWS - 1, "kind"] = "rare"
    written(frame, path)
    assert column(path, "kind").categories == ("a", "b", "c", "d", "rare")
    file = open_table(path)
    codec = infer_codec(file)
    place = [each.name for each in codec.category].index("kind")
    found = encode(TableSource(codec), file, 0)
    assert int(found.state["category"][ROWS - 1][place]) == 4


def test_whole_numbers_that_turn_real_in_the_last_row(path, monkeypatch):
    small_sample(monkeypatch)
    x = np.random.default_rng(0).integers(0, 50, ROWS).astype(float)
    x[-1] = 7.25
    written(pd.DataFrame({"x": x}), path)
    found = column(path)
    assert (found.kind, found.lattice.decimals) == ("real", 2)
    if path.suffix == ".csv":
        path.write_text(path.read_text().replace(".0\n", "\n"))
        assert column(path).lattice == found.lattice
        assert len(csv.read_csv(path)) == ROWS


@pytest.mark.parametrize(
    ("most", "last", "kind"),
    [
        (["1", "2"], "word", pa.string()),
        (["1", "0"], "true", pa.bool_()),
        (["1", "7"], "true", pa.string()),
        (["1", "2"], "3.5", pa.float64()),
        (["1", "2"], "2020-01-01", pa.string()),
        (["2020-01-01", ""], "2020-01-01 10:00:00", pa.timestamp("s")),
        (["2020-01-01 10:00:00", ""], "2020-01-01 10:00:00.25", pa.timestamp("ns")),
        (["2020-01-01 10:00:00Z", ""], "2020-01-01 10:00:00", pa.string()),
        (["", ""], "5", pa.int64()),
        (["10:00", "11:30"], "1", pa.string()),
        (["true", "false"], "0.5", pa.string()),
    ],
)
def test_the_types_of_a_csv_file_are_those_of_the_whole(tmp_path, most, last, kind):
    path = tmp_path / "table.csv"
    lines = [f"{most[k % 2]},{k}" for k in range(4000)] + [f"{last},0"]
    path.write_text("a,b\n" + "\n".join(lines) + "\n")
    schema = open_table(path).schema
    assert schema.field("a").type == kind
    assert schema.types == frames._read_csv(path).schema.types


@pytest.mark.parametrize("text", ["x\n" + "1\n\n2\n" * 3000, "\n\nx,y\n" + "1,2\n\n" * 3000])
def test_empty_lines_are_what_they_are_in_memory(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    table = pa.concat_tables(open_table(path).batches())
    assert table.equals(frames._read_csv(path))


def test_the_lattice_is_that_of_all_rows(path, monkeypatch):
    small_sample(monkeypatch, 50)
    rng = np.random.default_rng(2)
    steps = 10 * rng.integers(1, 9, ROWS)
    steps[-1] = 45
    cents = rng.integers(0, 90, ROWS) / 10
    cents[ROWS // 2], cents[5] = 1.234, 400.0
    off = rng.integers(0, 90, ROWS) / 10
    off[-2] = np.pi
    written(pd.DataFrame({"steps": steps, "cents": cents, "off": off}), path)
    codec = infer_codec(open_table(path))
    assert codec.column("steps").lattice.step == 5
    assert codec.column("cents").lattice.decimals == 3
    assert codec.column("cents").bounds == (0.0, 400.0)
    assert codec.column("off").lattice is None


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32, np.float64])
def test_witnesses_have_the_step_of_all_numbers(kind):
    """gcd of the differences, and bounds, for random numbers seen in any order."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        step = int(rng.choice([1, 2, 6, 35, 1024]))
        top = 2**31 // step if np.dtype(kind).itemsize == 4 else 2**50 // step
        numbers = (rng.integers(0, top, 40) * step).astype(kind)
        if kind in (np.int64, np.int32):
            numbers -= kind(2**30)
        witness = witness_of("x", pa.array(numbers).type, None)
        for part in np.split(numbers, 8):
            witness.see(pa.array(part))
        kept = witness.kept.to_numpy()
        gaps = [np.gcd.reduce(np.diff(np.unique(x)).astype(np.uint64)) for x in (kept, numbers)]
        assert gaps[0] == gaps[1]
        assert (kept.min(), kept.max()) == (numbers.min(), numbers.max())
        assert set(kept) <= set(numbers)


def test_few_texts_bound_many_keys(path, monkeypatch):
    """New keys are none of those of the file, of which the sample had few."""
    small_sample(monkeypatch, 100)
    monkeypatch.setattr(evidence, "MOST_TEXTS", 20)
    order = np.random.default_rng(0).permutation(ROWS)
    keys = {
        "a": [f"k{j}" for j in order],
        "b": [f"{j:08X}" for j in order],
        "c": [f"c-{j} of {'x' * (j % 50)}" for j in order],
        "x": np.arange(ROWS) % 7,
    }
    written(pd.DataFrame(keys), path)
    codec = infer_codec(open_table(path))
    for name in "abc":
        found = codec.column(name)
        assert found.kind == "identifier"
        fresh = found.decode(np.arange(50)).to_pylist()
        assert len({*fresh, *keys[name]}) == ROWS + 50


def test_numbers_that_repeat_are_no_keys(path, monkeypatch):
    small_sample(monkeypatch, 100)
    numbers = np.arange(ROWS)
    numbers[5:2000] = 17
    written(pd.DataFrame({"x": numbers, "y": np.arange(ROWS)[::-1], "z": numbers % 3}), path)
    codec = infer_codec(open_table(path))
    assert [c.kind for c in codec.columns] == ["integer", "identifier", "levels"]


def test_more_categories_than_are_kept_are_refused(path, monkeypatch):
    small_sample(monkeypatch)
    monkeypatch.setattr(evidence, "MOST_TEXTS", 20)
    frame = pd.DataFrame({"x": range(ROWS), "word": [f"w{k % 900}" for k in range(ROWS)]})
    written(frame.assign(x=frame["x"] % 5), path)
    with pytest.raises(DataError, match=r"'word': expected at most 20 categories.*got more"):
        column(path)


def test_a_level_or_category_that_one_row_has_was_seen(path, monkeypatch):
    small_sample(monkeypatch, 100)
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"n": rng.choice([1, 2, 8], ROWS), "w": rng.choice(["u", "v"], ROWS)})
    frame.loc[1234, ["n", "w"]] = [5, "rare"]
    wanted = {"n": {"type": "levels", "values": list(range(10))}}
    wanted["w"] = {"type": "category", "categories": ["u", "v", "rare", "never"]}
    schema = Schema.parse(json.dumps({"version": 1, "columns": wanted}))
    codec = infer_codec(open_table(written(frame, path)), schema)
    assert codec.column("n").unseen == (0, 3, 4, 6, 7, 9)
    assert codec.column("w").unseen == (3,)
