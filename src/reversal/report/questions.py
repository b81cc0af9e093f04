"""The section on questions that were asked: rows drawn under a condition, beside real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from reversal.metrics import Rows, shape
from reversal.metrics.columns import Discrete, Numeric
from reversal.report import marginals
from reversal.report.blocks import Block, Card, Cards, Note, Section, Table, Text
from reversal.report.material import Material
from reversal.report.words import count, percent

MOST_CARDS, LEAST = 9, 30


@final
@dataclass(frozen=True)
class Question:
    """A condition on rows.

    Args:
        text: as it was asked.
        given: what `Model.sample` takes.
    """

    text: str
    given: Any


def section(material: Material, asked: Sequence[Question]) -> Section:
    """Return the answers to questions."""
    title = "Questions that were asked"
    if not asked:
        words = "None. Ask by --where \"column == 'value'\", as often as wanted."
        return Section("questions", title, [Text(words)])
    blocks = [
        Text(
            "The same model draws rows of which something is known. They are compared with the "
            "real rows that meet the condition; the fewer there are, the less can be seen."
        )
    ]
    for question, made in zip(asked, material.answers, strict=True):
        blocks += _answer(material, question, made)
    return Section("questions", title, blocks)


def meets(rows: Rows, conditions: Mapping[str, Any]) -> np.ndarray:
    """Return which rows meet equality conditions, bool ``(n,)``.

    Args:
        rows: real rows.
        conditions: column names to values; text is read as the column's type.

    Raises:
        DataError: if a column is not compared.
    """
    kept = np.ones(len(rows), bool)
    for name, value in conditions.items():
        column = rows.schema.columns[rows.schema.place(name)]
        code = _code(column, value)
        kept &= np.zeros(len(rows), bool) if code is None else rows[name] == code
    return kept


def _code(column: Numeric | Discrete, value: Any) -> float | None:
    """Return the number that stands for a value in a column, or None if nothing does."""
    if isinstance(column, Discrete):
        labels = [str(label).lower() for label in column.labels]
        name = str(value).lower()
        return labels.index(name) if name in labels else None
    import pyarrow as pa

    try:
        array = pa.array([value])
        return float(column.read(array.cast(column.kind) if column.is_time else array)[0])
    except (pa.ArrowException, ValueError):
        return None


def _answer(material: Material, question: Question, made: Rows) -> list[Block]:
    real = _together(material)
    kept = real.take(meets(real, question.given))
    heading = Text(f"Where {question.text}: {count(len(kept), 'real row')} of {len(real):,}.")
    free = [c.name for c in real.schema.columns if c.name not in question.given]
    if len(kept) < 2 or not free:
        words = "There are too few real rows to compare with; the synthetic ones are drawn alone."
        return [heading, Note(words), *_cards((made, made), free, ("synthetic", "synthetic"))]
    halves = kept.take(slice(None, None, 2)), kept.take(slice(1, None, 2))
    errors = {c.name: c.error for c in shape(kept, made).columns}
    worst = sorted(free, key=lambda name: -np.nan_to_num(errors[name], nan=-1))
    found = float(np.nanmean([errors[name] for name in free]))
    floors = [c.error for c in shape(*halves).columns if c.name in free]
    row = (
        f"{len(made):,} synthetic rows against {count(len(kept), 'real row')}",
        percent(found),
        percent(float(np.nanmean(floors))),
    )
    blocks = [
        heading,
        Table(
            "Mean error of the other columns",
            ("", "Error", "One half of the real rows against the other"),
            [row],
        ),
    ]
    if len(kept) < LEAST:
        blocks.append(Note("So few real rows meet the condition that their law is hardly known."))
    return [*blocks, *_cards((kept, made), worst, ("real", "synthetic"), errors)]


def _cards(
    tables: tuple[Rows, Rows],
    names: Sequence[str],
    called: tuple[str, str],
    errors: Mapping[str, float] | None = None,
) -> list[Block]:
    cards = [
        Card(
            name,
            marginals.chart(tables, name, called),
            f"error {percent(errors[name])}" if errors else "",
        )
        for name in names[:MOST_CARDS]
    ]
    return [Cards(cards, [("real", called[0]), ("made", called[1])])] if cards else []


def _together(material: Material) -> Rows:
    """Return all real rows."""
    pair = (material.real, material.unseen)
    values = tuple(np.concatenate(parts) for parts in zip(*(r.values for r in pair), strict=True))
    return Rows(material.real.schema, values, sum(map(len, pair)))
