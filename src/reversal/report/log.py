"""The log of a training run: one JSON object per line."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

LOG = "log.jsonl"


class Line(NamedTuple):
    """One moment of training; what was not measured is NaN.

    Args:
        step: steps done.
        seconds: since training began.
        loss: of training, a running mean.
        held_out: the loss on rows that are held out.
        stderr: its standard error.
    """

    step: int
    seconds: float
    loss: float
    held_out: float
    stderr: float


def read(run: str | os.PathLike[str]) -> list[Line]:
    """Return the log of a run in order; nothing where there is none.

    A line that was cut off, or is no record of a step, is left out.
    """
    try:
        text = (Path(run) / LOG).read_text("utf-8", errors="replace")
    except OSError:
        return []
    found = [line for line in map(_line, text.splitlines()) if line is not None]
    return sorted(found, key=lambda line: line.step)


def of_trace(trace: Any) -> list[Line]:
    """Return the held-out losses of `Model.trace_` as lines without times."""
    held = getattr(trace, "held_out", [])
    return [Line(step, math.nan, math.nan, float(loss), math.nan) for step, loss in held]


def _line(text: str) -> Line | None:
    try:
        record = json.loads(text)
        return Line(int(record["step"]), *(_number(record.get(name)) for name in Line._fields[1:]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
