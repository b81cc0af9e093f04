"""Posteriors from simulations: how well a classifier tells them from exact ones.

Two tasks of Lueckmann et al. (2021), "Benchmarking simulation-based inference": two moons, whose
posterior is drawn exactly here (two crescents, by the map from parameters to data), and SLCP, a
simple likelihood with a posterior of four modes, drawn by Metropolis. Their score: the accuracy, by
five folds, of a perceptron of two layers of 10 d units that tells draws from draws of the
reference; 0.5 is as good as exact. The prior and the nearest hundredth of the simulations stand
below, sbi's NPE beside where sbi is installed, and `Model`, which learns the joint law of
parameters and data. Evidence is drawn here, so that published figures are of other evidence.

Run: python benchmarks/posteriors.py [--tasks "two moons" SLCP] [--budgets 1000 10000 100000]
     [--seeds 0 1 2] [--evidence 5] [--draws 1000]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from _records import Ledger, cell
from torch import Tensor

import reversal as rv

LEDGER: Final = Ledger("## Posteriors from simulations", Path(__file__).with_suffix(".jsonl"))
Posterior = Callable[[int, Tensor], Tensor]
"""Draws of the parameters given one evidence."""


class TwoMoons:
    """Uniform on [-1, 1]^2; the data are a crescent, moved by |a + b| and b - a."""

    name, size, limit = "two moons", 2, 1.0

    def simulate(self, theta: Tensor, rng: torch.Generator) -> Tensor:
        """A point of the crescent, moved."""
        a, b = theta.T
        move = torch.stack([-(a + b).abs(), b - a], 1) / math.sqrt(2)
        return self._crescent(len(theta), rng) + move

    def exact(self, n: int, x: Tensor, rng: torch.Generator) -> Tensor:
        """The map from parameters to the move keeps areas and is two to one: no weights."""
        kept = torch.empty(0, 2, dtype=torch.float64)
        while len(kept) < n:
            move = math.sqrt(2) * (x - self._crescent(4 * n, rng))
            total, gap = move.T
            total = total * (1 - 2 * torch.randint(2, (4 * n,), generator=rng))
            theta = torch.stack([(total - gap) / 2, (total + gap) / 2], 1)
            inside = (move[:, 0] <= 0) & (theta.abs() <= self.limit).all(1)
            kept = torch.cat([kept, theta[inside]])
        return kept[:n]

    def _crescent(self, n: int, rng: torch.Generator) -> Tensor:
        angle = math.pi * (torch.rand(n, generator=rng, dtype=torch.float64) - 0.5)
        radius = 0.1 + 0.01 * torch.randn(n, generator=rng, dtype=torch.float64)
        return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


class SLCP:
    """Uniform on [-3, 3]^5; four draws of a normal law of the plane, deviations by squares."""

    name, size, limit = "SLCP", 5, 3.0

    def simulate(self, theta: Tensor, rng: torch.Generator) -> Tensor:
        """Means, squares of the third and fourth, tanh of the fifth as correlation."""
        z = torch.randn(len(theta), 4, 2, generator=rng, dtype=torch.float64)
        first, second, rho = (
            theta[:, 2, None] ** 2,
            theta[:, 3, None] ** 2,
            theta[:, 4, None].tanh(),
        )
        other = rho * z[..., 0] + (1 - rho**2).sqrt() * z[..., 1]
        place = torch.stack([first * z[..., 0], second * other], -1)
        return (theta[:, None, :2] + place).flatten(1)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Up to a constant."""
        first, second, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, theta[:, 4].tanh()
        u, v = ((x.view(4, 2) - theta[:, None, :2]) / theta[:, None, 2:4] ** 2).unbind(-1)
        rest = 1 - rho**2
        square = (u**2 + v**2 - 2 * rho[:, None] * u * v).sum(1) / rest
        return -4 * (first.log() + second.log() + rest.log() / 2) - square / 2

    def exact(self, n: int, x: Tensor, rng: torch.Generator) -> Tensor:
        """Metropolis from the likeliest of many; signs of what is squared are drawn at last."""
        theta = prior(self, 400 * n, rng)
        log_p = self.log_likelihood(theta, x)
        chosen = torch.multinomial((log_p - log_p.max()).exp(), n, True, generator=rng)
        theta, log_p = theta[chosen], log_p[chosen]
        for _ in range(600):
            step = torch.randn(n, self.size, generator=rng, dtype=torch.float64)
            far = 10 ** (-2 * torch.rand(n, 1, generator=rng, dtype=torch.float64))
            there = theta + far * step * theta.std(0)
            is_legal = (there.abs() <= self.limit).all(1)
            then = self.log_likelihood(there, x)
            u = torch.rand(n, generator=rng, dtype=torch.float64)
            moves = is_legal & (u.log() < then - log_p)
            theta, log_p = (
                torch.where(moves[:, None], there, theta),
                torch.where(moves, then, log_p),
            )
        sign = 1 - 2 * torch.randint(2, (n, 2), generator=rng)
        theta[:, 2:4] *= sign
        return theta


TASKS: Final = {task.name: task for task in (TwoMoons(), SLCP())}


def prior(task: Any, n: int, rng: torch.Generator) -> Tensor:
    """Uniform on the box."""
    return task.limit * (2 * torch.rand(n, task.size, generator=rng, dtype=torch.float64) - 1)


def c2st(x: Tensor, y: Tensor) -> float:
    """Lueckmann et al. (2021), section 3.2, as in sbibm and sbi."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, deviation, width = y.mean(0), y.std(0), 10 * y.shape[1]
    both = torch.cat([(x - mean) / deviation, (y - mean) / deviation]).numpy()
    label = torch.cat([torch.zeros(len(x)), torch.ones(len(y))]).numpy()
    judge = MLPClassifier((width, width), max_iter=1000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    return float(cross_val_score(judge, both, label, cv=folds, scoring="accuracy").mean())


def from_prior(task: Any, theta: Tensor, x: Tensor, seed: int) -> Posterior:
    """What is known without data."""
    rng = torch.Generator().manual_seed(seed)
    return lambda n, _: prior(task, n, rng)


def nearest(task: Any, theta: Tensor, x: Tensor, seed: int) -> Posterior:
    """Rejection: the hundredth of the simulations whose data are nearest, in deviations."""
    rng, scale = torch.Generator().manual_seed(seed), x.std(0)

    def draw(n: int, seen: Tensor) -> Tensor:
        near = ((x - seen) / scale).norm(dim=1).topk(max(len(x) // 100, 10), largest=False).indices
        return theta[near[torch.randint(len(near), (n,), generator=rng)]]

    return draw


def amortized(task: Any, theta: Tensor, x: Tensor, seed: int) -> Posterior:
    """`AmortizedPosterior` as it comes."""
    edge = torch.full((task.size,), task.limit, dtype=torch.float64)
    model = rv.AmortizedPosterior(rv.Box(-edge, edge), seed=seed, show_progress=False)
    model.fit(theta, x)
    return lambda n, seen: model.sample(n, seen, seed=seed).double()


def joint(task: Any, theta: Tensor, x: Tensor, seed: int) -> Posterior:
    """`Model` of a table of parameters and data, as it comes."""
    names = [f"theta_{k}" for k in range(task.size)]
    seen_names = [f"x_{k}" for k in range(x.shape[1])]
    frame = pd.DataFrame(torch.cat([theta, x], 1).numpy(), columns=[*names, *seen_names])
    model = rv.Model(seed=seed).fit(frame)

    def draw(n: int, seen: Tensor) -> Tensor:
        given = dict(zip(seen_names, seen.tolist(), strict=True))
        return torch.as_tensor(model.sample(n, given=given, seed=seed)[names].to_numpy())

    return draw


def npe(task: Any, theta: Tensor, x: Tensor, seed: int) -> Posterior:
    """sbi's neural posterior estimation as it comes."""
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    edge = torch.full((task.size,), task.limit)
    inference = NPE(prior=BoxUniform(-edge, edge))
    inference.append_simulations(theta.float(), x.float()).train()
    posterior = inference.build_posterior()
    return lambda n, seen: posterior.sample(
        (n,), x=seen.float()[None], show_progress_bars=False
    ).double()


MAKERS: Final = {
    "prior": from_prior,
    "nearest hundredth": nearest,
    "AmortizedPosterior": amortized,
    "Model": joint,
}


def measure(chosen: argparse.Namespace) -> None:
    """Fit every maker, draw for every evidence, and keep the mean score."""
    makers = MAKERS | ({"sbi NPE": npe} if importlib.util.find_spec("sbi") else {})
    for name in chosen.tasks:
        task = TASKS[name]
        for seed in chosen.seeds:
            rng = torch.Generator().manual_seed(seed)
            truths = prior(task, chosen.evidence, rng)
            seen = task.simulate(truths, rng)
            exact = [task.exact(chosen.draws, x, rng) for x in seen]
            twins = [task.exact(chosen.draws, x, rng) for x in seen]
            floor = [c2st(*pair) for pair in zip(exact, twins, strict=True)]
            keep(name, "exact draws", seed, floor, 0.0)
            for budget in chosen.budgets:
                theta = prior(task, budget, rng)
                x = task.simulate(theta, rng)
                for maker in chosen.makers or makers:
                    start = time.perf_counter()
                    draw = makers[maker](task, theta, x, seed)
                    seconds = time.perf_counter() - start
                    scores = [
                        c2st(draw(chosen.draws, x_o), y) for x_o, y in zip(seen, exact, strict=True)
                    ]
                    keep(f"{name}, {budget:,} simulations", maker, seed, scores, seconds)


def keep(table: str, maker: str, seed: int, scores: list[float], seconds: float) -> None:
    """One line of the ledger."""
    mean = sum(scores) / len(scores)
    row = {"table": table, "maker": maker, "seed": seed, "c2st": mean, "seconds": seconds}
    LEDGER.keep(row | {"scores": scores})


def report() -> str:
    """The section of RESULTS.md."""
    words = (
        "Accuracy of a classifier between draws and exact draws, mean over the evidence: 0.5 is as "
        "good as exact. Every seed has its own evidence, simulations and weights."
    )
    lines = LEDGER.heading("python benchmarks/posteriors.py", words)
    lines += ["| | | C2ST | s to fit |", "|---|---|--:|--:|"]
    for table, maker in dict.fromkeys((row["table"], row["maker"]) for row in LEDGER.rows):
        rows = LEDGER.of(table, maker)
        score = cell([row["c2st"] for row in rows], 3)
        lines.append(f"| {table} | {maker} | {score} | {cell([r['seconds'] for r in rows], 0)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--budgets", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--makers", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--evidence", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000)
    measure(parser.parse_args())
    LEDGER.write(report())
