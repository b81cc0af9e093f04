"""What a range costs: rows of a rare condition against free rows, and how many they are worth.

A table of 20,000 rows with six correlated numbers and two categories is fitted for a number of
steps; what is timed does not depend on how well. Prints, for each condition, the share of the rows
that meet it, what the model says, the effective sample size, and the time over that of free rows.

    python benchmarks/conditions.py [--steps 1500] [--rows 1000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch

import reversal as rv

PROMISED = 5.0


def table(n=20_000):
    rng = np.random.default_rng(0)
    common = rng.normal(size=n)
    numbers = 0.7 * common[:, None] + 0.7 * rng.normal(size=(n, 6))
    frame = pd.DataFrame(numbers, columns=[f"x{j}" for j in range(6)])
    frame["age"] = (45 + 14 * frame.pop("x0")).round().clip(17, 90).astype(int)
    frame["pay"] = np.exp(10 + 0.5 * frame.pop("x1")).round(2)
    frame["job"] = np.where(common + rng.normal(size=n) > 1, "smith", "clerk")
    frame.loc[rng.random(n) < 0.2, "job"] = "cook"
    frame["sex"] = rng.choice(["F", "M"], n)
    return frame


def conditions(data):
    high = float(data["pay"].quantile(0.8))
    return {
        "one range": (
            {"age": rv.between(73, None)},
            data["age"] >= 73,
        ),
        "two ranges": (
            {"age": rv.between(60, None), "pay": rv.between(None, high / 2)},
            (data["age"] >= 60) & (data["pay"] <= high / 2),
        ),
        "range, set and value": (
            {"age": rv.between(65, None), "job": rv.one_of("cook", "smith"), "sex": "F"},
            (data["age"] >= 65) & data["job"].isin(["cook", "smith"]) & (data["sex"] == "F"),
        ),
        "three ranges": (
            {"age": rv.between(50, None), "pay": rv.between(high, None), "x2": rv.between(0.5, 1)},
            (data["age"] >= 50) & (data["pay"] >= high) & data["x2"].between(0.5, 1),
        ),
    }


def timed(model, rows, given):
    found = []
    start = time.perf_counter()
    drawn = model.sample(rows, given=given, seed=1, on_evidence=found.append)
    return time.perf_counter() - start, drawn, found[0] if found else None


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--rows", type=int, default=1000)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    data = table()
    model = rv.Model(steps=chosen.steps).fit(data)
    timed(model, 100, None)
    free = min(timed(model, chosen.rows, None)[0] for _ in range(3))
    print(f"{chosen.rows} free rows: {free:.2f} s")
    print(f"{'condition':<22}{'share':>8}{'model':>8}{'worth':>8}{'draws':>8}{'time':>8}")
    slowest = 0.0
    for name, (given, holds) in conditions(data).items():
        seconds, _, evidence = timed(model, chosen.rows, given)
        within = data["sex"] == given["sex"] if "sex" in given else data["age"] > 0
        share = (holds & within).sum() / within.sum()
        slowest = max(slowest, seconds / free)
        print(
            f"{name:<22}{share:>8.2%}{evidence.prob:>8.2%}{evidence.effective_size:>8.0f}"
            f"{evidence.num_draws:>8}{seconds / free:>7.1f}x"
        )
    kept = "kept" if slowest <= PROMISED else "BROKEN"
    print(f"slowest {slowest:.1f}x, promised at most {PROMISED:.0f}x: {kept}")


if __name__ == "__main__":
    main()
