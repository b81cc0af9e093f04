"""Work that was cut off, or would destroy its own input, leaves what was there."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import frames
from reversal.datasets import penguins
from reversal.model import Model
from reversal.training import checkpoint

PROGRAM = CliRunner()


@pytest.fixture
def folder(tmp_path):
    frames.write(penguins(), tmp_path / "penguins.csv")
    return tmp_path


def call(*arguments):
    return PROGRAM.invoke(app, [str(argument) for argument in arguments])


def fit(folder):
    return call("fit", folder / "penguins.csv", "--out", folder / "run", "--minutes", 0.003)


@pytest.mark.parametrize(
    "names",
    [
        [".model.safetensors.123.part"],
        ["model.safetensors"],
        ["model.safetensors", ".config.json.9.part"],
    ],
)
def test_a_save_that_was_killed_can_be_repeated(folder, names):
    (folder / "run").mkdir()
    for name in names:
        (folder / "run" / name).write_bytes(b"torn")
    done = fit(folder)
    assert done.exit_code == 0, done.output
    files = sorted(file.name for file in (folder / "run").iterdir())
    assert files == ["README.md", "config.json", "log.jsonl", "model.safetensors", "space.yaml"]
    checkpoint.read(folder / "run")


def test_files_of_others_are_left_alone(folder):
    (folder / "run").mkdir()
    (folder / "run" / ".notes.part").write_text("mine")
    assert "which holds other files" in fit(folder).stderr


def test_the_end_of_training_is_told(folder):
    done = fit(folder)
    assert "steps: " in done.stdout
    assert any(why in done.stdout for why in ("all steps were done", "stopped falling", "time was"))


def test_an_interrupted_fit_saves_nothing_and_says_so(folder, monkeypatch):
    def stopped(self, *data, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "fit", stopped)
    done = fit(folder)
    assert done.exit_code == 130
    assert done.stderr == "reversal: stopped; nothing was saved\n"
    assert not (folder / "run").exists()


def test_a_table_is_not_written_over_itself(folder):
    fit(folder)
    file = folder / "penguins.csv"
    before = file.read_bytes()
    done = call("impute", folder / "run", file, "--out", folder / "run" / ".." / "penguins.csv")
    assert done.exit_code == 2
    assert "Expected another file for the result" in done.stderr
    assert file.read_bytes() == before


def test_one_row_is_no_plural_and_no_row_is_refused(folder):
    fit(folder)
    frames.write(penguins().iloc[[3]], folder / "one.csv")
    out = folder / "filled.csv"
    done = call("impute", folder / "run", folder / "one.csv", "--draws", 1, "--out", out)
    assert "filled 1 row 1 time into" in " ".join(done.stdout.split())
    (folder / "none.csv").write_text(",".join(penguins().columns) + "\n")
    done = call("impute", folder / "run", folder / "none.csv", "--out", out)
    assert "Add at least one row." in done.stderr
    assert len(pd.read_csv(out)) == 1
    done = call("sample", folder / "run", "-n", 1, "--seed", 2**64, "--out", out)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
