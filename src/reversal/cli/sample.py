"""``reversal sample``: a run in, new rows out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reversal.cli import preflight, where
from reversal.cli.console import count, in_a_sentence, stage
from reversal.cli.options import Run, Seed

STEPS = 100

Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The table to write, .csv or .parquet; of pictures, the folder.",
    ),
]
Count = Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many rows to draw.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITIONS",
        help="What is known of every row: equalities joined by `and`.",
    ),
]


@in_a_sentence
def sample(run: Run, n: Count, out: Out, where_: Where = None, seed: Seed = 0) -> None:
    """Draw new rows, or rows of which something is known.

    Example: reversal sample run -n 100 --out new.csv --where "species == 'Adelie' and year == 2008"
    """
    preflight.sample_to_write(out)
    given = where.given(where_)
    from reversal.data import frames
    from reversal.model import CHUNK

    model = preflight.run_for(run, out)
    total = STEPS * -(-n // CHUNK)
    with stage(f"sampled {count(n, 'row')} into {out}", "sampling", total) as on_step:
        rows = model.sample(n, given or None, seed=seed, steps=STEPS, on_step=on_step)
        frames.write(rows, out)
