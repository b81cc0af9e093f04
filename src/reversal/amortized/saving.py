"""A posterior on disk: a run of its own kind, with the files and the checks of any other.

``model.safetensors`` has the weights of both networks, ``config.json`` the settings, the support
and the sizes, ``log.jsonl`` what was read in training. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from reversal.data.support import support_from_config
from reversal.errors import CheckpointError
from reversal.training import Trace, checkpoint
from reversal.training.logs import from_lines, to_lines

KIND: Final = "posterior"
Parts = dict[str, dict[str, Tensor]]


def write(
    folder: str | os.PathLike[str], parts: Parts, config: Mapping[str, Any], trace: Trace
) -> None:
    """Write state dicts of named parts, and what makes them, in the place of an older run.

    Raises:
        CheckpointError: if the folder cannot be written to.
    """
    ended = {"steps": trace.steps, "ended": trace.ended, "best_step": trace.best_step}
    tensors = {
        f"{part}.{name}": value for part, had in parts.items() for name, value in had.items()
    }
    whole = {"kind": KIND, **config, "trace": ended}
    checkpoint.write(folder, tensors, whole, {checkpoint.LOG: to_lines(trace.checks)})


def read(folder: str | os.PathLike[str]) -> tuple[Parts, dict[str, Any], Trace]:
    """Return what `write` was given, the support as one.

    Raises:
        CheckpointError: if there is none, or it is damaged, or of another kind.
    """
    tensors, config, records = checkpoint.read(folder)
    if config.get("kind") != KIND:
        raise CheckpointError(
            f"Expected a posterior in {str(folder)!r}, got a run of reversal.Model. "
            f"Load it with `reversal.load`."
        )
    parts: Parts = {}
    for path, value in tensors.items():
        part, _, name = path.partition(".")
        parts.setdefault(part, {})[name] = value
    try:
        config["support"] = support_from_config(config["support"])
        trace = Trace(checks=from_lines(records.get(checkpoint.LOG, "")), **config.pop("trace"))
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(folder, error) from error
    return parts, config, trace


def unreadable(folder: str | os.PathLike[str], error: Exception) -> CheckpointError:
    """Return what to raise where a posterior is whole, but not understood."""
    return CheckpointError(
        f"Expected a posterior that this version reads in {str(folder)!r}, got: {error}. "
        f"Install the version of reversal that wrote it, or fit and save again."
    )
