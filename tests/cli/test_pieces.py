"""Tables larger than memory, scored and filled piece by piece: in order, whole or not at all."""

from __future__ import annotations

import errno
import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import reversal as rv
from reversal.answers import filling, pieces, scoring
from reversal.cli.score import Total
from reversal.data import csv_types, frames, table_file
from reversal.datasets import penguins
from reversal.errors import DataError
from reversal.likelihood import Likelihood
from tests.cli.test_commands import call, refused

ROWS, PIECE = 100, 16


def rows():
    """Penguins with whole numbers that have gaps in some pieces only, and a column of gaps."""
    table = penguins().sample(ROWS, random_state=0).reset_index(drop=True)
    table.loc[:3, "species"] = None
    table.loc[20:40, "body_mass_g"] = np.nan
    table.loc[: PIECE - 1, "sex"] = None
    return table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    frames.write(rows(), folder / "rows.csv")
    frames.write(rows(), folder / "rows.parquet")
    rv.Model(steps=20, hidden_features=16, num_blocks=1, show_progress=False).fit(penguins()).save(
        folder / "run"
    )
    return folder


@pytest.fixture
def streamed(monkeypatch):
    """Every file is taken for a large one, and read a few rows at a time."""
    monkeypatch.setattr(table_file, "LARGE", 0)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 8 * PIECE)
    monkeypatch.setattr(csv_types, "BLOCK", 800)


def in_words(done):
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_scores_come_in_order_and_their_errors_are_those_of_the_file(place, streamed, kind):
    out = place / f"scores.{kind}"
    said = in_words(
        call("score", place / "run", place / f"rows.{kind}", "--out", out, "--samples", 16)
    )
    scores = pd.read_csv(out) if kind == "csv" else pd.read_parquet(out)
    assert list(scores.columns) == ["log_prob", "stderr", "kind"] and len(scores) == ROWS
    model = rv.load(place / "run")
    many = model.log_prob(rows(), num_samples=256, seed=5)
    deviation = (scores["log_prob"] - many.value.numpy()) / np.hypot(
        scores["stderr"], many.stderr.numpy()
    )
    moved = np.abs(scores["log_prob"].to_numpy()[::-1] - many.value.numpy())
    assert (
        deviation.abs().median() < 2
        and moved.mean() > 3 * (scores["log_prob"] - many.value.numpy()).abs().mean()
    )
    first = model.log_prob(next(iter(table_file.open_table(place / f"rows.{kind}").rows()))[1],
                           num_samples=16)  # fmt: skip
    np.testing.assert_allclose(scores["log_prob"][: len(first.value)], first.value, rtol=1e-9)
    mean, error = scores["log_prob"].mean(), scores["log_prob"].std() / ROWS**0.5
    noise = math.sqrt((scores["stderr"] ** 2).sum()) / ROWS
    assert f"100 rows mean lower bound {mean:,.3f} nats per row; standard error {error:.3f} over " \
        f"rows, of which {noise:.3f} of the estimate" in said  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_is_filled_draw_by_draw_in_its_order(place, streamed, kind):
    out = place / f"filled.{kind}"
    said = in_words(
        call("impute", place / "run", place / f"rows.{kind}", "--draws", 3, "--out", out)
    )
    assert "3 times, piece by piece" in said
    filled = pd.read_csv(out) if kind == "csv" else pd.read_parquet(out)
    assert filled["draw"].tolist() == np.repeat(range(3), ROWS).tolist()
    assert list(filled.columns) == ["draw", *penguins().columns]
    assert not filled.isna().any(axis=None)
    table = rows()
    for draw in range(3):
        own = filled[filled["draw"] == draw].drop(columns="draw").reset_index(drop=True)
        for name in table:
            known = table[name].notna()
            assert (own[name][known] == table[name][known]).all(), name
    gaps = filled["body_mass_g"].to_numpy().reshape(3, ROWS)[:, 20:41]
    assert all((gaps[a] == gaps[b]).mean() < 0.5 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_no_more_than_a_piece_is_looked_at_once(place, streamed, monkeypatch, tmp_path):
    seen = []

    def watched(function, count):
        def call(denoiser, source, rows, *rest):
            seen.append(rows.num_rows)
            assert count is None or rest[0] == count
            return function(denoiser, source, rows, *rest)

        return call

    monkeypatch.setattr(scoring, "log_prob", watched(scoring.log_prob, None))
    monkeypatch.setattr(filling, "impute", watched(filling.impute, 1))
    file = place / "rows.parquet"
    assert call("score", place / "run", file, "--samples", 16).exit_code == 0
    assert sum(seen) == ROWS and max(seen) == PIECE
    seen.clear()
    out = tmp_path / "out.csv"
    assert call("impute", place / "run", file, "--draws", 2, "--out", out).exit_code == 0
    assert sum(seen) == 2 * ROWS and max(seen) == PIECE


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_new_identifiers_are_those_of_the_whole_file(monkeypatch, tmp_path, kind):
    rng, gaps = np.random.default_rng(0), [3, 3 + PIECE, 3 + 2 * PIECE, 99]
    keys = [f"K{k}" for k in rng.permutation(7000)[:ROWS]]
    table = pd.DataFrame({"id": keys, "x": rng.normal(size=ROWS)})
    rv.Model(steps=2, hidden_features=8, num_blocks=1, show_progress=False).fit(table).save(
        tmp_path / "run"
    )
    table.loc[gaps, "id"] = None
    file, out = tmp_path / f"table.{kind}", tmp_path / "out.csv"
    frames.write(table, file)
    command = ("impute", tmp_path / "run", file, "--draws", 2, "--out", out)
    assert "piece by piece" not in in_words(call(*command))
    whole = pd.read_csv(out)["id"]
    assert whole[gaps].is_unique and not set(whole[gaps]) & set(keys)
    monkeypatch.setattr(table_file, "LARGE", 0)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 2 * PIECE)
    monkeypatch.setattr(csv_types, "BLOCK", 400)
    assert len(list(table_file.open_table(file).batches())) > 3
    assert "piece by piece" in in_words(call(*command))
    assert pd.read_csv(out)["id"].tolist() == whole.tolist()


def test_draws_of_a_small_file_that_memory_does_not_hold_are_made_in_pieces(place, monkeypatch):
    size = table_file.TABLES[".csv"](place / "rows.csv").num_bytes
    monkeypatch.setattr(table_file, "LARGE", 10 * size)
    assert not isinstance(table_file.open_table(place / "rows.csv", 10), table_file.TableFile)
    assert isinstance(table_file.open_table(place / "rows.csv", 11), table_file.TableFile)


@pytest.mark.parametrize("command", [("score", "--samples", 16), ("impute", "--draws", 1)])
def test_what_is_wrong_in_a_later_piece_is_named_by_its_row_and_nothing_is_lost(
    place, streamed, tmp_path, command
):
    odd, out = rows(), tmp_path / "out.csv"
    odd.loc[77, "species"] = "Emperor"
    frames.write(odd, tmp_path / "odd.csv")
    out.write_text("what was there\n")
    name, *rest = command
    said = refused(name, place / "run", tmp_path / "odd.csv", "--out", out, *rest)
    assert "got 'Emperor' in row 77 (counting from 0)" in said
    assert out.read_text() == "what was there\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.csv", "out.csv"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("command", [("score", "--samples", 16), ("impute", "--draws", 2)])
def test_a_file_without_rows_is_refused_as_in_memory(place, monkeypatch, tmp_path, kind, command):
    file, out = tmp_path / f"none.{kind}", tmp_path / f"out.{kind}"
    frames.write(penguins().head(0).drop(columns="sex"), file)
    out.write_text("what was there\n")
    name, *rest = command
    arguments = (name, place / "run", file, "--out", out, *rest)
    said = refused(*arguments)
    assert "7 column names and no row" in " ".join(said.split())
    monkeypatch.setattr(table_file, "LARGE", -1)
    assert isinstance(table_file.open_table(file), table_file.TableFile)
    assert refused(*arguments) == said
    assert out.read_text() == "what was there\n" and len(list(tmp_path.iterdir())) == 2


INDICES = {
    "named": pd.Index([f"r{k}" for k in range(ROWS)], name="key"),
    "without a name": pd.Index(np.arange(ROWS)[::-1] * 1.5),
    "named as the draw": pd.Index(np.arange(ROWS) + 7, name="draw"),
    "a range": pd.RangeIndex(5, 5 + 3 * ROWS, 3, name="n"),
    "of row numbers": pd.RangeIndex(ROWS),
    "times": pd.date_range("2024-03-30", periods=ROWS, freq="h", tz="Europe/Berlin", name="at"),
    "levels": pd.MultiIndex.from_arrays(
        [["a"] * 50 + ["b"] * 50, [*range(50)] * 2], names=["x", None]
    ),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_of_pandas_is_kept_beside_the_columns(tmp_path, monkeypatch, name):
    model = rv.Model(steps=2, hidden_features=8, num_blocks=1, show_progress=False)
    table = pd.DataFrame({"x": np.random.default_rng(0).normal(size=ROWS)}, INDICES[name])
    file, whole, out, text = (
        tmp_path / n for n in ("in.parquet", "w.parquet", "o.parquet", "o.csv")
    )
    model.fit(table)
    source, denoiser = model.source_, model.denoiser_
    table["x"] = table["x"].where(np.arange(ROWS) % 5 > 0)
    frames.write(table, file)
    frames.write(filling.impute(denoiser, source, frames.read(file), 2, 0, 2), whole)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 2 * PIECE)
    found = table_file.TABLES[".parquet"](file)
    for path in (out, text):
        with frames.appending(path) as append:
            for piece in pieces.imputations(denoiser, source, found, 2, 0, 2):
                append(piece)
    expected, got = pd.read_parquet(whole), pd.read_parquet(out)
    pd.testing.assert_index_equal(got.index, expected.index)
    known = expected["x"].isin(table["x"])
    assert known.sum() == 2 * 80
    pd.testing.assert_frame_equal(got[known.to_numpy()], expected[known.to_numpy()])
    assert list(pd.read_csv(text).columns) == ["draw", "x"]


def test_an_index_of_pandas_is_no_column(place, streamed, tmp_path):
    rows().set_axis([f"r{k}" for k in range(ROWS)]).to_parquet(tmp_path / "indexed.parquet")
    out = tmp_path / "filled.parquet"
    done = call("impute", place / "run", tmp_path / "indexed.parquet", "--draws", 1, "--out", out)
    assert done.exit_code == 0, done.output
    assert pd.read_parquet(out).columns.tolist() == ["draw", *penguins().columns]
    assert pd.read_parquet(out).index.tolist() == [f"r{k}" for k in range(ROWS)]
    parquet.write_table(pa.table({"other": [1, 2]}), tmp_path / "other.parquet")
    assert "got 'other' as well" in refused("score", place / "run", tmp_path / "other.parquet")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_full_disk_leaves_what_was_there(tmp_path, kind, monkeypatch):
    out = tmp_path / f"out.{kind}"
    out.write_text("what was there\n")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"), frames.appending(out) as append:
        append(pa.table({"a": [1]}))
    assert out.read_text() == "what was there\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_are_appended_in_the_types_of_the_first(tmp_path, kind):
    out = tmp_path / f"out.{kind}"
    with frames.appending(out) as append:
        append(pa.table({"a": [1, 2], "b": pa.array(["x", None]).dictionary_encode()}))
        append(pa.table({"a": [3.0], "b": ["y"]}))
    table = pd.read_csv(out) if kind == "csv" else parquet.read_table(out).to_pandas()
    assert table["a"].tolist() == [1, 2, 3] and table["b"].dropna().tolist() == ["x", "y"]
    if kind == "parquet":
        said = "'a': expected values that fit int64"
        with pytest.raises(DataError, match=said), frames.appending(out) as append:
            append(pa.table({"a": [1]}))
            append(pa.table({"a": [0.5]}))
        assert parquet.read_table(out).num_rows == 3


def test_each_piece_and_draw_has_a_stream_of_its_own():
    places = [(draw, piece) for draw in range(20) for piece in range(50)]
    seeds = {pieces.seed_of(seed, *place) for seed in (0, 1, 2**62 - 1) for place in places}
    assert len(seeds) == 3 * len(places) and max(seeds) < 2**62
    assert pieces.seed_of(7, 0, 0) == pieces.seed_of(7, 0) == 7


def test_means_of_pieces_are_joined_to_those_of_all():
    value = 1e6 + torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stderr, total = torch.linspace(0.1, 2, 1000), Total()
    for part in (slice(0, 1), slice(1, 400), slice(400, 1000)):
        total.add(Likelihood(value[part], stderr[part], 0.0, "lower bound", {}))
    assert total.rows == 1000 and total.mean == pytest.approx(float(value.mean()), rel=1e-14)
    assert total.over_rows == pytest.approx(float(value.std()) / 1000**0.5, rel=1e-9)
    assert total.of_estimate == pytest.approx(float(stderr.double().norm()) / 1000, rel=1e-6)
    one = Total()
    one.add(Likelihood(value[:1], stderr[:1], 0.0, "lower bound", {}))
    assert math.isnan(one.over_rows) and re.fullmatch("nan", f"{one.over_rows:.3f}")
