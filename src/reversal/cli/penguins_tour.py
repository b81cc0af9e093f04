"""The demo's table: penguins fitted, sampled, asked for one species, and their gaps filled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reversal.cli.console import say, stage
from reversal.cli.findings import Finding
from reversal.cli.pictures import Scatter
from reversal.data import frames
from reversal.datasets import penguins
from reversal.model import Model

if TYPE_CHECKING:
    import pandas as pd

DRAWS, STEPS = 20, 100
SPECIES = "Gentoo"
BILL = ["bill_length_mm", "bill_depth_mm"]
MASS = "body_mass_g"


def run(out: Path, training: int) -> list[Finding]:
    """Show what a model does with a small mixed table with gaps.

    Args:
        out: the folder for the files.
        training: the number of training steps.
    """
    data = penguins()
    gaps = int(data.isna().sum().sum())
    say(f"Palmer penguins: {len(data)} rows, {data.shape[1]} columns, {gaps} gaps", "bold")
    with stage("fitted"):
        model = Model(steps=training, seed=0).fit(data)
    model.save(out / "penguins-run")
    with stage(f"sampled {len(data)} penguins", "sampling", STEPS) as on_step:
        sampled = model.sample(len(data), seed=0, steps=STEPS, on_step=on_step)
    asked = data.loc[data["species"] == SPECIES, :]
    given = {"species": SPECIES}
    with stage(f"sampled {len(asked)} given species == {SPECIES!r}", "sampling", STEPS) as on_step:
        chosen = model.sample(len(asked), given, seed=0, steps=STEPS, on_step=on_step)
    rows = data.loc[data.isna().any(axis=1), :]
    with stage(f"filled the gaps of {len(rows)} rows, {DRAWS} times", "filling gaps"):
        filled = model.impute(rows, draws=DRAWS, seed=0, steps=STEPS)
    frames.write(sampled, out / "penguins-sampled.csv")
    frames.write(chosen, out / f"penguins-{SPECIES.lower()}.csv")
    frames.write(filled, out / "penguins-filled.csv")
    picture(data, sampled).write(out / "penguins.png")
    say()
    return of_species(asked, chosen) + of_gaps(rows, filled)


def of_species(asked: pd.DataFrame, chosen: pd.DataFrame) -> list[Finding]:
    """Compare sampled penguins of one species with the measured ones."""
    right = int(np.sum(chosen["species"] == SPECIES))
    total = len(chosen)
    return [
        Finding(f"{SPECIES}s among rows asked for", f"{right} of {total}", "all", right == total),
        Finding(
            f"  mean mass, measured {asked[MASS].mean():,.0f} g", f"{chosen[MASS].mean():,.0f} g"
        ),
    ]


def of_gaps(rows: pd.DataFrame, filled: pd.DataFrame) -> list[Finding]:
    """Count the known entries that imputation changed, and the gaps that it left."""
    known = rows.notna().to_numpy()
    entries = filled[list(rows.columns)].to_numpy(object).reshape(DRAWS, *rows.shape)
    changed = int((entries != rows.to_numpy(object))[:, known].sum())
    left = int(filled.isna().sum().sum())
    return [
        Finding(
            "Entries changed by imputation",
            f"{changed} of {DRAWS * known.sum():,}",
            "0",
            changed == 0,
        ),
        Finding("Gaps left by imputation", f"{left} of {DRAWS * (~known).sum():,}", "0", left == 0),
    ]


def picture(data: pd.DataFrame, sampled: pd.DataFrame) -> Scatter:
    """Return bill depth against bill length, measured and sampled."""
    return Scatter(
        {f"{len(data)} measured": by_species(data), f"{len(sampled)} sampled": by_species(sampled)},
        ("bill length (mm)", "bill depth (mm)"),
        "Palmer penguins, measured and sampled",
        "The model learned eight columns at once: numbers, categories and gaps.",
    )


def by_species(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the bills of each species, ``(n, 2)``, without those that have a gap."""
    bills = frame.dropna(subset=BILL)
    names = sorted(map(str, bills["species"].dropna().unique()))
    return {name: bills.loc[bills["species"] == name, BILL].to_numpy(float) for name in names}
