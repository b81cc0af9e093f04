r"""Guidance does not sample the tilted law, and which law it samples depends on the sampler.

Classifier-free guidance follows the score :math:`(1 - w) \nabla \log q_t(x) + w \nabla \log
q_t(x | c)`. It looks like the score of the noised tilted law :math:`p(x)^{1-w} p(x | c)^w`, and is
not: tilting and noising do not commute. For p = N(0, 2), p(. | c) = N(0, 1) and a noise that only
grows, all is known, and the three variances differ at every w other than 0 and 1,

.. math:: \text{tilted } \frac{2}{1 + w}, \qquad \text{ODE } 2^{1 - w}, \qquad
   \text{SDE } \frac{2 - 2^{2 - 2w}}{2w - 1} .

The SDE is a predictor and corrector: its drift is that of the conditional ODE plus a Langevin step
towards strength 2w - 1. Source: Bradley and Nakkiran (2024), arXiv 2408.09000, sections 3 and 4.
On a mixture of two classes guidance overshoots: the samples leave the class for its far side, where
the tilted law does not follow. Source: Chidambaram, Gatmiry, Chen, Lee and Lu (2024), "What does
guidance do?", arXiv 2409.13074.

Here: exact denoisers, and laws pushed through the library's steps on a line of nodes, not sampled.
Variances are extrapolated from 200 and 400 steps, which leaves the second order in a step, 0.2 %;
on the line the laws err by about the distance of its nodes, 0.025.
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

STRENGTHS = [0.75, 1.0, 1.5, 2.0, 3.0, 4.0]
LINE = torch.linspace(-8, 8, 641, dtype=torch.float64)[:, None]


class ByCondition(rv.core.Denoiser):
    """One exact denoiser per condition; None is the condition that stands for none."""

    def __init__(self, denoisers: dict[Any, rv.core.Denoiser]) -> None:
        super().__init__()
        self.denoisers, first = denoisers, denoisers[0]
        self.process, self.clocks = first.process, first.clocks

    @property
    def like(self) -> Tensor:
        return self.denoisers[0].like

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> rv.Estimate:
        return self.denoisers[cond](x_t, t)


class Mixture(rv.core.Denoiser):
    """The exact denoiser of an equal mixture of Gaussian laws."""

    def __init__(self, parts: list[rv.GaussianData]) -> None:
        super().__init__()
        self.parts, self.process, self.clocks = parts, parts[0].process, parts[0].clocks

    @property
    def like(self) -> Tensor:
        return self.parts[0].like

    def log_posterior(self, x_t: Tensor, t: Any) -> Tensor:
        """log p(class | x_t), one row per class."""
        return self.log_joint(x_t, t).log_softmax(0)

    def log_prob(self, x_t: Tensor, t: Any) -> Tensor:
        """log q_t(x_t)."""
        return self.log_joint(x_t, t).logsumexp(0)

    def log_joint(self, x_t: Tensor, t: Any) -> Tensor:
        logs = [part.log_prob(x_t, t) for part in self.parts]
        return torch.stack(logs) - math.log(len(logs))

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> rv.Estimate:
        clean = torch.stack([part(x_t, t).clean for part in self.parts])
        mean = (self.log_posterior(x_t, t).exp()[..., None] * clean).sum(0)
        return rv.Estimate(self.process, x_t, t, rv.Kind.CLEAN, mean)


def gaussian(process: rv.Gaussian, mean: float, variance: float) -> rv.GaussianData:
    m, C = torch.tensor([mean]).double(), torch.tensor([[variance]]).double()
    return rv.GaussianData(process, m, C)


def variance_sampled(guided: rv.ClassifierFree, eta: float, steps: int) -> float:
    """The variance of the samples, from the factor and the noise of each step."""
    process, one = guided.process, torch.ones(1, 1, dtype=torch.float64)
    variance = torch.tensor(process.prior.std**2)
    for t, s in pairwise(process.grid(steps).ticks()):
        step = process.ancestor(one, t, s, guided(one, t, 0), eta)
        variance = step.mean**2 * variance + step.std**2
    return float(variance)


def density_sampled(guided: rv.ClassifierFree, steps: int = 200) -> Tensor:
    """The density of the SDE's samples on the line of nodes."""
    process, x = guided.process, LINE
    grid = rv.Grid(torch.cat([process.grid(steps).times[:-8], torch.tensor([0.0])]))
    mass = process.prior.log_prob(x).softmax(0)
    for t, s in pairwise(grid.ticks()):
        step = process.ancestor(x, t, s, guided(x, t, 0), 1.0)
        std = max(step.std, 0.025)  # the distance of the nodes
        mass = mass @ (-(((x.T - step.mean) / std) ** 2) / 2).softmax(1)
    return mass / (x[1] - x[0])


def density_flowed(guided: rv.ClassifierFree, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Where the ODE takes quantiles of the prior, and the density there."""
    process, x = guided.process, torch.linspace(-5, 5, 501, dtype=torch.float64)[:, None]
    log_p = process.prior.log_prob(x)
    y = rv.Heun().sample(guided, len(x), x_1=x, cond=0, steps=steps)
    slope = torch.gradient(y.squeeze(1), spacing=(x.squeeze(1),))[0]
    return y.squeeze(1), (log_p - slope.log()).exp()


def gaussian_example(panel: Any) -> None:
    process = rv.Gaussian(rv.Euclidean(1), rv.VarianceExploding())
    free, given = gaussian(process, 0.0, 2.0), gaussian(process, 0.0, 1.0)
    exact = {
        "tilted": lambda w: 2 / (1 + w),
        "SDE": lambda w: (2 - 2 ** (2 - 2 * w)) / (2 * w - 1),
        "ODE": lambda w: 2 ** (1 - w),
    }
    colors = {"tilted": "0.5", "SDE": "C0", "ODE": "C3"}
    fine = torch.linspace(0.72, 4.2, 60)
    for name, law in exact.items():
        panel.plot(fine, law(fine), "--" if name == "tilted" else "-", color=colors[name])
        panel.text(4.25, law(4.2), name, color=colors[name], va="center")
    print("    w   tilted      SDE  measured      ODE  measured")
    for w in STRENGTHS:
        guided = rv.ClassifierFree(ByCondition({None: free, 0: given}), w)
        sde, ode = (2 * variance_sampled(guided, eta, 400) - variance_sampled(guided, eta, 200)
                    for eta in (1.0, 0.0))  # fmt: skip
        tilted, of_sde, of_ode = (law(w) for law in exact.values())
        print(f"{w:5} {tilted:8.4f} {of_sde:8.4f} {sde:9.4f} {of_ode:8.4f} {ode:9.4f}")
        panel.plot(w, sde, "o", color="C0", ms=5)
        panel.plot(w, ode, "o", color="C3", ms=5)
        assert abs(sde / of_sde - 1) < 2e-3
        assert abs(ode / of_ode - 1) < 2e-3
        assert w == 1 or min(abs(sde - tilted), abs(ode - tilted), abs(ode - sde)) > 0.01
    panel.set(xlabel="strength w", ylabel="variance of the samples", title="N(0, 1) within N(0, 2)")
    panel.set_ylim(0, None)


def predictor_and_corrector(denoiser: ByCondition, w: float) -> None:
    """K_1 at strength w is the conditional ODE plus Langevin at strength 2w - 1."""
    process, x = denoiser.process, LINE
    t = torch.full((len(x),), 0.3, dtype=torch.float64)
    score = [rv.ClassifierFree(denoiser, v)(x, t, 0).score for v in (w, 1.0, 2 * w - 1)]
    whole, flow = process.reverse(x, t, score[0]), process.reverse(x, t, score[1], churn=0.0)
    langevin = process.corrector(x, t, score[2])
    assert torch.allclose(whole.drift, flow.drift + langevin.drift / 2, atol=1e-10)
    assert torch.allclose(whole.covariance, langevin.covariance / 2, atol=1e-10)


def mixture_example(panel: Any) -> None:
    process, x, zero = rv.Gaussian(rv.Euclidean(1)), LINE, torch.zeros(len(LINE)).double()
    classes = [gaussian(process, 1.0, 0.5), gaussian(process, -1.0, 0.5)]
    both = ByCondition({None: Mixture(classes), 0: classes[0]})
    predictor_and_corrector(both, 3.0)
    log_given, log_free = classes[0].log_prob(x, zero), Mixture(classes).log_prob(x, zero)
    step, overshoot = float(x[1] - x[0]), []
    print("    w  mean of: tilted        SDE        ODE   KL(tilted || SDE)")
    for w in (1.0, 2.0, 4.0, 8.0):
        guided = rv.ClassifierFree(both, w)
        tilted = ((1 - w) * log_free + w * log_given).softmax(0) / step
        sampled, (y, flowed) = density_sampled(guided), density_flowed(guided)
        mean, of_sde = (float((p * x.squeeze(1)).sum() * step) for p in (tilted, sampled))
        of_ode = float(torch.trapezoid(flowed * y, y))
        gap = float((tilted * (tilted / sampled.clamp_min(1e-300)).log()).sum() * step)
        print(f"{w:5} {mean:16.3f} {of_sde:10.3f} {of_ode:10.3f} {gap:19.4f}")
        overshoot.append((gap, of_sde - mean, of_ode - of_sde))
        if w == 4:
            panel.plot(x, tilted, "--", color="0.5")
            panel.plot(x, sampled, color="C0")
            panel.plot(y, flowed, color="C3")
    panel.fill_between(x.squeeze(1), log_given.exp(), color="0.93", zorder=0)
    panel.set(
        xlim=(-1.6, 4), ylim=(0, None), yticks=[], xlabel="x", title="one class of two, w = 4"
    )
    labels = {"class": (-0.35, 0.12, "0.6"), "tilted": (0.4, 0.58, "0.4")}
    labels |= {"SDE": (1.75, 0.72, "C0"), "ODE": (2.5, 0.62, "C3")}
    for name, (at, height, color) in labels.items():
        panel.text(at, height, name, color=color, ha="center")
    assert max(abs(value) for value in overshoot[0]) < 0.01
    assert all(b > a + 0.02 for i in range(3) for a, b in pairwise(row[i] for row in overshoot))


def main(out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    gaussian_example(left)
    mixture_example(right)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-guidance.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
