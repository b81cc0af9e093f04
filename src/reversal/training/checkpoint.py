"""A run on disk: ``model.safetensors`` and ``config.json`` in one folder, verified when read.

The configuration holds the format version, the SHA-256 of the weights and one of itself. Both files
are written in full beside their places and renamed; a torn pair is recognized by its checksum.
Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from reversal.errors import CheckpointError

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write(
    folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write a run: each file whole or not at all; drafts of a save that was killed are removed.

    Args:
        folder: made if there is none; its other files stay as they are.
        tensors: the weights.
        config: plain JSON types.

    Raises:
        CheckpointError: if the folder cannot be written to.
    """
    from safetensors.torch import save

    folder = Path(folder)
    weights = save({name: part.detach().cpu().contiguous() for name, part in tensors.items()})
    content = {"format": FORMAT, "weights": _digest(weights), **config}
    content["checksum"] = _checksum(content)
    text = json.dumps(content, indent=1, allow_nan=False).encode()
    drafts = {name: folder / f".{name}.{os.getpid()}.part" for name in (WEIGHTS, CONFIG)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((WEIGHTS, weights), (CONFIG, text)):
            _write_through(drafts[name], data)
        for name, draft in drafts.items():
            os.replace(draft, folder / name)
        for stale in filter(is_draft, folder.iterdir()):
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write a run to {str(folder)!r}, got: {error.strerror or error}. "
            f"Choose a folder that may be written to and has room."
        ) from error
    finally:
        for draft in drafts.values():
            if draft.exists():
                draft.unlink()


def is_draft(path: Path) -> bool:
    """Whether a file is one of those that are renamed at the end of `write`."""
    pattern = rf"\.({re.escape(WEIGHTS)}|{re.escape(CONFIG)})\.\d+\.part"
    return re.fullmatch(pattern, path.name) is not None


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the configuration of a run.

    Raises:
        CheckpointError: if the run is missing, truncated, of a newer format, or not what was saved.
    """
    from safetensors.torch import load

    folder = Path(folder)
    config = _configuration(folder)
    weights = _bytes(folder, WEIGHTS)
    if _digest(weights) != config["weights"]:
        raise CheckpointError(
            f"Expected the weights that {str(folder / CONFIG)!r} was saved with, got a {WEIGHTS} "
            f"of {len(weights)} bytes with another checksum: truncated, changed, or of another "
            f"run. Copy the folder again, or fit and save again."
        )
    return load(weights), config


def _configuration(folder: Path) -> dict[str, Any]:
    text = _bytes(folder, CONFIG)
    try:
        config = json.loads(text, parse_constant=_no_number)
        version, checksum = int(config["format"]), str(config.pop("checksum"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected the configuration of a run in {str(folder / CONFIG)!r}, got text that is "
            f"none: truncated, or of another program. Copy the folder again, or save again."
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"Expected a run of format {FORMAT}, got format {version} in {str(folder)!r}. "
            f"Install the version of reversal that wrote it, or fit and save again."
        )
    if _checksum(config) != checksum or "weights" not in config:
        raise CheckpointError(
            f"Expected {str(folder / CONFIG)!r} as it was saved, got one that was changed. "
            f"Copy the folder again, or fit and save again."
        )
    return config


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        found = "a folder without it" if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"Expected a saved run with {name} in {str(folder)!r}, got {found}. "
            f"Give the folder that `model.save` wrote."
        ) from error


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _write_through(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(config: Mapping[str, Any]) -> str:
    return _digest(json.dumps(config, sort_keys=True, allow_nan=False).encode())
