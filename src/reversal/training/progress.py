"""How training shows itself: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from reversal.training.loop import Plan, Progress

SECONDS = 10.0
Show = Callable[[Progress], None]


@contextmanager
def shown(is_wanted: bool, stream: TextIO | None = None) -> Iterator[Show | None]:
    """Yield what shows progress on a stream (standard error by default), or None."""
    out: Any = sys.stderr if stream is None else stream
    if not is_wanted:
        yield None
    elif out.isatty():
        with _bar(out) as show:
            yield show
    else:
        yield _lines(out)


def announce(
    plan: Plan,
    rows: int,
    columns: int,
    done: tuple[int, int] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Say how long the training is, and of what; or after how many steps of how many it goes on."""
    budget = f"{plan.steps:,} steps" if plan.steps else f"at most {minutes(plan.minutes or 0)}"
    doing = f"training for {budget}" if done is None else "going on after step {:,} of {:,}"
    size = f"{_count(rows, 'row')} x {_count(columns, 'column')}"
    print(f"{doing.format(*done or ())}: {size}", file=stream or sys.stderr, flush=True)


def minutes(number: float) -> str:
    """Return a time budget as a person says it: ``4 minutes``, ``30 seconds``."""
    return _count(number, "minute") if number >= 1 else _count(round(60 * number, 1), "second")


def _count(number: float, noun: str) -> str:
    """Return a number of things, as they are counted: ``1 row``, ``2,000 rows``."""
    number = int(number) if number == int(number) else number
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe(at: Progress) -> str:
    """Return a line: step, rate, loss, held-out loss, time left."""
    steps = "?" if at.steps is None else str(at.steps)
    words = [f"step {at.step}/{steps}", f"{at.rate:.0f} steps/s", f"loss {at.loss:.4g}"]
    if not math.isnan(at.held_out):
        spread = "" if math.isnan(at.stderr) else f" +- {at.stderr:.2g}"
        words.append(f"held-out {at.held_out:.4g}{spread}")
    if not math.isnan(at.seconds_left):
        words.append(f"{at.seconds_left:.0f} s left")
    return ", ".join(words)


def _lines(stream: TextIO) -> Show:
    last = time.monotonic()

    def show(at: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS or at.step == at.steps:
            last = time.monotonic()
            print(describe(at), file=stream, flush=True)

    return show


@contextmanager
def _bar(stream: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns: Any = (BarColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def show(at: Progress) -> None:
            bars.update(task, completed=at.step, total=at.steps, description=describe(at))

        yield show
