r"""A jump-diffusion on R x {0, 1, 2}: the particle drifts by its label, the label by its place.

.. math:: L f(x, k) = -\tfrac12 \partial_x U(x, k)\, \partial_x f + \tfrac12 \partial_x^2 f
   + \sum_j \frac{e^{-U(x, j)}}{\sum_i e^{-U(x, i)}}\, (f(x, j) - f(x, k)),

reversible with respect to exp(-U), here a mixture of three normal laws: neither part is a Markov
process of its own, so this is no product of noising processes, and no transition density is known.
The joint score, a derivative and log-ratios, is learned by implicit score matching from simulated
states. Source: Benton et al. (2024), sections 3 and 4; Glauber (1963) for the rates.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn

import reversal as rv
from reversal.core import DenseJumps, Prior
from reversal.metrics import energy_distance

mpl.use("Agg")
import matplotlib.pyplot as plt

SHARES = torch.tensor([0.5, 0.3, 0.2])
MEANS, SPREADS = torch.tensor([-0.8, 0.0, 1.0]), torch.tensor([0.9, 1.2, 0.7])


def energies(x: Tensor) -> Tensor:
    """U(x, k) for every k, (B, 3)."""
    z = (x - MEANS.to(x)) / SPREADS.to(x)
    return z**2 / 2 + SPREADS.to(x).log() + math.log(2 * math.pi) / 2 - SHARES.to(x).log()


class Stationary(Prior):
    """exp(-U): a label, then a normal place."""

    def sample(self, n: int, generator: Any = None, like: Tensor | None = None) -> Any:
        k = torch.multinomial(SHARES, n, replacement=True, generator=generator)
        z = torch.randn(n, 1, generator=generator)
        return {"place": MEANS[k][:, None] + SPREADS[k][:, None] * z, "label": k}

    def site_log_prob(self, x: Any) -> Any:
        own = energies(x["place"]).gather(1, x["label"][:, None])
        return {"place": -own, "label": torch.zeros_like(own[:, 0])}


def switching(x: Any) -> dict[str, rv.Generator]:
    """Drift and diffusion of the place, rates of the label; each reads both."""
    k, place = x["label"], x["place"]
    drift = (MEANS.to(place)[k][:, None] - place) / (2 * SPREADS.to(place)[k][:, None] ** 2)
    rates = (-energies(place)).softmax(1).scatter(1, k[:, None], 0.0)
    return {
        "place": rv.Generator(drift, torch.ones_like(place)),
        "label": rv.Generator(jumps=DenseJumps(rates)),
    }


def process() -> rv.FromGenerator:
    """The jump-diffusion."""
    space = rv.Product(place=rv.Euclidean(1), label=rv.Categorical(3))
    return rv.FromGenerator(space, switching, Stationary(), rv.QuadraticVariance(8.0), steps=30)


class Network(nn.Module):
    """Noise of the place and log-ratios of the label, from both and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 4)
        )

    def forward(self, x: Any, t: Any, cond: Any = None) -> dict[str, Tensor]:
        place, t = x["place"], t[:, None].clamp_min(1e-2)
        label = nn.functional.one_hot(x["label"], 3).to(place)
        out = self.layers(
            torch.cat((place, (2 * place).sin(), (2 * place).cos(), label, t, t.log()), 1)
        )
        return {"place": out[:, :1], "label": out[:, 1:]}


STEPS = 1800


def data_of(n: int) -> dict[str, Tensor]:
    """Two places per label: what is to be learned."""
    k = torch.multinomial(torch.tensor([0.2, 0.5, 0.3]), n, replacement=True)
    center = torch.tensor([[-1.5, 1.0], [-0.5, 2.0], [0.0, -2.0]])[k, torch.randint(2, (n,))]
    return {"place": (center + 0.25 * torch.randn(n))[:, None], "label": k}


def main(out: Path) -> None:
    """Train on simulated states, sample, compare jointly."""
    torch.manual_seed(0)
    denoiser = rv.NetworkDenoiser(Network(), process())
    loss_of = rv.Implicit(weight=lambda t: t)
    optimizer = torch.optim.Adam(denoiser.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        loss = loss_of(denoiser, data_of(1024)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 300 == 0:
            print(f"step {step:5d}   implicit loss {loss.item():8.3f}")
    drawn = rv.Euler().sample(denoiser, 3000, steps=300)

    def points(x: dict[str, Tensor]) -> Any:
        return torch.cat((x["place"], 2 * nn.functional.one_hot(x["label"], 3)), 1).numpy()

    held_out = points(data_of(3000))
    far = [
        energy_distance(held_out, points(other))
        for other in (drawn, data_of(3000), Stationary().sample(3000))
    ]
    shares = torch.bincount(drawn["label"], minlength=3) / 3000
    print(f"energy distance: drawn {far[0]:.4f}, data {far[1]:.4f}, prior {far[2]:.4f}")
    print(f"labels drawn {[round(s, 3) for s in shares.tolist()]}, in the data [0.2, 0.5, 0.3]")
    draw({"data": data_of(20_000), "drawn": drawn, "prior": Stationary().sample(20_000)}, out)
    assert far[0] < 0.1 * far[2]


def draw(laws: dict[str, dict[str, Tensor]], out: Path) -> None:
    """Densities of the place, times the share of the label."""
    figure, panels = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained", sharey=True)
    styles = {"data": ("C3", "step"), "drawn": ("C0", "stepfilled"), "prior": ("0.6", "step")}
    for k, panel in enumerate(panels):
        for name, x in laws.items():
            place, (color, kind) = x["place"][x["label"] == k, 0].numpy(), styles[name]
            weights = [1 / len(x["label"]) / 0.15] * len(place)
            bins = [-4 + 0.15 * i for i in range(54)]
            alpha = 0.5 if name == "drawn" else 1.0
            panel.hist(place, bins, weights=weights, histtype=kind, color=color, alpha=alpha)
        panel.set(title=f"label {k}", xlabel="place", xlim=(-3.5, 3.5))
        panel.spines[["top", "right"]].set_visible(False)
    for height, (name, (color, _)) in zip((0.4, 0.36, 0.32), styles.items(), strict=True):
        panels[2].text(3.3, height, name, color=color, ha="right")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "jump-diffusion.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
