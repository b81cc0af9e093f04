"""From a file to samples and back, and what is said when something is not as it should be.

Every error is one sentence on stderr and exit code 2, before any work starts, and no traceback.
"""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import frames
from reversal.datasets import penguins

PROGRAM = CliRunner()


def call(*arguments):
    """Run the command line; nothing but an exit code comes out of it."""
    result = PROGRAM.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments):
    """Return the sentence with which a call is refused."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("reversal: ")
    assert "xpected " in result.stderr
    assert "got" in result.stderr or "found none" in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the penguins, and a run that was fitted to them for a moment."""
    place = tmp_path_factory.mktemp("cli")
    frames.write(penguins(), place / "penguins.csv")
    done = call("fit", place / "penguins.csv", "--out", place / "run", "--minutes", 0.005)
    assert done.exit_code == 0, done.output
    return place


def test_a_condition_holds_in_every_row_and_a_seed_repeats_it(folder):
    conditions = "species == 'Adelie' and sex == \"male\" and year == 2008"
    for name in ("a.csv", "b.csv"):
        done = call(
            *("sample", folder / "run", "-n", 7, "--seed", 3, "--out", folder / name),
            *("--where", conditions),
        )
        assert done.exit_code == 0, done.output
    table = frames.read(folder / "a.csv")
    assert list(table.columns) == list(penguins().columns)
    assert len(table) == 7
    assert set(table["species"]) == {"Adelie"}
    assert set(table["sex"]) == {"male"}
    assert set(table["year"]) == {2008}
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()


def test_ranges_and_sets_hold_in_every_row_and_their_probability_is_printed(folder):
    where = "body_mass_g in 4000..5000 and species in ('Adelie', 'Gentoo') and year < 2009"
    out = folder / "range.csv"
    done = call("sample", folder / "run", "-n", 40, "--out", out, "--where", where)
    assert done.exit_code == 0, done.output
    assert "the ranges and sets hold in" in done.stdout
    assert "effective sample size" in done.stdout
    table = frames.read(out)
    assert table["body_mass_g"].between(4000, 5000).all()
    assert table["species"].isin(["Adelie", "Gentoo"]).all()
    assert (table["year"] < 2009).all()


def test_values_without_support_are_refused_or_warned_of(folder, monkeypatch):
    """The bounds are moved, for no run of a moment is sure that anything is impossible."""
    where = "species == 'Gentoo' and island == 'Torgersen'"
    out = folder / "unseen.csv"
    asked = ("sample", folder / "run", "-n", 3, "--out", out, "--where", where)
    with monkeypatch.context() as moved:
        moved.setattr("reversal.answers.support.LEAST_LIFT", 1e9)
        moved.setattr("reversal.answers.support.LEAST_PROB", 1.0)
        assert "no support for an answer. Leave one of them out" in refused(*asked)
        assert not out.exists()
    monkeypatch.setattr(sys.modules["reversal.cli.sample"], "UNLIKE", 1e9)
    done = call(*asked)
    assert done.exit_code == 0
    assert "the model saw few such rows, or none" in done.stderr


def test_scores_are_one_per_row_and_their_mean_is_printed(folder):
    rows = penguins().head(12)
    frames.write(rows, folder / "some.csv")
    out = folder / "scores.csv"
    done = call("score", folder / "run", folder / "some.csv", "--out", out, "--samples", 16)
    assert done.exit_code == 0, done.output
    scores = frames.read(out)
    assert list(scores.columns) == ["log_prob", "stderr", "kind"]
    assert len(scores) == len(rows)
    assert np.isfinite(scores["log_prob"]).all()
    assert (scores["stderr"] > 0).all()
    assert set(scores["kind"]) == {"lower bound"}
    assert f"mean lower bound {scores['log_prob'].mean():,.3f} nats" in " ".join(
        done.stdout.split()
    )
    printed = call("score", folder / "run", folder / "some.csv", "--samples", 16)
    assert printed.stdout.split("\n")[1:] == done.stdout.split("\n")[1:]


def test_a_row_that_cannot_be_is_refused_by_its_number(folder):
    rows = penguins().head(9)
    rows.loc[4, "species"] = "Emperor"
    frames.write(rows, folder / "odd.csv")
    out = folder / "odd_scores.csv"
    said = refused("score", folder / "run", folder / "odd.csv", "--out", out)
    assert "'Emperor' in row 4" in said
    assert not out.exists()
    assert "ends in .csv" in refused("score", folder / "none", folder / "odd.csv", "--out", "a.txt")
    same = folder / "odd.csv"
    assert "which is read" in refused("score", folder / "run", same, "--out", same)


def test_imputation_leaves_what_is_known_and_no_gap(folder):
    rows = penguins().iloc[[0, 3, 8, 9]].reset_index(drop=True)
    frames.write(rows, folder / "gaps.csv")
    out = folder / "filled.parquet"
    done = call("impute", folder / "run", folder / "gaps.csv", "--draws", 3, "--out", out)
    assert done.exit_code == 0, done.output
    filled = frames.read(out)
    assert filled.columns[0] == "draw"
    assert len(filled) == 3 * len(rows)
    assert not filled.isna().any(axis=None)
    for _, draw in filled.groupby("draw"):
        own = draw[rows.columns].reset_index(drop=True).astype(object)
        pd.testing.assert_frame_equal(
            own.where(rows.notna()), rows.astype(object).where(rows.notna())
        )


def test_an_older_run_is_replaced(folder, tmp_path):
    for seed in (0, 1):
        done = call(
            *("fit", folder / "penguins.csv", "--out", tmp_path / "run"),
            *("--minutes", 0.003, "--seed", seed),
        )
        assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ("specie == 'Adelie'", "did you mean 'species'?"),
        ("species == 'Adelia'", "did you mean 'Adelie'?"),
        ("species = 'Adelie'", "got `=`"),
        ("body_mass_g == 'heavy'", "body_mass_g"),
        ("body_mass_g == 1000000", "body_mass_g"),
        ("", "the name of a column"),
        ("body_mass_g in 9000..10000", "a range with values from 2700 to 6300"),
        ("body_mass_g in 5000..4000", "An empty range holds nothing"),
        ("body_mass_g in 4000..'heavy'", "two ends of one kind"),
        ("body_mass_g > 5000 and body_mass_g < 4000", "conditions that some value meets, got none"),
        ("body_mass_g in ('heavy', 4000)", "expected a number from 2700 to 6300, got 'heavy'"),
        ("species in ('Adelie', 'Gento')", "did you mean 'Gentoo'?"),
        ("species not in ('Adelie', 'Gentoo', 'Chinstrap')", "that some value meets, got none"),
        ("species > 'Adelie'", "an ordered column for a range, got category"),
        ("species in ()", "An empty set holds nothing"),
        ("sex is missing", "is not modelled"),
        ("bill_length_mm in 99..", "a range with values from 32.1 to 59.6"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(folder, conditions, said):
    out = folder / "never.csv"
    sentence = refused("sample", folder / "run", "-n", 5, "--out", out, "--where", conditions)
    assert said in sentence
    assert not out.exists()


def test_a_syntax_error_is_shown_at_its_place(folder):
    where = "species == 'Adelie' or sex == 'male'"
    text = refused("sample", folder / "run", "-n", 5, "--out", folder / "n.csv", "--where", where)
    *_, line, caret = text.rstrip("\n").split("\n")
    assert line == "  " + where
    assert caret == "  " + " " * where.index("or ") + "^"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("a,b\n", "no row"),
        ("a,b\n1,2\n", "one row"),
        ("a,b\n1,2\n1,2\n", "varies"),
        ("a,b\n1,2\n1,2,3\n", "comma-separated text"),
        ("a;b\n1;2\n3;4\n", "separated by commas"),
    ],
)
def test_a_table_that_teaches_nothing_is_refused(tmp_path, content, said):
    (tmp_path / "table.csv").write_text(content, "utf-8")
    assert said in refused("fit", tmp_path / "table.csv", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_refused(tmp_path, folder):
    assert "found none" in refused("fit", tmp_path / "no.csv", "--out", tmp_path / "run")
    assert "csv" in refused("fit", tmp_path / "no.xlsx", "--out", tmp_path / "run")
    out = tmp_path / "out.csv"
    assert "found none" in refused("impute", folder / "run", tmp_path / "no.csv", "--out", out)


def test_a_run_that_is_none_is_refused(tmp_path):
    out = tmp_path / "out.csv"
    assert "gone" in refused("sample", tmp_path / "gone", "-n", 5, "--out", out)
    assert str(tmp_path) in refused("sample", tmp_path, "-n", 5, "--out", out)


@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_a_truncated_run_is_refused(folder, tmp_path, part):
    run = tmp_path / "run"
    run.mkdir()
    for file in (folder / "run").iterdir():
        content = file.read_bytes()
        (run / file.name).write_bytes(
            content[: len(content) // 2] if file.name == part else content
        )
    assert str(run) in refused("sample", run, "-n", 5, "--out", tmp_path / "out.csv")
    (run / part).unlink()
    assert str(run) in refused("sample", run, "-n", 5, "--out", tmp_path / "out.csv")


def test_a_run_of_a_later_version_is_refused(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for file in (folder / "run").iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"version": 99}), "utf-8")
    assert str(run) in refused("sample", run, "-n", 5, "--out", tmp_path / "out.csv")


def test_an_output_that_cannot_be_written_is_refused_before_any_work(folder, tmp_path):
    """A run that does not exist is not even looked for."""
    (tmp_path / "file").write_text("x", "utf-8")
    outputs = {
        tmp_path / "gone" / "out.csv": "a folder that exists",
        tmp_path / "file" / "out.csv": "a folder that exists",
        tmp_path / "out.xlsx": "ends in .csv or .parquet",
        "/proc/out.csv": "can be written to",
    }
    (tmp_path / "folder.csv").mkdir()
    outputs[tmp_path / "folder.csv"] = "got the folder"
    for out, said in outputs.items():
        assert said in refused("sample", tmp_path / "none", "-n", 5, "--out", out)
        assert said in refused("impute", tmp_path / "none", tmp_path / "no.csv", "--out", out)


def test_a_folder_that_is_no_run_is_never_overwritten(folder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x", "utf-8")
    table = folder / "penguins.csv"
    assert "overwritten" in refused("fit", table, "--out", tmp_path / "thesis")
    assert "got the file" in refused("fit", table, "--out", tmp_path / "thesis" / "chapter.txt")
    assert "a folder that exists" in refused("fit", table, "--out", tmp_path / "no" / "run")
    assert "can be written to" in refused("fit", table, "--out", "/proc/run")
    assert "folder to write" in refused("demo", "--out", tmp_path / "thesis" / "chapter.txt")
    assert (tmp_path / "thesis" / "chapter.txt").read_text("utf-8") == "x"
