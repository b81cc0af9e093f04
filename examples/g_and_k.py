r"""The posterior of the g-and-k law from simulations alone, beside exact references.

A g-and-k draw is a normal one bent by location A, scale B, skewness g and kurtosis k,

.. math:: Q(z) = A + B \big(1 + 0.8 \tanh(g z / 2)\big) (1 + z^2)^k z, \qquad z \sim N(0, 1),

which is easy to draw and has no density in closed form. 250 draws are reduced to 25 of their order
statistics. `AmortizedPosterior` sees simulations only. The reference knows more: the density
:math:`f = \phi(z) / Q'(z)` by numerical inversion of Q, and with it the joint density of the order
statistics, so Metropolis draws from the posterior that is asked for, exactly in the limit. It is
not the posterior given all 250 draws, which is printed too: 25 of them know less.

Source: Benton et al. (2024) for the problem; Rayner and MacGillivray (2002) for the
g-and-k law; David and Nagaraja (2003), eq. (2.2.2), for order statistics.
"""

# %% The simulator
from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from torch import Tensor

import reversal as rv
from reversal.metrics import Calibration, band, c2st, sbc

NAMES = ("A", "B", "g", "k")
TRUTH = torch.tensor([3.0, 1.0, 2.0, 0.5], dtype=torch.float64)
LOW, HIGH = torch.zeros(4, dtype=torch.float64), torch.full((4,), 10.0, dtype=torch.float64)
NUM_DRAWS = 250
NUM_SIMULATIONS = 800_000
RANKS = torch.arange(5, 250, 10)  # of 250, from the least
MIDDLE = len(RANKS) // 2
EXACT = "Metropolis, 25 order statistics"


def quantile(theta: Tensor, z: Tensor) -> Tensor:
    """Q(z), increasing in z; parameters ``(..., 4)`` and normal quantiles ``(..., S)``."""
    a, b, g, k = theta[..., None].unbind(-2)
    return a + b * (1 + 0.8 * torch.tanh(g * z / 2)) * (1 + z**2) ** k * z


def simulate(theta: Tensor, generator: torch.Generator) -> Tensor:
    """The chosen order statistics of 250 draws of every parameter vector, ``(N, 25)``.

    250 uniform numbers in order are the partial sums of 251 exponential ones, over their sum: there
    is nothing to sort. Source: David and Nagaraja (2003), section 2.5.
    """
    waits = torch.empty(len(theta), NUM_DRAWS + 1, dtype=theta.dtype)
    sums = waits.exponential_(generator=generator).cumsum(1)
    return quantile(theta, torch.special.ndtri(sums[:, RANKS - 1] / sums[:, -1:]))


def summarize(chosen: Tensor) -> Tensor:
    """The order statistics, one to one: the middle, and logarithms of distances.

    Of all to the middle, which say scale and tails, and of neighbors, which say the shape: the
    tails reach 10^9, their logarithms do not.
    """
    middle = chosen[..., MIDDLE : MIDDLE + 1]
    apart = torch.cat([chosen[..., :MIDDLE], chosen[..., MIDDLE + 1 :]], -1) - middle
    lengths = torch.cat([apart.abs(), chosen.diff(dim=-1)], -1)
    return torch.cat([middle, lengths.clamp_min(1e-12).log()], -1)


def prior(n: int, generator: torch.Generator) -> Tensor:
    """Uniform on the box."""
    return LOW + (HIGH - LOW) * torch.rand(n, 4, generator=generator, dtype=LOW.dtype)


# %% The reference
def invert(theta: Tensor, y: Tensor) -> Tensor:
    """The z in [-9, 9] with Q(z) = y: bisection to 0.005, then Newton; ``(C, S)``."""
    low = torch.full((len(theta), len(y)), -9.0, dtype=theta.dtype)
    high = -low
    for _ in range(12):
        z = (low + high) / 2
        is_below = quantile(theta, z) < y
        low, high = torch.where(is_below, z, low), torch.where(is_below, high, z)
    z = (low + high) / 2
    for _ in range(3):
        z = z - (quantile(theta, z) - y) / slope(theta, z).exp()
        z = torch.clamp(z, low, high)
    return z


def slope(theta: Tensor, z: Tensor) -> Tensor:
    """log Q'(z), ``(..., S)``."""
    _, b, g, k = theta[..., None].unbind(-2)
    bent = torch.tanh(g * z / 2)
    inner = (1 + 0.8 * bent) * (1 + 2 * k * z**2 / (1 + z**2)) + 0.4 * g * z * (1 - bent**2)
    return b.log() + k * (1 + z**2).log() + inner.log()


def log_likelihood(theta: Tensor, y: Tensor, ranks: Tensor) -> Tensor:
    r"""log of the joint density of order statistics y of 250 draws, up to a constant, ``(C,)``.

    .. math:: \prod_j f(y_j) \prod_j \big(F(y_{j+1}) - F(y_j)\big)^{r_{j+1} - r_j - 1}
    """
    z = invert(theta, y)
    density = -(z**2) / 2 - slope(theta, z)
    share = torch.nn.functional.pad(torch.special.ndtr(z), (1, 0))
    share = torch.nn.functional.pad(share, (0, 1), value=1.0)
    edges = torch.cat([ranks.new_tensor([0]), ranks, ranks.new_tensor([NUM_DRAWS + 1])])
    between = share.diff(dim=-1).clamp_min(1e-300).log() * (edges.diff() - 1)
    return density.sum(-1) + between.sum(-1)


def metropolis(
    y: Tensor, ranks: Tensor, chains: int, steps: int, generator: torch.Generator
) -> Tensor:
    """Random-walk Metropolis on the box, ``(steps, chains, 4)`` after a warm-up of ten rounds.

    Chains start at the likeliest hundredth of prior draws. In each round of the warm-up proposals
    have the covariance of all chains at its start; then it is fixed, and chains are independent.
    In its first half the less likely chains start again from the others: where g is large the law
    hardly depends on it, and a walk gets lost there.
    """
    theta = prior(100 * chains, generator)
    now, best = log_likelihood(theta, y, ranks).topk(chains)
    theta, kept = theta[best], []
    for turn, length in enumerate([*[100] * 10, steps]):
        if turn < 5:
            best = now.topk(chains // 2).indices.repeat(2)
            theta, now = theta[best], now[best]
        factor = torch.linalg.cholesky(torch.cov(theta.T)) * 2.38 / theta.shape[1] ** 0.5
        kept = []
        for _ in range(length):
            noise = torch.randn(chains, 4, generator=generator, dtype=theta.dtype)
            there = theta + noise @ factor.T
            is_legal = ((there > LOW) & (there < HIGH)).all(1)
            then = log_likelihood(torch.where(is_legal[:, None], there, theta), y, ranks)
            u = torch.rand(chains, generator=generator, dtype=theta.dtype)
            moves = is_legal & (u.log() < then - now)
            theta = torch.where(moves[:, None], there, theta)
            now = torch.where(moves, then, now)
            kept.append(theta)
    return torch.stack(kept)


def r_hat(draws: Tensor) -> Tensor:
    """Split R-hat of ``(steps, chains, 4)``, steps even; Gelman et al. (2013), eq. (11.4)."""
    halves = torch.cat(draws.chunk(2), 1)
    n = len(halves)
    within, between = halves.var(0).mean(0), halves.mean(0).var(0)
    return ((n - 1) / n + between / within).sqrt()


# %% The comparison
def learn(generator: torch.Generator) -> tuple[rv.AmortizedPosterior, Calibration]:
    """Return posteriors from simulations, and how calibrated they are over the prior."""
    theta = prior(NUM_SIMULATIONS, generator)
    parts = theta.split(20_000)
    evidence = torch.cat([summarize(simulate(part, generator)).float() for part in parts])
    posterior = rv.AmortizedPosterior(rv.Box(LOW, HIGH), steps=1000, normal_steps=15_000)
    posterior.fit(theta, evidence)
    truths = prior(300, generator)
    ranked = posterior.sample(99, summarize(simulate(truths, generator)), seed=1, steps=30)
    return posterior, sbc(ranked.numpy(), truths.numpy(), rate=0.01)


def table(rows: dict[str, Tensor]) -> None:
    """Print posterior means and standard deviations."""
    print(f"\n{'':34}" + "".join(f"{name:>16}" for name in NAMES))
    for title, draws in rows.items():
        flat = draws.reshape(-1, 4)
        cells = zip(flat.mean(0).tolist(), flat.std(0).tolist(), strict=True)
        print(f"{title:34}" + "".join(f"{mean:8.3f} ± {sd:.3f}" for mean, sd in cells))


def picture(ours: Tensor, reference: Tensor, checked: Calibration, path: Path) -> None:
    """Draw the marginals, and the calibration with its band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(10, 4.6), layout="constrained")
    t = np.concatenate([[0], checked.band.points, [1]])
    low, high = (
        np.pad(end, (1, 1), constant_values=(0, 1)) - t
        for end in (checked.band.low, checked.band.high)
    )
    for i, (name, (top, bottom)) in enumerate(zip(NAMES, axes.T, strict=True)):
        ends = np.quantile(torch.cat([ours, reference])[:, i], [0.002, 0.998])
        bins, known = np.linspace(*ends, 31), reference[:, i]
        top.hist(ours[:, i], bins, density=True, color="#8fb8de", label="from simulations alone")
        top.hist(known, bins, density=True, histtype="step", color="#222222", label=EXACT)
        top.axvline(float(TRUTH[i]), color="#c0392b", lw=1, label="truth")
        top.set(title=name, yticks=[])
        shares = np.pad(checked.shares[:, i], (1, 1), constant_values=(0, 1)) - t
        bottom.fill_between(t, low, high, color="#dddddd", lw=0, label="band")
        bottom.plot(t, shares, color="#2b6ca3")
        bottom.set(xlim=(0, 1), ylim=(-0.16, 0.16), xlabel="rank of the truth")
        bottom.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        bottom.tick_params(labelleft=i == 0)
        bottom.spines[["top", "right"]].set_visible(False)
        top.spines[["top", "right", "left"]].set_visible(False)
    axes[1, 0].set_ylabel("ECDF less uniform, 99 % band")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=100)


def main(out: Path | None) -> None:
    """Learn, check, compare."""
    start, generator = time.monotonic(), torch.Generator().manual_seed(0)
    posterior, checked = learn(generator)
    print(f"{time.monotonic() - start:.0f} s; inside the band: {checked.are_uniform.tolist()}")

    normal = torch.randn(NUM_DRAWS, generator=torch.Generator().manual_seed(1), dtype=TRUTH.dtype)
    draws = quantile(TRUTH, normal.sort().values)
    observed = draws[RANKS - 1]
    ours = posterior.sample(4000, summarize(observed), seed=0)
    generator.manual_seed(2)
    exact = metropolis(observed, RANKS, 200, 1000, generator)
    complete = metropolis(draws, torch.arange(1, NUM_DRAWS + 1), 50, 600, generator)
    print(f"{time.monotonic() - start:.0f} s with Metropolis")
    table({"simulations alone": ours, EXACT: exact, "Metropolis, all 250 draws": complete})

    thinned = exact[::50].reshape(-1, 4)
    told = c2st(pd.DataFrame(ours, columns=NAMES), pd.DataFrame(thinned, columns=NAMES))
    gaps = [ks_2samp(ours[:, i], thinned[:, i]).statistic for i in range(4)]
    print(f"\nR-hat of the references: {r_hat(exact).max():.3f} and {r_hat(complete).max():.3f}")
    print("Kolmogorov-Smirnov to the first:", ", ".join(f"{gap:.3f}" for gap in gaps))
    print(
        f"a classifier tells them apart with AUC {told.value:.3f} ({told.low:.3f}-{told.high:.3f})"
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        picture(ours, thinned, checked, out / "g-and-k.png")

    mean, deviation = exact.mean((0, 1)), exact.reshape(-1, 4).std(0)
    assert r_hat(exact).max() < 1.05
    assert Calibration(checked.u, band(len(checked.u), 1e-4 / 4)).is_calibrated
    assert ((ours.mean(0) - mean).abs() < 0.6 * deviation).all()
    assert ((ours.std(0) / deviation).log().abs() < math.log(1.6)).all()
    assert told.value < 0.8


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder of the picture; none is drawn without it")
    main(parser.parse_args().out)
