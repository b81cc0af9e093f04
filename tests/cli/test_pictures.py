"""A folder of pictures through the command line: in, out, and what does not fit."""

from __future__ import annotations

import numpy as np

from reversal.data.image import png
from reversal.data.pictures import read_pictures
from tests.cli.test_commands import call, refused


def pictures(channels, n=6):
    return np.random.default_rng(0).integers(0, 256, (n, channels, 5, 7)).astype(np.uint8)


def filled(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:03d}.png").write_bytes(png(image.transpose(1, 2, 0)))
    return folder


def test_a_folder_goes_in_and_a_folder_comes_out(tmp_path):
    folder = filled(tmp_path / "in", pictures(3, n=40))
    run, out = tmp_path / "run", tmp_path / "out"
    fitted = call("fit", folder, "--out", run, "--minutes", 0.002)
    assert fitted.exit_code == 0, fitted.output
    assert "40 pictures of 5 x 7, RGB" in fitted.stdout
    done = call("sample", run, "-n", 3, "--out", out, "--seed", 1)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == [f"000{k}.png" for k in (1, 2, 3)]
    assert read_pictures(out)["image"].shape == (3, 3, 5, 7)
    assert "which holds files" in refused("sample", run, "-n", 3, "--out", out)
    assert "Sample pictures into a folder" in refused(
        "sample", run, "-n", 3, "--out", tmp_path / "o.csv"
    )
    (tmp_path / "file").write_text("x")
    assert "can be written to" in refused("sample", run, "-n", 3, "--out", "/proc/out")
    assert "a folder that exists" in refused("sample", run, "-n", 3, "--out", tmp_path / "no" / "o")
    assert "got the file" in refused("sample", run, "-n", 3, "--out", tmp_path / "file")


def test_folders_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "got none" in refused("fit", tmp_path / "empty", "--out", tmp_path / "run")
    one = filled(tmp_path / "one", pictures(1, n=1))
    assert "got one" in refused("fit", one, "--out", tmp_path / "run")
    flat = filled(tmp_path / "flat", np.zeros_like(pictures(1)))
    assert "one value everywhere" in refused("fit", flat, "--out", tmp_path / "run")
    two = filled(tmp_path / "two", pictures(1))
    (tmp_path / "space.yaml").write_text("version: 1\ncolumns: {}\n")
    space = ("--space", tmp_path / "space.yaml")
    assert "declares columns" in refused("fit", two, "--out", tmp_path / "run", *space)
    assert "table in memory" in refused("schema", two)
    assert not (tmp_path / "run").exists()
