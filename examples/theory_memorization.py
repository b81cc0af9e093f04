r"""The exact denoiser of a data set can only repeat it; a trained one need not.

The oracle of n points, :math:`E[x_0 | x_t] = \sum_i w_i x^{(i)}` with
:math:`w_i \propto q(x_t | x^{(i)})`, is the minimizer of the denoising loss over the data, and its
reversal ends at a datum. It condenses on one, its best weight near 1, once x_t tells more about
x_0 than it takes to name a point,

.. math:: I(x_0; x_t) = \tfrac12 \log\det(1 + \mathrm{snr}_t\, C) > \log n
   \qquad (x_0 \sim N(m, C),\ \mathrm{snr} = \alpha^2 / \sigma^2) .

Before that it is as good on new data as on its own; after it, it is wrong on new data. What a
network samples that is new is due to what it does not fit. Source: for the collapse Biroli,
Bonnaire, De Bortoli and Mezard (2024), "Dynamical regimes of diffusion models", arXiv 2402.18491;
Yoon, Choi, Kwon and Ryu (2023), "Diffusion probabilistic models generalize when they fail to
memorize".

Here: Gaussian data, where the collapse is predicted, and scikit-learn's digits, half of them held
out. A sampler that has learned the law lies nearer to a training digit than to any held-out one
half of the time; one that copies, always.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from _digits import pixels, train
from _gaussian import time_of_sigma
from scipy.optimize import brentq
from torch import Tensor, nn

import reversal as rv
from reversal.metrics.copying import nearest_distances

mpl.use("Agg")
import matplotlib.pyplot as plt

LEVELS = torch.linspace(-5, 6, 23)


def condensation(variances: Tensor, n: int) -> float:
    """The log signal-to-noise ratio at which I(x_0; x_t) = log n."""
    gap = lambda level: np.log1p(math.exp(level) * variances.numpy()).sum() / 2 - math.log(n)  # noqa: E731
    return brentq(gap, -20, 20)


def errors(variances: Tensor, n: int) -> Tensor:
    """Of the oracle on its own data and on new data, as shares of the least error there is."""
    generator, d = torch.Generator().manual_seed(0), len(variances)
    draw = lambda: variances.sqrt() * torch.randn(n, d, generator=generator).double()  # noqa: E731
    own, new = draw(), draw()
    process = rv.Gaussian(rv.Euclidean(d), rv.VarianceExploding(0.01, 100.0))
    oracle = rv.Empirical(process, own)
    exact = rv.GaussianData(process, torch.zeros(d).double(), torch.diag(variances))
    rows = []
    for level in LEVELS:
        sigma = math.exp(-float(level) / 2)
        t = time_of_sigma(process.schedule, sigma).expand(150)
        noise = sigma * torch.randn(150, d, generator=generator).double()
        pairs = ((oracle, own), (exact, own), (oracle, new), (exact, new))
        gaps = [denoiser(x[:150] + noise, t).clean - x[:150] for denoiser, x in pairs]
        least = [gap.square().mean() for gap in gaps]
        rows.append([least[0] / least[1], least[2] / least[3]])
    return torch.tensor(rows)


def gaussian_example(panel: Any, n: int = 500) -> None:
    print("   d  log snr of collapse  measured")
    for d, color in ((4, "C2"), (16, "C0"), (64, "C4")):
        variances = torch.linspace(0.2, 1.8, d, dtype=torch.float64)
        own, new = errors(variances, n).unbind(1)
        predicted = condensation(variances, n)
        k = int((own < 0.5).nonzero()[0])
        share = float((own[k - 1] - 0.5) / (own[k - 1] - own[k]))
        measured = float(LEVELS[k - 1] + share * (LEVELS[k] - LEVELS[k - 1]))
        print(f"{d:4} {predicted:20.2f} {measured:9.2f}")
        early, late = predicted - 2 > LEVELS, predicted + 2 < LEVELS
        assert abs(measured - predicted) < 0.25
        assert float(own.max()) < 1.015  # on its own data nothing beats the oracle,
        assert float(new.min()) > 0.97  # on new data nothing beats the exact denoiser
        assert float(new[early].max()) < 1.06
        assert float(own[late].max()) < 0.1
        assert float(new[late].min()) > 1.2
        panel.plot(LEVELS, own, "o-", color=color, ms=3)
        panel.plot(LEVELS, new, "--", color=color, lw=1)
        panel.axvline(predicted, color=color, lw=6, alpha=0.2)
        panel.text(predicted, 2.28, f"d = {d}", color=color, ha="center")
    panel.set(xlabel="log signal-to-noise ratio", ylabel="error / least error", ylim=(0, 2.2))
    panel.text(-5.4, 1.45, "own data: solid\nnew data: dashed\nshaded: $I = \\log n$", color="0.3")
    panel.spines[["top", "right"]].set_visible(False)


def digits_example(panel: Any) -> None:
    digits = pixels()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    own, held = digits[order[:898]], digits[order[898:1796]]
    process = rv.Gaussian(rv.Euclidean(64))
    denoisers = {"oracle": rv.Empirical(process, own), "trained": train(own, 3500)}
    rows, shares = [], {}
    for (name, denoiser), count in zip(denoisers.items(), (100, 1000), strict=True):
        generator = torch.Generator().manual_seed(2)
        x = rv.Multistep().sample(denoiser, count, steps=50, generator=generator)
        to_own, to_held = (nearest_distances(x.numpy(), y.numpy()) for y in (own, held))
        shares[name] = float((to_own < to_held).mean())
        print(f"{name:8} nearer to its data than to held-out data: {shares[name]:.3f}")
        print(f"{'':8} distance to its data {to_own.mean():.3f}, to held-out {to_held.mean():.3f}")
        nearest = own[torch.cdist(x[:8], own).argmin(1)]
        rows += [x[:8], nearest]
    assert shares["oracle"] == 1
    assert 0.4 < shares["trained"] < 0.75
    tiles = torch.stack(rows).view(4, 8, 8, 8)
    tiles = nn.functional.pad(tiles, (1, 1, 1, 1), value=-1.0)
    tiles = nn.functional.pad(tiles, (0, 0, 0, 2), value=-1.0)
    panel.imshow(tiles.permute(0, 2, 1, 3).reshape(48, 80).clamp(-1, 1), cmap="gray_r")
    labels = ["oracle", "nearest datum", "trained", "nearest datum"]
    panel.set_yticks([4.5, 16.5, 28.5, 40.5], labels)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def main(out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), layout="constrained")
    gaussian_example(left)
    digits_example(right)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-memorization.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
