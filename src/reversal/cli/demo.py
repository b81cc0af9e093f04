"""``reversal demo``: two real data sets from end to end, and the numbers that were promised."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from reversal.cli import preflight
from reversal.cli.console import duration, in_a_sentence, say, table
from reversal.cli.findings import Finding

PENGUINS_STEPS, DIGITS_STEPS = 1000, 1800  # of training: the same numbers on any machine

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where tables and pictures go.")]


@in_a_sentence
def demo(out: Out = Path("reversal-demo")) -> None:
    """Fit penguins and digits, and check the numbers that are promised.

    The Palmer penguins are a table with gaps: sampled, asked for one species, filled. The digits
    are images with labels: drawn, completed, classified. Exit code 1 if a promise is broken.
    """
    start = time.monotonic()
    preflight.folder_to_write(out)
    from reversal.cli import digits_tour, penguins_tour

    with one_thread():
        findings = penguins_tour.run(out, PENGUINS_STEPS)
        findings += digits_tour.run(out, DIGITS_STEPS)
    report(findings, out, time.monotonic() - start)
    if any(finding.is_kept is False for finding in findings):
        raise typer.Exit(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: small networks gain little from more, and lose much if disturbed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(findings: Sequence[Finding], out: Path, seconds: float) -> None:
    """Print what was found, how long it took, and where the files are."""
    say()
    heads = ("What", "Measured", "Promised", "")
    table(heads, [(f.what, f.measured, f.promised, f.verdict) for f in findings])
    cores = os.cpu_count() or 1
    say("In brackets: 95 % intervals.")
    say(f"Took {duration(seconds)} on {cores} core{'s' * (cores > 1)}; promised: 4 min on two.")
    say(f"Files in {out}:")
    for file in sorted([*out.glob("penguins*"), *out.glob("digits*")]):
        say(f"  {file.name}{'/' * file.is_dir()}")
