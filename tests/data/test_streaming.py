"""A file that is streamed is the file that is read: codec, states, weights, refusals."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import Schema, TableCodec, csv_types, frames, table_file
from reversal.data.census import infer_codec
from reversal.data.rows import TableSource
from reversal.data.spilled import Values, encode
from reversal.data.table_file import open_table
from reversal.errors import DataError
from reversal.model import Model
from reversal.training import keeping
from tests.data.streams import ROWS, column, config, mixed, shown, small_sample, written
from tests.training.runs import TINY, assert_same

pytestmark = pytest.mark.usefixtures("streams")


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
