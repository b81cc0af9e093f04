"""The section on learning from synthetic rows."""

from __future__ import annotations

import numpy as np

from reversal.errors import DataError
from reversal.metrics import Estimate, Utility, auc, utility
from reversal.report import charts
from reversal.report.blocks import Block, Figure, Finding, Section, Text, Tone
from reversal.report.material import Material, codes, drawn
from reversal.report.words import between, decimal

TITLE = "Can one learn from them?"
MOST_ASKED = 4000
SCORES = {
    "AUC": "area under the curve; 0.5 is a coin, 1 is never wrong",
    "accuracy": "share of right predictions",
    "R2": "share of the variance that is explained; below 0 is worse than the mean",
}


def section(material: Material, target: str | None = None) -> Section:
    """Return the scores of predictors that learned from real and from synthetic rows."""
    if target is None and len(material.real.schema.columns) < 2:
        return Section("use", TITLE, [Text("There is one column, so nothing to predict it from.")])
    try:
        found = utility(material.real, material.made, material.unseen, target, seed=material.seed)
    except DataError:
        if target is not None:
            raise
        return Section("use", TITLE, [Text("There is no column of few values, and no number.")])
    rows = [
        ("learned from real rows", found.real, "real"),
        ("learned from synthetic rows", found.synthetic, "made"),
    ]
    own = _own(material, found)
    if own is not None:
        rows.append(("the model's own answer", own, "made"))
    return Section("use", TITLE, _blocks(found, rows, material), [_finding(found)])


def _blocks(
    found: Utility, rows: list[tuple[str, Estimate, str]], material: Material
) -> list[Block]:
    words = (
        f"Gradient boosting learns to predict “{found.target}” from all other columns, once from "
        f"{found.learned[0]:,} real rows ({material.names[0]}) and once from {found.learned[1]:,} "
        f"synthetic ones. Both are tried on the same {found.tested:,} unseen real rows."
    )
    caption = f"{found.score}: {SCORES[found.score]}; 95 % intervals over the rows of the test. "
    caption += "; ".join(f"{label} {between(estimate)}" for label, estimate, _ in rows) + "."
    caption += f" Lost by learning from synthetic rows: {between(found.loss)}."
    lows = [estimate.low for _, estimate, _ in rows if np.isfinite(estimate.low)]
    low = max(-0.2, min([0.5 if found.score == "AUC" else 0.0, *lows]))
    return [Text(words), Figure(charts.intervals(rows, low, 1.0, caption), caption)]


def _own(material: Material, found: Utility) -> Estimate | None:
    """Return the AUC of the model's own conditional where the target has two values."""
    if found.score != "AUC":
        return None
    asked = drawn(material.holdout, MOST_ASKED, material.seed)
    proba = material.model.predict_proba(asked, found.target)
    if proba.num_columns != 2:
        return None
    truth = codes(material.model, asked, found.target)
    scores = proba.column(1).to_numpy()
    return auc(scores[truth == 1], scores[truth == 0])


def _finding(found: Utility) -> Finding:
    loss = found.loss
    if np.isnan(loss.value):
        tone, answer = Tone.PLAIN, "There are too few rows to try."
    elif loss.low <= 0 or loss.value < 0.01:
        tone, answer = Tone.GOOD, f"Yes: “{found.target}” is predicted as well as from real rows."
    elif loss.value < 0.05:
        tone, answer = Tone.FAIR, f"Mostly: predicting “{found.target}” loses a little."
    else:
        tone, answer = Tone.POOR, f"Not well: predicting “{found.target}” loses much."
    return Finding(
        TITLE,
        answer,
        f"{found.score} {decimal(found.synthetic.value)}",
        f"from real rows {decimal(found.real.value)}",
        tone,
    )
