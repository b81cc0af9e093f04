"""The section on pairs of columns."""

from __future__ import annotations

import numpy as np

from reversal.metrics import Rows, Schema, Trend, trend
from reversal.report import charts
from reversal.report.blocks import Block, Card, Cards, Finding, Note, Section, Table, Text, Tone
from reversal.report.material import Material
from reversal.report.words import association, count, percent

MOST_COLUMNS, MOST_DRAWN, MOST_ROWS, LISTED = 100, 32, 32_000, 12


def section(material: Material) -> Section:
    """Return the associations of pairs: maps, and the worst pairs."""
    real, unseen, made = _narrow(material.equal(), material.seed)
    if len(real.schema.columns) < 2:
        words = "There is one column to compare, so there are no pairs."
        return Section("pairs", "Pairs of columns", [Text(words)])
    found, floor = trend(real, made, common=True), trend(real, unseen, common=True)
    own = trend(real, made).error, trend(real, unseen).error
    blocks: list[Block] = [
        Text(
            "Do columns go together as they do in reality? For two numbers the correlation is "
            "compared, the error being half the difference. For all other pairs it is the share of "
            "rows that would have to move between the cells of the cross table, numbers being cut "
            "into ten bins of the real table."
        ),
        Table(
            "Mean error over the pairs",
            ("Compared", "Error", "Floor, of real rows"),
            [
                (
                    f"Synthetic against {material.names[0]}, {count(len(found.pairs), 'pair')}",
                    percent(found.error),
                    percent(floor.error),
                ),
                ("The same, each table in bins of its own (sdmetrics)", *map(percent, own)),
            ],
        ),
    ]
    if len(real.schema.columns) < len(material.real.schema.columns):
        blocks.append(Note(f"Only the first {MOST_COLUMNS} columns are looked at in pairs."))
    blocks += [_maps(found), _worst(found, floor)]
    return Section("pairs", "Pairs of columns", blocks, [_finding(found, floor)])


def _narrow(tables: tuple[Rows, ...], seed: int) -> tuple[Rows, ...]:
    """Return at most so many rows and columns that all pairs can be looked at."""
    whole = tables[0].schema
    schema = Schema(whole.columns[:MOST_COLUMNS], whole.left_out)
    drawn = [rows.draw(MOST_ROWS, seed) for rows in tables]
    return tuple(Rows(schema, rows.values[:MOST_COLUMNS], len(rows)) for rows in drawn)


def _maps(found: Trend) -> Cards:
    names = list(dict.fromkeys(name for p in found.pairs for name in (p.first, p.second)))
    total = len(names)
    if total > MOST_DRAWN:
        bad = {name: 0.0 for name in names}
        for pair in found.pairs:
            for name in (pair.first, pair.second):
                bad[name] = max(bad[name], np.nan_to_num(pair.error))
        kept = set(sorted(names, key=lambda name: -bad[name])[:MOST_DRAWN])
        names = [name for name in names if name in kept]
    places = {name: k for k, name in enumerate(names)}
    maps = {key: np.full((len(names), len(names)), np.nan) for key in ("real", "other", "error")}
    for pair in found.pairs:
        if pair.first in places and pair.second in places:
            i, j = places[pair.first], places[pair.second]
            for key, values in maps.items():
                values[i, j] = values[j, i] = getattr(pair, key)
    shown = (
        f"{len(names)} of {total} columns, those with the worst pair" if total > len(names) else ""
    )
    scale = max(0.01, float(np.nanmax(maps["error"], initial=0.0)))
    titles = {
        "real": ("Real", "correlation, or Cram\u00e9r's V"),
        "other": ("Synthetic", "on the same scale"),
        "error": ("Error", f"white: none; darkest: {percent(scale)}"),
    }
    cards = [
        Card(
            title,
            charts.heat_map(
                values / (scale if key == "error" else 1),
                names,
                f"{title}: {words}",
                key != "error",
            ),
            words,
            shown,
        )
        for key, values in maps.items()
        for title, words in (titles[key],)
    ]
    return Cards(cards)


def _worst(found: Trend, floor: Trend) -> Table:
    floors = {(pair.first, pair.second): pair.error for pair in floor.pairs}
    rows = [
        (
            f"{pair.first} \u00d7 {pair.second}",
            percent(pair.error),
            percent(floors[pair.first, pair.second]),
            association(pair.real),
            association(pair.other),
        )
        for pair in found.worst()[:LISTED]
    ]
    head = ("Pair", "Error", "Floor", "Association, real", "synthetic")
    return Table("The worst pairs", head, rows)


def _finding(found: Trend, floor: Trend) -> Finding:
    error, least = found.error, floor.error
    if np.isnan(error):
        tone, answer = Tone.PLAIN, "There is no pair to compare."
    elif error <= max(1.5 * least, 0.01):
        tone, answer = Tone.GOOD, "Yes, about as well as in unseen real rows."
    elif error <= max(3 * least, 0.04):
        tone, answer = Tone.FAIR, "Mostly: weaker or stronger than chance explains in some pairs."
    else:
        tone, answer = Tone.POOR, "No: some pairs are clearly off; look at the list of pairs."
    return Finding(
        "Do columns go together as they should?",
        answer,
        f"mean error {percent(error)}",
        f"between real rows {percent(least)}",
        tone,
    )
