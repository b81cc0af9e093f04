"""``reversal report``: a run and unseen rows in, one HTML page out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from reversal.cli import preflight, where
from reversal.cli.console import in_a_sentence, say, stage
from reversal.cli.options import Run, Seed

Holdout = Annotated[
    Path,
    typer.Option(
        "--holdout",
        metavar="FILE",
        help="Real rows that the run has not seen: .csv, .parquet.",
    ),
]
Train = Annotated[
    Path | None,
    typer.Option(
        "--train",
        metavar="FILE",
        help="The rows that the run was fitted to; without them copies are not looked for.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write: .html.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITIONS",
        help="A question to answer, as `sample` takes it; as often as wanted.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="COLUMN",
        help="The column whose prediction is tried; by default the last category of few values.",
    ),
]
Rows = Annotated[
    int | None,
    typer.Option(
        "-n", metavar="N", min=1, help="How many rows to draw; by default as many as are compared."
    ),
]


@in_a_sentence
def report(
    run: Run,
    holdout: Holdout,
    out: Out = Path("report.html"),
    train: Train = None,
    where_: Where = None,
    target: Target = None,
    n: Rows = None,
    seed: Seed = 0,
) -> None:
    """Say how far to trust a run, in one page that opens offline.

    Example: reversal report run --holdout test.csv --train train.csv --out report.html
    """
    preflight.page_to_write(out)
    texts = where_ or []
    given = [where.given(text) for text in texts]
    model = preflight.table_run(run)
    from reversal.data import frames
    from reversal.report import Origin, Question
    from reversal.report import report as write_report
    from reversal.report.log import read

    asked = [Question(text, conditions) for text, conditions in zip(texts, given, strict=True)]
    origin = Origin(
        run.resolve().name,
        holdout.name,
        train.name if train else "",
        _command(run, holdout, train, out, texts, target, n, seed),
    )
    page = write_report(
        model,
        frames.read(holdout),
        frames.read(train) if train else None,
        asked=asked,
        target=target,
        history=read(run),
        origin=origin,
        rows=n,
        seed=seed,
        show=stage,
    )
    with frames.replacing(out) as file:
        file.write(page.encode())
    say(f"  written to {out}")


def _command(
    run: Path,
    holdout: Path,
    train: Path | None,
    out: Path,
    texts: list[str],
    target: str | None,
    n: int | None,
    seed: int,
) -> str:
    """Return the command that was typed, with the names of files alone."""
    words = ["reversal", "report", run.name, "--holdout", holdout.name]
    words += ["--train", train.name] if train else []
    words += [word for text in texts for word in ("--where", text)]
    words += ["--target", target] if target else []
    words += ["-n", str(n)] if n else []
    words += ["--seed", str(seed)] if seed else []
    return " ".join(map(_quoted, [*words, "--out", out.name]))


def _quoted(word: str) -> str:
    """Return a word as a shell takes it, with double quotes around single ones."""
    plain = not set(word) & set('"$`\\!')
    return f'"{word}"' if "'" in word and plain else shlex.quote(word)
