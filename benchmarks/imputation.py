"""Gaps at random in four tables: ours beside miceforest, MissForest and ForestDiffusion.

Run ``python benchmarks/imputation.py --data FOLDER``, where FOLDER (``data`` if left out) holds
adult_train.csv.gz and diamonds.csv.gz; wine and breast cancer are scikit-learn's. A fifth of the
cells is taken out completely at random, and every method fills the gaps of the rows that it was
fitted to, `DRAWS` times. Every fit is appended to ``imputation.jsonl`` beside this file; the
section of RESULTS.md is written from what is there. Makers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import reversal as rv
from benchmarks._records import Ledger, cell
from benchmarks._rivals import LEVELS, affordable
from benchmarks._tables import RIVALS_TIME, TASKS
from reversal.metrics import covered, crps, energy_distance, pit

SHARE, DRAWS, LEVEL = 0.2, 10, 0.9
FOREST_DRAWS = 2
"""Of ForestDiffusion, whose draws take minutes each."""
MOST_ROWS = 4_000
"""Rows of a table at most, so that every method is done within minutes."""
COMPARED = 3_000
"""Rows of which the energy distance is taken."""
FIGURES = {
    "energy": "energy distance",
    "crps": "CRPS",
    "accuracy": "categories right, %",
    "coverage": "90 % intervals cover, %",
    "seconds": "s",
}
DIGITS = {"energy": 4, "accuracy": 1, "coverage": 1, "seconds": 0}
SECTION = "## Imputation"


class Imputer(ABC):
    """What fills gaps."""

    name: str
    note: str = ""

    @abstractmethod
    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        """Return completed tables, one per draw."""


@final
class Reversal(Imputer):
    """`Model` with default settings, fitted to the table with gaps."""

    name = "reversal"

    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        model = rv.Model(minutes, seed=seed, show_progress=False).fit(holed)
        filled = model.impute(holed, draws=DRAWS, seed=seed)
        return [part.drop(columns="draw") for _, part in filled.groupby("draw")]


@final
class Marginal(Imputer):
    """The simple baseline: each gap is filled with a random entry of its column."""

    name = "random entries"

    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        random = np.random.default_rng(seed)
        filled = [holed.copy() for _ in range(DRAWS)]
        for table in filled:
            for name, column in holed.items():
                gaps = column.isna()
                table.loc[gaps, name] = random.choice(column.dropna(), int(gaps.sum()))
        return filled


@final
class Mice(Imputer):
    """miceforest (Wilson 2020 onward): chained equations with boosted trees, mean matching.

    Its release 6.0.5 needs lightgbm below 4.6. Categories are drawn from the predicted
    probabilities ("fast"): matching them by log-odds fails at a probability of 0.
    """

    name = "miceforest"

    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        import miceforest

        words = list(holed.select_dtypes(exclude="number"))
        coded = holed.astype(dict.fromkeys(words, "category"))
        kernel = miceforest.ImputationKernel(
            coded,
            num_datasets=DRAWS,
            mean_match_strategy=dict.fromkeys(words, "fast"),
            random_state=seed,
        )
        kernel.mice(4)
        return [kernel.complete_data(k) for k in range(DRAWS)]


@final
class MissForest(Imputer):
    """MissForest (Stekhoven and Buehlmann 2012) by scikit-learn's forests: one draw, the mean."""

    name = "MissForest"

    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        coded, labels = _coded(holed)
        forest = RandomForestRegressor(100, n_jobs=-1, random_state=seed, max_features="sqrt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = IterativeImputer(forest, max_iter=4, random_state=seed).fit_transform(coded)
        return [_decoded(values, holed, labels)]


@final
class Forest(Imputer):
    """ForestDiffusion (Jolicoeur-Martineau et al. 2024), VP with RePaint, as its authors impute.

    Its own dummies would show a gap as the first category: they are made here, with gaps.
    """

    name = "ForestDiffusion"

    def fill(self, holed: pd.DataFrame, minutes: float, seed: int) -> list[pd.DataFrame]:
        coded, labels = _coded(holed)
        wide, ends = _dummies(coded, [len(labels.get(name, ())) for name in holed])
        order = np.random.default_rng(seed).permutation(len(wide))

        def fit(copies: int, levels: int = LEVELS) -> Any:
            from ForestDiffusion import ForestDiffusionModel

            rows = wide[order[:copies]]
            repeats = min(100, copies // len(rows))
            self.note = f"{len(rows):,} rows, K = {repeats}"
            return ForestDiffusionModel(
                rows, diffusion_type="vp", n_t=levels, duplicate_K=repeats, n_jobs=1, seed=seed
            )

        model = fit(affordable(fit, RIVALS_TIME * 60 * minutes))
        draws = model.impute(k=FOREST_DRAWS, X=model.scaler.transform(wide), repaint=True)
        return [_decoded(_undummied(draw, ends), holed, labels) for draw in draws]


def _coded(table: pd.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a table as numbers, categories as codes, and the categories."""
    labels = {
        name: pd.Categorical(table[name]).categories
        for name in table.select_dtypes(exclude="number")
    }
    columns = []
    for name, column in table.items():
        codes = pd.Categorical(column).codes if name in labels else column
        columns.append(np.where(column.isna(), np.nan, np.asarray(codes, float)))
    return np.column_stack(columns), labels


def _decoded(values: np.ndarray, like: pd.DataFrame, labels: dict[str, Any]) -> pd.DataFrame:
    filled = pd.DataFrame(values, columns=like.columns)
    for name, words in labels.items():
        codes = filled[name].round().clip(0, len(words) - 1).astype(int)
        filled[name] = np.asarray(words)[codes]
    return filled


def _dummies(coded: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a table with a column per category, gaps kept, and where each column of it ends."""
    parts = []
    for column, size in zip(coded.T[..., None], sizes, strict=True):
        hot = column == np.arange(size)
        parts.append(np.where(np.isnan(column), np.nan, hot) if size > 1 else column)
    return np.column_stack(parts).astype(float), np.cumsum([part.shape[1] for part in parts])[:-1]


def _undummied(wide: np.ndarray, ends: np.ndarray) -> np.ndarray:
    parts = np.split(wide, ends, axis=1)
    return np.column_stack([p.argmax(1) if p.shape[1] > 1 else p[:, 0] for p in parts])


IMPUTERS = {i.name: i for i in (Reversal, Marginal, Mice, MissForest, Forest)}


def table_of(name: str, folder: Path, seed: int) -> pd.DataFrame:
    """Return a complete table of at most `MOST_ROWS` rows."""
    if name in TASKS:
        table = TASKS[name].split(folder, seed)[0]
    else:
        from sklearn import datasets

        table = getattr(datasets, f"load_{name}")(as_frame=True).frame
        table["target"] = table["target"].map(str)
    drawn = table.sample(min(MOST_ROWS, len(table)), random_state=seed)
    return drawn.reset_index(drop=True)


def with_gaps(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Take a fifth of the cells out, completely at random."""
    gaps = np.random.default_rng(seed + 1).random(table.shape) < SHARE
    real = {k: float for k in table.select_dtypes("number")}
    return table.astype(real).mask(gaps), gaps


def scored(table: pd.DataFrame, gaps: np.ndarray, filled: list[pd.DataFrame]) -> dict[str, float]:
    """Return the figures of draws: numbers in units of their column's standard deviation.

    The coverage is that of the rank of the truth among the draws; a single draw has none.
    """
    numeric = list(table.select_dtypes("number"))
    scale = table[numeric].std().replace(0, 1)
    scores, ranks, right = [], [], []
    for name in table:
        rows = gaps[:, table.columns.get_loc(name)]
        draws = [part[name].to_numpy()[rows] for part in filled]
        truth = table[name].to_numpy()[rows]
        if name in numeric:
            cells = np.stack(draws).astype(float)
            scores.append(crps(cells / scale[name], truth / scale[name]))
            ranks += [pit(cells, truth.astype(float))] if len(cells) > 1 else []
        else:
            right.append(np.mean([np.asarray(d, str) == truth.astype(str) for d in draws], 0))
    return {
        "energy": _energy(table, filled[0], numeric, scale),
        "crps": float(np.concatenate(scores).mean()) if scores else float("nan"),
        "accuracy": 100 * float(np.concatenate(right).mean()) if right else float("nan"),
        "coverage": 100 * covered(np.concatenate(ranks), LEVEL).value if ranks else float("nan"),
    }


def _energy(table: pd.DataFrame, filled: pd.DataFrame, numeric: list[str], scale: Any) -> float:
    """Return the energy distance of completed rows to the true ones of the other half.

    Categories are one-hot. Halves, because a completed row has most cells of its true one.
    """
    words = [name for name in table if name not in numeric]
    both = pd.concat([table, filled[list(table)]], keys=("true", "filled"))
    points = np.column_stack(
        [both[numeric].astype(float) / scale]
        + [pd.get_dummies(both[name].astype(str)).to_numpy(float) / 2**0.5 for name in words]
    )
    true, drawn = points[: len(table)][::2], points[len(table) :][1::2]
    return energy_distance(true[:COMPARED], drawn[:COMPARED])


def section(ledger: Ledger) -> str:
    """Return the section of RESULTS.md."""
    lines = ledger.heading(
        "python benchmarks/imputation.py --data FOLDER",
        f"{100 * SHARE:.0f} % of the cells missing completely at random, at most {MOST_ROWS:,} "
        f"rows, {DRAWS} draws (ForestDiffusion {FOREST_DRAWS}, MissForest 1). Energy distance of "
        "completed rows to true ones and CRPS of the gaps that are numbers, both in standard "
        "deviations of the columns, the former of disjoint halves: less is better. To reach: "
        "energy distance and CRPS at most miceforest's on half of the tables, coverage of 87 to "
        "93 %.",
    )
    for table in dict.fromkeys(row["table"] for row in ledger.rows):
        lines += [f"### {table}", "", f"| | seeds | {' | '.join(FIGURES.values())} | |"]
        lines += [f"|---|{'--:|' * (len(FIGURES) + 1)}---|"]
        for name in IMPUTERS:
            rows = ledger.of(table, name)
            cells = [
                cell([row[k] for row in rows if row[k] == row[k]], DIGITS.get(k, 3))
                for k in FIGURES
            ]
            note = rows[-1].get("note", "") if rows else ""
            lines += [f"| {name} | {len(rows)} | {' | '.join(cells)} | {note} |"] if rows else []
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    names = ["adult", "diamonds", "wine", "breast_cancer"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--tables", nargs="*", default=names, choices=names)
    parser.add_argument("--makers", nargs="*", default=list(IMPUTERS), choices=list(IMPUTERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    ledger = Ledger(SECTION, Path(__file__).with_name("imputation.jsonl"))
    for table in args.tables:
        if table in TASKS and not args.data.is_dir():
            print(f"{table} is left out: no folder {str(args.data)!r}; give one with --data")
            continue
        for seed in args.seeds:
            whole = table_of(table, args.data, seed)
            holed, gaps = with_gaps(whole, seed)
            for name in args.makers:
                start = time.monotonic()
                try:
                    imputer = IMPUTERS[name]()
                    filled = imputer.fill(holed, args.minutes, seed)
                except Exception as error:
                    print(f"{table}, {name} is left out: {error!r}", file=sys.stderr)
                    continue
                seconds = {"seconds": time.monotonic() - start}
                figures = scored(whole, gaps, filled) | seconds | {"note": imputer.note}
                ledger.keep({"table": table, "maker": name, "seed": seed} | figures)
    ledger.write(section(ledger))


if __name__ == "__main__":
    main()
