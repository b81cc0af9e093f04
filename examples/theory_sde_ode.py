r"""SDE or ODE under an error of the score: noise forgets early errors and feels late ones more.

All reversals :math:`K_c` of churn c have the same marginals if the score is exact. With an error
e(t) of the score they do not. Under :math:`dx = -x\,dt + \sqrt 2\, dB`, t in [0, T], and for
Gaussian data of variance v, the drift of K_c is :math:`x + (1 + c^2) s`, so that the samples' mean
is off by

.. math:: \int_0^T w_c(t)\, e(t)\, dt, \qquad
   w_c(t) = (1 + c^2)\, e^{-c^2 t} \Big(\frac{v}{v_t}\Big)^{(1 + c^2)/2}, \quad
   v_t = 1 + (v - 1) e^{-2t} .

The ODE (c = 0) weighs errors at all times alike but for the change of scale. The SDE (c = 1) weighs
one near the data twice as much and forgets it at the rate 1 if it was made early; more churn does
more of both. Source: Cao, Chen, Luo and Zhou (2023), "Exploring the optimal choice for generative
processes in diffusion models: ordinary vs stochastic differential equations", arXiv 2306.02063: for
a pulse at the end the ODE is better than large diffusion, for an early one it is worse, and there
the error falls exponentially with the diffusion.

Here: the mean is followed exactly through the library's steps for short pulses at every time, and
then measured on samples of `Euler` for errors that are early, late, or everywhere.
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

T, V, COUNT = 3.0, 0.5, 10_000
PROCESS = rv.Gaussian(rv.Euclidean(1), rv.VariancePreserving(2 * T, 2 * T))
EXACT = rv.GaussianData(PROCESS, torch.zeros(1).double(), torch.tensor([[V]]).double())
CHURNS = {0.0: "C3", 1.0: "C0", 2.0: "C2"}
PLACES = {"early": (1.5, 2.5), "everywhere": (0.0, T), "late": (0.0, 0.2)}


class Pulse(rv.core.Denoiser):
    """The exact score plus ``size`` between two times; they may differ from item to item."""

    def __init__(self, start: Any, end: Any, size: float) -> None:
        super().__init__()
        self.start, self.end, self.size = start, end, size
        self.process, self.clocks = EXACT.process, EXACT.clocks

    @property
    def like(self) -> Tensor:
        return EXACT.like

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> rv.Estimate:
        now = torch.full((len(x_t), 1), T * float(t), dtype=torch.float64)
        error = torch.where((now > self.start) & (now <= self.end), self.size, 0.0)
        return rv.Estimate(PROCESS, x_t, t, rv.Kind.SCORE, EXACT(x_t, t).score + error)


def weight(t: Any, churn: float) -> Any:
    """w_c(t)."""
    scale = V / (1 + (V - 1) * np.exp(-2 * t))
    return (1 + churn**2) * np.exp(-(churn**2) * t) * scale ** ((1 + churn**2) / 2)


def total(place: tuple[float, float], churn: float) -> float:
    """The integral of w_c over a stretch of time."""
    nodes = np.linspace(*place, 2001)
    return float(np.trapezoid(weight(nodes, churn), nodes))


def shifts(centers: Tensor, churn: float, width: float = 0.02) -> Tensor:
    """What a pulse of unit area around each center does to the mean, through 3000 steps."""
    denoiser = Pulse(centers[:, None] - width / 2, centers[:, None] + width / 2, 1 / width)
    mean = torch.zeros(len(centers), 1, dtype=torch.float64)
    for t, s in pairwise(rv.Grid.uniform(3000, stop=1e-4).ticks()):
        law = PROCESS.increment(mean, t, s).reversal(denoiser(mean, t).score, churn)
        mean = mean + law.drift
    return mean.squeeze(1)


def main(out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
    centers, fine = torch.linspace(0.05, 2.85, 15, dtype=torch.float64), np.linspace(0, T, 200)
    print("a pulse at t =        0.05      1.45      2.85")
    for churn, color in CHURNS.items():
        found, expected = shifts(centers, churn), torch.as_tensor(weight(centers.numpy(), churn))
        for name, row in (("measured", found), ("predicted", expected)):
            cells = "  ".join(f"{value:8.4f}" for value in row[[0, 7, 14]])
            print(f"churn {churn}, {name:10} {cells}")
        assert torch.allclose(found, expected, rtol=0.02, atol=1e-3)
        left.plot(fine, weight(fine, churn), color=color)
        left.plot(centers, found, "o", color=color, ms=4)
        left.text(0.06, weight(0.0, churn), f" c = {churn:.0f}", color=color, va="bottom")
    left.set(xlabel="t of the error   (0 is data)", ylabel="shift of the samples' mean / error")
    left.set(title="one pulse", ylim=(0, 5.5))

    size, grid = 0.5, np.linspace(0, 2.2, 100)
    print("place       churn  predicted  measured, with a standard error of", end=" ")
    print(f"{math.sqrt(V / COUNT) / size:.3f}")
    for (name, place), color in zip(PLACES.items(), ("C1", "0.3", "C4"), strict=True):
        right.plot(grid, [total(place, c) for c in grid], color=color)
        right.text(2.22, total(place, 2.2), name, color=color, va="bottom")
        for churn in (0.0, 0.5, 1.0, 1.5, 2.0):
            generator = torch.Generator().manual_seed(1)
            x = rv.Euler(churn).sample(
                Pulse(*place, size), COUNT, generator=generator, grid=rv.Grid.uniform(300)
            )
            found, expected = float(x.mean()) / size, total(place, churn)
            print(f"{name:10} {churn:6} {expected:10.3f} {found:9.3f}")
            right.plot(churn, found, "o", color=color, ms=4)
            # six standard errors fail once in 10^8 runs; the rest is for the step's own error
            assert abs(found - expected) < 6 * math.sqrt(V / COUNT) / size + 0.04
    right.set(xlabel="churn c   (0 ODE, 1 SDE)", ylim=(0, None), title="errors of one size")
    assert total(PLACES["early"], 2.0) < 0.1 * total(PLACES["early"], 0.0)
    assert total(PLACES["late"], 2.0) > 2 * total(PLACES["late"], 0.0)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-sde-ode.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
