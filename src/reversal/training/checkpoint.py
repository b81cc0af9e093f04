"""A run on disk: weights, ``config.json`` and what is told of them, verified when read.

``model.safetensors`` and ``config.json`` make the model. ``space.yaml`` (the columns), and
``log.jsonl`` (the training) are records: without them a run loads, with changed ones it does not.
``README.md`` belongs to its readers. All of them change together, see `bundle`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from reversal.errors import CheckpointError
from reversal.training import bundle
from reversal.training.bundle import FORMAT

__all__ = ["CARD", "CONFIG", "FORMAT", "LOG", "SPACE", "WEIGHTS", "is_run", "read", "write"]

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
SPACE, LOG, CARD = "space.yaml", "log.jsonl", "README.md"


def write(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    records: Mapping[str, str] | None = None,
    card: str | None = None,
) -> None:
    """Write a run in the place of an older one; a reader sees the one or the other, whole.

    Args:
        folder: made if there is none; its other files stay as they are.
        tensors: the weights.
        config: plain JSON types.
        records: the texts of `SPACE` and `LOG`, those that there are.
        card: the text of `CARD`.

    Raises:
        CheckpointError: if the folder cannot be written to.
    """
    texts = {name: text.encode() for name, text in (records or {}).items()}
    free = {} if card is None else {CARD: card.encode()}
    bundle.write(folder, CONFIG, config, {WEIGHTS: packed(tensors), **texts}, free)


def read(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Return the weights, the configuration and the records of a run.

    Raises:
        CheckpointError: if the run is missing, truncated, of a newer format, or not what was saved.
    """
    config, files = bundle.read(folder, CONFIG, needed=[WEIGHTS])
    weights = unpacked(files.pop(WEIGHTS), folder)
    return weights, config, {name: data.decode() for name, data in files.items()}


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, or what is left of one whose saving was cut off."""
    from reversal.training.keeping import FOLDER

    if (folder / CONFIG).is_file():
        return _is_ours(folder / CONFIG)
    return folder.is_dir() and all(
        path.name == WEIGHTS
        or (path.name in (FOLDER, "tensorboard") and path.is_dir())
        or bundle.is_draft(path, [WEIGHTS, CONFIG, SPACE, LOG, CARD])
        for path in folder.iterdir()
    )


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file."""
    from safetensors.torch import save

    return save({name: part.detach().cpu().contiguous() for name, part in tensors.items()})


def unpacked(data: bytes, folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: if it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"Expected tensors in {str(folder)!r}, got: {error}. Copy the folder again."
        ) from error


def _is_ours(path: Path) -> bool:
    """Whether a configuration looks like one of a run, damaged or not."""
    try:
        return {"format", "checksum"} <= json.loads(path.read_bytes()).keys()
    except (ValueError, AttributeError):
        return False
