"""Cost of one sampler step beside a hand-written loop of the same method, in one run.

256 states in R^2, 50 steps, one thread, a network of one multiplication: what is measured is the
library, not the network. Every row is the minimum over interleaved repetitions; the ratio is to the
hand-written loop of the same method. Claim: Euler and Ancestral cost at most 2.5 times the loop,
multistep samplers 3 times. The last table times one draw of noise of each kind.

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
from reversal import noise as randomness
from reversal.samplers.leaning import _Weights

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
times = grid.times.tolist()
fades = signal.alpha_dot / signal.alpha
slopes = list(zip(fades.tolist(), (signal.sigma_dot - fades * signal.sigma).tolist(), strict=True))
log_ratios = (signal.alpha / signal.sigma).log()
pulls = (signal.alpha[1:] * -torch.expm1(-log_ratios.diff())).tolist()


def leans_on(past: int, sign: int = 1, half: bool = True, end: bool = False) -> list[list[float]]:
    """The weights of the nodes of every step, with at most ``past`` earlier ones."""
    rule, rows = _Weights(process.schedule, sign, half, end), []
    for k in range(STEPS):
        rows.append([float(weight) for weight in rule(*grid.times[max(k - past, 0) : k + 2])])
    return rows


line, parabola = leans_on(1), leans_on(2)
falls, again = leans_on(1, sign=-1, half=False), leans_on(1, end=True)
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


def hand_heun(x: Tensor) -> Tensor:
    """Heun on the probability flow."""
    for k in range(STEPS):
        t, s = slopes[k], slopes[k + 1]
        h = times[k + 1] - times[k]
        first = t[0] * x + t[1] * network(x, clocks[k], None)
        after = x + h * first
        second = s[0] * after + s[1] * network(after, clocks[k + 1], None)
        x = x + h / 2 * (first + second)
    return x


def hand_multistep(x: Tensor) -> Tensor:
    """DPM-Solver++(2M): the clean estimate leans on the last one."""
    last = x
    for k in range(STEPS):
        noise = network(x, clocks[k], None)
        clean = (x - sigmas[k] * noise) / alphas[k]
        leaned = clean + line[k][0] * (last - clean) if k else clean
        x = sigmas[k + 1] / sigmas[k] * x + pulls[k] * leaned
        last = clean
    return x


def hand_multistep_3(x: Tensor) -> Tensor:
    """DPM-Solver++(3M): the clean estimate leans on the last two."""
    seen: list[Tensor] = []
    for k in range(STEPS):
        noise = network(x, clocks[k], None)
        clean = (x - sigmas[k] * noise) / alphas[k]
        leaned = clean
        for weight, past in zip(parabola[k], seen, strict=True):
            leaned = leaned + weight * (past - clean)
        x = sigmas[k + 1] / sigmas[k] * x + pulls[k] * leaned
        seen = [clean, *seen[:1]]
    return x


def hand_deis(x: Tensor) -> Tensor:
    """DEIS of order 2: the noise estimate leans on the last one."""
    last = x
    for k in range(STEPS):
        noise = network(x, clocks[k], None)
        leaned = noise + falls[k][0] * (last - noise) if k else noise
        clean = (x - sigmas[k] * leaned) / alphas[k]
        x = alphas[k + 1] * clean + sigmas[k + 1] * leaned
        last = noise
    return x


def hand_unipc(x: Tensor) -> Tensor:
    """UniPC of order 2: the last step is taken again, then the next one is predicted."""
    last, last_x, older = x, x, x
    for k in range(STEPS):
        noise = network(x, clocks[k], None)
        clean = (x - sigmas[k] * noise) / alphas[k]
        if k:
            leaned = last
            for weight, other in zip(again[k - 1], (clean, older), strict=False):
                leaned = leaned + weight * (other - last)
            x = sigmas[k] / sigmas[k - 1] * last_x + pulls[k - 1] * leaned
        leaned = clean + line[k][0] * (last - clean) if k else clean
        older, last, last_x = last, clean, x
        x = sigmas[k + 1] / sigmas[k] * x + pulls[k] * leaned
    return x


def library(sampler: rv.core.Sampler) -> Callable[[Tensor], Tensor]:
    """The same method through the public interface."""
    denoiser = rv.NetworkDenoiser(network, process, rv.Noise())
    return lambda x: sampler.sample(denoiser, BATCH, x_1=x, grid=grid, generator=generator)


ROWS = [
    ("Ancestral(eta=0), DDIM", library(rv.Ancestral(eta=0.0)), hand_ddim),
    ("Ancestral(), DDPM", library(rv.Ancestral()), hand_ddpm),
    ("Euler(churn=0), flow", library(rv.Euler(churn=0.0)), hand_ode),
    ("Euler(), reversal", library(rv.Euler()), hand_sde),
    ("Heun()", library(rv.Heun()), hand_heun),
    ("Multistep(2, eta=0)", library(rv.Multistep(2, eta=0.0)), hand_multistep),
    ("Multistep(3, eta=0)", library(rv.Multistep(3, eta=0.0)), hand_multistep_3),
    ("DEIS(2)", library(rv.DEIS(2)), hand_deis),
    ("UniPC(2)", library(rv.UniPC(2)), hand_unipc),
]


def draws(make: Callable[[], randomness.Randomness]) -> Callable[[Tensor], Tensor]:
    """One normal draw a step, as a sampler's step makes it; a new source for each run."""
    ticks = grid.ticks()

    def run(x: Tensor) -> Tensor:
        source = make()
        for k in range(STEPS):
            bound = randomness.over(source, ticks[k], ticks[k + 1])
            x = randomness.normal(x.shape, x, bound)
        return x

    return run


NOISES = [
    ("torch.Generator", draws(lambda: generator)),
    ("ItemNoise", draws(lambda: rv.ItemNoise(range(BATCH)))),
    ("BrownianPath", draws(lambda: rv.BrownianPath(range(BATCH)))),
]


def seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The mean time of one run over the repeats."""
    start = time.perf_counter()
    for _ in range(REPEATS):
        function(x)
    return (time.perf_counter() - start) / REPEATS


@torch.no_grad()
def check() -> None:
    """Deterministic rows agree with their loops to float32; that of Euler integrates beta."""
    x = torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(1))
    for name, ours, hand in ROWS:
        if not name.startswith(("Ancestral(), ", "Euler")):
            gap = float((ours(x) - hand(x)).abs().max() / hand(x).abs().max())
            if gap > 1e-4:
                raise SystemExit(f"{name}: the library and its loop differ by {gap:.1e}")


@torch.no_grad()
def main() -> None:
    """Print microseconds per step and ratios, with the spread over the rounds."""
    torch.set_num_threads(1)
    check()
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
    print(f"\n{'one draw of noise':26} {'us':>8}")
    for name, run in NOISES:
        print(f"{name:26} {min(seconds(run, x) for _ in range(ROUNDS)) / STEPS * 1e6:8.1f}")


if __name__ == "__main__":
    main()
