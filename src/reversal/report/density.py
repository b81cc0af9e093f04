"""The section on log-densities: how plausible the model finds real rows, and its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from reversal.data.forms import to_table
from reversal.metrics import Estimate, auc, bootstrap
from reversal.report import charts
from reversal.report.blocks import Block, Card, Cards, Finding, Section, Table, Text, Tone
from reversal.report.material import Material, drawn
from reversal.report.words import between, nats

TITLE = "How plausible does it find rows?"
SCORED, SAMPLES = 500, 16
FAR = 0.6


def section(material: Material) -> Section:
    """Return the laws of the log-density over training, unseen and synthetic rows."""
    made = material.model.sample(SCORED, seed=material.seed + 1, missing=True)
    tables: dict[str, Any] = {"holdout": material.holdout, "synthetic": made}
    if material.train is not None:
        tables = {"training rows": material.train, **tables}
    scores = {name: _scores(material, table) for name, table in tables.items()}
    words = (
        "The log-density of a row says how plausible the model finds it; what is computed is a "
        "lower bound, in nats. Unseen real rows should score as high as training rows, otherwise "
        "the model remembers what it was trained on; and about as high as its own samples."
    )
    blocks: list[Block] = [Text(words), _chart(scores), _table(scores)]
    if material.train is None:
        return Section("density", TITLE, blocks)
    told = auc(scores["training rows"], scores["holdout"])
    blocks.append(
        Text(
            "By its log-density a training row is told from a holdout row with an area under the "
            f"curve of {between(told)}; at 0.5 the model shows no memory of rows."
        )
    )
    return Section("density", TITLE, blocks, [_finding(told)])


def _scores(material: Material, table: Any) -> np.ndarray:
    rows = drawn(to_table(table), SCORED, material.seed)
    bound = material.model.log_prob(rows, num_samples=SAMPLES, seed=material.seed)
    return bound.value.double().numpy()


def _chart(scores: dict[str, np.ndarray]) -> Cards:
    low, high = np.quantile(np.concatenate(list(scores.values())), [0.01, 0.99])
    ends = np.linspace(low, high if high > low else low + 1, 31)
    title = f"Log-density of rows: {', '.join(scores)}"
    looks = charts.LOOKS if len(scores) == len(charts.LOOKS) else ("real", "made")
    ticks = charts.ends_and_middle(ends, nats)
    chart = charts.histogram(list(scores.values()), ends, ticks, title, looks)
    legend = list(zip(looks, scores, strict=True))
    return Cards([Card("Log-density of a row, in nats", chart, "")], legend)


def _table(scores: dict[str, np.ndarray]) -> Table:
    means = {name: bootstrap(np.mean, values) for name, values in scores.items()}
    rows = [
        (name, f"{len(scores[name]):,}", nats(mean.value), f"{nats(mean.low)} to {nats(mean.high)}")
        for name, mean in means.items()
    ]
    return Table("Mean log-density of a row", ("", "Rows", "Mean", "95 % interval"), rows)


def _finding(told: Estimate) -> Finding:
    if told.low <= 0.5:
        tone, answer = Tone.GOOD, "No: they are as plausible to it as unseen real rows."
    elif told.value < FAR:
        tone, answer = Tone.FAIR, "A little: they are more plausible to it than unseen ones."
    else:
        tone, answer = (
            Tone.POOR,
            "Yes: they are clearly more plausible to it than unseen ones.",
        )
    question = "Does it remember its training rows?"
    return Finding(question, answer, f"AUC {between(told)}", "no memory 0.500", tone)
