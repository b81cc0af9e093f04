"""The section on each column alone."""

from __future__ import annotations

from collections.abc import Callable

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
            f"as many unseen real rows ({len(unseen):,}), which no model can be expected to beat. "
            "The shares written beside bars are those of the synthetic rows."
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
        return _bars(known, len(column.labels), lambda code: column.label(int(code)), title)
    values = np.unique(np.concatenate(known))
    if len(values) <= MOST_BARS:
        codes = [np.searchsorted(values, part) for part in known]
        return _bars(codes, len(values), lambda code: column.label(values[code]), title, True)
    ends, ticks = bins(known[0] if len(known[0]) else values, column)
    looks = charts.LOOKS if len(known) == len(charts.LOOKS) else ("real", "made")
    return charts.histogram(known, ends, ticks, title, looks)


def bins(real: np.ndarray, column: Numeric) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return ends of bins for numbers, and ticks.

    The bins reach from the 0.5th to the 99.5th percentile; beyond them lie the first and the last
    bin. Where numbers are rounded, a bin holds as many of the possible values as any other.

    Args:
        real: numbers ``(n,)``, n >= 1.
        column: says how numbers are written.
    """
    low, high = np.quantile(real, [0.005, 0.995], method="nearest")
    values = np.unique(real)
    if not low < high:
        low, high = values[0], values[-1]
    least = 1e-13 * max(1e-290, abs(low), abs(high))
    if high - low < least:
        low, high = low - 0.5 * least, high + 0.5 * least
    unit = _unit(values) if len(values) > 2 else 0.0
    if not unit:
        ends = np.linspace(low, high, MOST_BINS + 1)
        return ends, charts.ends_and_middle(ends, column.label)
    width = np.ceil(((high - low) / unit + 1) / MOST_BINS)
    count = int(np.ceil(((high - low) / unit + 1) / width))
    ends = low - unit / 2 + width * unit * np.arange(count + 1)
    places = [low, low + unit * ((high - low) // (2 * unit)), high]
    return ends, [(float(place), column.label(float(f"{place:.12g}"))) for place in places]


def _unit(values: np.ndarray) -> float:
    """Return the unit to which all of these distinct numbers are rounded, or 0."""
    gaps = np.diff(values)
    if not len(gaps):
        return 0.0
    unit = float(gaps.min())
    multiples = gaps / unit
    return unit if len(gaps) > 1 and np.abs(multiples - np.rint(multiples)).max() < 1e-3 else 0.0


def _bars(
    known: list[np.ndarray],
    size: int,
    label: Callable[[int], str],
    title: str,
    is_ordered: bool = False,
) -> str:
    """Draw the shares of codes below ``size``: all, or the most frequent and the others."""
    counts = [np.bincount(codes, minlength=size) for codes in known]
    shares = [part / max(1, part.sum()) for part in counts]
    order = np.arange(size) if is_ordered else np.argsort(-shares[0], kind="stable")
    top = order if size <= MOST_BARS + 1 else order[:MOST_BARS]
    labels = [label(int(code)) for code in top]
    shown = [part[top] for part in shares]
    if len(top) < size:
        labels.append(f"{size - len(top)} others")
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
        f"between real rows {percent(least)}",
        tone,
    )
