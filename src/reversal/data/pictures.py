"""A folder of PNG files as arrays: one picture per file, all of one size and kind.

Read as 8-bit numbers 0, ..., 255 with channels first, (N, C, H, W): gray (C = 1), gray and alpha
(2), RGB (3), RGBA (4). The factor is called ``image``.

Where the folder has a table ``labels.csv``, a row per picture, the columns after the first, which
names the file, are factors as well: labels where they are text, true and false or whole numbers of
few values, numbers elsewhere. An empty cell is a gap. What is written has such a table too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from reversal.data.image import png
from reversal.data.picture_labels import LABELS, read_labels, write_labels
from reversal.errors import DataError
from reversal.spaces import Categorical, Euclidean, Product

FACTOR = "image"
KINDS = {"L": "gray", "LA": "gray and alpha", "RGB": "RGB", "RGBA": "RGBA"}
CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA"}


@final
class Pictures(Mapping[str, np.ndarray]):
    """Pictures ``(N, C, H, W)``, uint8, as the factor ``image``, and what is told of each.

    Args:
        images: the pictures.
        names: their files' names.
        told: labels, objects of which None is a gap, or numbers, by name, ``(N,)`` each.
    """

    def __init__(
        self,
        images: np.ndarray,
        names: tuple[str, ...],
        told: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.images, self.names = images, names
        self.factors = {FACTOR: images, **(told or {})}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.factors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def __str__(self) -> str:
        count, channels, height, width = self.images.shape
        told = [name for name in self if name != FACTOR]
        more = f", with {', '.join(told)}" if told else ""
        kind = list(KINDS.values())[channels - 1]
        return f"{count:,} pictures of {height} x {width}, {kind}{more}"

    @property
    def space(self) -> Product:
        """Where they live."""
        parts: dict[str, Any] = {FACTOR: Euclidean(*self.images.shape[1:])}
        for name, values in self.items():
            if name != FACTOR:
                is_label = values.dtype == object
                parts[name] = Categorical(_num_labels(values)) if is_label else Euclidean(1)
        return Product(parts)


def read_pictures(folder: Path) -> Pictures:
    """Read the PNG files of a folder, in the order of their names.

    Raises:
        DataError: if there are fewer than two, or one is damaged, not of 8 bits, or of another size
            or kind than the first; or if `labels.csv` does not fit them.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if len(files) < 2:
        got = "one" if files else "none"
        raise DataError(
            f"Expected at least two .png files in {str(folder)!r}, got {got}. "
            "Convert other formats to PNG, or name a table: .csv or .parquet."
        )
    first = _read(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for k, file in enumerate(files):
        picture = _read(file)
        if picture.shape != first.shape:
            raise DataError(
                f"Expected every picture like the first, {_shown(first)}, got {_shown(picture)} in "
                f"{str(file)!r}. Resize or convert it, or take it out of the folder."
            )
        images[k] = picture
    names = tuple(file.name for file in files)
    told = read_labels(folder / LABELS, names) if (folder / LABELS).exists() else {}
    return Pictures(images.transpose(0, 3, 1, 2), names, told)


def write_pictures(
    images: np.ndarray, folder: Path, told: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write pictures ``(N, C, H, W)`` as PNG files of a new or empty folder, all or none.

    What is told of each goes to `labels.csv`.

    Raises:
        DataError: if they are no pictures, or the folder cannot be made or holds files.
    """
    if images.ndim != 4 or not 1 <= images.shape[1] <= 4 or images.dtype != np.uint8:
        raise DataError(
            f"Expected pictures (N, C, H, W) of uint8 with 1 to 4 channels, got {images.dtype} "
            f"{images.shape}. Write other arrays with `numpy.save`."
        )
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    digits = max(4, len(str(len(images))))
    try:
        draft.mkdir()
        names = [f"{number:0{digits}d}.png" for number in range(1, len(images) + 1)]
        for name, image in zip(names, images, strict=True):
            (draft / name).write_bytes(png(image.transpose(1, 2, 0)))
        if told:
            write_labels(draft / LABELS, names, told)
        os.replace(draft, folder)
    except OSError as error:
        raise DataError(
            f"Expected to write {str(folder)!r}, got: {error.strerror or error}. "
            "Choose a new folder where there is room."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(file: Path) -> np.ndarray:
    """Return a picture ``(H, W, C)``."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            opened.load()
            picture: Any = opened
            if picture.mode in CONVERTED:
                has_alpha = "transparency" in picture.info
                picture = picture.convert("RGBA" if has_alpha else CONVERTED[picture.mode])
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"Expected a PNG file at {str(file)!r}, got: {error}. Write it again, or take it out "
            "of the folder."
        ) from error
    if picture.mode not in KINDS:
        raise DataError(
            f"Expected 8 bits per channel, {', '.join(KINDS.values())}, got the mode "
            f"{picture.mode!r} in {str(file)!r}. Convert it."
        )
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[..., None]


def _num_labels(values: np.ndarray) -> int:
    return len({value for value in values.tolist() if value is not None})


def _shown(picture: np.ndarray) -> str:
    height, width, channels = picture.shape
    return f"{height} x {width}, {list(KINDS.values())[channels - 1]}"
