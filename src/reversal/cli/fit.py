"""``reversal fit``: a table or pictures in, a run out."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from reversal.cli import preflight
from reversal.cli.console import in_a_sentence, is_first, say, stage, warn
from reversal.cli.options import Space

Table = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="The table to learn from, .csv or .parquet; or a folder of .png files, what is told "
        "of them in its `labels.csv`, if any.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The folder to save the run in.")]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        metavar="M",
        min=0.001,
        help="How long to train at most; by default 1 to 10 by the size of the table. It ends "
        "sooner when the held-out loss stops falling.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="S",
        min=0,
        max=2**62 - 1,
        help="Where initial weights, batches and noise come from; 0 by default.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the training that RUN holds, bit for bit; settings that are left out are "
        "those of the run.",
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        "--checkpoint",
        metavar="SECONDS",
        min=0.0,
        help="How often the training is saved: what a crash loses at most.",
    ),
]
Shard = Annotated[
    bool,
    typer.Option(
        "--shard", help="Cut the weights into one shard per process of `torchrun` (FSDP2)."
    ),
]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="Write events to RUN/tensorboard as well.")
]


@in_a_sentence
def fit(
    file: Table,
    out: Out,
    minutes: Minutes = None,
    seed: Seed = None,
    space: Space = None,
    resume: Resume = False,
    checkpoint: Seconds = 60.0,
    shard: Shard = False,
    tensorboard: Board = False,
) -> None:
    """Learn the law of a table, numbers, categories, gaps and all, or of a folder of pictures.

    Ctrl-C saves before it stops; `--resume` goes on. In several processes: torchrun
    --nproc-per-node 2 -m reversal fit ...

    Example: reversal fit penguins.csv --out run --minutes 1
    """
    preflight.run_to_write(out)
    from reversal.model import Model
    from reversal.training import TensorBoard, keeping, recipe
    from reversal.training.method import SETTINGS

    kept = keeping.identity_of(out) if resume else {}
    settings: dict[str, Any] = {name: kept[name] for name in SETTINGS if name in kept}
    if kept.get("network"):
        settings["network"] = recipe.network_from_config(kept["network"])
    settings |= {} if minutes is None else {"minutes": minutes}
    settings |= {} if seed is None else {"seed": seed}
    has_ended = resume and keeping.has_ended(out)
    is_watched = tensorboard and not has_ended and is_first()
    how: dict[str, Any] = {"run": out, "resume": resume, "checkpoint_seconds": checkpoint}
    how |= {"callbacks": [TensorBoard(out / "tensorboard")] if is_watched else [], "shard": shard}
    frame, known = _opened(file, space)
    try:
        with stage(f"fitted {file.name}"):
            model = Model(**settings).fit(frame, known, name=file.name, **how)
    except KeyboardInterrupt as error:
        _, number = (*error.args, None, None)[:2]
        is_saved = keeping.is_unfinished(out)
        warn(_stopped(file, out, space) if is_saved else "stopped; nothing was saved")
        raise typer.Exit(128 + (number or signal.SIGINT)) from error
    if has_ended:
        say("  nothing was done: this training had ended")
    say(f"  {model.trace_.steps:,} steps: {model.trace_.ended}")
    say(f"  saved in {out}")


def _opened(file: Path, space: Path | None) -> tuple[Any, Any]:
    """Return what a file holds and what its columns are, and show that."""
    from reversal.cli.schema import show
    from reversal.data import Schema
    from reversal.data.census import infer_codec
    from reversal.data.table_file import open_table

    declared = None if space is None else Schema.read(space)
    frame = open_table(file)
    if isinstance(frame, Mapping):
        say(f"  {frame}")
        return frame, declared
    known = infer_codec(frame, declared)
    show(known)
    return frame, known


def _stopped(file: Path, out: Path, space: Path | None) -> str:
    more = [] if space is None else ["--space", str(space)]
    words = shlex.join(["reversal", "fit", str(file), "--out", str(out), *more, "--resume"])
    return f"stopped; the training is saved, go on with: {words}"
