"""The tables of the benchmarks: where they lie, and how rows are held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd


@final
@dataclass(frozen=True)
class Task:
    """A table with the figures that are promised for it.

    Args:
        name: of the table; `NAME.csv.gz`, or `NAME_train.csv.gz` and `NAME_test.csv.gz`.
        minutes: the budget of a fit.
        excess: by how many points the Shape error may lie above the floor.
        auc: the greatest area under the curve of gradient boosting, real against synthetic.
        label: a column of two values that is to be told from the others.
    """

    name: str
    minutes: float
    auc: float
    shape: float | None = None
    trend: float | None = None
    excess: float | None = None
    label: str = ""

    def split(self, folder: Path, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows to fit and those held out: the official ones, or a random third."""
        if (folder / f"{self.name}_train.csv.gz").is_file():
            train, test = (_read(folder / f"{self.name}_{part}.csv.gz") for part in PARTS)
            return train, test
        whole = _read(folder / f"{self.name}.csv.gz")
        order = np.random.default_rng(seed).permutation(len(whole))
        third = len(whole) // 3
        held, kept = np.sort(order[:third]), np.sort(order[third:])
        return whole.iloc[kept].reset_index(drop=True), whole.iloc[held].reset_index(drop=True)


RIVALS_TIME = 3
"""How many times our time a rival may take."""
PARTS = ("train", "test")
TASKS = {
    task.name: task
    for task in (
        Task("adult", 10, 0.56, shape=0.70, trend=1.7, label="income"),
        Task("diamonds", 5, 0.64, excess=0.2),
        Task("magic_gamma", 5, 0.57, excess=0.2),
        Task("wa_churn", 5, 0.56, excess=0.2),
    )
}


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def shuffled(table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Return n rows whose columns are drawn independently: right marginals, no association."""
    random = np.random.default_rng(seed)
    drawn: dict[str, Any] = {
        name: column.iloc[random.integers(0, len(table), n)].to_numpy()
        for name, column in table.items()
    }
    return pd.DataFrame(drawn).astype(table.dtypes.to_dict())
