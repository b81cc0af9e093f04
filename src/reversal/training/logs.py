"""What is read on the way of a training, and where it is written: JSON lines, TensorBoard.

A callback is any function of a `Check`; it is called at every check, and what it raises ends the
training.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple, final

from reversal.errors import CapabilityError, CheckpointError


class Check(NamedTuple):
    """What was read at one moment of a training.

    Args:
        step: steps done.
        seconds: how long they took.
        loss: a running mean of the training loss.
        held_out: the held-out loss of the averaged weights; NaN where nothing is held out.
        stderr: its standard error over the held-out items.
        learning_rate: that of the last step.
        rate: steps per second.
    """

    step: int
    seconds: float
    loss: float
    held_out: float
    stderr: float
    learning_rate: float
    rate: float


def to_lines(checks: Iterable[Check]) -> str:
    """Return one JSON object per check; what is not finite is null."""
    return "".join(json.dumps(_finite(check), allow_nan=False) + "\n" for check in checks)


def from_lines(text: str) -> list[Check]:
    """Return the checks that `to_lines` wrote; null is NaN.

    Raises:
        CheckpointError: if a line is none.
    """
    try:
        return [Check(**_numbers(json.loads(line))) for line in text.splitlines()]
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected a log of one JSON object per line, got: {error}. Delete the log to load the "
            f"run without it."
        ) from error


@final
class TensorBoard:
    """Writes checks as events for TensorBoard.

    Args:
        folder: where the events are written.

    Raises:
        CapabilityError: if the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise CapabilityError(
                "Expected the package tensorboard for its events, got none. Install it: "
                "pip install 'reversal[tensorboard]'."
            )
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(os.fspath(folder))

    def __call__(self, check: Check) -> None:
        """Write one check."""
        for name, value in _finite(check).items():
            if name not in ("step", "seconds") and value is not None:
                self._writer.add_scalar(name, value, check.step)
        self._writer.flush()


def _finite(check: Check) -> dict[str, Any]:
    return {name: v if math.isfinite(v) else None for name, v in check._asdict().items()}


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: math.nan if v is None else v for name, v in record.items() if name in Check._fields
    }
