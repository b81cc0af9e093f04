r"""The three errors of a reverse SDE, taken apart.

A sampler starts from the prior instead of q_1, reads a score that is not exact, and takes finite
steps. For ancestral sampling with a clean estimate :math:`\hat x` in place of
:math:`\bar x(x_t) = E[x_0 | x_t]` the divergence of its path is exactly a sum of three terms,

.. math:: \mathrm{KL}(q_{\text{path}} \,\|\, p_{\text{path}}) =
   \underbrace{\mathrm{KL}(q_1 \| p_1)}_{\text{prior}}
   + \underbrace{\tfrac12 \sum_k \Delta_k E|\hat x - \bar x|^2(x_k)}_{\text{score}}
   + \underbrace{\tfrac12 \sum_k \int_{\lambda_k}^{\lambda_{k+1}} e^\lambda
   \big(m(\lambda_k) - m(\lambda)\big) d\lambda}_{\text{steps}},

with :math:`\Delta_k` the gain in signal-to-noise ratio :math:`e^\lambda` of a step, and m the mean
squared error of the exact denoiser: estimate minus clean mean is orthogonal to what is not known of
x_0. What the samples are off by is at most this (data processing). A longer horizon T shrinks the
first term as :math:`e^{-2T}` or faster and feeds the other two.
Source: the three terms are those of Chen, Chewi, Li, Li, Salim and Zhang (2023), "Sampling is as
easy as learning the score", arXiv 2209.11215, theorem 2.

Here: Gaussian data, an Ornstein-Uhlenbeck process over the horizon T, and a score that is off by
a constant. The sum is checked against the divergence between the two joint laws of all states.
Both are closed forms in float64, nothing is drawn: the bounds are for rounding alone.
"""

import argparse
from dataclasses import dataclass
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

MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
UNIT = torch.eye(2, dtype=torch.float64)
STEPS, END = 40, 0.02
BIAS = torch.tensor([-0.10, 0.05], dtype=torch.float64)
"""Added to the score, everywhere and at all times."""


class Wrong(rv.core.Denoiser):
    """A denoiser whose score is off by a constant."""

    def __init__(self, exact: rv.GaussianData, bias: Tensor) -> None:
        super().__init__()
        self.exact, self.bias = exact, bias
        self.process, self.clocks = exact.process, exact.clocks

    @property
    def like(self) -> Tensor:
        return self.exact.like

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> rv.Estimate:
        score = self.exact(x_t, t).score + self.bias
        return rv.Estimate(self.process, x_t, t, rv.Kind.SCORE, score)


def setting(horizon: float) -> tuple[rv.GaussianData, rv.Grid]:
    """dx = -x dtau + sqrt(2) dB for tau in [0, T], reversed down to tau = ``END``."""
    process = rv.Gaussian(rv.Euclidean(2), rv.VariancePreserving(2 * horizon, 2 * horizon))
    u = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    return rv.GaussianData(process, MEAN, COVARIANCE), rv.Grid((END / horizon) ** u)


@dataclass(frozen=True)
class Joint:
    """The joint Gaussian law of the states of a chain, in the order in which they are visited."""

    mean: Tensor
    covariance: Tensor

    def then(self, A: Tensor, b: Tensor, noise: Tensor) -> "Joint":
        """Append A x + b + N(0, noise), with x the last state."""
        cross = A @ self.covariance[-2:]
        corner = cross[:, -2:] @ A.mT + noise
        rows = [torch.cat([self.covariance, cross.mT], 1), torch.cat([cross, corner], 1)]
        return Joint(torch.cat([self.mean, A @ self.mean[-2:] + b]), torch.cat(rows))

    def last(self) -> "Joint":
        return Joint(self.mean[-2:], self.covariance[-2:, -2:])

    def divergence(self, other: "Joint") -> float:
        """KL(self || other)."""
        half, solve = torch.linalg.cholesky(other.covariance), torch.linalg.solve_triangular
        inner = solve(half, solve(half, self.covariance, upper=False).mT, upper=False)
        excess = torch.linalg.eigvalsh(inner) - 1
        shift = solve(half, (self.mean - other.mean)[:, None], upper=False)
        return float((excess - torch.log1p(excess)).sum() + (shift**2).sum()) / 2


def truth(law: rv.GaussianData, grid: rv.Grid, start: Joint) -> Joint:
    """The exact reversal, from a start of our choice."""
    alpha, sigma = law.process.schedule.signal(grid.times)[:2]
    for k in range(STEPS):
        now, then = (alpha[i] ** 2 * COVARIANCE + sigma[i] ** 2 * UNIT for i in (k, k + 1))
        cross = alpha[k] / alpha[k + 1] * then
        A = torch.linalg.solve(now, cross).mT
        start = start.then(A, (alpha[k + 1] * UNIT - alpha[k] * A) @ MEAN, then - A @ cross)
    return start


def sampler(denoiser: Any, grid: rv.Grid, start: Joint) -> Joint:
    """Ancestral sampling, whose step is read off the library's own."""
    probes = torch.cat([torch.zeros(1, 2, dtype=torch.float64), UNIT])
    for t, s in pairwise(grid.ticks()):
        step = denoiser.process.ancestor(probes, t, s, denoiser(probes, t))
        b = step.mean[0]
        start = start.then((step.mean[1:] - b).mT, b, step.std**2 * UNIT)
    return start


def predicted(grid: rv.Grid, schedule: Any) -> list[float]:
    """The three terms of the equation above."""
    alpha, sigma = schedule.signal(grid.times)[:2]
    snr, c = (alpha / sigma) ** 2, torch.linalg.eigvalsh(COVARIANCE)
    noise = alpha[0] ** 2 * c - alpha[0] ** 2
    prior = (noise - torch.log1p(noise)).sum() + (alpha[0] * MEAN).square().sum()
    score = (snr.diff() * (sigma**2 / alpha)[:-1] ** 2).sum() * BIAS.square().sum()
    held = snr.diff()[:, None] * c / (1 + snr[:-1, None] * c)
    steps = (held - (torch.log1p(snr[:, None] * c)).diff(dim=0)).sum()
    return [float(term) / 2 for term in (prior, score, steps)]


def measured(horizon: float) -> tuple[list[float], float, float]:
    """Each error alone, all of them together, and what the samples themselves are off by."""
    law, grid = setting(horizon)
    wrong, (alpha, sigma) = Wrong(law, BIAS), law.process.schedule.signal(grid.times[0])[:2]
    exact = Joint(alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * UNIT)
    prior = Joint(0 * MEAN, UNIT)
    q, coarse = truth(law, grid, exact), sampler(law, grid, exact)
    alone = [
        q.divergence(truth(law, grid, prior)),
        coarse.divergence(sampler(wrong, grid, exact)),
        q.divergence(coarse),
    ]
    p = sampler(wrong, grid, prior)
    return alone, q.divergence(p), q.last().divergence(p.last())


def draw(horizons: np.ndarray, terms: np.ndarray, total: np.ndarray, sample: np.ndarray) -> Any:
    figure, panel = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    colors = ["#9ecae1", "#fdae6b", "#a1d99b"]
    panel.stackplot(horizons, terms.T, colors=colors)
    panel.plot(horizons, total, "ko", ms=4)
    panel.plot(horizons, sample, color="#a50f15", lw=2)
    panel.text(1.1, 0.04, "prior", color="#08519c")
    panel.text(6.5, 0.09, "score", color="#a63603")
    panel.text(6.5, 0.21, "steps", color="#006d2c")
    panel.text(6.3, 0.3, "together, measured", ha="right")
    panel.text(3.0, 0.027, "what the samples are off by", color="#a50f15")
    panel.set(xlabel="horizon T", ylabel="KL, nats", xlim=(horizons[0], horizons[-1]))
    panel.set(title="The three errors of a reverse SDE add up", ylim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def main(out: Path) -> None:
    horizons, terms, totals, samples = np.linspace(1, 8, 15), [], [], []
    print("   T        prior        score        steps          sum        total      samples")
    for horizon in horizons:
        law, grid = setting(float(horizon))
        alone, total, sample = measured(float(horizon))
        term = predicted(grid, law.process.schedule)
        cells = " ".join(f"{value:12.6f}" for value in (*alone, sum(term), total, sample))
        print(f"{horizon:4.1f} {cells}")
        assert np.allclose(alone, term, rtol=1e-6, atol=1e-10)
        assert abs(total - sum(term)) < 1e-8
        assert sample < total
        terms.append(term), totals.append(total), samples.append(sample)
    best = int(np.argmin(totals))
    print(f"the best horizon is T = {horizons[best]}")
    assert 0 < best < len(horizons) - 1
    out.mkdir(parents=True, exist_ok=True)
    figure = draw(horizons, np.array(terms), np.array(totals), np.array(samples))
    figure.savefig(out / "theory-errors.png", dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
