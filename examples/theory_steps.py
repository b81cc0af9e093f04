r"""How many steps: the path's divergence falls as 1/N, the sample's as 1/N^2, both linear in d.

Ancestral sampling holds the clean estimate still during a step, so that by the I-MMSE relation

.. math:: \mathrm{KL}(q_{\text{path}} \,\|\, p_{\text{path}}) = \mathrm{KL}(q_1 \| p_1)
   + \tfrac12 \sum_k \int_{\lambda_k}^{\lambda_{k+1}} e^{\lambda}
   \big(m(\lambda_k) - m(\lambda)\big)\, d\lambda,

with :math:`\lambda` the log signal-to-noise ratio and m the mean squared error of the exact
denoiser, which falls along the path (stochastic localization) and is at most
:math:`d e^{-\lambda}`. Summed by parts over N equal steps that cover a range :math:`\Lambda`,

.. math:: \mathrm{KL}_{\text{steps}} \le \tfrac d2 \big(e^{\Lambda/N} - 1\big)
   \big(1 + N (1 - e^{-\Lambda/N})\big) \approx \frac{d \Lambda (1 + \Lambda)}{2 N},

for any data with a second moment. This is the bound of Benton, De Bortoli, Doucet and Deligiannidis
(2024), "Nearly d-linear convergence bounds for diffusion models via stochastic localization",
arXiv 2308.03686, of order d log^2(1/delta) / N, with its constant worked out for this sampler. The
law of the sample is closer than the path (data processing), and for smooth targets much closer.

Here: correlated Gaussian data, followed exactly through the library's steps from the exact q_1.
Nothing is drawn: orders and powers are limits, and are met within 0.03 at 512 steps and at d = 64.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from _gaussian import follow, time_of_snr

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

SNR_RANGE = (-7.0, 5.0)


def data(d: int) -> rv.GaussianData:
    """Unit variances, neighbors correlated by 0.9: most directions are nearly determined."""
    index = torch.arange(d, dtype=torch.float64)
    covariance = 0.9 ** (index[:, None] - index).abs()
    process = rv.Gaussian(rv.Euclidean(d))
    return rv.GaussianData(process, torch.zeros(d, dtype=torch.float64), covariance)


def measure(d: int, steps: int) -> tuple[float, float]:
    """The divergence of the path, and that of its end, for equal steps in log SNR."""
    denoiser, edges = data(d), torch.linspace(*SNR_RANGE, steps + 1, dtype=torch.float64)
    return follow(denoiser, rv.Grid(time_of_snr(denoiser.process.schedule, edges)))


def predicted(d: int, steps: int) -> float:
    """The path's divergence from the errors of the denoiser, by quadrature."""
    edges = torch.linspace(*SNR_RANGE, steps + 1, dtype=torch.float64)
    variances = torch.linalg.eigvalsh(data(d).covariance)
    error = lambda x: (variances / (1 + x.exp()[..., None] * variances)).sum(-1)  # noqa: E731
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(8))
    inside = edges[:-1, None] + (nodes + 1) / 2 * edges.diff()[:, None]
    gap = inside.exp() * (error(edges[:-1])[:, None] - error(inside))
    return float((gap * weights * edges.diff()[:, None] / 4).sum())


def bound(d: int, steps: int) -> float:
    h = (SNR_RANGE[1] - SNR_RANGE[0]) / steps
    return d / 2 * math.expm1(h) * (1 - steps * math.expm1(-h))


def table(cases: list[tuple[int, int]]) -> np.ndarray:
    rows = [(*measure(*case), predicted(*case), bound(*case)) for case in cases]
    for (d, steps), row in zip(cases, rows, strict=True):
        print(f"{d:4} {steps:5} {row[0]:10.5f} {row[2]:10.5f} {row[1]:11.6f} {row[3]:9.3f}")
    return np.array(rows)


def draw(steps: np.ndarray, by_step: np.ndarray, dims: np.ndarray, by_dim: np.ndarray) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = ["path", "sample", "", "bound"]
    colors = ["C0", "C3", "C0", "0.6"]
    for panel, x, rows in ((left, steps, by_step), (right, dims, by_dim)):
        for column in (3, 0, 1):
            style = "--" if column == 3 else "o-"
            panel.loglog(x, rows[:, column], style, color=colors[column], ms=4)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xticks(x, [str(n) for n in x])
        panel.minorticks_off()
    slopes = ["$1/N$", "$1/N^2$", "", "$\\approx d\\,\\Lambda(1+\\Lambda)/2N$"]
    for column in (0, 1, 3):
        label = f"{names[column]}, {slopes[column]}"
        left.text(steps[1], by_step[1, column] * 1.35, label, color=colors[column])
        right.text(dims[3], by_dim[3, column] * 0.45, names[column], color=colors[column])
    left.set(xlabel="steps N   (d = 16)", ylabel="KL, nats", title="more steps")
    right.set(xlabel="dimension d   (N = 64)", title="more dimensions: all linear in d")
    return figure


def main(out: Path) -> None:
    steps, dims = np.array([16, 32, 64, 128, 256, 512]), np.array([2, 4, 8, 16, 32, 64])
    print("   d steps       path  predicted      sample     bound")
    by_step = table([(16, int(n)) for n in steps])
    by_dim = table([(int(d), 64) for d in dims])
    both = np.concatenate([by_step, by_dim])
    assert np.allclose(both[:, 0], both[:, 2], rtol=1e-6)
    assert (both[:, 1] < both[:, 0]).all()
    assert (both[:, 0] < both[:, 3]).all()
    orders = -np.diff(np.log(by_step[-3:, :2]), axis=0) / math.log(2)
    print("order of the path and of the sample in 1/N:", orders[-1].round(3))
    assert np.abs(orders - [1.0, 2.0]).max() < 0.03
    growth = np.diff(np.log(by_dim[-3:, :2]), axis=0) / math.log(2)
    print("power of d, path and sample:", growth[-1].round(3))
    assert np.abs(growth - 1.0).max() < 0.03
    out.mkdir(parents=True, exist_ok=True)
    draw(steps, by_step, dims, by_dim).savefig(out / "theory-steps.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
