"""Files that change together: whenever a writer dies, a reader finds the old ones or the new."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import reversal as rv
from reversal.training import bundle

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INDEX = "index.json"


def program(name, *arguments, seconds):
    """Run a program of this folder; return what it printed."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_writer_that_dies_at_any_call_leaves_the_old_files_or_the_new(tmp_path):
    """Twice in a row, and the next writer leaves the four files of a bundle and no draft."""
    *deaths, last = program("tears.py", tmp_path, seconds=60)
    firsts = [death.split("-")[0] for death in deaths]
    assert firsts == sorted(firsts, key=["old", "new"].index)
    assert (firsts.count("old"), firsts.count("new")) == (12, 8)
    for number, death in enumerate(deaths):
        first, second, third, count = death.split("-")
        after = "newer" if first == "new" and number % 2 == 0 else first
        assert (second, third, count) == (after, "old", "4")
    assert last == "new"


@pytest.mark.slow
def test_fifty_kills_are_fifty_exact_resumes(tmp_path):
    kills, _, wrong = program("kills.py", tmp_path, 50, seconds=1200)
    assert (kills, wrong) == ("50", "0")


@pytest.mark.parametrize("name", ["fsync", "replace", "mkdir"])
def test_a_full_disk_is_said_and_leaves_the_old_files_and_no_draft(tmp_path, monkeypatch, name):
    folder = tmp_path / "run"
    if name != "mkdir":
        bundle.write(folder, INDEX, {"word": 1}, {"a": b"1"})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path if name == "mkdir" else os, name, full)
        with pytest.raises(rv.CheckpointError, match=r"No space left on device\. Choose a folder"):
            bundle.write(folder, INDEX, {"word": 2}, {"a": b"2"})
    if name == "mkdir":
        assert not folder.exists()
    else:
        assert bundle.read(folder, INDEX)[0]["word"] == 1
        assert sorted(os.listdir(folder)) == ["a", INDEX]


def test_a_reader_looks_again_where_a_writer_was_faster(tmp_path, monkeypatch):
    """Between the index and the files of a reader, a writer puts a whole new bundle."""
    bundle.write(tmp_path, INDEX, {"word": 1}, {"a": b"1"})
    real, calls = bundle._content, []

    def slow(*args):
        calls.append(1)
        if len(calls) == 1:
            content = real(*args)
            bundle.write(tmp_path, INDEX, {"word": 2}, {"a": b"2"})
            return content
        return real(*args)

    monkeypatch.setattr(bundle, "_content", slow)
    content, files = bundle.read(tmp_path, INDEX, needed=["a"])
    assert (content["word"], files) == (2, {"a": b"2"})


def test_a_file_that_the_index_does_not_name_is_not_read(tmp_path):
    bundle.write(tmp_path, INDEX, {}, {"a": b"1"}, {"free": b"2"})
    (tmp_path / "free").write_bytes(b"mine")
    assert bundle.read(tmp_path, INDEX)[1] == {"a": b"1"}
    with pytest.raises(rv.CheckpointError, match="with b in"):
        bundle.read(tmp_path, INDEX, needed=["b"])
