"""The README's figures on scikit-learn's digits: three seeds, and their spread.

Run ``python benchmarks/digits.py``; it writes its section of RESULTS.md. With ``--steps N`` each
fit takes N steps in place of the demo's. It computes in one thread, as the demo does.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import reversal as rv
from benchmarks._records import write
from reversal.cli import digits
from reversal.cli.demo import DIGITS_STEPS
from reversal.cli.digits import PER_LABEL, Figures

SECTION = "## Digits"
SEEDS = (0, 1, 2)


def measured(seed: int, steps: int) -> tuple[Figures, float]:
    """Fit one model and return its figures, and the seconds they took."""
    start = time.monotonic()
    fitted, held = digits.load()
    model = rv.Model(steps=steps, seed=seed).fit(fitted.state, digits.space())
    labels = np.repeat(np.arange(10), PER_LABEL)
    samples = model.sample(len(labels), given={"label": labels}, seed=seed)["image"]
    return digits.measure(model, fitted, held, samples, labels), time.monotonic() - start


def rows(runs: list[tuple[Figures, float]]) -> list[tuple[str, list[float], str]]:
    """Return name, one number per seed, and promise of each figure."""
    figures = [figure for figure, _ in runs]
    near = figures[0].copying
    return [
        ("recognized by an SVM, %", [100 * f.recognized.value for f in figures], ">= 95"),
        ("held-out digits classified, %", [100 * f.classified.value for f in figures], ">= 94"),
        (
            f"mean distance to the nearest fitted digit (held-out: {near.holdout:.2f})",
            [f.copying.samples for f in figures],
            f">= {near.low:.2f}",
        ),
        (
            "samples nearer than 95 % of the held-out digits, %",
            [100 * f.copying.close for f in figures],
            "",
        ),
        ("seconds to fit, draw and measure", [seconds for _, seconds in runs], ""),
    ]


def section(runs: list[tuple[Figures, float]], steps: int) -> str:
    """Return the section of RESULTS.md."""
    cells = [
        f"| {name} | {' | '.join(f'{x:.2f}' for x in values)} "
        f"| {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} | {promised} |"
        for name, values, promised in rows(runs)
    ]
    heads = " | ".join(f"seed {seed}" for seed in SEEDS)
    machine = f"one thread of {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    return "\n".join(
        [
            SECTION,
            "",
            f"`python benchmarks/digits.py --steps {steps}`, {machine}, torch "
            f"{torch.__version__}, {datetime.date.today()}. 1,300 digits to fit, 497 held out, "
            f"{10 * PER_LABEL:,} drawn; mean ± standard deviation over the seeds.",
            "",
            f"| | {heads} | mean | promised |",
            f"|---|{'--:|' * (len(SEEDS) + 2)}",
            *cells,
            "",
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=DIGITS_STEPS)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    runs = []
    for seed in SEEDS:
        runs.append(measured(seed, steps))
        print(f"seed {seed}: {runs[-1]}", flush=True)
    text = section(runs, steps)
    print(text)
    write(text, SECTION)


if __name__ == "__main__":
    main()
