r"""Images as real arrays: one affine map for all of them.

.. math:: z = 2\, \frac{x - \text{low}}{\text{high} - \text{low}} - 1 \in [-1, 1] .

What comes back has the caller's shape, dtype and range; integers are rounded.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from reversal.data.frames import replacing
from reversal.errors import DataError

COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> gray, gray + alpha, RGB, RGBA (PNG, 11.2.1)


@final
@dataclass(frozen=True)
class ImageCodec:
    """Images ``(N, H, W)`` or ``(N, H, W, C)`` as states ``(N, C, H, W)`` in [-1, 1], float32.

    Args:
        shape: one image's shape in the caller's layout, ``(H, W)`` or ``(H, W, C)``.
        dtype: the caller's dtype, as NumPy names it.
        low: the value that becomes -1.
        high: the value that becomes 1.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float

    @classmethod
    def infer(
        cls, images: Any, *, low: float | None = None, high: float | None = None
    ) -> ImageCodec:
        """Return the codec that an array of images shows; the range is what was seen, or given.

        Raises:
            DataError: if the array has other than 3 or 4 dimensions or none of its entries, has
                channels first, is not real, not finite, or all of one value.
        """
        array = _checked(images)
        low = float(array.min()) if low is None else float(low)
        high = float(array.max()) if high is None else float(high)
        if not low < high:
            raise DataError(
                f"Expected images whose values differ, got a range from {low:g} to {high:g}. "
                "Hand over other images, or the range they can have: `low=0, high=255`."
            )
        return cls(array.shape[1:], str(array.dtype), low, high)

    @property
    def event_shape(self) -> tuple[int, int, int]:
        """The shape ``(C, H, W)`` of one image's state."""
        return (self.shape[2] if len(self.shape) == 3 else 1, self.shape[0], self.shape[1])

    def encode(self, images: Any) -> Tensor:
        """Return images ``(N, *shape)`` as a state ``(N, C, H, W)``, float32.

        Raises:
            DataError: if the images have another shape, or an entry that is not finite.
        """
        array = _checked(images)
        if array.shape[1:] != self.shape:
            raise DataError(
                f"Expected images of shape (N, {', '.join(map(str, self.shape))}), got "
                f"{array.shape}. Crop or resize them, or fit again."
            )
        scaled = (array.astype(np.float64) - self.low) * (2 / (self.high - self.low)) - 1
        state = torch.from_numpy(scaled.astype(np.float32)).reshape(len(array), *self.shape[:2], -1)
        return state.permute(0, 3, 1, 2).contiguous()

    def decode(self, state: Tensor) -> np.ndarray:
        """Return a state ``(N, C, H, W)`` as images of the caller's shape and dtype, in the range.

        Raises:
            DataError: if the state has another shape.
        """
        if tuple(state.shape[1:]) != self.event_shape:
            raise DataError(
                f"Expected a state of shape (N, {', '.join(map(str, self.event_shape))}), got "
                f"{tuple(state.shape)}. Decode with the codec that encoded it."
            )
        images = state.detach().cpu().double().permute(0, 2, 3, 1).reshape(-1, *self.shape).numpy()
        values = ((images + 1) / 2 * (self.high - self.low) + self.low).clip(self.low, self.high)
        dtype = np.dtype(self.dtype)
        return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types from which `from_config` rebuilds the same codec."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageCodec:
        """Return the codec that `to_config` described."""
        return cls(tuple(config["shape"]), config["dtype"], config["low"], config["high"])


def _checked(images: Any) -> np.ndarray:
    """Return images as a NumPy array ``(N, H, W)`` or ``(N, H, W, C)`` of finite numbers."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(
            f"Expected images (N, H, W) or (N, H, W, C) with N > 0, got shape {array.shape}. "
            "One image becomes such an array by `image[None]`."
        )
    if array.ndim == 4 and array.shape[-1] > 4 >= array.shape[1]:
        raise DataError(
            f"Expected channels last, (N, H, W, C), got shape {array.shape}. "
            "Transpose them: `numpy.transpose(images, (0, 2, 3, 1))`."
        )
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"Expected images of integers or floats, got dtype {array.dtype}. "
            "Convert them: `images.astype(numpy.uint8)`."
        )
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))[0])
        raise DataError(
            f"Expected finite values, got NaN or infinity in image {first} (counting from 0). "
            "Leave such images out, or replace the values."
        )
    return array


def grid(
    images: np.ndarray, columns: int, *, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Return images side by side as one uint8 picture, one white pixel apart.

    Args:
        images: shape ``(N, H, W)`` or ``(N, H, W, C)``.
        columns: how many stand in a row; what is left of the last row is white.
        low: the value that becomes 0; by default the least.
        high: the value that becomes 255; by default the greatest.

    Returns:
        Shape ``(rows (H + 1) + 1, columns (W + 1) + 1)``, and C as the last dimension if it was.
    """
    array = _checked(images).astype(np.float64)
    least = float(array.min() if low is None else low)
    most = float(array.max() if high is None else high)
    span = most - least if most > least else 1.0
    levels = np.rint(((array - least) / span).clip(0, 1) * 255).astype(np.uint8)
    n, height, width = array.shape[:3]
    rows = -(-n // columns)
    cells = np.full((rows * columns, height + 1, width + 1, *array.shape[3:]), 255, np.uint8)
    cells[:n, 1:, 1:] = levels
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    picture = cells.reshape(rows * (height + 1), columns * (width + 1), *array.shape[3:])
    return np.pad(picture, [(0, 1), (0, 1), *[(0, 0)] * (array.ndim - 3)], constant_values=255)


def write_png(array: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a uint8 picture ``(H, W)`` or ``(H, W, C)``, C from 1 to 4, as a PNG file.

    Raises:
        DataError: if the array is none, or the folder cannot be written to.
    """
    content = png(array)
    with replacing(path) as file:
        file.write(content)


def png(array: np.ndarray) -> bytes:
    """Return a uint8 picture ``(H, W)`` or ``(H, W, C)``, C from 1 to 4, as a PNG file holds it.

    Source: Portable Network Graphics, ISO/IEC 15948 (2004), sections 5 and 9.

    Raises:
        DataError: if the array is none.
    """
    array = np.asarray(array)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in COLOR_TYPES:
        raise DataError(
            f"Expected a uint8 picture (H, W) or (H, W, C) with 1 to 4 channels, got {array.dtype} "
            f"{array.shape}. `grid(images, columns)` makes one."
        )
    height, width = array.shape[:2]
    lines = np.pad(array.reshape(height, width * channels), [(0, 0), (1, 0)])  # filter 0 each
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file: length, name, content, checksum of the last two."""
    length, checksum = (struct.pack(">I", n) for n in (len(content), zlib.crc32(name + content)))
    return length + name + content + checksum
