r"""A planner: a model of paths that was trained on wandering, guided to a goal it never heard of.

Paths of 24 points cross a wall by one of two gaps. The model learns what a path is, wall and all,
from random ones. Where to start and where to go is evidence on its ends, and a storm over one gap
is a cost that came up later: both are said at planning time,

.. math:: p(\text{path} \mid \text{plan}) \propto p(\text{path})\,
   N(\text{ends}; \text{start and goal}, s^2)\, e^{-\text{cost}(\text{path})} .

Guided steps alone follow this law roughly; particles mend them by their weights. Source: Janner et
al. (2022), "Planning with diffusion for flexible behavior synthesis".
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

POINTS, GAPS, WIDTH, HALF = 24, (0.55, -0.55), 0.2, 0.1
START, GOAL = torch.tensor([-0.8, 0.6]), torch.tensor([0.8, 0.5])
STORM, RADIUS = torch.tensor([0.0, 0.6]), 0.35


def wandering(n: int, rng: torch.Generator) -> Tensor:
    """Smooth random paths from the left to the right through a random gap, ``(n, 24, 2)``."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    gap = torch.where(draw(0, 1) < 0.5, *GAPS) + draw(-0.1, 0.1)
    xs = [draw(-1, -0.6), draw(-0.4, -0.3), draw(0, 0), draw(0.3, 0.4), draw(0.6, 1)]
    ys = [draw(-0.9, 0.9), gap, gap, gap, draw(-0.9, 0.9)]
    knots = torch.stack([torch.stack(xs, 1), torch.stack(ys, 1)], 2)
    at = torch.linspace(0, 4, POINTS)
    share = (1 - (at[:, None] - torch.arange(5)).abs()).clamp_min(0)
    paths = share @ knots
    for _ in range(3):
        paths[:, 1:-1] = (paths[:, :-2] + 2 * paths[:, 1:-1] + paths[:, 2:]) / 4
    return paths


def crashes(paths: Tensor) -> Tensor:
    """Whether a path meets the wall, looked at ten times between two points."""
    share = torch.linspace(0, 1, 10)[:, None]
    fine = (paths[:, :-1, None] * (1 - share) + paths[:, 1:, None] * share).flatten(1, 2)
    clear = torch.stack([(fine[..., 1] - gap).abs() < WIDTH for gap in GAPS]).any(0)
    return ((fine[..., 0].abs() < HALF) & ~clear).any(1)


def storm(paths: Tensor) -> Tensor:
    """Minus the cost of a path, ``(B,)``: how deep its points are in the storm."""
    depth = (RADIUS - (paths - STORM).norm(dim=-1)).clamp_min(0)
    return -(depth.square()).sum(1) / (2 * 0.05**2)


class Network(nn.Module):
    """A perceptron over the flattened path and its time."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.first = nn.Linear(2 * POINTS + 16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(),
                          nn.Linear(width, width)) for _ in range(3)
        )  # fmt: skip
        self.last = nn.Linear(width, 2 * POINTS)

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        waves = t[:, None] * 2.0 ** torch.arange(8).to(t)
        h = self.first(torch.cat([x_t.flatten(1), waves.sin(), waves.cos()], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.last(h).view_as(x_t)


def trained(steps: int) -> rv.NetworkDenoiser:
    """Fit a model of paths; an average of the weights is kept."""
    process = rv.Gaussian(rv.Euclidean(POINTS, 2), rv.Cosine())
    denoiser = rv.NetworkDenoiser(Network(), process, rv.Preconditioned())
    mean = torch.optim.swa_utils.AveragedModel(
        denoiser.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.Adam(denoiser.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = rv.Regression()(denoiser, 2 * wandering(256, rng), generator=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean.update_parameters(denoiser.network)
    return rv.NetworkDenoiser(mean.module, process, rv.Preconditioned())


def plan(model: rv.NetworkDenoiser, has_storm: bool, rng: torch.Generator) -> Tensor:
    """64 plans, each drawn from particles of its own."""
    ends = rv.LinearObservation(
        lambda x: x[:, [0, -1]].flatten(1) / 2, torch.cat([START, GOAL]), 0.02
    )
    evidence: rv.guidance.evidence.Evidence = rv.MomentMatching(ends)
    if has_storm:
        evidence = rv.Together(evidence, rv.DPS(lambda x: storm(x / 2)))
    guided = rv.Reconstruction(model, evidence)
    run = rv.TwistedSMC().sample(guided, 32, steps=50, systems=64, generator=rng)
    return run.draw(1, rng) / 2


def show(panel: plt.Axes, paths: Tensor, title: str, has_storm: bool = False) -> None:
    for low, high in ((-1, -0.75), (-0.35, 0.35), (0.75, 1)):
        panel.fill_between([-HALF, HALF], low, high, color="0.3", lw=0)
    if has_storm:
        panel.add_patch(plt.Circle(STORM.tolist(), RADIUS, color="C3", alpha=0.25, lw=0))
    upper = paths[:, POINTS // 2, 1] > 0
    for path, is_upper in zip(paths, upper, strict=True):
        panel.plot(*path.T, color="C0" if is_upper else "C1", lw=0.6, alpha=0.6)
    panel.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[], aspect="equal", title=title)


def main(out: Path, steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(1)
    model = trained(steps)
    free = rv.Ancestral().sample(model, 400, steps=60, generator=rng) / 2
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    print("                 at start   at goal   by the upper gap   in the storm   into the wall")
    shares = {}
    laws = {"wandering": free} | {
        name: plan(model, has_storm, rng)
        for name, has_storm in (("to a goal", False), ("around a storm", True))
    }
    for panel, (name, paths) in zip(panels, laws.items(), strict=True):
        off = [(paths[:, k] - end).norm(dim=1).mean() for k, end in ((0, START), (-1, GOAL))]
        upper = (paths[:, POINTS // 2, 1] > 0).double().mean()
        wet, crashed = (storm(paths) < -1).double().mean(), crashes(paths).double().mean()
        shares[name] = [float(value) for value in (*off, upper, wet, crashed)]
        print(f"{name:14} {off[0]:10.3f} {off[1]:9.3f} {upper:18.2f} {wet:14.2f} {crashed:15.2f}")
        show(panel, paths[:40], name, name == "around a storm")
    assert shares["wandering"][4] < 0.1
    assert 0.3 < shares["wandering"][2] < 0.7
    for name in ("to a goal", "around a storm"):
        assert max(shares[name][:2]) < 0.08
        assert shares[name][4] < 0.15
    assert 0.25 < shares["to a goal"][2] < 0.75  # ends say nothing of the gap
    assert shares["around a storm"][2] < 0.1
    assert shares["around a storm"][3] < 0.15
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "planner.png", dpi=64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    arguments = parser.parse_args()
    main(arguments.out, arguments.steps)
