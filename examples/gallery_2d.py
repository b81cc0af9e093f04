r"""Four laws of the plane by five methods that are one core: only the path and the loss differ.

DDPM (Ho et al. 2020), the score SDE with exploding variance (Song et al. 2021), flow matching
(Lipman et al. 2023), action matching (Neklyudov et al. 2023) and a Brownian bridge from a normal
law (Shi et al. 2023) train the same perceptron by as many steps. Samples with some of their paths
are drawn, and the densities of those that have a flow, exp log p, which must integrate to one.

A two-sample test stands beside each: the squared maximum mean discrepancy of 2,000 samples to 2,000
fresh true points under a Gaussian kernel of width `WIDTH`, times 1,000, and the p-value of
`PERMUTATIONS` relabelings of all points. The kernel is narrow, for a wide one, or the energy
distance, hardly tells a law with blurred details from the true one. A trained network is not exact,
and so many points tell it: what is asserted is that a method is nearer than a normal law of the
same mean and covariance by a factor of `NEARER`.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import reversal as rv
from reversal.times import Times

mpl.use("Agg")
import matplotlib.pyplot as plt

PLANE = rv.Euclidean(2)
NORMAL = rv.NormalPrior(PLANE, 1.0)
POINTS, CALLS, PERMUTATIONS, NEARER = 2000, 100, 200, 2
SIDE, CELLS, WIDTH, WAVES = 2.4, 64, 0.1, (1, 2, 4, 8)


def checkerboard(n: int, rng: torch.Generator) -> Tensor:
    """Every other square of a board of four by four."""
    x = 4 * torch.rand((n, 2), generator=rng) - 2
    y = x[:, 1].floor() % 2
    return torch.stack([x[:, 0].floor() // 2 * 2 + y + x[:, 0] % 1, x[:, 1]], 1) / 1.2


def moons(n: int, rng: torch.Generator) -> Tensor:
    """Two half circles."""
    angle = torch.pi * torch.rand(n, generator=rng)
    half = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.rand(n, generator=rng) < 0.5
    half = torch.where(lower[:, None], torch.tensor([1.0, 0.5]) - half, half)
    noise = torch.randn((n, 2), generator=rng)
    return 1.2 * (half - torch.tensor([0.5, 0.25])) + 0.08 * noise


def spirals(n: int, rng: torch.Generator) -> Tensor:
    """Two arms."""
    turn = 2 * torch.pi * torch.rand(n, generator=rng).sqrt()
    arm = torch.stack([turn.cos(), turn.sin()], 1) * turn[:, None] / 4
    sign = 1 - 2 * (torch.rand(n, generator=rng) < 0.5).float()
    return sign[:, None] * arm + 0.05 * torch.randn((n, 2), generator=rng)


def pinwheel(n: int, rng: torch.Generator) -> Tensor:
    """Five bent blades."""
    along = 1 + 0.3 * torch.randn(n, generator=rng)
    across = 0.08 * torch.randn(n, generator=rng)
    blade = torch.randint(5, (n,), generator=rng)
    angle = 2 * torch.pi * blade / 5 + 0.6 * along.exp() / 2
    turn = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    return 1.2 * (turn @ torch.stack([along, across], 1)[..., None]).squeeze(-1)


class Network(nn.Module):
    """A perceptron of x_t and the time, and of waves of both: narrow laws need short ones."""

    def __init__(self, outputs: int = 2, width: int = 128) -> None:
        super().__init__()
        sizes = [2 + 4 * len(WAVES) + 2 + len(WAVES), width, width, width]
        hidden = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, outputs))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t[:, None]
        phases = (x[:, None] * x.new_tensor(WAVES)[:, None]).flatten(1)
        seen = [
            x,
            phases.sin(),
            phases.cos(),
            t,
            t.sqrt(),
            *((k * torch.pi * t).cos() for k in WAVES),
        ]
        out = self.layers(torch.cat(seen, 1))
        return out if out.shape[1] == 2 else out[:, 0]


class Near(nn.Module):
    """A guess of x_0 that is x_t itself at t = 0, where hardly any noise is left."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return x + t[:, None].sqrt() * self.network(x, t, cond)


@dataclass(frozen=True)
class Early(Times):
    """Most times near 0: late guesses of x_0 err most, and matter least."""

    def sample(self, n: int, like: Tensor, generator: Any = None) -> Tensor:
        """Draw n times, of density (1 - sqrt t)^2 / sqrt t up to a factor."""
        u = rv.LowDiscrepancy().sample(n, like, generator)
        return (1 - (1 - u) ** (1 / 3)) ** 2


@dataclass(frozen=True)
class Method:
    """A path, what the network outputs, a loss and a sampler."""

    path: Any
    how: Any
    loss: Any
    sampler: Any

    def denoiser(self) -> Any:
        """An untrained one."""
        if self.how is rv.Action:
            return rv.Action(Network(outputs=1), self.path)
        if isinstance(self.how, rv.Clean):
            clocks = rv.SharedClock(Early())
            return rv.NetworkDenoiser(Near(Network()), self.path, self.how, clocks)
        return rv.NetworkDenoiser(Network(), self.path, self.how)


METHODS = {
    "DDPM": Method(rv.Gaussian(PLANE), rv.Noise(), rv.Regression(), rv.Ancestral()),
    "score SDE": Method(
        rv.Gaussian(PLANE, rv.VarianceExploding(sigma_max=8.0)),
        rv.Preconditioned(),
        rv.Regression(),
        rv.Euler(),
    ),
    "flow matching": Method(
        rv.Interpolant(PLANE, rv.Unpaired(NORMAL)),
        rv.Velocity(),
        rv.Regression(),
        rv.Heun(),
    ),
    "action matching": Method(
        rv.Gaussian(PLANE, rv.Rectified()), rv.Action, rv.ActionMatching(), rv.Heun()
    ),
    "bridge": Method(
        rv.BrownianBridge(PLANE, rv.Unpaired(NORMAL)), rv.Clean(), rv.Regression(), rv.Ancestral()
    ),
}
LAWS = {f.__name__: f for f in (checkerboard, moons, spirals, pinwheel)}


def fitted(method: Method, law: Any, steps: int, rng: torch.Generator) -> Any:
    """Adam on fresh draws, with a rate that falls to zero."""
    denoiser = method.denoiser()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = method.loss(denoiser, law(256, rng), generator=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return denoiser


def drawn(method: Method, denoiser: Any, rng: torch.Generator) -> Tensor:
    """The walk from noise to samples, ``(CALLS + 1, POINTS, 2)``."""
    walk = [denoiser.process.prior.sample(POINTS, rng)]
    method.sampler.sample(
        denoiser, POINTS, CALLS, x_1=walk[0], generator=rng, on_step=lambda _, x: walk.append(x)
    )
    return torch.stack(walk).detach()


def tested(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[float, float]:
    r"""The squared discrepancy of two samples of one size n, and its p-value under relabeling.

    With signs s, +1 for x and -1 for y, it is (s^T K s - tr K) / n^2 where pairs of one point are
    left out, unbiased up to 1/n of it (Gretton et al. 2012).
    """
    both, n = torch.cat([x, y]).double(), len(x)
    kernel = (-torch.cdist(both, both).square() / (2 * WIDTH**2)).exp().fill_diagonal_(0)
    orders = torch.rand((PERMUTATIONS, 2 * n), generator=rng).argsort(1)
    signs = torch.where(torch.cat([torch.arange(2 * n)[None], orders]) < n, 1.0, -1.0).double()
    found = ((signs @ kernel) * signs).sum(1) / n**2
    return float(found[0]), float((found >= found[0]).double().mean())


def density(denoiser: Any) -> Tensor:
    """The density of the probability flow on a grid, ``(CELLS, CELLS)``."""
    at = (torch.arange(CELLS) + 0.5) / CELLS * 2 * SIDE - SIDE
    points = torch.cartesian_prod(at, at)
    found = rv.flow_log_prob(denoiser, points, solver=rv.RungeKutta(16))
    return found.value.exp().reshape(CELLS, CELLS).T


def show(axis: Any, walk: Tensor) -> None:
    """Where samples lie, and the paths of a few."""
    counts, *_ = torch.histogramdd(walk[-1], [CELLS, CELLS], range=[-SIDE, SIDE, -SIDE, SIDE])
    paint(axis, counts.T)
    axis.plot(*walk[:, :4].permute(2, 0, 1), color="tab:orange", lw=0.4)


def paint(axis: Any, values: Tensor) -> None:
    """Draw numbers on the grid."""
    extent = (-SIDE, SIDE, -SIDE, SIDE)
    most = values[values > values.max() / 50].quantile(0.9)
    axis.imshow(values, origin="lower", extent=extent, cmap="Blues", vmin=0, vmax=most)


def main() -> None:
    """Train all, print the tests, draw the gallery."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    columns = ("data", *METHODS)
    sheets = {"gallery-2d": columns, "gallery-2d-densities": columns[1:-1]}
    pages = {name: page(titles) for name, titles in sheets.items()}
    axes = {
        name: dict(zip(sheets[name], zip(*a, strict=True), strict=True))
        for name, (_, a) in pages.items()
    }
    print(f"{'1000 x discrepancy (p)':28s}", *(f"{name:>16s}" for name in METHODS))
    for row, (title, law) in enumerate(LAWS.items()):
        true, other = law(POINTS, rng), law(POINTS, rng)
        show(axes["gallery-2d"]["data"][row], true[None])
        normal = torch.distributions.MultivariateNormal(true.mean(0), true.T.cov()).sample(
            (POINTS,)
        )
        crude, results, masses = tested(normal, other, rng)[0], [tested(true, other, rng)], []
        for name, method in METHODS.items():
            denoiser = fitted(method, law, args.steps, rng)
            walk = drawn(method, denoiser, rng)
            results.append(tested(walk[-1], other, rng))
            show(axes["gallery-2d"][name][row], walk)
            if name in axes["gallery-2d-densities"]:
                found = density(denoiser)
                paint(axes["gallery-2d-densities"][name][row], found)
                masses.append(float(found.sum()) * (2 * SIDE / CELLS) ** 2)
        shown = (f"{1000 * value:7.2f} ({p:5.3f})" for value, p in results[1:])
        print(f"{title:13s} true {1000 * results[0][0]:5.2f}    ", *shown)
        print(
            f"{'':13s} a normal law {1000 * crude:6.1f}; densities integrate to",
            *(f"{m:.3f}" for m in masses),
        )
        assert all(abs(mass - 1) < 0.05 for mass in masses), masses
        assert all(NEARER * value < crude for value, _ in results), (crude, results)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (figure, _) in pages.items():
        figure.set_dpi(64)
        figure.canvas.draw()
        picture = (
            Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(8)
        )
        picture.save(args.out / f"{name}.png")


def page(titles: Any) -> Any:
    """A figure with a row per law and a column per title."""
    size = (1.6 * len(titles), 1.6 * len(LAWS) + 0.2)
    figure, axes = plt.subplots(len(LAWS), len(titles), figsize=size, layout="constrained")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for axis, law in zip(axes[:, 0], LAWS, strict=True):
        axis.set_ylabel(law)
    for axis in axes.flat:
        axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], aspect="equal")
    return figure, axes


if __name__ == "__main__":
    main()
