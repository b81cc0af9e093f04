"""``reversal score``: how probable each row of a table is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reversal.cli import preflight
from reversal.cli.console import count, in_a_sentence, say, stage
from reversal.cli.options import Run, Seed

if TYPE_CHECKING:
    from reversal.likelihood import Likelihood

Table = Annotated[
    Path, typer.Argument(metavar="FILE", help="The table to score: .csv or .parquet.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The table to write: .csv or .parquet.")
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        metavar="M",
        min=16,
        help="Random times per row; four times as many halve the standard error.",
    ),
]


@in_a_sentence
def score(run: Run, file: Table, out: Out = None, samples: Samples = 64, seed: Seed = 0) -> None:
    """Bound the log-probability of every row from below, in nats.

    The mean is printed; a table to write has the columns `log_prob`, `stderr` and `kind` and a row
    for each row. Gaps are marginalized out. A row that cannot be, such as one of an unknown
    category, is refused by its number, and nothing is written.

    Example: reversal score run penguins.csv --out scores.csv
    """
    if out is not None:
        preflight.table_to_write(out)
        preflight.not_the_same(file, out)
    import pandas as pd

    from reversal.data import frames
    from reversal.training.distributed import together

    rows = frames.read(file)
    model = preflight.table_run(run)
    place = "" if out is None else f" into {out}"
    with stage(f"scored {count(len(rows), 'row')}{place}", "scoring"):
        with together() as world:
            found = model.log_prob(rows, num_samples=samples, seed=seed)
        scores = {"log_prob": found.value.numpy(), "stderr": found.stderr.numpy()}
        if out is not None and world.is_first:
            frames.write(pd.DataFrame({**scores, "kind": found.kind}), out)
    _report(found)


def _report(found: Likelihood) -> None:
    """Print the mean with its standard errors: over rows, and of the estimate itself."""
    n = len(found.value)
    mean = float(found.value.mean())
    noise = float(found.stderr.norm()) / n
    over_rows = float(found.value.std()) / n**0.5 if n > 1 else math.nan
    for unit, size in (("nats", 1.0), ("bits", math.log(2))):
        say(
            f"  mean {found.kind} {mean / size:,.3f} {unit} per row; standard error "
            f"{over_rows / size:.3f} over rows, of which {noise / size:.3f} of the estimate"
        )
    counted = [name for name, kind in found.measure.items() if kind == "counting"]
    real = [name for name, kind in found.measure.items() if kind != "counting"]
    if counted:
        say(f"  probabilities: {', '.join(counted)}")
    if real:
        say(f"  densities per unit: {', '.join(real)}")
