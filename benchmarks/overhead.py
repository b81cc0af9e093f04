"""Cost of one sampler step beside a hand-written loop of the same method, in one run.

256 states in R^2, 50 steps, one thread, a network of one multiplication: what is measured is the
library, not the network. Every row is the minimum over interleaved repetitions; the ratio is to the
hand-written loop of the same method. Claim: Euler and Ancestral cost at most 2.5 times the loop.

Run: python benchmarks/overhead.py
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch
from torch import Tensor, nn

import reversal as rv

BATCH, STEPS, ROUNDS, REPEATS = 256, 50, 5, 20


class Multiply(nn.Module):
    """The trivial network: noise is 0.5 x."""

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        """One multiplication."""
        return 0.5 * x_t


process = rv.Gaussian(rv.Euclidean(2), rv.VariancePreserving())
network = Multiply()
grid = rv.Grid.uniform(STEPS, 1.0, 1e-3)
signal = process.schedule.signal(grid.times)
alphas, sigmas = signal.alpha.tolist(), signal.sigma.tolist()
steps = process.schedule.step(grid.times[:-1], grid.times[1:])
betas = steps.diffusion.tolist()
generator = torch.Generator().manual_seed(0)
clocks = [torch.full((BATCH,), float(t)) for t in grid.times]


def hand_ddim(x: Tensor) -> Tensor:
    """DDIM: clean estimate, then the line to the next noise level."""
    for k in range(STEPS):
        noise = network(x, clocks[k], None)
        clean = (x - sigmas[k] * noise) / alphas[k]
        x = alphas[k + 1] * clean + sigmas[k + 1] * noise
    return x


def hand_ddpm(x: Tensor) -> Tensor:
    """DDPM: clean estimate, then the mean of the bridge and its noise."""
    for k in range(STEPS):
        ratio = alphas[k] / alphas[k + 1]
        added = sigmas[k] ** 2 - ratio**2 * sigmas[k + 1] ** 2
        std = (sigmas[k + 1] ** 2 * added / sigmas[k] ** 2) ** 0.5
        noise = network(x, clocks[k], None)
        clean = (x - sigmas[k] * noise) / alphas[k]
        mean = (ratio * sigmas[k + 1] ** 2 * x + alphas[k + 1] * added * clean) / sigmas[k] ** 2
        x = mean + std * torch.randn(x.shape, generator=generator)
    return x


def hand_ode(x: Tensor) -> Tensor:
    """Euler on the probability flow of the variance-preserving process."""
    for k in range(STEPS):
        half = betas[k] / 2
        noise = network(x, clocks[k], None)
        x = x + half * (x - noise / sigmas[k])
    return x


def hand_sde(x: Tensor) -> Tensor:
    """Euler-Maruyama on the reversal of the variance-preserving process."""
    for k in range(STEPS):
        beta = betas[k]
        noise = network(x, clocks[k], None)
        x = x + 0.5 * beta * x - beta * noise / sigmas[k]
        x = x + beta**0.5 * torch.randn(x.shape, generator=generator)
    return x


def library(sampler: rv.Euler | rv.Ancestral | rv.Heun) -> Callable[[Tensor], Tensor]:
    """The same method through the public interface."""
    denoiser = rv.NetworkDenoiser(network, process, rv.Noise())
    return lambda x: sampler.sample(denoiser, BATCH, x_1=x, grid=grid, generator=generator)


ROWS = [
    ("Ancestral(eta=0), DDIM", library(rv.Ancestral(eta=0.0)), hand_ddim),
    ("Ancestral(), DDPM", library(rv.Ancestral()), hand_ddpm),
    ("Euler(churn=0), flow", library(rv.Euler(churn=0.0)), hand_ode),
    ("Euler(), reversal", library(rv.Euler()), hand_sde),
]


def seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The mean time of one run over the repeats."""
    start = time.perf_counter()
    for _ in range(REPEATS):
        function(x)
    return (time.perf_counter() - start) / REPEATS


@torch.no_grad()
def main() -> None:
    """Print microseconds per step and ratios, with the spread over the rounds."""
    torch.set_num_threads(1)
    x = torch.randn(BATCH, 2, generator=generator)
    print(
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}, 1 thread, "
        f"{BATCH} x 2, {STEPS} steps, {ROUNDS} rounds of {REPEATS}"
    )
    print(f"{'sampler':26} {'hand us':>8} {'ours us':>8} {'ratio':>6}   spread of the ratio")
    for name, ours, hand in ROWS:
        pairs = [(seconds(hand, x), seconds(ours, x)) for _ in range(ROUNDS)]
        ratios = [b / a for a, b in pairs]
        best_hand, best_ours = (min(column) / STEPS * 1e6 for column in zip(*pairs, strict=True))
        median = statistics.median(ratios)
        print(
            f"{name:26} {best_hand:8.1f} {best_ours:8.1f} {best_ours / best_hand:6.2f}   "
            f"{min(ratios):.2f} .. {max(ratios):.2f}, median {median:.2f}"
        )


if __name__ == "__main__":
    main()
