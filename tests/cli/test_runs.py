"""Runs on disk through the command line: stopped, resumed, damaged, of a later version, no room."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import frames
from reversal.model import Model, load
from reversal.training import Keeper

PROGRAM = CliRunner()
RUN_FILES = ["README.md", "config.json", "log.jsonl", "model.safetensors", "space.yaml"]


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
    assert result.stderr.startswith("reversal: Expected ")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two tables, a run, and a run whose training was stopped."""
    folder = tmp_path_factory.mktemp("runs")
    table = pd.DataFrame({"x": [float(k % 7) for k in range(60)], "kind": list("abc") * 20})
    frames.write(table, folder / "table.csv")
    frames.write(table.assign(x=table["x"] + 1), folder / "other.csv")
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        done = call("fit", folder / "table.csv", "--out", folder / "run", "--minutes", 0.003)
        assert done.exit_code == 0, done.output
        stop(patch, 26)
        fit = ("fit", folder / "table.csv", "--out", folder / "stopped")
        done = call(*fit, "--minutes", 0.02, "--seed", 3)
        assert done.exit_code == 130, done.output
    return folder


def tiny(patch):
    """Let the command line fit a small network."""
    patch.setattr(Model.__init__, "__kwdefaults__", Model.__init__.__kwdefaults__ | TINY)


TINY = {"hidden_features": 16, "num_blocks": 1}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny(monkeypatch)


def stop(patch, number, what=signal.SIGINT):
    """Let a signal come while a step of a training is at work."""
    after_step = Keeper.after_step

    def stopping(self, step, snapshot):
        if step == number:
            signal.raise_signal(what)
        after_step(self, step, snapshot)

    patch.setattr(Keeper, "after_step", stopping)


@pytest.fixture
def copy(place, tmp_path):
    """Copies of both runs, to be damaged."""
    for name in ("run", "stopped"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path


def test_a_signal_saves_and_names_the_command_that_goes_on(place, tmp_path, monkeypatch):
    stop(monkeypatch, 26, signal.SIGTERM)
    out = tmp_path / "my run"
    done = call("fit", place / "table.csv", "--out", out, "--minutes", 0.02)
    assert done.exit_code == 143
    assert f"--out '{out}' --resume" in done.stderr
    assert sorted(os.listdir(out)) == ["checkpoint"]
    monkeypatch.undo()
    tiny(monkeypatch)
    done = call("fit", place / "table.csv", "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir(out)) == RUN_FILES
    assert load(out).minutes == 0.02


def test_what_is_left_out_is_taken_from_the_run(place, copy, monkeypatch):
    """What another version would choose by itself, too: here the size of the network."""
    monkeypatch.undo()
    done = call("fit", place / "table.csv", "--out", copy / "stopped", "--resume")
    assert done.exit_code == 0, done.output
    model = load(copy / "stopped")
    assert (model.minutes, model.seed) == (0.02, 3)
    assert {name: getattr(model, name) for name in TINY} == TINY
    assert Model().hidden_features != model.hidden_features


def test_a_run_that_has_ended_is_left_as_it_is(place, copy):
    before = {path.name: path.read_bytes() for path in (copy / "run").iterdir()}
    done = call("fit", place / "table.csv", "--out", copy / "run", "--resume")
    assert done.exit_code == 0
    assert "nothing was done: this training had ended" in done.stdout
    assert before == {path.name: path.read_bytes() for path in (copy / "run").iterdir()}


@pytest.mark.parametrize("run", ["run", "stopped"])
@pytest.mark.parametrize(
    ("table", "more", "said"),
    [
        ("other.csv", (), "got other rows, columns or kinds"),
        ("table.csv", ("--minutes", 5), "got minutes=5.0 where it has minutes=0.0"),
        ("table.csv", ("--seed", 4), "got seed=4 where it has seed="),
    ],
)
def test_another_training_is_not_resumed(place, copy, run, table, more, said):
    assert said in refused("fit", place / table, "--out", copy / run, "--resume", *more)


def test_a_training_that_was_stopped_is_not_overwritten(place, copy):
    said = refused("fit", place / "table.csv", "--out", copy / "stopped")
    assert "Go on with it (`--resume`" in said
    done = call("fit", place / "table.csv", "--out", copy / "stopped", "--resume")
    assert done.exit_code == 0


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
@pytest.mark.parametrize("name", ["config.json", "log.jsonl", "model.safetensors", "space.yaml"])
def test_a_damaged_run_is_refused_by_every_command(place, copy, name, damage):
    damage(copy / "run" / name)
    out = copy / "out.csv"
    for command in (
        ("sample", copy / "run", "-n", 3),
        ("impute", copy / "run", place / "table.csv"),
    ):
        assert str(copy / "run") in refused(*command, "--out", out)
    if name == "config.json":
        fit = ("fit", place / "table.csv", "--out", copy / "run", "--resume")
        assert str(copy / "run") in refused(*fit)
    assert not out.exists()


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_training_is_not_resumed(place, copy, name, damage):
    damage(copy / "stopped" / "checkpoint" / name)
    fit = ("fit", place / "table.csv", "--out", copy / "stopped", "--resume")
    if (name, damage) == ("state.json", Path.unlink):
        assert call(*fit).exit_code == 0
    else:
        assert str(copy / "stopped" / "checkpoint") in refused(*fit)


@pytest.mark.parametrize(
    ("run", "name"), [("run", "config.json"), ("stopped/checkpoint", "state.json")]
)
def test_what_a_later_version_wrote_is_refused(place, copy, run, name):
    path = copy / run / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    commands = [("fit", place / "table.csv", "--out", copy / run.split("/")[0], "--resume")]
    if run == "run":
        commands.append(("sample", copy / run, "-n", 3, "--out", copy / "out.csv"))
    for command in commands:
        assert "got format 99" in refused(*command)


def test_a_folder_of_another_program_is_not_taken_for_a_run(place, tmp_path):
    """Others have files of these names as well."""
    (tmp_path / "model").mkdir()
    for name in RUN_FILES:
        (tmp_path / "model" / name).write_text('{"hidden_size": 3}')
    fit = ("fit", place / "table.csv", "--out", tmp_path / "model")
    assert "which holds other files" in refused(*fit)
    (tmp_path / "readme").mkdir()
    (tmp_path / "readme" / "README.md").write_text("mine")
    fit = ("fit", place / "table.csv", "--out", tmp_path / "readme")
    assert "which holds other files" in refused(*fit)


def limited(bytes_, *arguments):
    """Run the command line in a process that cannot write larger files."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_}, {bytes_})); "
        "from reversal.model import Model; "
        f"Model.__init__.__kwdefaults__.update({TINY}); from reversal.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_without_room_is_said_and_the_older_run_is_whole(place, copy):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {path.name: path.read_bytes() for path in (copy / "run").iterdir()}
    fit = ("fit", place / "table.csv", "--out", copy / "run", "--minutes", 0.003)
    done = limited(20_000, *fit)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("reversal: Expected to write a run to ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert before == {path.name: path.read_bytes() for path in (copy / "run").iterdir()}


def test_tensorboard_is_asked_for_before_any_work(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    fit = ("fit", place / "table.csv", "--out", tmp_path / "run", "--tensorboard")
    assert "pip install 'reversal[tensorboard]'" in refused(*fit)
    assert not (tmp_path / "run").exists()
