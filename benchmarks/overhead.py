"""Cost of one sampler step beside a hand-written loop of the same method, in one run.

256 states in R^2, 50 steps, one thread, a network of one multiplication: what is measured is the
library, not the network. Every row is the minimum over interleaved repetitions; the ratio is to the
hand-written loop of the same method. Claim: Euler and Ancestral cost at most 2.5 times the loop,
multistep samplers 3 times. The second table times one draw of noise of each kind. The third has the
same methods of diffusers, azula and flow_matching, where installed, in ratios to ours; the last one
the time of a whole sampler over that of its calls of a network 128 wide. Claim: at most 1.2.

Run: python benchmarks/overhead.py
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import torch
from _loops import Loop, loops
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


class Wide(nn.Module):
    """A perceptron of x and t, two layers 128 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 2)
        )

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        """A guess of the noise."""
        return self.layers(torch.cat([x_t, t[:, None]], 1))


process = rv.Gaussian(rv.Euclidean(2), rv.VariancePreserving())
straight = rv.Gaussian(rv.Euclidean(2), rv.Rectified())
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


def hand_straight(x: Tensor) -> Tensor:
    """Euler along straight lines, where the network outputs the velocity."""
    for k in range(STEPS):
        x = x + (times[k + 1] - times[k]) * network(x, clocks[k], None)
    return x


def hand_straight_heun(x: Tensor) -> Tensor:
    """Heun along straight lines."""
    for k in range(STEPS):
        h = times[k + 1] - times[k]
        first = network(x, clocks[k], None)
        second = network(x + h * first, clocks[k + 1], None)
        x = x + h / 2 * (first + second)
    return x


def library(
    sampler: rv.core.Sampler, is_straight: bool = False, called: nn.Module = network
) -> Callable[[Tensor], Tensor]:
    """The same method through the public interface."""
    path, how = (straight, rv.Velocity()) if is_straight else (process, rv.Noise())
    denoiser = rv.NetworkDenoiser(called, path, how)
    return lambda x: sampler.sample(denoiser, BATCH, x_1=x, grid=grid, generator=generator)


METHODS: list[tuple[str, rv.core.Sampler, Callable[[Tensor], Tensor]]] = [
    ("Ancestral(eta=0), DDIM", rv.Ancestral(eta=0.0), hand_ddim),
    ("Ancestral(), DDPM", rv.Ancestral(), hand_ddpm),
    ("Euler(churn=0), flow", rv.Euler(churn=0.0), hand_ode),
    ("Euler(), reversal", rv.Euler(), hand_sde),
    ("Heun()", rv.Heun(), hand_heun),
    ("Multistep(2, eta=0)", rv.Multistep(2, eta=0.0), hand_multistep),
    ("Multistep(3, eta=0)", rv.Multistep(3, eta=0.0), hand_multistep_3),
    ("DEIS(2)", rv.DEIS(2), hand_deis),
    ("UniPC(2)", rv.UniPC(2), hand_unipc),
    ("Euler(churn=0), straight", rv.Euler(churn=0.0), hand_straight),
    ("Heun(), straight", rv.Heun(), hand_straight_heun),
]
ROWS = [(name, library(how, name.endswith("straight")), hand) for name, how, hand in METHODS]


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


def peer_seconds(loop: Loop, called: nn.Module, x: Tensor) -> float:
    """As ``seconds``, without what the peer prepares."""
    total = 0.0
    for _ in range(REPEATS):
        made = loop.prepare(called, STEPS)
        start = time.perf_counter()
        loop.walk(made, called, x)
        total += time.perf_counter() - start
    return total / REPEATS


def call_seconds(called: nn.Module, x: Tensor) -> float:
    """The mean time of one bare call."""
    start = time.perf_counter()
    for _ in range(REPEATS * STEPS):
        called(x, clocks[0], None)
    return (time.perf_counter() - start) / (REPEATS * STEPS)


def spread(ratios: list[float]) -> str:
    """The range and the median of ratios."""
    return f"{min(ratios):.2f} .. {max(ratios):.2f}, median {statistics.median(ratios):.2f}"


def beside_peers(x: Tensor) -> None:
    """Print the same methods of other libraries, interleaved with ours."""
    print(f"\n{'sampler':26} {'peer':30} {'ours us':>8} {'peer us':>8} {'ratio':>6}   spread")
    for name, ours, _ in ROWS:
        for loop in loops(name):
            pairs = [(seconds(ours, x), peer_seconds(loop, network, x)) for _ in range(ROUNDS)]
            best = [min(column) / STEPS * 1e6 for column in zip(*pairs, strict=True)]
            figures = f"{best[0]:8.1f} {best[1]:8.1f} {best[1] / best[0]:6.2f}"
            print(f"{name:26} {loop.name:30} {figures}   {spread([b / a for a, b in pairs])}")


def on_a_network(x: Tensor) -> None:
    """Print the time of whole samplers over that of their calls of a network 128 wide."""
    torch.manual_seed(0)
    wide = Wide()
    print(f"\n{'on a network 128 wide':26} {'call us':>8} {'step us':>8} {'ratio':>6}   spread")
    runs = [
        (
            name,
            2 if name.startswith("Heun") else 1,
            partial(seconds, library(sampler, name.endswith("straight"), wide)),
        )
        for name, sampler, _ in METHODS
    ]
    for name, _, _ in METHODS:
        for loop in loops(name):
            runs.append((loop.name, loop.calls, partial(peer_seconds, loop, wide)))
    for name, calls, timed in runs:
        pairs = [(calls * call_seconds(wide, x), timed(x) / STEPS) for _ in range(ROUNDS)]
        best = [min(column) * 1e6 for column in zip(*pairs, strict=True)]
        figures = f"{best[0]:8.1f} {best[1]:8.1f} {best[1] / best[0]:6.2f}"
        print(f"{name:26} {figures}   {spread([b / a for a, b in pairs])}")


@torch.no_grad()
def check() -> None:
    """Deterministic rows agree with their loops to float32; that of Euler integrates beta."""
    x = torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(1))
    for name, ours, hand in ROWS:
        if not name.startswith(("Ancestral(), ", "Euler(churn=0), flow", "Euler(), ")):
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
        figures = f"{best_hand:8.1f} {best_ours:8.1f} {best_ours / best_hand:6.2f}"
        print(f"{name:26} {figures}   {spread(ratios)}")
    print(f"\n{'one draw of noise':26} {'us':>8}")
    for name, run in NOISES:
        print(f"{name:26} {min(seconds(run, x) for _ in range(ROUNDS)) / STEPS * 1e6:8.1f}")
    beside_peers(x)
    on_a_network(x)


if __name__ == "__main__":
    main()
