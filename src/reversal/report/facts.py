"""The section that says what was trained, on what, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import final

from reversal.report.blocks import Block, Code, Note, Section, Table, Text
from reversal.report.log import Line
from reversal.report.material import Material
from reversal.report.words import count, duration, percent, some

MOST_SHOWN = 300


@final
@dataclass(frozen=True)
class Origin:
    """Where a report comes from.

    Args:
        run: the name of the run.
        holdout: the name of the holdout's file.
        train: the name of the training rows' file, or nothing.
        command: the command that made the report.
        made_at: when it was made.
    """

    run: str = "a model"
    holdout: str = "holdout"
    train: str = ""
    command: str = ""
    made_at: datetime = field(default_factory=lambda: datetime.now().astimezone())


def section(material: Material, origin: Origin, log: Sequence[Line]) -> Section:
    """Return the facts about data and model."""
    blocks: list[Block] = [_facts(material, origin, log)]
    if origin.command:
        blocks.append(Code(origin.command))
    blocks += [_schema(material), *_remarks(material)]
    return Section("facts", "The data and the model", blocks)


def installed() -> str:
    """Return the version of this package, as it was installed."""
    try:
        return version("reversal")
    except PackageNotFoundError:
        return "not installed as a package"


def _facts(material: Material, origin: Origin, log: Sequence[Line]) -> Table:
    model = material.model
    weights = sum(part.numel() for part in model.denoiser_.network.parameters())
    rows = [
        ("Run", origin.run),
        ("Holdout", _holdout(material, origin)),
        ("Training rows", _training(material, origin)),
        ("Columns", str(len(material.columns))),
        ("Synthetic rows drawn here", f"{len(material.made):,}, seed {material.seed}"),
        ("Network", f"{count(weights, 'weight')}"),
        ("Training", _time(log)),
        ("Made by", f"reversal {installed()}, {origin.made_at:%Y-%m-%d %H:%M %Z}".rstrip()),
    ]
    return Table("What was looked at", ("", ""), rows)


def _holdout(material: Material, origin: Origin) -> str:
    looked_at = len(material.unseen) + (0 if material.has_train else len(material.real))
    return f"{origin.holdout}: {_rows(material.sizes['holdout'], looked_at)}"


def _training(material: Material, origin: Origin) -> str:
    if material.has_train:
        looked_at = len(material.real)
        return f"{origin.train or 'given'}: {_rows(material.sizes['train'], looked_at)}"
    return "not given to this report"


def _rows(size: int, looked_at: int) -> str:
    """Return how many rows a file has, and how many of them were drawn to be looked at."""
    if looked_at >= size - 1:  # of an odd number, halves leave one
        return count(size, "row")
    return f"{count(size, 'row')}, of which {looked_at:,} were drawn to be looked at"


def _time(log: Sequence[Line]) -> str:
    if not log:
        return "not recorded in the run"
    steps, seconds = count(log[-1].step, "step"), log[-1].seconds
    return steps if math.isnan(seconds) else f"{steps} in {duration(seconds)}"


def _schema(material: Material) -> Table:
    columns = material.columns
    left_out = material.real.schema.left_out
    rows = []
    for column in columns[:MOST_SHOWN]:
        gaps = ("", "")
        if column.name not in left_out:
            gaps = tuple(
                percent(float(part.missing(column.name).mean()))
                for part in (material.unseen, material.made)
            )
        detail = column.detail if len(column.detail) < 60 else column.detail[:57] + "..."
        note = f"left out: {left_out[column.name]}" if column.name in left_out else ""
        rows.append((column.name, column.kind, detail, *gaps, note))
    head = ("Column", "Type", "What it holds", "Gaps, real", "Gaps, synthetic", "")
    return Table("The columns as they were learned", head, rows, is_folded=len(rows) > 12)


def _remarks(material: Material) -> list[Block]:
    found: list[Block] = []
    rest = len(material.columns) - MOST_SHOWN
    if rest > 0:
        found.append(Text(f"{count(rest, 'more column')} left out of this list."))
    if material.unknown:
        names = [f"{name} ({number})" for name, number in material.unknown.items()]
        found.append(
            Note(
                "The holdout has values that the model has never seen, in "
                f"{some(names)}. They count as what they are where tables are compared, and as "
                "gaps where the model is asked about rows."
            )
        )
    if len(material.unseen) < 200:
        found.append(
            Note(
                f"There are only {count(len(material.unseen), 'unseen real row')} to compare "
                "with. Intervals are wide, and a difference that is not found may still be there."
            )
        )
    if not material.has_train:
        found.append(
            Note(
                "The training rows were not given, so nothing here says whether rows were "
                "copied from them, and every floor compares one half of the holdout with the other."
            )
        )
    return found
