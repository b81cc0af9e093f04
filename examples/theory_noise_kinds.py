r"""Masks against uniform noise: both need ~d steps for d sites; d^2 is a bound that no law meets.

With the exact denoiser the only error is that a step holds a prediction still. Let D(t) be what the
noise has left of KL(q_t || uniform), and h(alpha) the mean entropy of a word's visible sites, each
visible with probability alpha. A step that freezes flip rates of uniform noise (rate beta), or the
posterior under masks, replaces the integral of D', or h', by a Riemann sum:

.. math:: \mathrm{KL}_{\text{uniform}} = \int_0^T F\,dt - \sum_k \tau_k F(t_k), \quad F = -D'
   = \tfrac\beta2 \sum_i E[r_i \log r_i], \qquad
   \mathrm{KL}_{\text{masks}} = \sum_k \Delta_k h'(\alpha_k) - \int_0^1 h'\,d\alpha,

for the flip ratios :math:`r_i = q_t(x^{(i)}) / q_t(x)` and the posterior are martingales of the
reversal. F and h' are monotone, :math:`r_i \le (1 + e^{-\beta t}) / (1 - e^{-\beta t})` and
:math:`0 \le h' \le d \log 2`, so that for *every* law of d bits and N equal steps

.. math:: \mathrm{KL}_{\text{uniform}} \le d \int_0^{T/N} \tfrac\beta2
   \log\coth\tfrac{\beta t}{2}\, dt \approx \frac{d\,\beta T}{2 N} \Big(1 + \log\frac{2N}{\beta T}
   \Big), \qquad \mathrm{KL}_{\text{masks}} \le \frac{d \log 2}{N} .

Ancestral steps under uniform noise are the best product law of each step, so they err less; masks
whose rates are frozen too, and not the posterior alone, err more by 0.6 d / N. The error of the
start is apart from this: D(T) is at most :math:`d \log(1 + e^{-\beta T})` for uniform noise.

The bounds are derived here, and checked by brute force in ``tests/test_noise_kinds.py``. Of the
literature the abstracts were read. Dmitriev, Huang and Wei (2026), arXiv 2602.15008: under
uniform noise tau-leaping needs a number of steps of order d / error up to logarithms, a factor d
less than known before, and some laws need as many; so the quoted d^2 was an upper bound. Conforti,
Durmus, Pham and Raoul (2025), arXiv 2512.00580: linear in d up to logarithms for masks and for
random walks. Li and Cai (2025), arXiv 2505.21400: under masks the error is 1/N times a mutual
information of the tokens, with a lower bound that matches. Liang, Huang, Lai, Shroff and Liang
(2025), arXiv 2506.02318: better rates for masks than for uniform noise, between upper bounds.

Here, without sampling, from sums over words or over the number of ones: the steps for an error of a
quarter of a nat, up to 128 sites. For masks d copies of a bit and parity are the worst laws (half
the bound), for frozen rates the copies are within a factor of two of the bound: ~ d log d steps.
Ancestral steps under uniform noise copy a bit in twenty steps, whatever d.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import binom, linregress
from torch import Tensor

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

ERROR, SPAN = 0.25, 6.0
"""The error in nats, and beta T."""


class Law:
    """A law of d bits by classes of words that share their probability and that of neighbors.

    Args:
        value: the bits of a class, one site of each kind, (C, K); ``many``: how many of the kind.
        neighbor: the class after a flip of such a site, (C, K).
        log_size: log of the number of words of a class, (C,).
        log_mass: log-probability of a word of each class after noise of survival alpha, (C,).
        visible: the mean entropy of n sites, for n = 0, ..., d.
    """

    def __init__(self, value, many, neighbor, log_size, log_mass, visible) -> None:
        self.value, self.many, self.neighbor = value, many, neighbor
        self.log_size, self.log_mass, self.visible = log_size, log_mass, visible

    def at(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """The probability of each class, log q_t of its words, and log r_i."""
        log_q = self.log_mass(math.exp(-SPAN * t))
        return (log_q + self.log_size).exp(), log_q, log_q[self.neighbor] - log_q[:, None]

    def entropy(self, t: float) -> float:
        mass, log_q, _ = self.at(t)
        return -float(torch.where(mass > 0, mass * log_q, 0.0).sum())

    def mean(self, mass: Tensor, values: Tensor) -> float:
        """The expected sum over the sites."""
        return float((mass[:, None] * self.many * values).sum())


def counted(d: int, log_mass: Callable[[Tensor, float], Tensor], visible: Any) -> Law:
    """A law that depends on the number of ones: a zero or a one may flip."""
    j = torch.arange(d + 1, dtype=torch.float64)
    size = math.lgamma(d + 1) - torch.lgamma(j + 1) - torch.lgamma(d - j + 1)
    neighbor = torch.stack([j + 1, j - 1], 1).clamp(0, d).long()
    value, many = torch.tensor([0, 1]).expand(d + 1, 2), torch.stack([d - j, j], 1)
    return Law(value, many, neighbor, size, lambda alpha: log_mass(j, alpha), np.array(visible))


def copies(d: int) -> Law:
    """One fair bit, d times."""

    def log_mass(j: Tensor, alpha: float) -> Tensor:
        near, far = torch.tensor([1 + alpha, 1 - alpha], dtype=torch.float64) / 2
        same = torch.xlogy(d - j, far) + torch.xlogy(j, near)
        return torch.logaddexp(same, same.flip(0)) - math.log(2)

    return counted(d, log_mass, [0.0] + [math.log(2)] * d)


def parity(d: int) -> Law:
    """All words with an even number of ones."""

    def log_mass(j: Tensor, alpha: float) -> Tensor:
        return torch.log1p((1 - 2 * (j % 2)) * alpha**d) - d * math.log(2)

    return counted(d, log_mass, math.log(2) * np.array([*range(d), d - 1]))


def ring(d: int) -> Law:
    """Neighbors on a ring tend to agree, with odds e^{2.4}: a Markov chain that is closed."""
    words = torch.cartesian_prod(*[torch.arange(2)] * d)
    spins = 2.0 * words.double() - 1
    table = (1.2 * spins * spins.roll(1, 1)).sum(1).softmax(0).view([2] * d)
    return enumerated(table, words)


def enumerated(table: Tensor, words: Tensor) -> Law:
    """Any law, word by word."""

    def log_mass(alpha: float) -> Tensor:
        law, noise = table, (1 + alpha * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()) / 2
        for _ in range(d):
            law = torch.tensordot(law, noise, dims=([0], [0]))
        return law.flatten().log()

    d = table.ndim
    neighbor = torch.arange(len(words))[:, None] ^ (1 << torch.arange(d - 1, -1, -1))
    entropies: list[list[float]] = [[] for _ in range(d + 1)]
    for hidden in words.bool().tolist():
        unseen = [axis for axis in range(d) if hidden[axis]]
        seen = table.sum(unseen) if unseen else table
        entropies[d - len(unseen)].append(float(torch.special.entr(seen).sum()))
    ones, zero = torch.ones(len(words), d).double(), torch.zeros(len(words)).double()
    return Law(words, ones, neighbor, zero, log_mass, np.array([np.mean(e) for e in entropies]))


def masks(law: Law, steps: int) -> float:
    """The path's divergence under masks that hold the posterior; so do the library's steps."""
    d, alpha = len(law.visible) - 1, np.arange(steps) / steps
    gained = binom.pmf(np.arange(d), d - 1, alpha[:, None]) @ np.diff(law.visible)
    return d * gained.mean() - law.visible[-1]


def masks_frozen(law: Law, steps: int) -> float:
    """The same where the rate of lifting masks is held as well."""
    k = np.arange(1, steps + 1)
    lifted = k * (1 - (1 - 1 / k) ** 2) / 2 + (k - 1) * np.log(np.maximum(k - 1, 1) / k)
    return masks(law, steps) + (len(law.visible) - 1) * lifted.sum() / steps


def frozen(law: Law, steps: int) -> float:
    """The same under uniform noise with flip rates that are held: tau-leaping."""
    total = law.entropy(1.0) - law.entropy(0.0)
    for k in range(steps):
        mass, _, log_r = law.at(1 - k / steps)
        total -= SPAN / 2 / steps * law.mean(mass, log_r.exp() * log_r)
    return total


def ancestral(law: Law, steps: int) -> float:
    """And of the library's ancestral steps, which hold the posterior, by the chain rule."""
    process = rv.Uniform(rv.Categorical(2, law.value.shape[1]), rv.ExponentialSurvival(SPAN))
    flip = torch.tensor(-math.expm1(-SPAN / steps) / 2, dtype=torch.float64)
    noise = torch.special.entr(torch.stack([flip, 1 - flip]))
    total = law.entropy(1.0) - law.entropy(0.0)
    for t, s in pairwise(rv.Grid.uniform(steps).ticks()):
        mass, _, log_r = law.at(float(t))
        score = torch.zeros(*log_r.shape, 2).double()
        score.scatter_(-1, 1 - law.value[..., None], log_r[..., None])
        estimate = rv.Estimate(process, law.value, t, rv.Kind.SCORE, score)
        moves = process.ancestor(law.value, t, s, estimate).leap.law(law.value)
        total += law.mean(mass, torch.special.entr(moves).sum(-1) - noise.sum())
    return total


def bound(d: int, steps: int) -> float:
    """For every law of d bits, under uniform noise."""
    return d * quad(lambda v: -math.log(math.tanh(v)), 0, SPAN / 2 / steps)[0]


def steps_for(divergence: Callable[[int], float], guess: float) -> float:
    """How many steps make the error ``ERROR``: from where 1/N takes it to there in one step."""
    steps, wanted = 0, guess
    while abs(wanted - steps) > max(1, steps / 100):
        steps = max(round(wanted), 1)
        wanted = steps * divergence(steps) / ERROR
    return wanted


def by_the_library(table: Tensor, steps: int) -> float:
    """The divergence under masks from the library's steps at every partly masked word."""
    d, process = table.ndim, rv.Mask(rv.Categorical(2, table.ndim))
    oracle, total = rv.Enumerated(process, table), float(-torch.special.entr(table).sum())
    words = torch.cartesian_prod(*[torch.arange(3)] * d)
    for t, s in pairwise(process.grid(steps).ticks()):
        kernels = [process.kernel(x.expand(len(words), d), t) for x in oracle.states]
        mass = sum(table[tuple(x)] * q.log_prob(words).exp()
                   for x, q in zip(oracle.states, kernels, strict=True))  # fmt: skip
        leap = process.ancestor(words, t, s, oracle(words, t)).leap
        total += float((mass[:, None] * leap.prob * torch.special.entr(leap.weights).sum(-1)).sum())
    return total


WAYS = {"masks": (masks, "C0"), "masks, frozen rates": (masks_frozen, "C9"),
        "uniform": (ancestral, "C3"), "uniform, frozen rates": (frozen, "C1")}  # fmt: skip
DOUBLED, SMALL = [4, 8, 16, 32, 64, 128], [4, 5, 6, 7, 8, 9, 10]
SIZES = {copies: DOUBLED, parity: DOUBLED, ring: SMALL}


def search(law: Callable[[int], Law], way: Callable[[Law, int], float]) -> list[float]:
    found: list[float] = []
    for d in SIZES[law]:
        found.append(steps_for(partial(way, law(d)), 2 * found[-1] if found else 50))
    return found


def check_formulas() -> None:
    """Sums over counts are sums over words, and masks do as the library does (in float32)."""
    words = torch.cartesian_prod(*[torch.arange(2)] * 4)
    for law in (copies, parity):
        counts = law(4)
        table = counts.log_mass(1.0).exp()[words.sum(1)].view(2, 2, 2, 2)
        for way, _ in WAYS.values():
            assert abs(way(counts, 16) - way(enumerated(table, words), 16)) < 1e-12
        assert abs(by_the_library(table, 16) - masks(counts, 16)) < 1e-6


def main(out: Path) -> None:
    check_formulas()
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained", sharey=True)
    titles, power, last = ["d copies of one bit", "a parity code", "a ring of bits"], {}, {}
    print(f"steps for an error of {ERROR} nats of the path, and the power of d: fitted, last two")
    for (law, dims), title, panel in zip(SIZES.items(), titles, panels, strict=True):
        limits = [steps_for(partial(bound, d), 60 * d) for d in dims]
        for name, (way, color) in WAYS.items():
            steps, key = search(law, way), (law, name)
            fit = linregress(np.log(dims), np.log(steps))
            power[key], last[key] = fit.slope, math.log(steps[-1] / steps[-2], dims[-1] / dims[-2])
            cells = " ".join(f"{d}: {n:.1f} " for d, n in zip(dims, steps, strict=True))
            errors = f"{fit.slope:5.2f} ± {fit.stderr:.2f}, {last[key]:5.2f}"
            print(f"{title:19} {name:21} {errors}   {cells}")
            panel.loglog(dims, steps, "o-", color=color, ms=4, label=name)
            top = [d * math.log(2) / ERROR for d in dims] if way is masks else limits
            assert (np.array(steps) < top).all()
        print(f"{'every law':19} {'uniform, at most':21} {'':19}  {limits[-1]:.0f} at {dims[-1]}")
        panel.loglog(dims, limits, "--", color="C1", lw=1)
        square = [limits[0] * (d / dims[0]) ** 2 for d in dims]
        panel.loglog(dims, square, ":", color="0.6")
        panel.text(dims[-2], square[-2], "$d^2$ ", color="0.5", ha="right", va="bottom")
        panel.set(title=title, xlabel="sites d")
        panel.set_xticks(dims, [str(d) for d in dims])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    check_growth(power, last)
    panels[0].text(4.2, 9e3, "dashed: bound on\nthe orange for\nevery law", color="C1", va="bottom")
    panels[0].set_ylabel(f"steps for {ERROR} nats")
    panels[2].legend(frameon=False, loc="upper left")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-noise-kinds.png", dpi=80)


def check_growth(power: dict, last: dict) -> None:
    """No Monte Carlo: the margins are for the 1 % to which steps are found and finite d."""
    assert max(power.values()) < 1.2
    assert max(last.values()) < 1.15
    for law in (copies, parity):
        assert abs(last[law, "masks"] - 1) < 0.02
        assert abs(last[law, "masks, frozen rates"] - 1) < 0.02
    assert abs(last[parity, "uniform"] - 1) < 0.05
    assert abs(last[parity, "uniform, frozen rates"] - 1) < 0.02
    assert 1 < last[copies, "uniform, frozen rates"] < power[copies, "uniform, frozen rates"]
    assert abs(last[copies, "uniform"]) < 0.05
    assert abs(last[ring, "uniform"] - 1) < 0.05


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
