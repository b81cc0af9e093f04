"""The section on each column alone."""

from __future__ import annotations

import numpy as np

from reversal.metrics import Rows, Shape, shape
from reversal.metrics.columns import Discrete, Numeric
from reversal.report import charts
from reversal.report.blocks import Block, Card, Cards, Finding, Section, Table, Text, Tone
from reversal.report.material import Material
from reversal.report.words import count, percent

MOST_CARDS, MOST_BARS, MOST_BINS = 24, 8, 30


def section(material: Material) -> Section:
    """Return the marginals: every column, the worst first."""
    real, unseen, made = material.equal()
    found, floor = shape(real, made), shape(real, unseen)
    against, back = shape(unseen, made), shape(unseen, real.draw(len(made), material.seed))
    floors = {column.name: column.error for column in floor.columns}
    cards = [
        Card(
            column.name,
            chart((material.real, material.unseen, material.made), column.name, material.names),
            f"error {percent(column.error)}, real rows {percent(floors[column.name])}",
        )
        for column in found.worst()[:MOST_CARDS]
    ]
    blocks: list[Block] = [
        Text(
            "How often does each value occur? The error of a column is the greatest gap between "
            "the two cumulative curves (numbers and dates), or the share of rows that would have "
            "to change their value (everything else). Beside it stands its floor: the error of "
            f"as many unseen real rows ({len(unseen):,}), which no model can be expected to beat."
        ),
        Table(
            "Mean error over the columns",
            ("Compared", "Error", "Floor, of real rows"),
            [
                (
                    f"Synthetic against {material.names[0]}",
                    percent(found.error),
                    percent(floor.error),
                ),
                (
                    f"Synthetic against {material.names[1]}",
                    percent(against.error),
                    percent(back.error),
                ),
            ],
        ),
        Cards(cards, legend(material)),
    ]
    if len(found.columns) > MOST_CARDS:
        rest = count(len(found.columns) - MOST_CARDS, "column")
        blocks.append(Text(f"The {MOST_CARDS} worst are drawn; {rest} more are in the table."))
    blocks.append(_table(found, floors))
    return Section("columns", "Each column alone", blocks, [_finding(found, floor)])


def legend(material: Material) -> list[tuple[str, str]]:
    """Return which color is which table."""
    return list(zip(charts.LOOKS, material.names, strict=True))


def chart(tables: tuple[Rows, ...], name: str, names: tuple[str, ...]) -> str:
    """Draw the law of a column in two or three tables; the first is the real one.

    Args:
        tables: of one schema; the last is the synthetic one.
        name: of the column.
        names: what the tables are called.
    """
    schema = tables[0].schema
    column = schema.columns[schema.place(name)]
    known = [rows[name][~rows.missing(name)] for rows in tables]
    title = f"{name}: {', '.join(names)}"
    if isinstance(column, Discrete):
        return _bars(column, known, title)
    return charts.histogram(known, bins(known, column), column.label, title)


def bins(tables: list[np.ndarray], column: Numeric) -> np.ndarray:
    """Return ends of bins for numbers: one bin per value where there are few whole ones.

    The bins reach from the 0.5th to the 99.5th percentile of the first table; beyond them lie the
    first and the last bin.
    """
    real = tables[0] if len(tables[0]) else np.concatenate([*tables, np.zeros(1)])
    values = np.unique(real)
    is_whole = bool((values == np.rint(values)).all()) and not column.is_time
    if is_whole and values[-1] - values[0] < MOST_BINS:
        return np.arange(values[0], values[-1] + 2)
    low, high = np.quantile(real, [0.005, 0.995])
    if not low < high:
        low, high = values[0], values[-1]
    if not low < high:
        low, high = low - 0.5, high + 0.5
    if is_whole:
        width = np.ceil((high - low + 1) / MOST_BINS)
        return low // 1 + width * np.arange(int((high - low) // width) + 2)
    return np.linspace(low, high, MOST_BINS + 1)


def _bars(column: Discrete, known: list[np.ndarray], title: str) -> str:
    counts = [np.bincount(codes, minlength=len(column.labels)) for codes in known]
    shares = [part / max(1, part.sum()) for part in counts]
    order = np.argsort(-shares[0], kind="stable")
    top = order[:MOST_BARS] if len(order) <= MOST_BARS + 1 else order[: MOST_BARS - 1]
    if len(order) == MOST_BARS + 1:
        top = order
    labels = [column.label(int(code)) for code in top]
    shown = [part[top] for part in shares]
    if len(top) < len(order):
        labels.append(f"{len(order) - len(top)} others")
        shown = [np.append(part[top], part.sum() - part[top].sum()) for part in shares]
    return charts.bars(shown, labels, title)


def _table(found: Shape, floors: dict[str, float]) -> Table:
    rows = [
        (c.name, percent(c.error), percent(floors[c.name]), *map(percent, c.missing))
        for c in found.worst()
    ]
    head = ("Column", "Error", "Floor", "Gaps, real", "Gaps, synthetic")
    return Table("All columns, the worst first", head, rows, is_folded=True)


def _finding(found: Shape, floor: Shape) -> Finding:
    error, least = found.error, floor.error
    if np.isnan(error):
        tone, answer = Tone.PLAIN, "There is no column to compare."
    elif error <= max(1.5 * least, 0.005):
        tone, answer = Tone.GOOD, "Yes, about as well as unseen real rows do."
    elif error <= max(4 * least, 0.02):
        tone, answer = Tone.FAIR, "Nearly: more than chance explains, yet small."
    else:
        tone, answer = Tone.POOR, "No: some columns differ clearly; look at the first charts."
    return Finding(
        "Does each column look like the real one?",
        answer,
        f"mean error {percent(error)}",
        f"real rows {percent(least)}",
        tone,
    )
