r"""Steps follow the dimension of the data, not that of the space, and the score knows it.

At signal-to-noise ratio :math:`e^\lambda` let m be the mean squared error of the exact denoiser.
Then :math:`d(\lambda) = e^\lambda m(\lambda)` is the dimension of the data at the scale
:math:`\sigma / \alpha = e^{-\lambda / 2}`: it tends to the dimension d* of the set that carries the
data (Wu and Verdu, 2011, "MMSE dimension"). What N equal steps over a range Lambda of lambda cost
is made of it,

.. math:: \mathrm{KL}_{\text{steps}} \approx \frac{\Lambda}{4 N}
   \int_{\Lambda} \big(d(\lambda) - d'(\lambda)\big)\, d\lambda,

so that the number of steps is linear in d*, whatever the dimension D of the space. Source:
Potaptchik, Azangulov and Deligiannidis (2024), "Linear convergence of diffusion models under the
manifold hypothesis", arXiv 2410.09046.
Near the data a score points to the set that carries it: of many scores around one point the
singular values are small along the set, and their number estimates d*. Source: Stanczuk et al.
(2022), "Your diffusion model secretly knows the dimension of the data manifold", arXiv 2212.12611.

Here: Gaussian data on random subspaces, with the library's steps; a closed curve and a torus, with
the exact score of many points on them; and scikit-learn's digits, with a score that is learned,
beside two estimates from the distances of nearest neighbors (Levina and Bickel, 2004; Facco et
al., 2017). Digits have no one dimension: it depends on the scale, as it should.
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from _digits import pixels, train
from _gaussian import follow, time_of_snr
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

RANGE, STEPS = (-7.0, 5.0), 48
SCALES = [0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.4, 2.0]
SHOWN = [0.3, 0.5, 0.8, 1.4, 2.0]


def cost_of_steps(inside: int, space: int) -> float:
    """N KL of the path, data of unit variance on a random subspace and (almost) none off it."""
    generator = torch.Generator().manual_seed(inside + 100 * space)
    basis = torch.linalg.qr(torch.randn(space, space, generator=generator).double())[0]
    variances = torch.where(torch.arange(space) < inside, 1.0, 1e-9).double()
    C = (basis * variances) @ basis.mT
    process, zero = rv.Gaussian(rv.Euclidean(space)), torch.zeros(space).double()
    denoiser = rv.GaussianData(process, zero, (C + C.mT) / 2)
    edges = torch.linspace(*RANGE, STEPS + 1, dtype=torch.float64)
    return STEPS * follow(denoiser, rv.Grid(time_of_snr(process.schedule, edges)))[0]


@torch.no_grad()
def score_dimension(denoiser: Any, point: Tensor, scale: float, seed: int) -> int:
    """How many directions around a point have scores less than half of those of pure noise."""
    process, generator, draws = denoiser.process, torch.Generator().manual_seed(seed), 512
    t = time_of_snr(process.schedule, torch.tensor([-2 * math.log(scale)], dtype=torch.float64))
    alpha, sigma = (float(v) for v in process.schedule.signal(t)[:2])
    z = torch.randn(draws, len(point), generator=generator).to(point)
    scores = denoiser(alpha * point + sigma * z, t.to(point).expand(draws)).score * sigma
    return int((torch.linalg.svdvals(scores - scores.mean(0)) < draws**0.5 / 2).sum())


def known_manifolds(seed: int) -> None:
    process = rv.Gaussian(rv.Euclidean(16))
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)))[0]
    angle = torch.linspace(0, 2 * math.pi, 1501)[:-1]
    curve = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], 1)
    a, b = torch.cartesian_prod(angle[::30], angle[::30]).unbind(1)
    torus = torch.stack([a.cos(), a.sin(), b.cos(), b.sin()], 1)
    for name, points, scale, dimension in (("curve", curve, 0.05, 1), ("torus", torus, 0.2, 2)):
        oracle = rv.Empirical(process, points @ basis[:4])
        found = [score_dimension(oracle, x, scale, seed) for x in oracle.atoms[:: len(points) // 6]]
        print(f"{name} in R^16: dimension {dimension}, from the score at points of it {found}")
        assert found == [dimension] * len(found)


def neighbor_dimensions(x: Tensor) -> tuple[float, float, float]:
    """By Levina and Bickel from 10 neighbors, by Facco et al. from 2, and the nearest distance."""
    distance = NearestNeighbors(n_neighbors=11).fit(x).kneighbors(x)[0][:, 1:]
    levina = 1 / np.log(distance[:, -1:] / distance[:, :-1]).mean()
    return levina, 1 / np.log(distance[:, 1] / distance[:, 0]).mean(), np.median(distance[:, 0])


def subspaces(panel: Any) -> None:
    sizes = [2, 4, 8, 16, 32, 64]
    fixed, growing = [cost_of_steps(2, D) for D in sizes], [cost_of_steps(d, 64) for d in sizes]
    for name, row in (("d* = 2, D =", fixed), ("D = 64, d* =", growing)):
        cells = "  ".join(f"{size}: {value:.3f}" for size, value in zip(sizes, row, strict=True))
        print(f"steps x KL, {name:12} {cells}")
    log_snr = np.linspace(*RANGE, 1001)
    scaled = 2 / (1 + np.exp(-log_snr))
    integral = np.trapezoid(scaled, log_snr) - np.ptp(scaled)
    predicted = (RANGE[1] - RANGE[0]) / 4 * integral
    print(f"predicted for d* = 2, to first order in 1/N: {predicted:.3f}")
    assert abs(fixed[0] / predicted - 1) < 0.1
    assert np.ptp(fixed) < 1e-4 * fixed[0]
    assert np.allclose(growing, np.array(sizes) / 2 * fixed[0], rtol=1e-4)
    panel.loglog(sizes, growing, "o-", color="C3", ms=4)
    panel.loglog(sizes, fixed, "o-", color="C0", ms=4)
    panel.text(9, growing[2] * 1.5, "d* grows, D = 64", color="C3", ha="right")
    panel.text(9, fixed[2] * 0.72, "D grows, d* = 2", color="C0", va="top")
    panel.set_xticks(sizes, [str(d) for d in sizes])
    panel.minorticks_off()
    panel.set(xlabel="dimension", ylabel="steps × KL of the path, nats", title="data on subspaces")
    panel.set_ylim(fixed[0] / 3, growing[-1] * 2)


def digits(panel: Any, seed: int) -> None:
    x = pixels()
    held, shown = x[1500:], x[:12]
    denoiser = train(x[:1500], 3000, seed)
    found = [
        np.mean([score_dimension(denoiser, point, scale, seed) for point in shown])
        for scale in SCALES
    ]
    generator, of_error = torch.Generator().manual_seed(seed + 3), []
    for scale in SCALES:
        t = time_of_snr(denoiser.process.schedule, torch.tensor([-2 * math.log(scale)]).double())
        x_t = denoiser.process.kernel(held, t.expand(len(held))).sample(generator)
        with torch.no_grad():
            clean = denoiser(x_t, t.float().expand(len(held))).clean
        of_error.append(float((clean - held).square().sum(1).mean()) / scale**2)
    levina, facco, nearest = neighbor_dimensions(x)
    scale = nearest / math.sqrt(2 * facco)
    at_scale = float(np.interp(scale, SCALES, found))
    print("digits in R^64, by scale:  ", "  ".join(f"{scale:6.1f}" for scale in SCALES))
    print("  small singular values    ", "  ".join(f"{value:6.1f}" for value in found))
    print("  error / scale^2, held out", "  ".join(f"{value:6.1f}" for value in of_error))
    print(f"  neighbors: Levina and Bickel {levina:.1f}, Facco et al. {facco:.1f}")
    print(f"  at their scale, {scale:.2f} per direction, the score says {at_scale:.1f}")
    assert 0.5 < at_scale / facco < 2
    assert at_scale < 64 / 3
    assert all(a > b for a, b in pairwise(found))
    panel.loglog(SCALES, of_error, "-", color="0.5")
    panel.loglog(SCALES, found, "o", color="C3", ms=5)
    panel.axhspan(levina, facco, color="C0", alpha=0.25, lw=0)
    panel.axvline(scale, color="C0", lw=1, ls="--")
    panel.text(
        2.1, (levina * facco) ** 0.5, "nearest neighbors", color="C0", ha="right", va="center"
    )
    panel.text(0.48, 48, "scale of the neighbors", color="C0")
    panel.text(0.72, 17, "learned score: error / scale²", color="0.4")
    panel.text(0.51, 1.6, "learned score:\nsmall singular values", color="C3")
    panel.set_xticks(SHOWN, [str(scale) for scale in SHOWN])
    panel.set_yticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    panel.minorticks_off()
    panel.set(xlabel="scale σ/α", ylabel="dimension", title="digits, 64 pixels", ylim=(1, 64))


def main(out: Path, seed: int) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.6), layout="constrained")
    subspaces(left)
    known_manifolds(seed)
    digits(right, seed)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-dimension.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    parser.add_argument("--seed", type=int, default=0, help="of training and of noise")
    given = parser.parse_args()
    main(given.out, given.seed)
