"""Error against network calls, on laws whose flow and draws are exact: docs/accuracy.md.

`orders`: every sampler under every schedule, on a broad mixture: the error on the process's own
grid, and the slope on a smooth grid beside the order that theory predicts. `laws`: the same for
samplers that draw noise, by the distance to exact draws and its floor. `budgets`: ours and those of
diffusers, azula and flow_matching, where installed, at 5, 10, 20 and 50 calls on mixtures of 25
components in 2 dimensions and of 10 in 16, seed by seed. Aimed at: at each budget the first sampler
of ours is nearest to the exact flow; the page says where it is.

Run: python benchmarks/accuracy.py [--parts orders laws budgets] [--seeds 0 1 2 3 4]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from _mixtures import Kind, Problem, Single, off_the_flow, sliced
from _records import Ledger, cell
from _walks import OURS, Counted, Ours, Walk, peers

import reversal as rv

CALLS: Final = (5, 10, 20, 50)
TRAJECTORIES: Final = 256
DRAWS: Final = 1000
KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("25 components in 2 dimensions", 25, 2, 0.15),
        Kind("10 components in 16 dimensions", 10, 16, 0.15),
        Single("one normal law, a diagnostic"),
    )
}
BROAD: Final = Kind("broad", 3, 2, 0.6)
SCHEDULES: Final = {
    "VariancePreserving": rv.VariancePreserving(),
    "QuadraticBeta": rv.QuadraticBeta(),
    "Cosine": rv.Cosine(),
    "OrnsteinUhlenbeck": rv.OrnsteinUhlenbeck(),
    "SubVariancePreserving": rv.SubVariancePreserving(),
    "Betas.linear(1000)": rv.Betas.linear(1000),
    "VarianceExploding": rv.VarianceExploding(),
    "Karras": rv.Karras(),
    "Rectified": rv.Rectified(),
}
ORDERS: Final[dict[str, tuple[Any, int, int]]] = {
    "Euler(churn=0)": (rv.Euler(churn=0), 1, 1),
    "Ancestral(eta=0)": (rv.Ancestral(eta=0), 1, 1),
    "Heun()": (rv.Heun(), 2, 2),
    "Multistep(2, eta=0)": (rv.Multistep(2, eta=0), 2, 1),
    "Multistep(3, eta=0)": (rv.Multistep(3, eta=0), 3, 1),
    "DEIS(2)": (rv.DEIS(2), 2, 1),
    "DEIS(3)": (rv.DEIS(3), 3, 1),
    "DEIS(4)": (rv.DEIS(4), 4, 1),
    "UniPC(1)": (rv.UniPC(1), 2, 1),
    "UniPC(2)": (rv.UniPC(2), 3, 1),
    "UniPC(3)": (rv.UniPC(3), 4, 1),
}
NOISY: Final[dict[str, tuple[Any, int | None, int]]] = {
    "Euler()": (rv.Euler(), 1, 1),
    "Ancestral()": (rv.Ancestral(), 1, 1),
    "Multistep()": (rv.Multistep(), 2, 1),
    "Heun.edm": (rv.Heun.edm(16), None, 2),
    "PredictorCorrector()": (rv.PredictorCorrector(rv.Ancestral()), None, 2),
}
LEDGER = Ledger("# Accuracy", Path(__file__).with_suffix(".jsonl"))
PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"


def slope(steps: Iterable[int], errors: Iterable[float]) -> float:
    """Minus the slope of log error against log steps."""
    return -float(np.polyfit(np.log(list(steps)), np.log(list(errors)), 1)[0])


def smooth(schedule: Any, steps: int) -> rv.Grid:
    """From ratio 4 to 0.1: log-ratios whose steps start and end short."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    ends = torch.tensor([4.0, 0.1], dtype=torch.float64).log()
    logs = ends[0] + (ends[1] - ends[0]) * (3 * u**2 - 2 * u**3)
    return rv.Grid(schedule.time_of(-logs))


def on_the_smooth_grid(problem: Problem, walk: Ours, steps: int) -> float:
    """The distance to the flow at the end of the smooth grid, in units of the data."""
    grid = smooth(walk.schedule, steps)
    signal = walk.schedule.signal(grid.times)
    ratios = (signal.sigma / signal.alpha).tolist()
    denoiser = walk.denoiser(Counted(problem), problem.noise.shape[1])
    x_1 = signal.alpha[0] * problem.at(ratios[0])
    x = walk.sampler.sample(denoiser, len(x_1), grid=grid, x_1=x_1)
    return off_the_flow(x / signal.alpha[-1], problem.at(ratios[-1]))


def measure_orders() -> None:
    """Every flow sampler under every schedule."""
    problem, counts = BROAD.problem(0, 128), (48, 96, 192)
    for name, (sampler, order, per_step) in ORDERS.items():
        for title, schedule in SCHEDULES.items():
            walk = Ours(name, sampler, per_step, schedule=schedule)
            found = [on_the_smooth_grid(problem, walk, steps) for steps in counts]
            row = {"table": "orders", "maker": f"{name} | {title}", "seed": 0, "order": order}
            own = {str(calls): flow_error(problem, walk, calls) for calls in CALLS}
            LEDGER.keep(row | {"slope": slope(counts, found), "own": own})


def measure_laws(draws: int = 4000) -> None:
    """Every sampler with noise under every schedule, against exact draws."""
    problem, counts = BROAD.problem(0, 1), (4, 8, 16, 32)
    rng = torch.Generator().manual_seed(7)
    exact = problem.draw(draws, rng)
    floor = sliced(problem.draw(draws, rng), exact)
    for name, (sampler, order, per_step) in NOISY.items():
        for title, schedule in SCHEDULES.items():
            walk = Ours(name, sampler, per_step, False, schedule)
            own = {
                str(calls): sliced(drawn(problem, walk, calls, draws, 11), exact)
                for calls in counts
            }
            row = {"table": "laws", "maker": f"{name} | {title}", "seed": 0, "order": order}
            LEDGER.keep(row | {"own": own, "floor": floor})


def flow_error(problem: Problem, walk: Walk, calls: int) -> float:
    """The distance to the end of the exact trajectories that the walk starts on."""
    rng = torch.Generator().manual_seed(0)
    return off_the_flow(
        walk.run(Counted(problem), problem.at(walk.first(calls)), calls, rng), problem.ends
    )


def drawn(problem: Problem, walk: Walk, calls: int, n: int, seed: int) -> torch.Tensor:
    """Draws from noise of the walk's own first variance."""
    rng = torch.Generator().manual_seed(seed)
    size = (1 + walk.first(calls) ** 2) ** 0.5
    z = torch.randn((n, problem.means.shape[1]), generator=rng, dtype=torch.float64)
    clean = Counted(problem)
    x = walk.run(clean, size * z, calls, rng)
    if clean.calls > calls:
        raise SystemExit(f"{walk.name} took {clean.calls} calls, more than {calls}")
    return x


def measure_budgets(seeds: list[int]) -> None:
    """Ours and theirs, by problem, seed and number of calls."""
    for seed in seeds:
        for name, kind in KINDS.items():
            problem = kind.problem(seed, TRAJECTORIES)
            rng = torch.Generator().manual_seed(1000 + seed)
            exact, again = problem.draw(DRAWS, rng), problem.draw(DRAWS, rng)
            floor = {str(calls): sliced(again, exact) for calls in CALLS}
            LEDGER.keep({"table": name, "maker": "exact draws", "seed": seed, "sliced": floor})
            for walk in [*OURS, *peers()]:
                row: dict[str, Any] = {"table": name, "maker": walk.name, "seed": seed}
                row["sliced"] = {
                    str(c): sliced(drawn(problem, walk, c, DRAWS, 2000 + seed), exact)
                    for c in CALLS
                }
                if walk.is_flow:
                    row["flow"] = {str(c): flow_error(problem, walk, c) for c in CALLS}
                LEDGER.keep(row)


def budget_table(name: str, what: str) -> list[str]:
    """One problem and one error: makers down, calls across, the least of each column in bold."""
    rows = [row for row in LEDGER.rows if row["table"] == name and what in row]
    makers = list(dict.fromkeys(row["maker"] for row in rows))
    values = {
        (maker, c): [row[what][str(c)] for row in LEDGER.of(name, maker)]
        for maker in makers
        for c in CALLS
    }
    tried = [maker for maker in makers if maker != "exact draws"]
    least = {c: min(float(np.mean(values[maker, c])) for maker in tried) for c in CALLS}
    lines = [f"| | {' | '.join(map(str, CALLS))} |", f"|---|{'--:|' * len(CALLS)}"]
    for maker in makers:
        cells = [bold(values[maker, c], maker != "exact draws", least[c]) for c in CALLS]
        lines.append(f"| {maker} | {' | '.join(cells)} |")
    return [*lines, ""]


def bold(values: list[float], is_tried: bool, least: float) -> str:
    """A mean with its spread, in bold where it is the least."""
    text = cell(values, 4)
    return f"**{text}**" if is_tried and np.mean(values) == least else text


def summary() -> list[str]:
    """Our first row beside the best peer of each problem and budget, seed by seed."""
    lines = ["| | calls | ours | best peer | its error | ours over its, by seed |"]
    lines += ["|---|--:|--:|---|--:|--:|"]
    ours = OURS[0].name
    names = [walk.name for walk in OURS]
    for table in list(KINDS)[:2]:
        rows = [row for row in LEDGER.rows if row["table"] == table and "flow" in row]
        others = list(dict.fromkeys(r["maker"] for r in rows if r["maker"] not in names))
        for c in map(str, CALLS if others else ()):
            mine = np.array([row["flow"][c] for row in LEDGER.of(table, ours)])
            theirs = {m: [row["flow"][c] for row in LEDGER.of(table, m)] for m in others}
            best = min(theirs, key=lambda maker: float(np.mean(theirs[maker])))
            logs = np.log(mine / np.array(theirs[best]))
            ends = np.exp([logs.mean(), logs.min(), logs.max()])
            ratio = f"{ends[0]:.2f} ({ends[1]:.2f} to {ends[2]:.2f})"
            errors = f"{mine.mean():.4f} | {best} | {np.mean(theirs[best]):.4f}"
            lines.append(f"| {table} | {c} | {errors} | {ratio} |")
    return [*lines, ""]


def order_table() -> list[str]:
    """Samplers and schedules down; order, slope and errors across."""
    lines = [
        f"| sampler | schedule | predicted | measured | {' | '.join(map(str, CALLS))} |",
        f"|---|---|--:|--:|{'--:|' * len(CALLS)}",
    ]
    for row in (row for row in LEDGER.rows if row["table"] == "orders"):
        sampler, title = row["maker"].split(" | ")
        errors = " | ".join(f"{row['own'][str(c)]:.2g}" for c in CALLS)
        lines.append(
            f"| `{sampler}` | `{title}` | {row['order']} | {row['slope']:.2f} | {errors} |"
        )
    return [*lines, ""]


def law_table() -> list[str]:
    """Samplers and schedules down; order, slope above the floor and distances across."""
    rows = [row for row in LEDGER.rows if row["table"] == "laws"]
    counts = list(rows[0]["own"]) if rows else []
    lines = [
        f"| sampler | schedule | predicted | measured | {' | '.join(counts)} | exact draws |",
        f"|---|---|--:|--:|{'--:|' * len(counts)}--:|",
    ]
    for row in rows:
        sampler, title = row["maker"].split(" | ")
        seen = {int(c): v for c, v in row["own"].items() if v > 3 * row["floor"]}
        measured = f"{slope(seen, seen.values()):.2f}" if len(seen) > 2 else ""
        errors = " | ".join(f"{row['own'][c]:.3f}" for c in counts)
        orders = f"{row['order'] or ''} | {measured}"
        lines.append(f"| `{sampler}` | `{title}` | {orders} | {errors} | {row['floor']:.3f} |")
    return [*lines, ""]


def page() -> str:
    """The whole of docs/accuracy.md."""
    words = "float64, one thread."
    lines = LEDGER.heading("python benchmarks/accuracy.py", words)
    lines += [INTRODUCTION, "", OF_PEERS, "", *summary()]
    for name in (name for name in KINDS if LEDGER.of(name, "exact draws")):
        lines += [f"## {name[0].upper() + name[1:]}", "", OFF_THE_FLOW, ""]
        lines += [*budget_table(name, "flow"), OFF_THE_LAW, "", *budget_table(name, "sliced")]
    lines += ["## A trained image network", "", "Not measured yet.", ""]
    lines += ["## Every flow sampler under every schedule", "", OF_ORDERS, "", *order_table()]
    lines += ["## Every sampler that draws noise", "", OF_LAWS, "", *law_table()]
    return "\n".join(lines)


INTRODUCTION: Final = """\
Generated; measurements are in `benchmarks/accuracy.jsonl`. The network is the exact denoiser of a
mixture of normal laws with means of variance 1 and components of standard deviation 0.15 (0.6 in
the tables of orders), so that what is measured is the sampler and its grid. Each library takes its
own schedule and the grid that its arguments name; ours are on `VariancePreserving` and the
process's own grid unless another is named, and the first row is what `docs/choose.md` recommends
for few calls; the two numbers fitted in `Grid.share` were fitted on other seeds than these. A
number of calls is a bound: methods of two calls a step take as many steps as fit."""
OF_PEERS: Final = """\
Our first row beside the peer with the least mean error at that number of calls: means over the
seeds, and the geometric mean and range of the ratios. One trajectory of 256 that ends at another
component moves an error below 0.01 by as much as itself."""
OFF_THE_FLOW: Final = """\
Distance to the exact flow, root mean square per dimension: every sampler starts on the same exact
trajectories, at its own first noise level. The least of each column is bold."""
OFF_THE_LAW: Final = """\
Sliced Wasserstein distance of draws to as many exact ones, each sampler from the noise that its
users start with; of equal laws the row of exact draws."""
OF_ORDERS: Final = """\
Three broad components in 2 dimensions. `measured` is the slope of the error over 48, 96 and 192
steps of a smooth grid between the noise-to-signal ratios 4 and 0.1; the last columns are errors
from t = 1 to 0 on the process's own grid, by calls."""
OF_LAWS: Final = """\
The same law; sliced Wasserstein distance of 4,000 draws to 4,000 exact ones, by calls, and that of
as many exact draws. `measured` is the slope where at least three distances are above three times
that, which is far from the limit; the weak orders of `Euler` and `Multistep` are measured without
noise, by the exact moments of normal data, in `tests/samplers/test_order.py`."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="*", default=["orders", "laws", "budgets"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    if "orders" in asked.parts:
        measure_orders()
    if "laws" in asked.parts:
        measure_laws()
    if "budgets" in asked.parts:
        measure_budgets(asked.seeds)
    PAGE.write_text(f"{page().rstrip()}\n", "utf-8")
