"""A folder of pictures through the command line: in, out, and what does not fit."""

from __future__ import annotations

import numpy as np

import reversal as rv
from reversal.data.image import png
from reversal.data.pictures import Pictures, read_pictures
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


def test_labels_beside_the_pictures_are_learned_and_asked_for(tmp_path):
    folder = filled(tmp_path / "in", pictures(1, n=40))
    labels = [f"{number:03d}.png,{number % 4}" for number in range(40)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *labels]))
    run, out = tmp_path / "run", tmp_path / "out"
    fitted = call("fit", folder, "--out", run, "--minutes", 0.002)
    assert fitted.exit_code == 0, fitted.output
    assert "40 pictures of 5 x 7, gray, with label" in fitted.stdout
    done = call("sample", run, "-n", 3, "--out", out, "--where", "label == 3")
    assert done.exit_code == 0, done.output
    drawn = read_pictures(out)
    assert drawn["image"].shape == (3, 1, 5, 7)
    assert (out / "labels.csv").read_text().split() == [
        *('"file","label"', '"0001.png",3', '"0002.png",3', '"0003.png",3')
    ]
    assert call("fit", out, "--out", tmp_path / "same", "--minutes", 0.002).exit_code == 0
    asked = ("sample", run, "-n", 3, "--out", tmp_path / "more", "--where")
    assert "a known label in 'label', got '7'; choose from '0'" in refused(*asked, "label == 7")
    assert "conditions that some value meets" in refused(*asked, "label in (1, 2) and label > 2")
    done = call("sample", run, "-n", 9, "--out", tmp_path / "some", "--where", "label in 1..2")
    assert done.exit_code == 0 and "the ranges and sets hold in" in done.stdout, done.output
    assert set(read_pictures(tmp_path / "some")["label"]) <= {1, 2}
    (folder / "labels.csv").write_text("file,label\n000.png,1\n")
    assert "got none for '001.png', 39 in all" in refused("fit", folder, "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists() and not (tmp_path / "more").exists()


def test_what_is_told_of_a_picture_and_the_picture_follow_from_each_other():
    """Dark pictures are of night, bright ones of day: 60 and 190, with noise of 10."""
    rng = np.random.default_rng(0)
    is_day = rng.random(400) < 0.5
    gray = np.where(is_day, 190, 60)[:, None, None, None] + rng.normal(0, 10, (400, 1, 3, 3))
    told = {"when": np.where(is_day, "day", "night").astype(object)}
    found = Pictures(gray.astype(np.uint8), tuple(map(str, range(400))), told)
    model = rv.Model(steps=100, hidden_features=32, num_blocks=1, show_progress=False).fit(found)
    for word, level in (("day", 190), ("night", 60)):
        drawn = model.sample(60, given={"when": word}, seed=0)
        assert set(drawn["when"]) == {word}
        assert np.abs(drawn["image"].mean((1, 2, 3)) - level).max() < 65
    probs = model.predict_proba({"image": found["image"]}, "when")
    assert (probs.argmax(1) == ~is_day).mean() > 0.99


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
