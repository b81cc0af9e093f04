"""The section on questions that were asked: rows drawn under a condition, beside real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from reversal.metrics import Rows, shape
from reversal.metrics.shape import mean
from reversal.report import marginals
from reversal.report.blocks import Block, Card, Cards, Heading, Note, Section, Table, Text
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
    for question, made, met in zip(asked, material.answers, material.met, strict=True):
        blocks += _answer(material, question, made, met)
    return Section("questions", title, blocks)


def _answer(material: Material, question: Question, made: Rows, met: np.ndarray) -> list[Block]:
    real = _together(material)
    kept = real.take(met)
    heading = Heading(f"Where {question.text}")
    seen = f"Of {len(real):,} real rows {len(kept):,} meet this."
    free = [c.name for c in real.schema.columns if c.name not in question.given]
    if len(kept) < 2 or not free:
        words = f"{seen} That is too few to compare with; the synthetic rows are drawn alone."
        return [heading, Note(words), *_cards((made, made), free, ("synthetic", "synthetic"))]
    errors = {c.name: c.error for c in shape(kept, made).columns}
    worst = sorted(free, key=lambda name: -np.nan_to_num(errors[name], nan=-1))
    blocks: list[Block] = [heading, Text(seen)]
    if len(kept) < LEAST:
        blocks.append(Note("So few real rows meet the condition that their law is hardly known."))
    return [
        *blocks,
        _halves(kept, made, free),
        *_cards((kept, made), worst, ("real", "synthetic"), errors),
    ]


def _halves(kept: Rows, made: Rows, free: Sequence[str]) -> Table:
    """Compare one half of the real rows with the other, and with as many synthetic rows."""
    one, other = kept.take(slice(None, None, 2)), kept.take(slice(1, None, 2))
    size = min(len(one), len(other), len(made))
    found, floor = (
        mean([c.error for c in shape(one.take(slice(size)), rows).columns if c.name in free])
        for rows in (made.take(slice(size)), other.take(slice(size)))
    )
    row = (f"{count(size, 'row')} of either", percent(found), percent(floor))
    head = ("", "Synthetic against real", "Floor, real against real")
    return Table("Mean error of the other columns, in equal numbers", head, [row])


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
