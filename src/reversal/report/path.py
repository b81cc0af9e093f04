"""The section that follows rows on their way from noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reversal.data.forms import to_table
from reversal.report.blocks import Section, Table, Text
from reversal.report.material import Material
from reversal.report.words import count

ROWS, MOMENTS, STEPS, MOST_COLUMNS = 5, 6, 100, 8
HIDDEN = "\u00b7"


def section(material: Material) -> Section:
    """Return some rows at some moments between noise and data."""
    seen: dict[int, Any] = {}
    chosen = np.linspace(1, STEPS, MOMENTS).round().astype(int)
    taken: list[Any] = []
    material.model.sample(
        ROWS, seed=material.seed, steps=STEPS, on_step=lambda k, x_t: taken.append(x_t)
    )
    seen = {int(k): cells(material.model, taken[k - 1]) for k in chosen}
    shown = [column.name for column in material.columns]
    shown = [name for name in shown if name not in material.real.schema.left_out][:MOST_COLUMNS]
    rows = [
        (
            f"row {row + 1}, step {k}" if k > 1 else f"row {row + 1}, noise",
            *(seen[k][name][row] for name in shown),
        )
        for row in range(ROWS)
        for k in seen
    ]
    words = (
        f"A row is drawn in {STEPS} steps. At the start its numbers are noise and its categories "
        f"are hidden ({HIDDEN}); step by step numbers move and categories appear, each in the "
        "light of all others. The first five rows that came:"
    )
    rest = len(material.real.schema.columns) - len(shown)
    more = f" ({count(rest, 'more column')} not shown)" if rest > 0 else ""
    table = Table(
        f"From noise to rows{more}",
        ("", *shown),
        rows,
        breaks=[MOMENTS * row for row in range(1, ROWS)],
    )
    return Section("path", "From noise to rows", [Text(words), table])


def cells(model: Any, x_t: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    """Return a noisy state as text by column; what is hidden by a mask is shown as a dot.

    A hidden entry is decoded twice, as its first and as its second value: an entry that depends on
    that is one that is hidden, in whatever way the table packs its columns.
    """
    frames = [to_table(model.source_.decode(_filled(model, x_t, code))) for code in (0, 1)]
    first, second = (frame.to_pydict() for frame in frames)
    return {
        name: [
            HIDDEN if a != b else _word(a) for a, b in zip(first[name], second[name], strict=True)
        ]
        for name in first
    }


def _filled(model: Any, x_t: dict[str, torch.Tensor], code: int) -> dict[str, torch.Tensor]:
    """Return a state with a value in the place of every mask."""
    filled = {}
    for name, part in x_t.items():
        space = model.process_.space.parts[name]
        hidden = torch.zeros_like(part, dtype=torch.bool)
        if not space.is_real:
            hidden = part >= space.num_values
        filled[name] = torch.where(hidden, torch.full_like(part, code), part)
    return filled


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)
