"""What a person sees: results on stdout, progress and errors on stderr, words in ASCII."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from reversal.errors import ReversalError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")
OnStep = Callable[[int, object], None]


def screen(stderr: bool = False) -> Console:
    """Return a console on the present stdout or stderr that adds no colors to numbers or paths.

    Of several processes the first one prints.
    """
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False, quiet=not is_first())


def is_first() -> bool:
    """Whether this is the process that prints, among those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def say(words: str = "", style: str | None = None) -> None:
    """Print a line on stdout; what does not fit is folded at blanks."""
    screen().print(words, style=style, markup=False)


def warn(words: str) -> None:
    """Print a line on stderr, with the name of the program."""
    screen(stderr=True).print(f"reversal: {words}", markup=False, soft_wrap=True)


def count(number: int, noun: str) -> str:
    """Return a number of things: ``1 row``, ``2,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_a_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command end in one sentence on stderr and exit code 2 where it meets an error.

    It catches what a user can mend: ``ReversalError`` and ``OSError``. Everything else is a bug and
    keeps its traceback.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ReversalError, OSError) as error:
            warn(sentence(error))
            raise typer.Exit(2) from error

    return run


def sentence(error: Exception) -> str:
    """Return what an error says; an operating system's error names its file."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ReversalError):
        place = f" at {str(error.filename)!r}" if error.filename else ""
        return (
            f"Expected to read and write files, got: {error.strerror}{place}. "
            "Look at the path, the permissions and the room on the disk."
        )
    return str(error)


@contextmanager
def stage(done: str, doing: str | None = None, steps: int | None = None) -> Iterator[OnStep]:
    """Print what was done and how long it took, when the block ends without an error.

    Args:
        done: the line that stays.
        doing: shown with a bar on a terminal; without it the block shows its own progress.
        steps: how many steps the bar has; without it the bar only moves.

    Yields:
        What moves the bar by one step.
    """
    start = time.monotonic()
    live = screen(stderr=True)
    if doing is None or not live.is_terminal:
        yield _stay
    else:
        with _bar(live, doing, steps) as advance:
            yield advance
    say(f"  {done:<52}{time.monotonic() - start:>8.1f} s")


@contextmanager
def _bar(live: Console, doing: str, steps: int | None) -> Iterator[OnStep]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("  {task.description}"), BarColumn())
    with Progress(*columns, console=live, transient=True) as bars:
        task = bars.add_task(doing, total=steps)
        yield lambda step, x_t: bars.advance(task)


def _stay(step: int, x_t: object) -> None:
    """Show nothing."""


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], folded: Sequence[int] = (0,)
) -> None:
    """Print a table on stdout; the columns in ``folded`` are as wide as the terminal allows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False, header_style="bold")
    for number, head in enumerate(heads):
        drawn.add_column(head, no_wrap=number not in folded, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    screen().print(drawn, markup=False)


def duration(seconds: float) -> str:
    """Return a time as a person says it: ``48 s``, ``3 min 24 s``."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
