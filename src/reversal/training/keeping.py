"""An unfinished training on disk: saved as it goes, so that it can go on where it was.

The folder ``checkpoint`` in a run holds a bundle (see `bundle`): ``state.json``, and the tensors in
``state.safetensors``; beside them ``log.jsonl``, which grows. It is removed when training has ended
and the model is saved.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, final

from torch import Tensor

from reversal.errors import CheckpointError
from reversal.training import bundle, checkpoint, sharding
from reversal.training.distributed import Alone, World
from reversal.training.interruption import Interruption

FOLDER: Final = "checkpoint"
INDEX, TENSORS = "state.json", "state.safetensors"
HASHED: Final = 2**20
"""How many numbers a checksum reads at once."""


class Saved(NamedTuple):
    """All that training depends on: tensors by name, and plain JSON types."""

    tensors: dict[str, Tensor]
    content: dict[str, Any]


@final
class Keeper:
    """Saves a training every so many seconds, and when it is asked to stop.

    As a context it listens to SIGINT and SIGTERM: the step that runs is finished, the state is
    saved, and ``KeyboardInterrupt`` is raised. A second signal does not wait.

    Args:
        run: the folder of the run.
        identity: what has to be the same for a training to go on: settings and checksums, by name.
        method: how one that begins is trained, in plain JSON types; it is kept with the training.
        seconds: the time between two checkpoints; what a crash loses at most.
        resume: whether to go on with what the folder holds, if anything.
        world: the processes of the training; the first one writes.

    Attributes:
        method: how the training is done: that of the folder for one that goes on.

    Raises:
        CheckpointError: if the folder cannot be written to, holds a training that was stopped and
            ``resume`` is False, or one of another identity.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        identity: Mapping[str, Any],
        method: Mapping[str, Any],
        seconds: float = 60.0,
        resume: bool = False,
        world: World | None = None,
    ) -> None:
        self.run, self.folder = Path(run), Path(run) / FOLDER
        self.identity, self.method, self.seconds = dict(identity), dict(method), seconds
        self.world = Alone() if world is None else world
        self.saved = self._found(resume)
        if self.world.is_first:
            bundle.writable(self.folder)
        self.is_kept = self.saved is not None
        self.last, self.signals = time.monotonic(), Interruption()

    def __enter__(self) -> Self:
        self.signals.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self.signals.ignore()
        if not self.is_kept:
            self.clear()

    @property
    def done(self) -> tuple[int, int] | None:
        """After how many steps of how many the training goes on; None for one that begins."""
        return self.saved and (self.saved.content["done"], self.saved.content["steps"])

    def after_step(self, step: int, snapshot: Callable[[], Saved] | None) -> None:
        """Save what a step came to, where it is time; stop where that was asked for.

        Args:
            step: the number of steps done.
            snapshot: the state, only asked for where it is saved; None as long as the number of
                steps is being measured, for such a training cannot be repeated.

        Raises:
            KeyboardInterrupt: if the process was asked to stop; the state, if any, is saved.
            CheckpointError: if the first checkpoint, or the last before a stop, cannot be written.
        """
        is_due = not self.is_kept or time.monotonic() - self.last >= self.seconds
        signal = float(self.signals.asked or 0)
        asked, due = self.world.mean(signal, float(is_due and self.world.is_first))
        if snapshot is not None and (asked or due):
            self._save(snapshot(), is_last_chance=bool(asked))
        if asked:
            raise KeyboardInterrupt(f"stopped after {step:,} steps", self.signals.asked)

    def log(self, lines: str) -> None:
        """Write the log as it is now."""
        if not self.world.is_first:
            return
        with suppress(CheckpointError):
            bundle.replace(self.folder / checkpoint.LOG, lines.encode())

    def clear(self) -> None:
        """Remove the checkpoint, and the folder of the run if nothing else is in it."""
        self.is_kept = False
        if not self.world.is_first:
            return
        with suppress(OSError):
            (self.folder / INDEX).unlink()  # first: without it nothing is unfinished
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.run.rmdir()

    def _save(self, state: Saved, is_last_chance: bool) -> None:
        failure = self._failure(state)
        (failed,) = self.world.mean(float(failure is not None))
        if failed and (is_last_chance or not self.is_kept):
            raise failure or CheckpointError(
                "Expected every process to save the training, got one that could not. See what "
                "the first one says."
            )
        if failure is not None and self.world.is_first:
            words = f"reversal: training goes on without a new checkpoint: {failure}"
            print(words, file=sys.stderr)
        self.is_kept, self.last = True, time.monotonic()

    def _failure(self, state: Saved) -> CheckpointError | None:
        """Write the state; return what went wrong, after which the older one is there alone."""
        try:
            placed = self.world.write(self.folder, state.tensors)
            if self.world.is_first:
                self._write(state, placed)
        except CheckpointError as error:
            if self.world.is_first:
                with suppress(CheckpointError):
                    sharding.sweep(self.folder, bundle.names(self.folder, INDEX))
            return error
        return None

    def _write(self, state: Saved, placed: list[str]) -> None:
        """Write the tensors, unless their files are there, and the index."""
        content = {"identity": self.identity, "method": self.method, "state": state.content}
        files = {} if placed else {TENSORS: checkpoint.packed(state.tensors)}
        bundle.write(self.folder, INDEX, content, files, placed=placed)
        sharding.sweep(self.folder, placed)

    def _found(self, resume: bool) -> Saved | None:
        """Return the state in the folder, if it holds one and it is the same training."""
        if not is_unfinished(self.run):
            return None
        if not resume:
            raise CheckpointError(
                f"Expected a folder without an unfinished training, got {str(self.run)!r}, which "
                f"holds one. Go on with it (`--resume`, in Python `resume=True`), choose another "
                f"folder, or delete {str(self.folder)!r} to give it up."
            )
        content, files = bundle.read(self.folder, INDEX)
        check_identity(self.run, content["identity"], self.identity)
        self.method = content.get("method", {})
        if TENSORS in files:
            tensors = checkpoint.unpacked(files[TENSORS], self.folder)
        else:
            tensors = sharding.read(self.folder, files)
        return Saved(tensors, content["state"])


def is_unfinished(run: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a training that has not ended."""
    return (Path(run) / FOLDER / INDEX).exists()


def has_ended(run: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model, and no training that has not ended."""
    return (Path(run) / checkpoint.CONFIG).exists() and not is_unfinished(run)


def identity_of(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the identity of the training in a folder, unfinished or ended; empty if there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    if is_unfinished(run):
        return bundle.read(Path(run) / FOLDER, INDEX)[0]["identity"]
    if has_ended(run):
        return bundle.read(run, checkpoint.CONFIG)[0].get("training", {}).get("identity", {})
    return {}


def check_identity(
    run: str | os.PathLike[str], kept: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise unless a training is the one that a folder holds.

    Args:
        run: the folder.
        kept: the identity of what it holds; what only an older version knew does not count.
        now: the identity of the training that is asked for.

    Raises:
        CheckpointError: naming what is different.
    """
    for name in sorted(now.keys() - {"data"}):
        if kept.get(name) != now[name]:
            raise CheckpointError(
                f"Expected the settings of the run in {str(run)!r}, got {name}={now[name]} "
                f"where it has {name}={kept.get(name)}. Resume with the same settings, or choose "
                f"another folder."
            )
    if kept.get("data") != now.get("data"):
        raise CheckpointError(
            f"Expected the data that the run in {str(run)!r} is trained on, got other rows, "
            f"columns or kinds of them. Resume with the same file and schema, in the version of "
            f"reversal that began it, or choose another folder."
        )


def fingerprint(trees: Iterable[Mapping[str, Tensor]], text: Any) -> str:
    """Return the SHA-256 of tensors by name, and of plain JSON types beside them."""
    sha = hashlib.sha256(json.dumps(text, sort_keys=True).encode())
    for parts in trees:
        for name, part in sorted(parts.items()):
            sha.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            rows = max(1, HASHED // max(1, math.prod(part.shape[1:])))
            for start in range(0, len(part), rows):
                block = part[start : start + rows]
                sha.update(block.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()
