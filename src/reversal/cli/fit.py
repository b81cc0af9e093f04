"""``reversal fit``: a table or pictures in, a run out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from reversal.cli import preflight
from reversal.cli.console import in_a_sentence, say, stage, warn
from reversal.cli.options import Seed, Space

Table = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The table to learn from, .csv or .parquet; or a folder of .png files."
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The folder to save the run in.")]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        metavar="M",
        min=0.001,
        help="How long to train at most; 3,000 steps by default. Either ends sooner, when the "
        "held-out loss stops falling.",
    ),
]


@in_a_sentence
def fit(
    file: Table, out: Out, minutes: Minutes = None, seed: Seed = 0, space: Space = None
) -> None:
    """Learn the law of a table, numbers, categories, gaps and all, or of a folder of pictures.

    Example: reversal fit penguins.csv --out run --minutes 1
    """
    preflight.run_to_write(out)
    from reversal.cli.schema import show
    from reversal.data import Schema, TableCodec, frames
    from reversal.model import Model

    declared = None if space is None else Schema.read(space)
    frame = frames.read(file)
    known: Any = declared
    if isinstance(frame, Mapping):
        say(f"  {frame}")
    else:
        known = TableCodec.infer(frame, declared)
        show(known)
    try:
        with stage(f"fitted {file.name}"):
            model = Model(minutes=minutes, seed=seed).fit(frame, known)
    except KeyboardInterrupt as error:
        warn("stopped; nothing was saved")
        raise typer.Exit(130) from error
    say(f"  {model.trace_.steps:,} steps: {model.trace_.ended}")
    model.save(out)
    say(f"  saved in {out}")
