"""The command ``reversal``: one file per command, and errors as sentences."""

from __future__ import annotations

import typer

from reversal.cli.demo import demo
from reversal.cli.fit import fit
from reversal.cli.impute import impute
from reversal.cli.report import report
from reversal.cli.sample import sample
from reversal.cli.schema import schema
from reversal.cli.score import score

__all__ = ["app", "main"]

app = typer.Typer(
    name="reversal",
    help="Learn to generate any kind of data by reversing the noise that destroys it.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
for command in (schema, fit, sample, score, impute, report, demo):
    app.command()(command)


def main() -> None:
    """Run the command line: the entry point of the installed command."""
    app()
