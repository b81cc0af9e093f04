"""``reversal sample``: a run in, new rows out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reversal.cli import preflight, where
from reversal.cli.console import count, in_a_sentence, say, stage, warn
from reversal.cli.options import Run, Seed

if TYPE_CHECKING:
    from reversal.restrictions import Evidence

STEPS = 100
RARE = 1e-4
FEW = 0.5
UNLIKE = 1e-2

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
        help="What holds in every row: `age in 65..80 and job in ('cook', 'smith') and sex == 'F' "
        "and pay > 0`.",
    ),
]


@in_a_sentence
def sample(run: Run, n: Count, out: Out, where_: Where = None, seed: Seed = 0) -> None:
    """Draw new rows, or rows of which something is known.

    Conditions are joined by `and`: == != < <= > >=, `in low..high`, `in ('a', 'b')`, `not in`.

    Example: reversal sample run -n 100 --out new.csv --where "species == 'Adelie' and year < 2009"
    """
    preflight.sample_to_write(out)
    given = where.given(where_)
    from reversal.answers.drawing import CHUNK
    from reversal.data import frames
    from reversal.training.distributed import together

    model = preflight.run_for(run, out)
    total = STEPS * -(-n // CHUNK)
    found: list[Evidence] = []
    with stage(f"sampled {count(n, 'row')} into {out}", "sampling", total) as on_step:
        with together() as world:
            rows = model.sample(
                n, given or None, seed=seed, steps=STEPS, on_step=on_step, on_evidence=found.append
            )
        if world.is_first:
            frames.write(rows, out)
    for evidence in found:
        _report(n, evidence)


def _report(n: int, evidence: Evidence) -> None:
    """Say how probable what was asked is, and how many rows the draws are worth."""
    if evidence.num_draws:
        _report_draws(n, evidence)
    if evidence.lift < UNLIKE:
        warn(
            f"the given values are {evidence.lift:.1g} times as probable together as by chance: "
            "the model saw few such rows, or none"
        )


def _report_draws(n: int, evidence: Evidence) -> None:
    error = f" (standard error {100 * evidence.stderr:.2g} %)" if evidence.stderr else ""
    say(f"  the ranges and sets hold in {100 * evidence.prob:.3g} % of such rows{error}")
    say(f"  effective sample size {evidence.effective_size:,.0f} of {evidence.num_draws:,} draws")
    if evidence.prob < RARE:
        warn("the model saw few such rows, or none: look at what came before you rely on it")
    if evidence.effective_size < FEW * n:
        warn(
            f"the {n:,} rows are worth {evidence.effective_size:,.0f}: some share their values of "
            "the restricted columns"
        )
