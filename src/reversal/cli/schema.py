"""``reversal schema``: what the columns of a table are taken for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reversal.cli import preflight
from reversal.cli.console import in_a_sentence, say, table
from reversal.cli.options import Space

if TYPE_CHECKING:
    from reversal.data.table import TableCodec

MOST_SHOWN = 60

Table = Annotated[Path, typer.Argument(metavar="FILE", help="The table: .csv or .parquet.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to write it, to be edited.")
]


@in_a_sentence
def schema(file: Table, out: Out = None, space: Space = None) -> None:
    """Show what each column of a table is taken for, and write it down to be changed.

    Example: reversal schema penguins.csv --out space.yaml
    """
    if out is not None:
        preflight.file_to_write(out)
        preflight.not_the_same(file, out)
    from reversal.data import Schema, write_schema
    from reversal.data.census import infer_codec
    from reversal.data.table_file import open_table

    declared = None if space is None else Schema.read(space)
    codec = infer_codec(open_table(file), declared)
    show(codec)
    if out is not None:
        write_schema(codec.space_yaml(), out)
        say(f"  written to {out}: change it, and fit with --space {out}")


def show(codec: TableCodec) -> None:
    """Print the columns of a codec as a table."""
    rows = [
        (column.name, column.kind, column.detail, f"{100 * column.missing:.1f} %")
        for column in codec.columns
    ]
    table(("Column", "Type", "What was seen", "Missing"), rows[:MOST_SHOWN], folded=(0, 2))
    if len(rows) > MOST_SHOWN:
        say(f"  and {len(rows) - MOST_SHOWN} more columns")
    if codec.dropped:
        say(f"  left out: {', '.join(codec.dropped)}")
