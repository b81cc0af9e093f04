"""Where a training is kept on disk, if it is, and what makes it that training and no other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from torch import Tensor

from reversal.errors import DataError
from reversal.training import keeping
from reversal.training.distributed import World, world_of
from reversal.training.keeping import Keeper
from reversal.training.logs import Check
from reversal.training.method import Method


@final
@dataclass(frozen=True)
class Session:
    """How a training is kept and watched.

    Args:
        run: the folder it is kept in, or None.
        resume: whether to go on with what the folder holds.
        seconds: the time between two checkpoints.
        callbacks: called at every check.
        shard: whether the processes that `torchrun` started share the weights.

    Raises:
        DataError: if there is nothing to resume from, or the time is no number.
    """

    run: str | os.PathLike[str] | None = None
    resume: bool = False
    seconds: float = 60.0
    callbacks: Sequence[Callable[[Check], None]] = ()
    shard: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.run is None:
            raise DataError(
                "Expected a folder to resume from, got resume=True without one. "
                'Write fit(data, run="run", resume=True).'
            )
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds < math.inf:
            raise DataError(
                f"Expected checkpoint_seconds >= 0, got {self.seconds!r}. Give a number of seconds."
            )

    def has_ended(self, identity: Mapping[str, Any]) -> bool:
        """Whether the folder holds this training, ended, and it is to be resumed.

        Raises:
            CheckpointError: if it holds another one.
        """
        if self.run is None or not self.resume or not keeping.has_ended(self.run):
            return False
        keeping.check_identity(self.run, keeping.identity_of(self.run), identity)
        return True

    @cached_property
    def world(self) -> World:
        """The processes of the training."""
        return world_of(self.shard)

    def begin(self, identity: Mapping[str, Any], method: Method) -> tuple[Keeper | None, Method]:
        """Return what keeps the training, if anything does, and the method that it follows.

        Args:
            identity: what makes it that training.
            method: how one that begins is trained.

        Raises:
            CheckpointError: as `Keeper` does, and if this version does not know the method of the
                training that the folder holds.
        """
        if self.run is None:
            return None, method
        how = (self.seconds, self.resume, self.world)
        keeper = Keeper(self.run, identity, method.to_config(), *how)
        return keeper, Method.from_config(keeper.method)

    def close(self, keeper: Keeper | None, save: Callable[[Any], None]) -> None:
        """Save what was trained in the place of what was kept on the way."""
        if keeper is not None:
            if self.world.is_first:
                save(self.run)
            keeper.clear()
        self.world.mean(0.0)


def identify(
    encoded: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    kinds: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what makes a training that one and no other: what the user gives, and nothing else.

    Args:
        encoded: states, and masks of the sites that are present.
        kinds: how data are encoded and noised, in plain JSON types.
        settings: the arguments of the model.
    """
    return {**settings, "data": keeping.fingerprint(encoded, kinds)}
