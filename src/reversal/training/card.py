"""The model card: what a run was trained on, how it did, and what it is not, without any row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from reversal.training.loop import Trace
from reversal.training.method import ARCHITECTURE

MOST_COLUMNS = 100
LIMITS = """\
- It knows the rows it was trained on and nothing else; what is rare in them is uncertain in it.
- It is no guarantee of privacy: measure how near its rows are to the records before you share them.
- Its files hold of the data the names of columns, each category, the least and the greatest number
  or date of a column and some between; of identifiers, after which one new ones begin.
- Gaps in the data are taken to be missing completely at random, unless you know better.
- A bias in the data is a bias of the model."""


def text(settings: Mapping[str, Any], facts: Mapping[str, Any], trace: Trace) -> str:
    """Return a model card in Markdown.

    Args:
        settings: the arguments of the model.
        facts: ``name``, ``rows`` and ``columns`` (their measures by name) of the data, and
            ``minutes``, the time budget.
        trace: what training did.
    """
    rows = f"{facts['rows']:,}" if facts.get("rows") else "an unknown number of"
    columns = facts.get("columns", {})
    shown = [f"| {_cell(name)} | {measure} |" for name, measure in list(columns.items())]
    more = [f"| ... and {len(shown) - MOST_COLUMNS} more | |"] if len(shown) > MOST_COLUMNS else []
    idle = ("network",) if settings.get("network") is None else ARCHITECTURE
    given = [f"| {k} | {_cell(value)} |" for k, value in settings.items() if k not in idle]
    return "\n".join(
        [
            "# A generative model of " + _cell(facts.get("name") or "arrays"),
            "",
            f"Written by reversal {version()} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
            "",
            "## Data",
            "",
            f"{rows} rows, {len(columns)} columns or factors. The measure says what a density of "
            "the column counts.",
            "",
            *("| Column | Measure |", "|---|---|", *shown[:MOST_COLUMNS], *more),
            "",
            "## How it did",
            "",
            *outcome(trace),
            "",
            "## Settings",
            "",
            *("| Setting | Value |", "|---|---|", *given),
            "",
            *("## Limits", "", LIMITS, "", "## Use", "", _use()),
        ]
    )


def outcome(trace: Trace) -> list[str]:
    """Return what training came to, in sentences."""
    said = [f"{trace.steps:,} steps; {trace.ended or 'training ended'}."]
    best = next((at for at in trace.checks if at.step == trace.best_step), None)
    if best is not None and math.isfinite(best.held_out):
        said.append(
            f"The weights are those of step {best.step:,}: held-out loss {best.held_out:.4g} +- "
            f"{best.stderr:.2g} (standard error over the rows held out)."
        )
    return said


def version() -> str:
    """Return the version of the package."""
    try:
        return metadata.version("reversal")
    except metadata.PackageNotFoundError:
        return "of a checkout"


def _cell(value: Any) -> str:
    """Return text that does not leave its cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _use() -> str:
    return (
        '```python\nimport reversal as rv\n\nmodel = rv.load("FOLDER")\n'
        "new = model.sample(1000, seed=0)\n```\n\n"
        "The configuration and the weights are JSON and safetensors: nothing is unpickled. "
        "This page is yours to edit; every other file is verified when the model is loaded.\n"
    )
