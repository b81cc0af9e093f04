"""A file that is streamed is the file that is read: codec, states, weights, refusals."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import Schema, TableCodec, csv_types, evidence, frames, reservoir, table_file
from reversal.data.census import infer_codec
from reversal.data.evidence import witness_of
from reversal.data.rows import TableSource
from reversal.data.spilled import Values, encode
from reversal.data.table_file import open_table
from reversal.errors import DataError
from reversal.model import Model
from reversal.training import keeping
from tests.training.runs import TINY, assert_same

ROWS = 3000


@pytest.fixture(autouse=True)
def streams(monkeypatch):
    """Every file is taken for a large one, and read a few hundred rows at a time."""
    monkeypatch.setattr(table_file, "LARGE", 0)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 6000)
    monkeypatch.setattr(csv_types, "BLOCK", 20_000)
    monkeypatch.setattr(reservoir, "LEAST_ROWS", 10)


def small_sample(patch, rows=500):
    """Let a sample hold some rows only."""
    patch.setattr(reservoir, "MOST_ROWS", rows)


def mixed(rows=ROWS):
    """Every type of column, with gaps."""
    rng = np.random.default_rng(1)
    days = pd.to_timedelta(rng.integers(0, 900, rows), "D")
    seconds = pd.to_timedelta(rng.integers(0, 90_000, rows), "s")
    frame = pd.DataFrame(
        {
            "key": [f"k{j}" for j in range(rows)],
            "number": np.arange(rows),
            "x": rng.normal(size=rows),
            "money": np.round(rng.exponential(size=rows), 2),
            "fives": 5 * rng.integers(3, 16, rows),
            "kind": rng.choice(list("abcd"), rows),
            "is": rng.random(rows) < 0.3,
            "day": pd.Timestamp("2020-01-01") + days,
            "at": pd.Timestamp("2020-01-01", tz="Europe/Berlin") + seconds,
            "level": pd.Categorical(rng.choice(["lo", "hi"], rows), ["lo", "mid", "hi"], True),
            "one": 1.0,
        }
    )
    frame.loc[::7, "x"] = np.nan
    frame.loc[3::11, "kind"] = None
    frame["gaps"] = frame["fives"].astype(float).where(rng.random(rows) < 0.8)
    return frame


def written(frame, path):
    """Write a frame in row groups smaller than the file."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        parquet.write_table(pa.Table.from_pandas(frame), path, row_group_size=700)
    return path


@pytest.fixture(params=["table.parquet", "table.csv"])
def path(request, tmp_path):
    """Where a file of either format goes."""
    return tmp_path / request.param


def config(codec):
    """A codec as text: what it comes to, bit for bit."""
    return json.dumps(codec.to_config())


def shown(codec):
    """What is said of columns, knots aside."""
    return {c.name: (c.kind, c.detail, c.missing) for c in codec.columns}


def column(path, name="x"):
    """Return one column of what a streamed file shows."""
    return infer_codec(open_table(path)).column(name)


def test_a_sample_of_all_rows_gives_the_codec_and_the_states_of_memory(path):
    written(mixed(), path)
    file, frame = open_table(path), frames.read(path)
    codec = infer_codec(file)
    assert config(codec) == config(TableCodec.infer(frame))
    source = TableSource(codec)
    streamed, whole = encode(source, file, 3), source.encode(frame, 3)
    everything, some = torch.arange(ROWS), torch.arange(ROWS).flip(0)[::31]
    for ours, theirs in zip(streamed, whole, strict=True):
        assert ours.keys() == theirs.keys()
        for name, part in theirs.items():
            assert torch.equal(ours[name][everything], part)
            assert torch.equal(ours[name][some], part[some])
            assert torch.equal(ours[name][7], part[7])
            assert torch.equal(ours[name][5:9], part[5:9])
            assert (ours[name].shape, ours[name].dtype) == (part.shape, part.dtype)
    assert keeping.fingerprint(streamed, {}) == keeping.fingerprint(whole, {})


def test_the_weights_are_those_of_memory_bit_for_bit(path, monkeypatch):
    written(mixed(300), path)
    streamed = Model(steps=8, **TINY).fit(path)
    monkeypatch.setattr(table_file, "LARGE", 2**40)
    assert_same(streamed, Model(steps=8, **TINY).fit(path))


def test_a_streamed_training_is_resumed_bit_for_bit(path, tmp_path):
    written(mixed(300), path)
    whole = Model(steps=50, **TINY).fit(path)

    def stop(check):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Model(steps=50, **TINY).fit(path, run=run, checkpoint_seconds=0, callbacks=[stop])
    assert keeping.is_unfinished(run)
    assert_same(Model(steps=50, **TINY).fit(path, run=run, resume=True), whole)


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


def test_a_schema_holds_for_a_streamed_file(path, monkeypatch):
    small_sample(monkeypatch, 100)
    fives = 5 * np.random.default_rng(0).integers(0, 6, ROWS)
    fives[-1] = 500
    written(pd.DataFrame({"fives": fives, "out": fives, "y": fives}), path)
    text = "version: 1\ncolumns:\n  fives: category\n  out: drop\n"
    codec = infer_codec(open_table(path), Schema.parse(text))
    assert codec.column("fives").categories == (0, 5, 10, 15, 20, 25, 500)
    assert codec.dropped == ("out",)
    file = open_table(path)
    assert len(encode(TableSource(codec), file, 0).state["category"]) == ROWS
    with pytest.raises(DataError, match="'y': expected numbers from 0 to 100, got 500") as caught:
        text = "version: 1\ncolumns:\n  y: {type: integer, least: 0, greatest: 100}\n"
        infer_codec(open_table(path), Schema.parse(text))
    assert "in row" not in str(caught.value)


def test_what_does_not_fit_is_said_of_its_row(path):
    frame = mixed()
    codec = TableCodec.infer(frames.read(written(frame, path)))
    frame.loc[ROWS - 3, "kind"] = "new"
    file = open_table(written(frame, path))
    with pytest.raises(DataError, match=f"'kind': expected a known category.* row {ROWS - 3} "):
        encode(TableSource(codec), file, 0)


def test_infinities_are_refused(path, monkeypatch):
    small_sample(monkeypatch, 100)
    x = np.random.default_rng(0).normal(size=ROWS)
    x[-1] = np.inf
    written(pd.DataFrame({"x": x}), path)
    with pytest.raises(DataError, match="'x': expected finite numbers"):
        column(path)


def test_a_full_disk_is_said(path, monkeypatch):
    written(mixed(300), path)
    file = open_table(path)
    source = TableSource(infer_codec(file))

    def full(self, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Values, "append", full)
    with pytest.raises(DataError, match=r"Expected room for the states.*No space left"):
        encode(source, file, 0)


def test_nothing_is_left_on_disk(path, tmp_path):
    written(mixed(300), path)
    file = open_table(path)
    encoded = encode(TableSource(infer_codec(file)), file, 0, tmp_path / "run")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert len(encoded.state["numeric"][0:5]) == 5


def test_what_arrow_holds_does_not_grow_with_the_file(path, monkeypatch):
    """The fast version of `test_memory`: a table of 24 MB, of which a fifth is held at most.

    Arrow reads 32 blocks of a CSV ahead and parses one per core: 0.8 MB, and 0.07 MB a core.
    """
    small_sample(monkeypatch, 1000)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 30_000)
    monkeypatch.setattr(csv_types, "BLOCK", 25_000)
    numbers = np.random.default_rng(0).integers(0, 100, (10_000, 3)).astype(float)
    table = pa.table(dict(zip("abc", numbers.T, strict=True)))
    write = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
    with write(path, table.schema) as file:
        for _ in range(100):
            file.write_table(table)
    file = open_table(path)
    start, held = pa.total_allocated_bytes(), []
    batches = type(file).batches

    def watched(self):
        for batch in batches(self):
            held.append(pa.total_allocated_bytes() - start)
            yield batch

    monkeypatch.setattr(type(file), "batches", watched)
    source = TableSource(infer_codec(file))
    assert len(encode(source, file, 0).state["numeric"]) == 1_000_000
    assert len(held) >= 150
    assert max(held) < 100 * table.nbytes / 5


def test_the_command_line_streams_and_refuses_a_damaged_file(path, tmp_path):
    """A damaged last part is a sentence and exit code 2, and nothing is left of the run."""
    program, run = CliRunner(), tmp_path / "run"
    written(mixed(1000), path)
    call = ["fit", str(path), "--out", str(run), "--minutes", "0.001"]
    data = bytearray(path.read_bytes())
    if path.suffix == ".csv":
        path.write_bytes(data + b"too,few\n")
    else:
        group = parquet.ParquetFile(path).metadata.row_group(1)
        for place in range(group.num_columns):
            begins = group.column(place).dictionary_page_offset or 0
            begins = begins or group.column(place).data_page_offset
            data[begins : begins + 16] = b"\xff" * 16
        path.write_bytes(data)
    result = program.invoke(app, call)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("reversal: Expected ")
    assert len(result.stderr.splitlines()) == 1
    assert not run.exists()
    written(mixed(1000).iloc[:0], path)
    assert program.invoke(app, call).exit_code == 2
    shown = program.invoke(app, ["schema", str(written(mixed(1000), path))])
    assert shown.exit_code == 0, shown.output


def test_rarer_types_are_streamed_too(tmp_path, monkeypatch):
    small_sample(monkeypatch, 300)
    rng = np.random.default_rng(5)
    numbers = pa.array(rng.integers(0, 10**12, ROWS))
    table = pa.table(
        {
            "duration": numbers.cast(pa.duration("ns")),
            "time": numbers.cast(pa.time64("ns")),
            "date": pa.array(rng.integers(0, 999, ROWS) * 86_400_000).cast(pa.date64()),
            "zoned": numbers.cast(pa.timestamp("ns", "UTC")),
            "cents": pa.array(rng.integers(0, 9999, ROWS)).cast(pa.decimal128(21, 2)),
            "half": pa.array(rng.normal(size=ROWS).astype("f2")),
            "large": pa.array(rng.integers(0, 2**63, ROWS).astype("u8") * 2),
            "none": pa.nulls(ROWS),
            "letter": pa.array(rng.choice(list("abc"), ROWS)).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "table.parquet", row_group_size=500)
    file = open_table(tmp_path / "table.parquet")
    codec, whole = infer_codec(file), TableCodec.infer(frames.read(file.path))
    assert shown(codec) == shown(whole)
    assert codec.form == whole.form
    assert len(encode(TableSource(codec), file, 0).state["numeric"]) == ROWS


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
