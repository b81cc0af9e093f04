"""``reversal score``: how probable each row of a table is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

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
    from reversal.answers.pieces import log_probs
    from reversal.data.table_file import open_table
    from reversal.training.distributed import together

    rows = open_table(file)
    model = preflight.table_run(run)
    place = "" if out is None else f" into {out}"
    total = Total()
    with (
        stage(f"scored {file.name}{place}", "scoring"),
        together() as world,
        _written(out if world.is_first else None) as append,
    ):
        for found in log_probs(model.denoiser_, model.source_, rows, samples, seed):
            total.add(found)
            append(found)
    _report(total)


@contextmanager
def _written(out: Path | None) -> Iterator[Callable[[Likelihood], None]]:
    """Yield what writes the next scores, if they are written."""
    import pyarrow as pa

    from reversal.data import frames

    if out is None:
        yield lambda found: None
        return
    with frames.appending(out) as append:

        def write(found: Likelihood) -> None:
            scores: dict[str, Any] = {"log_prob": found.value, "stderr": found.stderr}
            columns = {name: pa.array(part.numpy()) for name, part in scores.items()}
            kind = pa.array([found.kind] * len(found.value), pa.string())
            append(pa.table({**columns, "kind": kind}))

        yield write


@final
@dataclass
class Total:
    """The mean of bounds that come in pieces, and what its standard errors need.

    Source: Chan, Golub and LeVeque (1979), eq. 2.1: sums of squares of pieces joined.
    """

    rows: int = 0
    mean: float = 0.0
    squares: float = 0.0
    noise: float = 0.0
    kind: str = ""
    measure: Mapping[str, str] = field(default_factory=dict)

    def add(self, found: Likelihood) -> None:
        """Join the bounds of more rows."""
        n, values = len(found.value), found.value.double()
        mean = float(values.mean())
        both, apart = self.rows + n, mean - self.mean
        self.squares += float((values - mean).square().sum()) + apart**2 * self.rows * n / both
        self.mean += apart * n / both
        self.noise += float(found.stderr.double().square().sum())
        self.rows, self.kind, self.measure = both, found.kind, found.measure

    @property
    def over_rows(self) -> float:
        """The standard error of the mean over rows."""
        if self.rows < 2:
            return math.nan
        return math.sqrt(self.squares / (self.rows - 1) / self.rows)

    @property
    def of_estimate(self) -> float:
        """The part of it that is of the bounds themselves."""
        return math.sqrt(self.noise) / self.rows


def _report(total: Total) -> None:
    """Print the mean with its standard errors: over rows, and of the estimate itself."""
    say(f"  {count(total.rows, 'row')}")
    for unit, size in (("nats", 1.0), ("bits", math.log(2))):
        say(
            f"  mean {total.kind} {total.mean / size:,.3f} {unit} per row; standard error "
            f"{total.over_rows / size:.3f} over rows, of which {total.of_estimate / size:.3f} of "
            "the estimate"
        )
    counted = [name for name, kind in total.measure.items() if kind == "counting"]
    real = [name for name, kind in total.measure.items() if kind != "counting"]
    if counted:
        say(f"  probabilities: {', '.join(counted)}")
    if real:
        say(f"  densities per unit: {', '.join(real)}")
