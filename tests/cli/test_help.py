"""The help of each command is what `docs/cli` shows.

After a change of the command line: ``REVERSAL_FREEZE=1 pytest tests/cli/test_help.py``.
"""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reversal.cli import app

FROZEN = Path(__file__).resolve().parents[2] / "docs" / "cli"
COMMANDS = {
    "reversal": [],
    "fit": ["fit"],
    "sample": ["sample"],
    "score": ["score"],
    "impute": ["impute"],
    "report": ["report"],
    "schema": ["schema"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_what_the_documents_show(name):
    terminal = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(
        app, [*COMMANDS[name], "--help"], prog_name="reversal", env=terminal
    )
    shown = "\n".join(line.rstrip() for line in result.output.strip("\n").split("\n")) + "\n"
    file = FROZEN / f"{name}.txt"
    if os.environ.get("REVERSAL_FREEZE"):
        file.write_text(shown, "utf-8")
    assert shown == file.read_text("utf-8")


def test_every_command_is_documented_and_nothing_else():
    names = {command.callback.__name__ for command in app.registered_commands}
    assert names | {"reversal"} == COMMANDS.keys() == {file.stem for file in FROZEN.iterdir()}
