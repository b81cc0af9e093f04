"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `reversal fit` wrote.")]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="S", min=0, max=2**62 - 1, help="The same seed gives the same result."
    ),
]
OutTable = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="The table to write: .csv or .parquet.")
]
Space = Annotated[
    Path | None,
    typer.Option(
        "--space",
        metavar="YAML",
        help="What the columns are, as `reversal schema` writes it; inferred by default.",
    ),
]
