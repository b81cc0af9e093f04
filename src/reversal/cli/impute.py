"""``reversal impute``: a table with gaps in, several filled tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reversal.cli import preflight
from reversal.cli.console import count, in_a_sentence, stage
from reversal.cli.options import OutTable, Run, Seed

STEPS = 100

Table = Annotated[
    Path, typer.Argument(metavar="FILE", help="The table with gaps: .csv or .parquet.")
]
Draws = Annotated[int, typer.Option("--draws", metavar="D", min=1, help="How often to fill it.")]


@in_a_sentence
def impute(run: Run, file: Table, out: OutTable, draws: Draws = 20, seed: Seed = 0) -> None:
    """Fill the gaps of a table, several times.

    The draws differ by what is not known. The result has D times the rows and a first column
    `draw`; what was known stays as it was.

    Example: reversal impute run penguins.csv --draws 20 --out filled.csv
    """
    preflight.table_to_write(out)
    preflight.not_the_same(file, out)
    from reversal.answers.pieces import imputations
    from reversal.data import frames
    from reversal.data.table_file import TableFile, open_table

    rows = open_table(file, copies=draws)
    model = preflight.table_run(run)
    if isinstance(rows, TableFile):
        done = f"filled {file.name} {count(draws, 'time')}, piece by piece, into {out}"
        with stage(done, "imputing"), frames.appending(out) as append:
            for piece in imputations(model.denoiser_, model.source_, rows, draws, seed, STEPS):
                append(piece)
        return
    done = f"filled {count(len(rows), 'row')} {count(draws, 'time')} into {out}"
    with stage(done, "imputing"):
        frames.write(model.impute(rows, draws=draws, seed=seed, steps=STEPS), out)
