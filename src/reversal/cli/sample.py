"""``reversal sample``: a run in, new rows out."""

from __future__ import annotations

from typing import Annotated

import typer

from reversal.cli import preflight, where
from reversal.cli.console import count, in_a_sentence, stage
from reversal.cli.options import OutTable, Run, Seed

STEPS = 100

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
def sample(run: Run, n: Count, out: OutTable, where_: Where = None, seed: Seed = 0) -> None:
    """Draw new rows, or rows of which something is known.

    Example: reversal sample run -n 100 --out new.csv --where "species == 'Adelie' and year == 2008"
    """
    preflight.table_to_write(out)
    given = where.given(where_)
    from reversal.answers.drawing import CHUNK
    from reversal.data import frames

    model = preflight.table_run(run)
    total = STEPS * -(-n // CHUNK)
    with stage(f"sampled {count(n, 'row')} into {out}", "sampling", total) as on_step:
        rows = model.sample(n, given or None, seed=seed, steps=STEPS, on_step=on_step)
        frames.write(rows, out)
