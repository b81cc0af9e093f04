"""Synthetic tables: ours beside CTGAN, TVAE and ForestDiffusion, on four real tables.

Run ``python benchmarks/tables.py --data FOLDER``, where FOLDER (``data`` if left out) holds
adult_train.csv.gz, adult_test.csv.gz, diamonds.csv.gz, magic_gamma.csv.gz and wa_churn.csv.gz.
Every fit is appended to ``tables.jsonl`` beside this file, so that a long run can be made in parts
(``--tables``, ``--makers``, ``--seeds``); the section of RESULTS.md is written from what is there.
A rival may take three times the processor time of our fit of the same seed, or of our budget if
there is none yet. Makers whose packages are not installed are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks._records import Ledger, cell
from benchmarks._rivals import MAKERS, Maker
from benchmarks._tables import RIVALS_TIME, TASKS, Task
from reversal.metrics import aligned, c2st, shape, trend

SECTION = "## Tables"
MOST = 16_000
FIGURES = {
    "shape": "Shape error, %",
    "shape_test": "against held out",
    "trend": "Trend error, %",
    "trend_test": "against held out",
    "auc": "C2ST AUC",
    "label_auc": "AUC of the label",
    "fit_seconds": "fit, s",
    "fit_cpu": "its CPU, s",
    "draw_seconds": "draw, s",
}


def compared(train: Any, test: Any, drawn: Any, seed: int) -> dict[str, float]:
    """Return the figures of drawn rows: errors in percent, and the two-sample AUC."""
    first, held, other = aligned(train, test, drawn)
    return {
        "shape": 100 * shape(first, other).error,
        "shape_test": 100 * shape(held, other).error,
        "trend": 100 * trend(first, other).error,
        "trend_test": 100 * trend(held, other).error,
        "auc": c2st(held, other, most=MOST, seed=seed).value,
    }


def allowed(ledger: Ledger, table: str, maker: str, seed: int) -> float:
    """Return the seconds that a maker may fit, for rivals of processor time."""
    if maker == "reversal":
        return 60 * TASKS[table].minutes
    ours = [
        row.get("fit_cpu", row["fit_seconds"])
        for row in ledger.of(table, "reversal")
        if row["seed"] == seed
    ]
    return RIVALS_TIME * (ours[0] if ours else 60 * TASKS[table].minutes)


def measured(task: Task, maker: Maker, folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Fit a maker within the time, draw as many rows as it was fitted to, and compare."""
    train, test = task.split(folder, seed)
    start, cpu = time.monotonic(), time.process_time()
    maker.fit(train, seconds, seed)
    fitted, cpu = time.monotonic(), time.process_time() - cpu
    drawn = maker.draw(len(train), seed)
    done = time.monotonic()
    took = {"fit_seconds": fitted - start, "fit_cpu": cpu, "draw_seconds": done - fitted}
    figures = compared(train, test, drawn, seed)
    if task.label and (chances := maker.predict(test, task.label)) is not None:
        figures["label_auc"] = label_auc(test[task.label], chances)
    return took | figures | {"note": maker.note}


def label_auc(labels: Any, chances: Any) -> float:
    """Return the area under the curve of chances of a label of two values."""
    return float(roc_auc_score(labels == chances.columns[1], chances.iloc[:, 1]))


def boosted(train: Any, test: Any, label: str) -> Any:
    """Return what gradient boosting on the real rows gives each value of a label."""
    kinds = {name: "category" for name in train if not is_numeric_dtype(train[name])}
    train, test = train.astype(kinds), test.astype(kinds)
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    model.fit(train.drop(columns=label), train[label])
    chances = model.predict_proba(test.drop(columns=label))
    return pd.DataFrame(chances, columns=model.classes_, index=test.index)


def floors(task: Task, folder: Path, seed: int) -> dict[str, Any]:
    """Return what real rows come to: train against held out, halves of either side by side."""
    train, test = task.split(folder, seed)
    first, held = aligned(train, test)
    label = task.label
    known = {"label_auc": label_auc(test[label], boosted(train, test, label))} if label else {}
    return known | {
        "shape": 100 * shape(first, held).error,
        "trend": 100 * trend(first, held).error,
        "auc": c2st(held, first, most=MOST, seed=seed).value,
        "note": "train against held out",
    }


def section(ledger: Ledger) -> str:
    """Return the section of RESULTS.md: mean and spread over the seeds that were measured."""
    lines = ledger.heading(
        "python benchmarks/tables.py --data FOLDER",
        f"Default settings; a rival may take {RIVALS_TIME} times our processor time. C2ST: "
        f"gradient boosting, at most {MOST:,} rows of either side, 3 folds, against held-out rows. "
        "The label is told from the rest of a held-out row: by `predict_proba`, and in the row of "
        "the floor by gradient boosting fitted to the real rows. Shape and Trend are held to the "
        "bars against the rows that were fitted; against held-out ones even these rows' own "
        "columns, drawn anew, err by more than the floor, see the shuffled ones.",
    )
    for table, task in TASKS.items():
        makers = [maker for maker in ("floor", *MAKERS) if ledger.of(table, maker)]
        if makers:
            lines += [f"### {table}", "", promise(task), "", *_head()]
            lines += [_line(maker, ledger.of(table, maker)) for maker in makers] + [""]
    return "\n".join(lines)


def promise(task: Task) -> str:
    """Return what is to be reached, in a sentence."""
    bars = [f"C2ST AUC at most {task.auc}"]
    bars += [f"Shape error at most {task.shape} %"] if task.shape else []
    bars += [f"Trend error at most {task.trend} %"] if task.trend else []
    bars += [f"Shape error at most {task.excess} points above the floor"] if task.excess else []
    bars += [f"AUC of `{task.label}` within 0.015 of boosting"] if task.label else []
    return f"To reach in {task.minutes} minutes: {', '.join(bars)}."


def _head() -> list[str]:
    return [
        f"| | seeds | {' | '.join(FIGURES.values())} | |",
        f"|---|{'--:|' * (len(FIGURES) + 1)}---|",
    ]


def _line(maker: str, rows: list[dict[str, Any]]) -> str:
    cells = [
        cell([row[key] for row in rows if key in row], 0 if key.startswith(("fit", "draw")) else 3)
        for key in FIGURES
    ]
    return f"| {maker} | {len(rows)} | {' | '.join(cells)} | {rows[-1].get('note', '')} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tables", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--makers", nargs="*", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"left out: no folder {str(args.data)!r}; give one with --data")
        return
    ledger = Ledger(SECTION, Path(__file__).with_name("tables.jsonl"))
    for table in args.tables:
        for seed in args.seeds:
            place = {"table": table, "seed": seed}
            ledger.keep(place | {"maker": "floor"} | floors(TASKS[table], args.data, seed))
            for name in args.makers:
                try:
                    seconds = allowed(ledger, table, name, seed)
                    figures = measured(TASKS[table], MAKERS[name](), args.data, seed, seconds)
                except Exception as error:
                    print(f"{table}, {name} is left out: {error!r}", file=sys.stderr)
                    continue
                ledger.keep(place | {"maker": name} | figures)
    ledger.write(section(ledger))


if __name__ == "__main__":
    main()
