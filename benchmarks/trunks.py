"""Trunks for the same time: the perceptron and transformers over the sites, on two real tables.

Run ``python benchmarks/trunks.py --data FOLDER``, where FOLDER (``data`` if left out) holds
diamonds.csv.gz and magic_gamma.csv.gz. Every fit is appended to ``trunks.jsonl`` beside this file,
so that a long run can be made in parts (``--tables``, ``--makers``, ``--seeds``); the section of
RESULTS.md is written from what is there. The held-out loss is the one that training minimizes, on
rows that no part of it has seen, with the same clocks and noise for every network of a seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import reversal as rv
from benchmarks._records import Ledger, cell
from benchmarks._tables import TASKS, Task
from benchmarks.tables import compared, floors

SECTION = "## Trunks"
TABLES = ("magic_gamma", "diamonds")
NETWORKS = {
    "perceptron, 4 blocks of 256": rv.Perceptron(),
    "transformer, 2 blocks of 32": rv.Transformer(32, 2, 2),
    "transformer, 3 blocks of 64": rv.Transformer(),
}
UNTRAINED = "perceptron, not trained"
PASSES = 4
FIGURES = {
    "loss": ("held-out loss", 4),
    "loss_stderr": ("its standard error", 4),
    "shape_test": ("Shape error, %", 3),
    "auc": ("C2ST AUC", 3),
    "steps": ("steps", 0),
    "fit_seconds": ("fit, s", 0),
    "cpu_seconds": ("CPU, s", 0),
    "draw_seconds": ("draw, s", 0),
}


def held_out(model: rv.Model, rows: Any, seed: int) -> dict[str, float]:
    """Return the mean loss of rows and its standard error, over several draws for each."""
    generator = torch.Generator().manual_seed(seed)
    states, present = model.source_.encode(rows, seed)
    sums = torch.zeros(len(rows), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(PASSES):
            for index in torch.arange(len(rows)).split(512):
                part, seen = ({k: v[index] for k, v in tree.items()} for tree in (states, present))
                loss = rv.Regression()(model.denoiser_, part, observed=seen, generator=generator)
                sums[index] += loss.double() / PASSES
    return {"loss": float(sums.mean()), "loss_stderr": float(sums.std()) / len(sums) ** 0.5}


def measured(task: Task, model: rv.Model, folder: Path, seed: int) -> dict[str, Any]:
    """Fit a model, draw as many rows as it was fitted to, and compare with rows held out."""
    train, test = task.split(folder, seed)
    start, worked = time.monotonic(), time.process_time()
    model.fit(train)
    fitted, worked = time.monotonic(), time.process_time() - worked
    drawn = model.sample(len(train), seed=seed)
    done = time.monotonic()
    seconds = {"fit_seconds": fitted - start, "cpu_seconds": worked, "draw_seconds": done - fitted}
    weights = sum(part.numel() for part in model.denoiser_.network.parameters())
    return (
        {"steps": model.trace_.steps, "note": f"{weights:,} weights; {model.trace_.ended}"}
        | held_out(model, test, seed)
        | seconds
        | compared(train, test, drawn, seed)
    )


def models(minutes: float, seed: int) -> dict[str, rv.Model]:
    """Return what is compared, untrained: the baseline, and each network with the same time."""
    quiet: dict[str, Any] = {"seed": seed, "show_progress": False}
    fitted = {
        name: rv.Model(minutes, network=network, **quiet) for name, network in NETWORKS.items()
    }
    return {UNTRAINED: rv.Model(steps=1, learning_rate=1e-12, **quiet)} | fitted


def section(ledger: Ledger) -> str:
    """Return the section of RESULTS.md: mean and spread over the seeds that were measured."""
    lines = ledger.heading(
        "python benchmarks/trunks.py --data FOLDER",
        "Each network is given the same time by the clock, all else by default. Where the machine "
        "did other work they got unlike shares of it: compare the processor time first, and know "
        "that one whose time was up had not come to the end of its schedule. Loss, Shape error "
        "and C2ST are against the rows held out; a network that was not trained predicts 0, the "
        "best linear estimate of a number alone and an even law of a category.",
    )
    for place in dict.fromkeys(row["table"] for row in ledger.rows):
        titles = [title for title, _ in FIGURES.values()]
        lines += [f"### {place}", "", f"| | seeds | {' | '.join(titles)} | |"]
        lines += [f"|---|{'--:|' * (1 + len(titles))}---|"]
        for maker in ("floor", UNTRAINED, *NETWORKS):
            lines += [_line(maker, rows) for rows in [ledger.of(place, maker)] if rows]
        lines += [""]
    return "\n".join(lines)


def _line(maker: str, rows: list[dict[str, Any]]) -> str:
    cells = [
        cell([row[key] for row in rows if key in row], digits)
        for key, (_, digits) in FIGURES.items()
    ]
    notes = [rows[-1]["note"], rows[-1].get("remark", "")]
    told = "; ".join(note for note in notes if note)
    return f"| {maker} | {len(rows)} | {' | '.join(cells)} | {told} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--makers", nargs="*", default=[UNTRAINED, *NETWORKS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--remark", default="", help="what else is to be known of this run")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"left out: no folder {str(args.data)!r}; give one with --data")
        return
    ledger = Ledger(SECTION, Path(__file__).with_name("trunks.jsonl"))
    for table in args.tables:
        for seed in args.seeds:
            task, words = TASKS[table], {"minutes": args.minutes, "remark": args.remark}
            place = {"table": f"{table}, {args.minutes:g} minutes", "seed": seed} | words
            floor = floors(task, args.data, seed)
            floor["shape_test"] = floor.pop("shape")
            ledger.keep(place | {"maker": "floor"} | floor)
            for name, model in models(args.minutes, seed).items():
                if name in args.makers:
                    ledger.keep(place | {"maker": name} | measured(task, model, args.data, seed))
    ledger.write(section(ledger))


if __name__ == "__main__":
    main()
