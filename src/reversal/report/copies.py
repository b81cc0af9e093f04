"""The section on records that lie too near to training rows."""

from __future__ import annotations

import numpy as np

from reversal.metrics import Nearest, nearest
from reversal.report import charts
from reversal.report.blocks import Card, Cards, Finding, Note, Section, Table, Text, Tone
from reversal.report.material import Material
from reversal.report.words import between, of_share, percent

TITLE = "Are rows copied?"
WORK, MOST_ASKED, LEAST_ASKED = 2_000_000_000, 2000, 100
CAUTION = (
    "None of this is a guarantee of privacy. Rare values, outliers and groups of few people can be "
    "given away by rows that are no copies. Where that matters, train with differential privacy or "
    "have the release reviewed."
)


def section(material: Material) -> Section:
    """Return the distances to the nearest training row, where training rows are at hand."""
    if not material.has_train:
        words = "To look for copies the training rows are needed: make the report with --train."
        finding = Finding(TITLE, "Not looked at: no training rows were given.", "", "", Tone.PLAIN)
        return Section("copies", TITLE, [Note(words), Note(CAUTION)], [finding])
    columns = len(material.real.schema.columns)
    most = WORK // max(1, len(material.real) * columns)
    most = min(MOST_ASKED, max(LEAST_ASKED, most))
    found = nearest(material.real, material.unseen, material.made, most=most, seed=material.seed)
    words = (
        "How far is the nearest training row of each synthetic row? Unseen real rows answer the "
        "same question: a model that learned the law, not the rows, is as far away as they are. "
        "The distance is 0 for equal rows; each number adds the squared difference of its rank "
        "among the training rows, each category that differs adds 1."
    )
    blocks = [Text(words), _chart(found), _table(found, material), Note(CAUTION)]
    return Section("copies", TITLE, blocks, [_finding(found)])


def _chart(found: Nearest) -> Cards:
    top = float(np.quantile(np.concatenate([found.holdout, found.synthetic]), 0.99)) or 1.0
    ends = np.linspace(0, top, 31)
    tables = [found.holdout, found.synthetic]
    ticks = charts.ends_and_middle(ends, lambda x: f"{x:.2g}")
    title = "Distances to the nearest training row, of holdout and synthetic rows"
    chart = charts.histogram(tables, ends, ticks, title, ("real", "made"))
    legend = [("real", "holdout"), ("made", "synthetic")]
    return Cards([Card("Distance to the nearest training row", chart, "")], legend)


def _table(found: Nearest, material: Material) -> Table:
    rows = [
        ("Median distance", between(found.synthetic_median), between(found.holdout_median)),
        ("Equal to a training row", of_share(found.copies), of_share(found.holdout_copies)),
        ("Nearer than 95 % of the holdout", of_share(found.close), "5 % by definition"),
        (
            "Nearer to training rows than to as many holdout rows",
            between(found.closer),
            "0.5 without memory",
        ),
    ]
    caption = (
        f"{len(found.synthetic):,} synthetic and {len(found.holdout):,} holdout rows against "
        f"{len(material.real):,} training rows; in brackets 95 % intervals, given the training rows"
    )
    return Table(caption, ("", "Synthetic", "Holdout"), rows)


def _finding(found: Nearest) -> Finding:
    copied = found.copies.interval()[0] > found.holdout_copies.interval()[1]
    closer = found.closer.low > 0.5
    if not found.copies.total:
        tone, answer = Tone.PLAIN, "There are no rows to look at."
    elif copied or found.closer.low > 0.6:
        tone, answer = Tone.POOR, "Yes: more rows repeat training rows than unseen real rows do."
    elif closer:
        tone, answer = Tone.FAIR, "A little: rows lie nearer to training rows than chance explains."
    else:
        tone, answer = Tone.GOOD, "No sign of it was found; this is no guarantee of privacy."
    return Finding(
        TITLE,
        answer,
        f"{percent(found.copies.value)} equal a training row",
        f"holdout rows {percent(found.holdout_copies.value)}",
        tone,
    )
