"""Folders of PNG files: read exactly, written whole, refused by the file that does not fit."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reversal.data import frames
from reversal.data.image import png
from reversal.data.opening import opened
from reversal.data.pictures import Pictures, read_pictures, write_pictures
from reversal.errors import DataError


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
