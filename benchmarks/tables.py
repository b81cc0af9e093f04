"""Synthetic tables: ours beside CTGAN, TVAE and ForestDiffusion, on four real tables.

Run ``python benchmarks/tables.py --data FOLDER``, where FOLDER (``data`` if left out) holds
adult_train.csv.gz, adult_test.csv.gz, diamonds.csv.gz, magic_gamma.csv.gz and wa_churn.csv.gz.
Every fit is appended to ``tables.jsonl`` beside this file, so that a long run can be made in parts
(``--tables``, ``--makers``, ``--seeds``); the section of RESULTS.md is written from what is there.
A rival may take three times the time of our fit of the same seed, or of our budget if there is none
yet. Makers whose packages are not installed are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks._records import Ledger, cell
from benchmarks._rivals import MAKERS, Maker
from benchmarks._tables import TASKS, Task
from reversal.metrics import aligned, c2st, shape, trend

SECTION = "## Tables"
MOST = 16_000
RIVALS_TIME = 3
FIGURES = {
    "shape": "Shape error, %",
    "shape_test": "against held out",
    "trend": "Trend error, %",
    "trend_test": "against held out",
    "auc": "C2ST AUC",
    "fit_seconds": "fit, s",
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
    """Return the seconds that a maker may fit."""
    if maker == "reversal":
        return 60 * TASKS[table].minutes
    ours = [row["fit_seconds"] for row in ledger.of(table, "reversal") if row["seed"] == seed]
    return RIVALS_TIME * (ours[0] if ours else 60 * TASKS[table].minutes)


def measured(task: Task, maker: Maker, folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Fit a maker within the time, draw as many rows as it was fitted to, and compare."""
    train, test = task.split(folder, seed)
    start = time.monotonic()
    maker.fit(train, seconds, seed)
    fitted = time.monotonic()
    drawn = maker.draw(len(train), seed)
    done = time.monotonic()
    took = {"fit_seconds": fitted - start, "draw_seconds": done - fitted}
    return took | compared(train, test, drawn, seed) | {"note": maker.note}


def floors(task: Task, folder: Path, seed: int) -> dict[str, Any]:
    """Return what real rows come to: train against held out, halves of either side by side."""
    train, test = task.split(folder, seed)
    first, held = aligned(train, test)
    return {
        "shape": 100 * shape(first, held).error,
        "trend": 100 * trend(first, held).error,
        "auc": c2st(held, first, most=MOST, seed=seed).value,
        "note": "train against held out",
    }


def section(ledger: Ledger) -> str:
    """Return the section of RESULTS.md: mean and spread over the seeds that were measured."""
    lines = ledger.heading(
        "python benchmarks/tables.py --data FOLDER",
        f"Default settings; a rival may take {RIVALS_TIME} times our time. C2ST: gradient "
        f"boosting, at most {MOST:,} rows of either side, 3 folds, against held-out rows.",
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
    return f"To reach in {task.minutes} minutes: {', '.join(bars)}."


def _head() -> list[str]:
    return [f"| | seeds | {' | '.join(FIGURES.values())} | |", f"|---|{'--:|' * 8}---|"]


def _line(maker: str, rows: list[dict[str, Any]]) -> str:
    cells = [
        cell([row[key] for row in rows if key in row], 0 if "seconds" in key else 3)
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
