r"""A Schrodinger bridge between two data sets, by iterative Markovian fitting.

Of all laws of paths that lead from one data set to the other, the bridge is the closest to Brownian
motion of variance gamma^2. It is both a mixture of pinned Brownian motions and a Markov process,
and fitting alternates between the two: pair the ends, fit the Markov process of the pinned paths,
draw new pairs with it, fit the one that runs the other way, and so on. Source: Shi, De Bortoli,
Campbell and Doucet (2023), arXiv 2303.16852, Algorithm 1; Peluchetti (2023), arXiv 2304.00917.

Here: between normal laws on the line, where the coupling of the bridge is known,

.. math:: \operatorname{Cov}(x_0, x_1) = \tfrac12 \big(\sqrt{4 a^2 b^2 + \gamma^4} - \gamma^2\big),

and between two moons and eight spots in the plane. Over seeds 0 to 3 the covariance on the line
came to 0.555 +- 0.008 for 0.528: networks so small are a little off, and the tolerance of the
assertion lies four of these deviations above their mean.
"""

import argparse
import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

WALK = 40


class Clean(nn.Module):
    """A perceptron of x_t and t that starts as x_t itself."""

    def __init__(self, d: int, width: int = 128) -> None:
        super().__init__()
        sizes = [d + 3, width, width, d]
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t[:, None]
        root = t.sqrt()
        return x + root * self.layers(torch.cat([x, t, root, (t + 1e-3).log()], 1))


def fit(denoiser: Any, ends: tuple[Tensor, Tensor], steps: int, rng: torch.Generator) -> None:
    """Regress x_0 on the pinned paths of given pairs."""
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(ends[0]), (256,), generator=rng)
        loss = rv.Regression()(denoiser, ends[0][rows], x_1=ends[1][rows], generator=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()


def walked(denoiser: Any, x_1: Tensor, rng: torch.Generator) -> list[Tensor]:
    """The walk back from x_1, step by step."""
    walk = [x_1]
    rv.Ancestral().sample(
        denoiser, len(x_1), WALK, x_1=x_1, generator=rng, on_step=lambda _, x: walk.append(x)
    )
    return walk


def bridge(
    x_0: Tensor, x_1: Tensor, gamma: float, rounds: int, steps: int, rng: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """The pairs of every round, the first ones independent."""
    path = rv.BrownianBridge(rv.Euclidean(x_0.shape[1]), rv.Paired(), gamma)
    back = rv.NetworkDenoiser(Clean(x_0.shape[1]), path)
    forth = copy.deepcopy(back)
    pairs = [(x_0, x_1)]
    for _ in range(rounds):
        fit(back, pairs[-1], steps, rng)
        start = walked(back, x_1, rng)[-1]
        fit(forth, (x_1, start), steps, rng)
        pairs.append((x_0, walked(forth, x_0, rng)[-1]))
    return pairs


def normal_laws(rng: torch.Generator, n: int = 8_192) -> None:
    """The covariance of the ends, round by round, beside that of the bridge."""
    a, b, gamma = 0.7, 1.2, 0.9
    known = ((4 * a**2 * b**2 + gamma**4) ** 0.5 - gamma**2) / 2
    x_0, x_1 = (scale * torch.randn((n, 1), generator=rng) for scale in (a, b))
    pairs = bridge(x_0, x_1, gamma, rounds=4, steps=500, rng=rng)
    found = [float(torch.cov(torch.cat(ends, 1).T)[0, 1]) for ends in pairs]
    print(f"covariance of the ends: {known:.3f} for the bridge; by rounds", end=" ")
    print(", ".join(f"{value:.3f}" for value in found))
    print(f"standard deviation of x_1: {b} given, {float(pairs[-1][1].std()):.3f} found")
    assert abs(found[-1] - known) < 0.06
    assert abs(found[0] - known) > 0.3
    assert abs(float(pairs[-1][1].std()) - b) < 0.08


def planar(rng: torch.Generator, n: int = 4_096) -> tuple[Tensor, Tensor]:
    """Two moons, and eight spots on a circle."""
    angle = torch.pi * torch.rand(n, generator=rng)
    upper = torch.rand(n, generator=rng) < 0.5
    moons = torch.stack([angle.cos(), angle.sin()], 1)
    moons = 1.5 * torch.where(upper[:, None], moons, torch.tensor([1.0, 0.4]) - moons)
    spot = torch.randint(8, (n,), generator=rng) * torch.pi / 4
    spots = 3.5 * torch.stack([spot.cos(), spot.sin()], 1)
    noise = torch.randn((2, n, 2), generator=rng)
    return moons - torch.tensor([0.75, 0.3]) + 0.1 * noise[0], spots + 0.25 * noise[1]


def picture(pairs: list[tuple[Tensor, Tensor]], folder: Path) -> None:
    """Lines between the ends, before and after."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), layout="constrained")
    for axis, (x_0, x_1), title in zip(
        axes, (pairs[0], pairs[-1]), ("independent ends", "ends of the bridge"), strict=True
    ):
        for start, end in zip(x_0[:80], x_1[:80], strict=True):
            axis.plot(*torch.stack([start, end]).T, color="0.75", lw=0.4, zorder=0)
        axis.scatter(*x_0[:400].T, s=2, color="tab:blue", label="moons")
        axis.scatter(*x_1[:400].T, s=2, color="tab:red", label="spots")
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    axes[0].legend(loc="upper left", markerscale=4)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "schrodinger-bridge.png", dpi=55)


def main() -> None:
    """Both cases, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    normal_laws(rng)
    moons, spots = planar(rng)
    pairs = bridge(moons, spots, 1.0, rounds=3, steps=2000, rng=rng)
    lengths = [float(((x_0 - x_1) ** 2).sum(1).mean()) for x_0, x_1 in pairs]
    print("mean squared length by rounds:", ", ".join(f"{length:.2f}" for length in lengths))
    radius = pairs[-1][1].norm(dim=1)
    print(f"distance of the spots from the middle: 3.5 given, {float(radius.mean()):.2f} found")
    assert lengths[-1] < 0.75 * lengths[0]
    assert abs(float(radius.mean()) - 3.5) < 0.2
    picture(pairs, args.out)


if __name__ == "__main__":
    main()
