"""The demo's images: digits drawn for a label, completed, classified, and watched on their way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reversal.cli import digits
from reversal.cli.console import say, stage
from reversal.cli.digits import LEVELS, PER_LABEL, Digits, Figures
from reversal.cli.findings import Finding
from reversal.cli.pictures import Sheet
from reversal.metrics import Share
from reversal.model import Model

RECOGNIZED, CLASSIFIED = 0.95, 0.94
SHOWN, DRAWS = 16, 6
STEPS, MOMENTS = 100, 12
NAMES = [str(label) for label in range(10)]


def run(out: Path, training: int) -> list[Finding]:
    """Show what a model of images and labels does, and hold it to its promises.

    Args:
        out: the folder for the files.
        training: the number of training steps.
    """
    fitted, held = digits.load()
    counts = f"{len(fitted.labels):,} to fit, {len(held.labels)} held out"
    say(f"Digits, 8 x 8 pixels and a label: {counts}", "bold")
    with stage("fitted"):
        model = Model(steps=training, seed=0).fit(fitted.state, digits.space())
    model.save(out / "digits-run")
    labels = np.repeat(np.arange(10), PER_LABEL)
    given = {"label": labels}
    with stage(f"drew {len(labels):,} digits, {PER_LABEL} of each label", "drawing", STEPS) as show:
        drawn = model.sample(len(labels), given, seed=0, steps=STEPS, on_step=show)
    samples = drawn["image"]
    samples_sheet(samples).write(out / "digits-sampled.png")
    with stage(f"completed {len(NAMES)} held-out digits, {DRAWS} times each", "completing"):
        completed_sheet(model, held.first_of_each()).write(out / "digits-completed.png")
    with stage("drew a digit of each label, step by step", "drawing"):
        path_sheet(model).write(out / "digits-path.png")
    with stage(f"classified {len(held.labels)} held-out digits, and measured", "measuring"):
        figures = digits.measure(model, fitted, held, samples, labels)
    return findings(figures)


def findings(figures: Figures) -> list[Finding]:
    """Return the figures beside the promises; in brackets are intervals of 95 %."""
    near = figures.copying
    return [
        of_share("Digits recognized by an SVM", figures.recognized, RECOGNIZED),
        of_share("Held-out digits classified", figures.classified, CLASSIFIED),
        Finding(
            "Distance to fitted digits",
            f"{near.samples:.2f}",
            f">= {near.low:.2f}",
            not near.is_copied,
        ),
        Finding(
            "  the same of held-out digits",
            f"{near.holdout:.2f} ({near.low:.2f} to {near.high:.2f})",
        ),
    ]


def of_share(what: str, share: Share, least: float) -> Finding:
    """Hold a share to the least that was promised."""
    low, high = share.interval()
    return Finding(
        what,
        f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        f">= {100 * least:.0f} %",
        share.value >= least,
    )


def samples_sheet(samples: np.ndarray) -> Sheet:
    """Return the first samples of each label, one row per label."""
    rows = samples.reshape(10, PER_LABEL, 8, 8)[:, :SHOWN]
    caption = "One row per label, the first that came: none was picked."
    return Sheet(rows / LEVELS, "Digits drawn by the model", caption, NAMES)


def completed_sheet(model: Model, chosen: Digits) -> Sheet:
    """Return held-out digits beside completions of their upper halves; no label was given."""
    hidden = digits.lower_half(chosen.images)
    values, known = (np.repeat(part, DRAWS, 0) for part in (chosen.images, ~hidden))
    draws = model.sample(len(values), given={"image": (values, known)}, seed=0)["image"]
    truth = chosen.images[:, None]
    images = np.concatenate([truth, truth, draws.reshape(10, DRAWS, 1, 8, 8)], 1)[:, :, 0]
    masked = np.zeros(images.shape, bool)
    masked[:, 1] = hidden[:, 0]
    return Sheet(
        images / LEVELS,
        "The lower half, drawn to fit the upper",
        "Held-out digits; neither the hidden half nor the label was given.",
        NAMES,
        ["truth", "given", *(f"draw {k + 1}" for k in range(DRAWS))],
        masked,
        rules=(0, 1),
    )


def path_sheet(model: Model) -> Sheet:
    """Return one digit of each label on its way from noise, at equally spaced steps."""
    seen: list[np.ndarray] = []
    model.sample(
        len(NAMES),
        given={"label": np.arange(len(NAMES))},
        seed=0,
        steps=STEPS,
        on_step=lambda k, x_t: seen.append(model.source_.decode(x_t)["image"][:, 0]),
    )
    times = model.denoiser_.clocks.grid(model.process_, STEPS).times[1:]
    chosen = np.linspace(0, STEPS - 1, MOMENTS).round().astype(int)
    return Sheet(
        np.stack([seen[k] for k in chosen], 1) / LEVELS,
        "From noise to digits",
        "One sample per label, the first that came. Above: the time, from noise at 1 to data at 0.",
        NAMES,
        [f"{times[k]:.2f}" for k in chosen],
    )
