"""The image codec: what comes back, in which range, and what is refused."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from reversal.data import ImageCodec, grid, write_png
from reversal.errors import DataError


def images(shape, dtype, seed=0):
    draw = np.random.default_rng(seed)
    values = (
        draw.integers(0, 200, shape) if np.dtype(dtype).kind in "iu" else draw.normal(size=shape)
    )
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("shape", [(7, 5, 4), (7, 5, 4, 1), (7, 5, 4, 3)])
def test_integer_images_come_back_exactly(shape, dtype):
    array = images(shape, dtype)
    codec = ImageCodec.infer(array)
    state = codec.encode(array)
    assert state.dtype == torch.float32
    assert state.shape == (7, *codec.event_shape)
    result = codec.decode(state)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_images_come_back_within_float32_resolution_of_the_range(dtype):
    array = images((6, 5, 4, 3), dtype)
    codec = ImageCodec.infer(array)
    result = codec.decode(codec.encode(array))
    assert result.dtype == dtype
    span = codec.high - codec.low
    assert np.abs(result - array).max() <= 2.0**-24 * span


def test_the_range_becomes_minus_one_to_one_by_one_affine_map():
    digits = load_digits().images
    codec = ImageCodec.infer(digits)
    assert (codec.low, codec.high) == (0.0, 16.0)
    state = codec.encode(digits)
    assert state.shape == (1797, 1, 8, 8)
    assert (state.min(), state.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(state[:, 0].numpy(), digits / 8 - 1)
    wide = ImageCodec.infer(digits, low=-16, high=48)
    np.testing.assert_array_equal(wide.encode(digits)[:, 0].numpy(), digits / 32 - 0.5)


def test_channels_go_first_and_back():
    array = images((2, 3, 4, 3), np.uint8)
    codec = ImageCodec.infer(array, low=0, high=255)
    state = codec.encode(array)
    for c in range(3):
        expected = torch.tensor(array[..., c] / 127.5 - 1, dtype=torch.float32)
        torch.testing.assert_close(state[:, c], expected, rtol=0, atol=1e-6)


def test_what_lies_beyond_the_range_is_clipped_and_integers_are_rounded():
    codec = ImageCodec((1, 3), "uint8", 0.0, 255.0)
    state = torch.tensor([-7.0, 7.0, 2 * 100.6 / 255 - 1]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(codec.decode(state), np.array([[[0, 255, 101]]], np.uint8))


def test_a_codec_rebuilt_from_json_is_the_same_codec():
    codec = ImageCodec.infer(images((6, 5, 4, 3), np.float32))
    assert ImageCodec.from_config(json.loads(json.dumps(codec.to_config()))) == codec


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8)), r"got shape \(8, 8\).*image\[None\]"),
        (np.zeros((0, 8, 8)), r"N > 0"),
        (np.zeros((5, 3, 32, 32)), r"channels last.*transpose"),
        (np.zeros((5, 8, 8)), r"values differ.*low=0, high=255"),
        (np.zeros((5, 8, 8), bool), r"dtype bool.*astype"),
        (np.array([[[0.0]], [[np.nan]]]), r"NaN or infinity in image 1 \(counting from 0\)"),
    ],
)
def test_what_is_no_set_of_images_is_refused(array, message):
    with pytest.raises(DataError, match=message):
        ImageCodec.infer(array)


def test_images_or_states_of_another_shape_are_refused():
    codec = ImageCodec.infer(images((7, 5, 4), np.uint8))
    with pytest.raises(DataError, match=r"shape \(N, 5, 4\), got \(7, 4, 5\).*resize"):
        codec.encode(images((7, 4, 5), np.uint8))
    with pytest.raises(DataError, match=r"shape \(N, 1, 5, 4\), got \(2, 5, 4\)"):
        codec.decode(torch.zeros(2, 5, 4))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_grid_shows_each_image_where_it_belongs(channels):
    array = images((5, 4, 6, *channels), np.uint8)
    picture = grid(array, 3, low=0, high=255)
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * 5 + 1, 3 * 7 + 1, *channels)
    white = np.ones(picture.shape[:2], bool)
    for k in range(5):
        top, left = 1 + 5 * (k // 3), 1 + 7 * (k % 3)
        np.testing.assert_array_equal(picture[top : top + 4, left : left + 6], array[k])
        white[top : top + 4, left : left + 6] = False
    assert (picture[white] == 255).all()


def test_a_grid_stretches_what_is_there_to_black_and_white():
    picture = grid(np.array([[[0.0, 8.0, 16.0]]]), 1)
    assert picture[1, 1:4].tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_a_png_file_holds_the_picture(tmp_path, channels):
    picture = np.random.default_rng(1).integers(0, 256, (9, 13, *channels)).astype(np.uint8)
    path = tmp_path / "picture.png"
    write_png(picture, path)
    shown = np.rint(matplotlib.image.imread(path) * 255).astype(np.uint8)
    if channels in ((1,), (2,)):
        expected = picture[..., 0]
        shown = shown if shown.ndim == 2 else shown[..., 0]
    else:
        expected = picture
    np.testing.assert_array_equal(shown, expected)


def test_what_is_no_picture_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"uint8 picture.*float64 \(3, 3\).*grid"):
        write_png(np.zeros((3, 3)), tmp_path / "picture.png")
    with pytest.raises(DataError, match=r"Expected to write"):
        write_png(np.zeros((3, 3), np.uint8), tmp_path / "nowhere" / "picture.png")
    assert list(tmp_path.iterdir()) == []
