"""What the benchmarks measured: lines of JSON, and the sections of RESULTS.md made from them."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

RESULTS = Path(__file__).with_name("RESULTS.md")


@final
class Ledger:
    """Measurements of one benchmark, the latest of each table, maker and seed.

    Args:
        section: the heading of the section in RESULTS.md.
        file: where a line is appended for each measurement.
    """

    def __init__(self, section: str, file: Path) -> None:
        self.section, self.file = section, file

    def keep(self, row: dict[str, Any]) -> None:
        """Append one measurement, with what it was made on."""
        made = {
            "date": str(datetime.date.today()),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "torch": torch.__version__,
            "commit": _commit(),
        }
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row | made) + "\n")
        print(json.dumps(row), flush=True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The measurements, in the order in which they were first made."""
        lines = self.file.read_text("utf-8").splitlines() if self.file.exists() else []
        rows = [json.loads(line) for line in lines]
        return list({(row["table"], row["maker"], row["seed"]): row for row in rows}.values())

    def of(self, table: str, maker: str) -> list[dict[str, Any]]:
        """The measurements of one table and maker, seed by seed."""
        rows = [row for row in self.rows if (row["table"], row["maker"]) == (table, maker)]
        return sorted(rows, key=lambda row: row["seed"])

    def heading(self, command: str, words: str) -> list[str]:
        """Return the first lines of a section: command, machine, dates and what was done."""
        rows = self.rows
        dates = sorted({row["date"] for row in rows})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        where = f"{rows[-1]['machine']}, torch {rows[-1]['torch']}, {when}"
        spread = "Mean ± standard deviation over the seeds."
        return [self.section, "", f"`{command}`, {where}. {words} {spread}", ""]

    def write(self, text: str) -> None:
        """Print a section, and put it into RESULTS.md."""
        print(text)
        write(text, self.section)


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(words, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def cell(values: list[float], digits: int) -> str:
    """Return a mean, with the standard deviation where there are several values."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def write(text: str, section: str) -> None:
    """Put a section of RESULTS.md in the place of its older self, or at the end."""
    old = RESULTS.read_text("utf-8") if RESULTS.exists() else "# Results\n"
    rest = re.sub(rf"^{section}\n.*?(?=^## |\Z)", "", old, flags=re.MULTILINE | re.DOTALL)
    RESULTS.write_text(f"{rest.rstrip()}\n\n{text.rstrip()}\n", "utf-8")
