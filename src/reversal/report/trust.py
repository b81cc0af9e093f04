"""The section on calibration: of predicted classes, and of imputed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from reversal.data.columns import Discrete
from reversal.metrics import (
    Estimate,
    Reliability,
    Share,
    aligned,
    covered,
    pit,
    reliability,
)
from reversal.report import charts
from reversal.report.blocks import Block, Card, Cards, Finding, Section, Table, Text, Tone
from reversal.report.material import Material, codes, drawn
from reversal.report.words import between, of_share, percent

if TYPE_CHECKING:
    import pyarrow as pa

ASKED, MOST_TARGETS, DRAWN = 2000, 30, 6
HIDDEN, IMPUTED, DRAWS = 0.2, 200, 19
LEVELS = (0.5, 0.9)


def section(material: Material) -> Section:
    """Return how far the model's own probabilities can be believed."""
    words = (
        "The model can be asked for probabilities. Are they right? Of all predictions made with "
        "80 % confidence, 80 % should come true; of all 90 % intervals, 90 % should hold the truth."
    )
    classes = dict(_classes(material))
    cells = _cells(material)
    blocks: list[Block] = [Text(words), *_class_blocks(classes), *_cell_blocks(cells)]
    return Section("trust", "Are its probabilities right?", blocks, _findings(classes, cells))


@final
@dataclass(frozen=True)
class Cells:
    """Where hidden numbers lie among their imputations.

    Args:
        place: per column, the probability integral transform of each hidden cell.
        rows: how many rows had cells hidden.
    """

    place: dict[str, np.ndarray]
    rows: int

    @property
    def all(self) -> np.ndarray:
        """The transforms of all columns together."""
        return np.concatenate([np.zeros(0), *self.place.values()])


def _classes(material: Material) -> Iterator[tuple[str, Reliability]]:
    """Yield the calibration of each discrete column given all others."""
    asked = drawn(material.holdout, ASKED, material.seed)
    names = [c.name for c in material.columns if isinstance(c, Discrete)]
    for name in names[:MOST_TARGETS]:
        proba = material.model.predict_proba(asked, name)
        values = np.stack([part.to_numpy() for part in proba.columns], 1)
        truth = codes(material.model, asked, name)
        known = truth >= 0
        if known.any():
            yield name, reliability(values[known], truth[known], seed=material.seed)


def _cells(material: Material) -> Cells:
    """Hide cells at random, impute them, and see where the truth lies among the draws."""
    truth = drawn(material.holdout, IMPUTED, material.seed)
    random = np.random.default_rng(material.seed)
    hidden = {name: random.random(truth.num_rows) < HIDDEN for name in truth.column_names}
    filled = material.model.impute(_with_gaps(truth, hidden), draws=DRAWS, seed=material.seed)
    own, draws = aligned(truth, filled.select(truth.column_names))
    place = {}
    for column in own.schema.columns:
        if not column.is_discrete:
            known = hidden[column.name] & ~own.missing(column.name)
            among = draws[column.name].reshape(DRAWS, -1)[:, known]
            place[column.name] = pit(among, own[column.name][known], seed=material.seed)
    return Cells(place, truth.num_rows)


def _with_gaps(table: pa.Table, hidden: dict[str, np.ndarray]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    from reversal.data.arrays import flat

    arrays = []
    for name in table.column_names:
        array = flat(table[name])
        array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        none = pa.scalar(None, array.type)
        arrays.append(pc.if_else(pa.array(hidden[name]), none, array))  # pyright: ignore
    return pa.Table.from_arrays(arrays, names=table.column_names)


def _class_blocks(classes: dict[str, Reliability]) -> list[Block]:
    if not classes:
        return []
    worst = sorted(classes, key=lambda name: -_excess(classes[name]))
    cards = [
        Card(
            name,
            charts.reliability(
                classes[name].confidence,
                [Estimate(share.value, *share.interval()) for share in classes[name].hits],
                f"{name}: how often the likeliest value is right, against its probability",
            ),
            f"error {percent(classes[name].error.value)}, "
            f"calibrated {percent(classes[name].expected.value)}",
        )
        for name in worst[:DRAWN]
    ]
    rows = [
        (name, between(c.error), f"{c.expected.value:.3f} (up to {c.expected.high:.3f})")
        for name, c in classes.items()
    ]
    head = ("Column, given all others", "Calibration error", "Of a calibrated model")
    words = (
        "Categories given all other columns. Dots: how often the likeliest value came true; line: "
        "how often it should have. The calibration error is their mean distance; a calibrated "
        "model does not come to 0 either, by chance."
    )
    legend = [("made", "the model, with 95 % intervals"), ("unseen", "calibrated")]
    return [
        Text(words),
        Cards(cards, legend),
        Table("Calibration error of every category", head, rows, is_folded=True),
    ]


def _cell_blocks(cells: Cells) -> list[Block]:
    if not len(cells.all):
        return []
    rows = [
        (name, f"{len(u):,}", *(of_share(covered(u, level)) for level in LEVELS))
        for name, u in [*cells.place.items(), ("all together", cells.all)]
        if len(u)
    ]
    words = (
        f"Numbers that were hidden and imputed: in {cells.rows:,} unseen rows a fifth of all cells "
        f"was hidden at random and drawn {DRAWS} times. Below: how often the truth lies in the "
        "middle of the draws."
    )
    head = ("Column", "Cells", "in its 50 % interval", "in its 90 % interval")
    return [Text(words), Table("Coverage of imputed numbers", head, rows)]


def _excess(found: Reliability) -> float:
    return found.error.value - found.expected.value


def _findings(classes: dict[str, Reliability], cells: Cells) -> list[Finding]:
    found = []
    if classes:
        wrong = [name for name, c in classes.items() if not c.is_calibrated]
        share = len(wrong) / len(classes)
        tone = Tone.GOOD if share <= 0.1 else Tone.FAIR if share <= 0.5 else Tone.POOR
        worst = max(c.error.value for c in classes.values())
        answer = "Yes, as far as can be seen." if not wrong else f"Not of {_listed(wrong)}."
        figure = f"error at most {percent(worst)}"
        beside = f"{len(classes) - len(wrong)} of {len(classes)} as if calibrated"
        found.append(Finding("Are its class probabilities right?", answer, figure, beside, tone))
    if len(cells.all):
        found.append(_coverage(covered(cells.all, 0.9)))
    return found


def _coverage(share: Share) -> Finding:
    low, high = share.interval()
    if low <= 0.9 <= high:
        tone, answer = Tone.GOOD, "Yes: they hold the truth as often as they say."
    elif low > 0.9:
        tone, answer = Tone.FAIR, "They are wider than they need to be."
    else:
        tone = Tone.FAIR if share.value > 0.85 else Tone.POOR
        answer = "They are too narrow: the truth lies outside too often."
    question = "Are the 90 % intervals of imputed numbers right?"
    return Finding(question, answer, f"hold {of_share(share)}", "should hold 90 %", tone)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
