r"""Masks against uniform noise: how many steps for d sites?

With the exact denoiser the only error of a sampler is that of its steps. Bounds on it are quoted as

.. math:: \mathrm{KL} = O(d^2 / N) \quad\text{(uniform noise)}, \qquad
   \mathrm{KL} = O(d / N) \quad\text{(masks)},

N steps, so that uniform noise would need ~d^2 of them and masks ~d. Source: Liang et al. (2025),
"Absorb and converge", arXiv 2506.02318, for masks, against earlier bounds for tau-leaping at
uniform rates; but Zhang, Chen and Gu (2024), arXiv 2410.02321, have nearly linear bounds as well.
What is true of a given law can be had without error, from all pairs of states of every step:

.. math:: \mathrm{KL}(q_{\text{path}} \,\|\, p_{\text{path}}) = \sum_k E_q\Big[
   \log \frac{q(x_s | x_t)}{p(x_s | x_t)}\Big],

q the exact reversal and p the library's step, from the exact q_1.

Measured: the error falls as 1/N, and N KL grows at most linearly in d for both kinds of noise: no
d^2 is seen. Masks are cheaper by a factor on a ring of bits and on a parity code. On d copies of
one bit it is the other way around: masks need ~d steps, for a step that lifts the first two masks
at once errs, while uniform noise reveals the bit little by little, in a number of steps that hardly
grows. Independent sites cost ancestral steps nothing.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

import reversal as rv
from reversal.core import Leap

mpl.use("Agg")
import matplotlib.pyplot as plt

DIMENSIONS, STEPS = [3, 4, 5, 6, 7], 64
Leaping = Callable[[Any, Tensor, Any, Any, Any], Leap]


def bits(d: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * d)


def ring(d: int) -> Tensor:
    """Neighbors on a ring tend to agree, with odds e^{1.2}."""
    spins = 2 * bits(d) - 1
    return (0.6 * spins * spins.roll(1, 1)).sum(1).softmax(0).view([2] * d)


def parity(d: int) -> Tensor:
    """All words with an even number of ones."""
    return ((bits(d).sum(1) % 2 == 0).double() / 2 ** (d - 1)).view([2] * d)


def copies(d: int) -> Tensor:
    """One fair bit, d times."""
    ones = bits(d).sum(1)
    return (((ones == 0) | (ones == d)).double() / 2).view([2] * d)


def ancestral(process: Any, x_t: Tensor, t: Any, s: Any, estimate: Any) -> Leap:
    return process.ancestor(x_t, t, s, estimate).leap


def tau_leaping(process: Any, x_t: Tensor, t: Any, s: Any, estimate: Any) -> Leap:
    if float(s) == 0:
        return ancestral(process, x_t, t, s, estimate)
    return Leap.of_rates(process.increment(x_t, t, s).reversal(estimate.score).rates)


@dataclass(frozen=True)
class Way:
    """A kind of noise, a grid and a step."""

    name: str
    color: str
    process: Callable[[rv.Categorical], Any]
    grid: Callable[[Any, int], rv.Grid]
    leap: Leaping


def constant_rate(space: rv.Categorical) -> rv.Uniform:
    return rv.Uniform(space, rv.ExponentialSurvival())


WAYS = [
    Way("masks", "C0", rv.Mask, lambda p, n: p.grid(n), ancestral),
    Way("uniform", "C3", rv.Uniform, lambda p, n: p.grid(n), ancestral),
    Way("uniform, τ-leaping", "C1", constant_rate, lambda p, n: rv.Grid.uniform(n), tau_leaping),
]


def matrix(law: Callable[[Tensor], Any], count: int, num_states: int) -> Tensor:
    """The probabilities of one site, from each of ``count`` values to each noisy state."""
    start = torch.arange(count).repeat_interleave(num_states)
    end = torch.arange(num_states).repeat(count)
    return law(start).log_prob(end).exp().view(count, num_states)


def spread(law: Tensor, one_site: Tensor) -> Tensor:
    """Apply a matrix to every site of a joint law."""
    for _ in range(law.ndim):
        law = torch.tensordot(law, one_site, dims=([0], [0]))
    return law


def divergence(way: Way, data: Tensor, steps: int) -> float:
    """The divergence between the paths, over all pairs of states of all steps."""
    d, process, site = data.ndim, *(way.process(rv.Categorical(2, *k)) for k in ([data.ndim], []))
    denoiser, num_states = rv.Enumerated(process, data), process.noisy_space.num_states
    states = torch.cartesian_prod(*[torch.arange(num_states)] * d)
    places = num_states ** torch.arange(d - 1, -1, -1)
    total = 0.0
    for t, s in pairwise(way.grid(process, steps).ticks()):
        forward = matrix(lambda x, s=s, t=t: site.transition(x, s, t), num_states, num_states)
        kernel = matrix(lambda x, s=s: site.kernel(x, s), 2, num_states)
        log_q_s = spread(data, kernel).flatten().log()
        log_q_t = spread(log_q_s.exp().view([num_states] * d), forward).flatten().log()
        moves = way.leap(process, states, t, s, denoiser(states, t)).law(states)
        pairs = (forward.mT > 0).nonzero()
        chosen = pairs[torch.cartesian_prod(*[torch.arange(len(pairs))] * d)]
        x_t, x_s = chosen.unbind(-1)
        here, there = (x_t * places).sum(1), (x_s * places).sum(1)
        log_joint = log_q_s[there] + forward[x_s, x_t].log().sum(1)
        log_p = moves[here].gather(-1, x_s[..., None]).squeeze(-1).log().sum(1)
        gap = log_joint.exp() * (log_joint - log_q_t[here] - log_p)
        total += float(torch.where(log_joint > -torch.inf, gap, 0.0).sum())
    return total


def main(out: Path) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    titles = {ring: "a ring of bits", parity: "a parity code", copies: "d copies of one bit"}
    growth, level = {}, {}
    print(f"N KL with N = {STEPS}, nats, for d =", *DIMENSIONS, " power of d")
    for (law, title), panel in zip(titles.items(), panels, strict=True):
        for way in WAYS:
            values = [STEPS * divergence(way, law(d), STEPS) for d in DIMENSIONS]
            power = math.log(values[-1] / values[0]) / math.log(DIMENSIONS[-1] / DIMENSIONS[0])
            growth[law, way.name], level[law, way.name] = power, values[-1]
            cells = " ".join(f"{value:8.3f}" for value in values)
            print(f"{title:20} {way.name:20} {cells} {power:8.2f}")
            panel.loglog(DIMENSIONS, values, "o-", color=way.color, ms=4, label=way.name)
            if way.name == "uniform":
                square = [values[0] * (d / DIMENSIONS[0]) ** 2 for d in DIMENSIONS]
                panel.loglog(DIMENSIONS, square, "--", color="0.7", zorder=0)
                panel.text(DIMENSIONS[-2], square[-2] * 1.15, "$d^2$", color="0.5", ha="right")
        panel.set(title=title, xlabel="sites d")
        panel.set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    check(growth, level)
    panels[0].set_ylabel("steps × KL of the path, nats")
    panels[0].legend(frameon=False, loc="upper left")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-noise-kinds.png", dpi=90)


def check(growth: dict, level: dict) -> None:
    masks, uniform, leaping = (way.name for way in WAYS)
    halved = [divergence(way, ring(4), 64) / divergence(way, ring(4), 128) for way in WAYS]
    print("twice the steps divide the error by", [round(ratio, 2) for ratio in halved])
    assert all(1.8 < ratio < 2.2 for ratio in halved)
    assert max(growth.values()) < 1.2
    assert all(growth[parity, name] > 0.6 for name in (masks, uniform, leaping))
    assert all(level[law, masks] < level[law, uniform] for law in (ring, parity))
    assert growth[copies, masks] > 0.8
    assert growth[copies, uniform] < 0.3
    independent = torch.tensor([0.2, 0.8], dtype=torch.float64)
    product = torch.einsum("a,b,c->abc", independent, independent, independent)
    assert all(abs(divergence(way, product, 8)) < 1e-12 for way in WAYS[:2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
