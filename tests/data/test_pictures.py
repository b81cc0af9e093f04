"""Folders of PNG files: read exactly, written whole, refused by the file that does not fit."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import reversal as rv
from reversal.data import frames
from reversal.data.image import png
from reversal.data.opening import opened
from reversal.data.pictures import Pictures, read_pictures, write_pictures
from reversal.data.states import StateSource
from reversal.errors import DataError

ALL = "file,label\n000.png,1\n001.png,2\n002.png,1\n003.png,2\n"


def pictures(channels, n=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 5, 7)).astype(np.uint8)


def filled(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:03d}.png").write_bytes(png(image.transpose(1, 2, 0)))
    return folder


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_are_read_as_they_were_written(tmp_path, channels):
    images = pictures(channels)
    write_pictures(images, tmp_path / "out")
    found = frames.read(tmp_path / "out")
    assert isinstance(found, Pictures)
    np.testing.assert_array_equal(found["image"], images, strict=True)
    assert found.names == tuple(f"{k:04d}.png" for k in range(1, 7))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_palettes_and_bits_are_read_as_colors(tmp_path):
    images = pictures(3)
    folder = filled(tmp_path / "in", images // 64 * 64)
    for file in folder.iterdir():
        opened_ = Image.open(file)
        opened_.quantize(256).save(file)
    np.testing.assert_array_equal(read_pictures(folder)["image"], images // 64 * 64)
    bits = filled(tmp_path / "bits", pictures(1) // 128 * 255)
    for file in bits.iterdir():
        Image.open(file).convert("1").save(file)
    np.testing.assert_array_equal(read_pictures(bits)["image"], pictures(1) // 128 * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_open_as_a_source_whose_states_give_them_back(tmp_path, channels):
    images = pictures(channels)
    found = read_pictures(filled(tmp_path / "in", images))
    source, process = opened(found)
    assert process.space.parts["image"].event_shape == (channels, 5, 7)
    state = source.encode(found).state
    np.testing.assert_array_equal(source.decode(state)["image"], images, strict=True)
    assert source.is_pictures
    assert not opened(images.astype(np.int16), process.space.parts["image"])[0].is_pictures


def spoil(folder, how):
    file = folder / "002.png"
    if how == "size":
        file.write_bytes(png(np.zeros((5, 8), np.uint8)))
    elif how == "kind":
        file.write_bytes(png(np.zeros((5, 7, 3), np.uint8)))
    elif how == "depth":
        Image.fromarray(np.zeros((5, 7), np.uint16)).save(file)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:60])
    else:
        file.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("size", r"like the first, 5 x 7, gray, got 5 x 8, gray in '.*002.png'. Resize"),
        ("kind", r"like the first, 5 x 7, gray, got 5 x 7, RGB in '.*002.png'"),
        ("depth", r"8 bits per channel.*'I;16' in '.*002.png'"),
        ("cut", r"Expected a PNG file at '.*002.png'"),
        ("text", r"Expected a PNG file at '.*002.png'"),
    ],
)
def test_a_picture_that_does_not_fit_is_named(tmp_path, how, said):
    folder = filled(tmp_path / "in", pictures(1))
    spoil(folder, how)
    with pytest.raises(DataError, match=said):
        read_pictures(folder)


def test_what_is_no_picture_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"pictures \(N, C, H, W\) of uint8.*float64"):
        write_pictures(np.zeros((2, 1, 3, 3)), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match=r"Expected to write .*new folder"):
        write_pictures(pictures(1), tmp_path / "full")
    with pytest.raises(DataError, match=r"Expected to write"):
        write_pictures(pictures(1), tmp_path / "no" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    written = []

    def fills_up(path, content):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(DataError, match=r"Expected to write .*No space left.*room"):
        write_pictures(pictures(1), tmp_path / "out")
    assert len(written) == 3 and list(tmp_path.iterdir()) == []


def told(folder, **columns):
    """Write labels.csv, its rows in another order than the files."""
    files = sorted(path.name for path in folder.glob("*.png"))
    frame = pd.DataFrame({"file": files, **columns}).iloc[::-1]
    frame.to_csv(folder / "labels.csv", index=False)
    return folder


def test_what_is_told_of_pictures_is_read_by_their_names_and_written_again(tmp_path):
    folder = filled(tmp_path / "in", pictures(1))
    words = ["cat", None, "dog", "cat", "dog", "dog"]
    told(folder, label=[3, 1, 4, 1, 3, 3], word=words, age=[0.5, 2.25, np.nan, 1.0, 3.5, 4.0])
    found = frames.read(folder)
    assert str(found) == "6 pictures of 5 x 7, gray, with label, word, age"
    assert found["label"].tolist() == [3, 1, 4, 1, 3, 3] and found["word"].tolist() == words
    source, process = opened(found)
    shapes = {name: part.event_shape for name, part in process.space.parts.items()}
    assert shapes == {"image": (1, 5, 7), "label": (), "word": (), "age": (1,)}
    assert source.is_pictures
    encoded = source.encode(found)
    assert encoded.state["label"].tolist() == [1, 0, 2, 0, 1, 1]
    assert encoded.present["word"].tolist() == [True, False, *[True] * 4]
    assert encoded.present["age"][:, 0].tolist() == [True, True, False, True, True, True]
    again = StateSource.from_config(json.loads(json.dumps(source.to_config())), process.space)
    assert again == source
    frames.write(again.decode(encoded.state), tmp_path / "out")
    back = frames.read(tmp_path / "out")
    np.testing.assert_array_equal(back["image"], found["image"])
    assert back["label"].tolist() == found["label"].tolist()
    known = ~np.isnan(found["age"])
    np.testing.assert_allclose(back["age"][known], found["age"][known], rtol=1e-6)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["0", "1", "2", "", "1", "2"], [0, 1, 2, None, 1, 2]),
        (["", "9007199254740993", "1", "1", "1", "1"], [None, 2**53 + 1, 1, 1, 1, 1]),
        (["true", "false", "", "true", "true", "NA"], [True, False, None, True, True, None]),
        (["a", "", "b", "a", "a", "a"], ["a", None, "b", "a", "a", "a"]),
    ],
)
def test_labels_with_a_gap_are_labels_and_come_back_as_they_are(tmp_path, cells, labels):
    folder = filled(tmp_path / "in", pictures(1))
    rows = [f"{number:03d}.png,{cell}" for number, cell in enumerate(cells)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    found = frames.read(folder)
    assert found["label"].tolist() == labels
    assert [type(label) for label in found["label"]] == [type(label) for label in labels]
    distinct = sorted(set(labels) - {None})
    assert repr(found.space.parts["label"]) == f"Categorical({len(distinct)})"
    source, _ = opened(found)
    encoded = source.encode(found)
    assert encoded.present["label"].tolist() == [label is not None for label in labels]
    drawn = source.decode(encoded.state)
    assert set(drawn["label"].tolist()) <= set(distinct)
    frames.write(drawn | {"label": found["label"]}, tmp_path / "out")
    assert frames.read(tmp_path / "out")["label"].tolist() == labels


def test_labels_are_given_and_answered_as_they_are(tmp_path):
    found = frames.read(told(filled(tmp_path / "in", pictures(1)), label=["b", "a", "c"] * 2))
    source, _ = opened(found)
    value, known = source.given({"label": "c"}, 4)["label"]
    assert value.tolist() == [2] and known.tolist() == [True]
    samples = source.decode(source.encode(found).state)
    written = source.write_given(samples, {"label": "c"})
    assert written["label"].tolist() == ["c"] * 6
    filled_ = source.complete(
        {"image": found["image"], "label": np.array(["a", None] * 3, object)},
        [source.encode(found).state] * 2,
        {"image": torch.ones(6, 1, 5, 7, dtype=torch.bool), "label": torch.tensor([1, 0] * 3) > 0},
    )
    assert filled_["label"].tolist() == [["a", "a", "a", "b", "a", "c"]] * 2
    with pytest.raises(DataError, match=r"a known label in 'label', got 'd'; choose from 'a'"):
        source.given({"label": "d"}, 4)


def test_arrays_of_text_are_labels_of_a_categorical_factor():
    arrays = {"x": np.arange(6.0), "kind": np.array(["u", "w", "v"] * 2)}
    space = rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(3))
    source, _ = opened(arrays, space)
    assert source.encode(arrays).state["kind"].tolist() == [0, 2, 1] * 2
    assert source.decode(source.encode(arrays).state)["kind"].tolist() == ["u", "w", "v"] * 2
    with pytest.raises(DataError, match=r"2 different labels in 'kind', got 3.*Categorical\(3\)"):
        opened(arrays, rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(2)))
    with pytest.raises(DataError, match=r"labels of text or whole numbers in 'kind', got 0.5"):
        opened(arrays | {"kind": np.array([0.5, "a", 1] * 2, object)}, space)


@pytest.mark.parametrize(
    ("values", "condition", "members"),
    [
        (["u", "w", "v"], rv.one_of("u", "v"), [1, 1, 0]),
        (["u", "w", "v"], rv.none_of("u"), [0, 1, 1]),
        ([0, 1, 2], rv.one_of(0, 2), [1, 0, 1]),
        ([0, 1, 2], rv.between(1, None), [0, 1, 1]),
        ([30, 7, 9], rv.between(8, 40), [0, 1, 1]),
        ([3, 5, 9], rv.between(4, 9), [0, 1, 1]),
        ([3, 5, 9], rv.between(None, 8.5), [1, 1, 0]),
        ([3, 5, 9], rv.between("4", "6"), [0, 1, 0]),
        ([3, 5, 2**70], rv.between(9, None), [0, 0, 1]),
        ([0, 1, 2], rv.between(0.5, 9), [0, 1, 1]),
        ([30, 7, 9], rv.between(9, 30), [0, 1, 1]),
        ([30, 7, 9], rv.one_of(7, 9, 30), []),
    ],
)
def test_sets_of_labels_are_restrictions_of_their_site(values, condition, members):
    is_code = values == [0, 1, 2]
    kind = np.array(values * 20, None if is_code else object)
    space = rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(3))
    source, _ = opened({"x": np.arange(60.0), "kind": kind}, space)
    found = source.restrictions({"kind": condition, "x": 0.5})
    assert [each.members.tolist() for each in found] == ([members] if members else [])
    assert source.given({"kind": condition, "x": 0.5}, 4).keys() == {"x"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"kind": rv.between("u", "v")}, "an ordered column for a range, got category"),
        ({"kind": rv.one_of("t")}, "a known category, got 't'"),
        ({"kind": rv.none_of("u", "v", "w")}, "conditions that some value meets"),
        (
            {"x": rv.between(0, 1)},
            "values of 'x', got 0..1, asked of columns and of factors of one",
        ),
    ],
)
def test_conditions_that_no_label_meets_are_refused(asked, said):
    arrays = {"x": np.arange(6.0), "kind": np.array(["u", "w", "v"] * 2)}
    space = rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(3))
    source, _ = opened(arrays, space)
    with pytest.raises(DataError, match=said):
        source.given(asked, 2) and source.restrictions(asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (rv.between(6, 8), "conditions that some value meets"),
        (rv.one_of(4), "conditions that some value meets"),
        (rv.between(10, None), "conditions that some value meets"),
        (rv.one_of("a"), "'kind': expected one of 3, 5, 9, got 'a'. Write a number"),
    ],
)
def test_ranges_between_whole_labels_hold_none(asked, said):
    arrays = {"x": np.arange(6.0), "kind": np.array([3, 9, 5] * 2, object)}
    source, _ = opened(arrays, rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(3)))
    with pytest.raises(DataError, match=said):
        source.restrictions({"kind": asked})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALL[:31], r"a row for every picture.*got none for '002.png', 2 in all.*empty cells"),
        (ALL + "000.png,1\n", r"each file once in the column 'file'.*'000.png' twice"),
        (ALL + "004.png,1\n", r"names of the folder's .png files.*got '004.png'.*Add the picture"),
        (ALL.replace("000.png", "0.png"), r"got '0.png'; did you mean '00"),
        ("file\n000.png\n", r"the names of the files and a column of labels.*got 1 column"),
        (ALL.replace(",2", ",").replace(",1", ","), r"'label' of .*at least one value, got none"),
        (ALL.replace("label", "image"), r"'image' of .*another name: it is the pictures' own"),
        ("", r"got an empty file"),
        ("file,label\n", r"no row"),
        (ALL[11:], r"names of the columns in the first line of .*labels.csv', got .*'000.png'"),
        (ALL[11:].replace("0", "./0", 1), r"got the picture './000.png'. Put .*`file,label`"),
        ("000.png\n001.png\n002.png\n003.png\n", r"the columns in the first line .*'000.png'"),
        (ALL.replace("000.png,", ","), r"names of the folder's .png files.*got an empty cell"),
        (ALL.replace("label", ""), r"a name for every column .* none for column 2 .*Name it"),
        (ALL.replace("label", "a, ").replace("g,", "g,1,"), r"none for column 3 .*or delete"),
        (ALL.replace("label", "a,a").replace("g,", "g,1,"), r"distinct column names, got 'a'"),
        (ALL.replace("3.png,2", "3.png,inf"), r"'label' of .*finite .*got inf for '003.png'"),
        (ALL.replace(",2", ",-inf"), r"'label' of .*finite .*got -inf for '001.png'.*a gap"),
        (ALL.replace(",2", ",1e305"), r"'label' of .*below 1e\+300, got 1e\+305 for '001.png'"),
        (ALL.replace(",2", ",0.5").replace(",1", ","), r"'label' of .*vary, got 0.5 everywhere"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_the_pictures_are_refused(tmp_path, text, said):
    folder = filled(tmp_path / "in", pictures(1, n=4))
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        frames.read(folder)


def test_a_name_may_begin_with_the_folder_that_the_table_lies_in(tmp_path):
    folder = filled(tmp_path / "in", pictures(1, n=4))
    (folder / "labels.csv").write_text(ALL.replace("00", "./00"))
    assert frames.read(folder)["label"].tolist() == [1, 2, 1, 2]
    (folder / "labels.csv").write_text(ALL.replace("000", "in/000"))
    with pytest.raises(DataError, match=r"names of the folder's .png files.*got 'in/000.png'"):
        frames.read(folder)


def test_a_name_for_each_picture_is_no_label(tmp_path, monkeypatch):
    monkeypatch.setattr("reversal.data.picture_labels.MOST", 5)
    folder = filled(tmp_path / "in", pictures(1))
    with pytest.raises(DataError, match=r"'who' of .*at most 5 labels, got 6.*Delete"):
        frames.read(told(folder, who=list("abcdef")))
    found = frames.read(told(folder, who=range(10, 16)))
    assert found["who"].dtype == np.int64 and found.space.parts["who"].event_shape == (1,)
    source, _ = opened(found)
    assert source.decode(source.encode(found).state)["who"].tolist() == list(range(10, 16))
