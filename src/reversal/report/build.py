"""A report from beginning to end: what is looked at, the sections, the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from reversal.report import (
    apart,
    copies,
    density,
    facts,
    guide,
    log,
    marginals,
    pairs,
    path,
    questions,
    training,
    trust,
    use,
)
from reversal.report.blocks import Finding, Section, Tone
from reversal.report.facts import Origin
from reversal.report.material import Show, gather
from reversal.report.questions import Question

if TYPE_CHECKING:
    from reversal.model import Model


FEW = 100
"""Below so many unseen real rows no answer is called good."""


def report(
    model: Model,
    holdout: Any,
    train: Any = None,
    *,
    asked: Sequence[Question] = (),
    target: str | None = None,
    history: Sequence[log.Line] | None = None,
    origin: Origin | None = None,
    rows: int | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> str:
    """Return a report on a model of a table, as one HTML page that needs nothing else.

    Args:
        model: that was fitted to a table.
        holdout: a frame of real rows that it was not trained on.
        train: the frame that it was trained on; without it copies are not looked for.
        asked: conditions whose rows are compared with real ones.
        target: the column whose prediction is tried; by default the last category of few values.
        history: the record of training; by default `Model.trace_`, where there is one.
        origin: names of files, the command and the date.
        rows: how many rows are drawn; by default as many as there are to compare with.
        seed: of all that is drawn.
        show: ``show(done, doing, steps)`` accompanies every step of the work.

    Raises:
        DataError: if a table does not have the columns of the fitted one, or the target is none.

    Cost: drawing up to 16,000 rows, and about as much again.
    """
    origin = origin or Origin()
    lines = log.of_trace(getattr(model, "trace_", None)) if history is None else list(history)
    conditions = [question.given for question in asked]
    material = gather(
        model, holdout, train, conditions, target=target, rows=rows, seed=seed, show=show
    )
    steps: dict[str, Callable[[], Section]] = {
        "the data and the model": lambda: facts.section(material, origin, lines),
        "columns": lambda: marginals.section(material),
        "pairs of columns": lambda: pairs.section(material),
        "a classifier": lambda: apart.section(material),
        "nearest records": lambda: copies.section(material),
        "learning from synthetic rows": lambda: use.section(material, target),
        "calibration": lambda: trust.section(material),
        "log-densities": lambda: density.section(material),
        "questions": lambda: questions.section(material, asked),
        "training": lambda: training.section(lines),
        "the way from noise": lambda: path.section(material),
        "how to read this": guide.section,
    }
    sections = []
    for doing, step in steps.items():
        with _stage(show, f"looked at {doing}", doing):
            sections.append(step())
    findings = [found for part in sections for found in part.findings]
    if len(material.unseen) < FEW:
        findings = [found.hedged(len(material.unseen)) for found in findings]
    return page(sections, findings, origin)


def page(sections: Sequence[Section], findings: Sequence[Finding], origin: Origin) -> str:
    """Return findings and sections as one HTML page."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    folder = files("reversal.report") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = Markup
    style = (folder / "style.css").read_text("utf-8")
    template = environment.get_template("page.html")
    return template.render(
        sections=sections, findings=findings, origin=origin, style=style, verdict=verdict(findings)
    )


def verdict(findings: Sequence[Finding]) -> str:
    """Return the findings in one sentence."""
    tones = [finding.tone for finding in findings]
    good, fair, poor = (tones.count(tone) for tone in (Tone.GOOD, Tone.FAIR, Tone.POOR))
    if poor:
        words = "Use with care: some of the answers below are ones that a user will feel."
    elif fair:
        words = "Close to the real rows, with measurable differences: see what is fair below."
    elif good:
        words = "Not told from unseen real rows by any figure below."
    else:
        return "There was too little to compare."
    return f"{words} Good:\u00a0{good}, fair:\u00a0{fair}, poor:\u00a0{poor}."


def _stage(show: Show | None, done: str, doing: str) -> Any:
    from contextlib import nullcontext

    return nullcontext() if show is None else show(done, doing, None)
