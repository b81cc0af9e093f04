"""Inverse problems: every method's error against a posterior that is known in closed form.

A mixture of 25 normal laws, of which a linear observation with normal noise was made: the posterior
is a mixture again. Prior, denoiser and observation are exact, so that what is measured is guidance,
and the error of the steps, which the row of exact posterior scores shows. Every method takes 100
steps and draws 1,000 states; each seed draws its own mixture, operator and y. azula's methods stand
beside ours where azula is installed. Claim: TwistedSMC is nearest of all to exact draws.

Run: python benchmarks/inverse.py [--seeds 0 1 2 3 4]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from _records import Ledger, cell
from torch import Tensor

import reversal as rv

DRAWS: Final = 1000
STEPS: Final = 100
PARTICLES: Final = 50
COMPONENTS: Final = 25
NOISE: Final = 0.3
SPREAD: Final = 0.15
SIZES: Final = {"2 dimensions, 1 number seen": (2, 1), "8 dimensions, 2 numbers seen": (8, 2)}
LEDGER = Ledger("## Inverse problems", Path(__file__).with_suffix(".jsonl"))


@dataclass(frozen=True)
class Problem:
    """A prior, what was seen, and the posterior."""

    prior: rv.GaussianMixture
    observation: rv.LinearObservation
    posterior: rv.GaussianMixture
    log_evidence: float


def problem(size: int, seen: int, seed: int) -> Problem:
    """Draw means of unit variance, weights, an operator with rows of length 1, and y."""
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=rng, dtype=torch.float64)  # noqa: E731
    process = rv.Gaussian(rv.Euclidean(size), rv.VariancePreserving())
    means, weights = draw(COMPONENTS, size), draw(COMPONENTS).exp()
    variances = torch.full((COMPONENTS,), SPREAD**2, dtype=torch.float64)
    prior = rv.GaussianMixture(process, weights, means, variances)
    operator = torch.nn.functional.normalize(draw(seen, size), dim=1)
    y = (prior.sample(1, rng) @ operator.mT)[0] + NOISE * draw(seen)
    observation = rv.LinearObservation(operator, y, NOISE)
    total = SPREAD**2 * operator @ operator.mT + NOISE**2 * torch.eye(seen).double()
    law = torch.distributions.MultivariateNormal(torch.zeros(seen).double(), total)
    logs = prior.weights.log() + law.log_prob(y - means @ operator.mT)
    gain = SPREAD**2 * torch.linalg.solve(total, operator).mT
    left = SPREAD**2 * (torch.eye(size).double() - gain @ operator)
    there = means + (y - means @ operator.mT) @ gain.mT
    covariances = ((left + left.mT) / 2).expand(COMPONENTS, size, size).contiguous()
    posterior = rv.GaussianMixture(process, logs.softmax(0), there, covariances)
    return Problem(prior, observation, posterior, float(logs.logsumexp(0)))


Draw = Callable[[Problem, torch.Generator], Tensor]


def guided(make: Callable[[Any], Any], sampler: Any = None) -> Draw:
    """Reconstruction guidance by one kind of evidence."""
    walk = rv.Ancestral() if sampler is None else sampler

    def draw(task: Problem, rng: torch.Generator) -> Tensor:
        denoiser = rv.Reconstruction(task.prior, make(task.observation))
        return walk.sample(denoiser, DRAWS, steps=STEPS, generator=rng)

    return draw


def twisted(make: Callable[[Any], Any]) -> Draw:
    """Systems of particles, all of them drawn once by weight."""

    def draw(task: Problem, rng: torch.Generator) -> Tensor:
        denoiser = rv.Reconstruction(task.prior, make(task.observation))
        run = rv.TwistedSMC().sample(denoiser, PARTICLES, STEPS, DRAWS // PARTICLES, generator=rng)
        return run.draw(PARTICLES, rng)

    return draw


def pooled(make: Callable[[Any], Any]) -> Draw:
    """One system of all particles."""

    def draw(task: Problem, rng: torch.Generator) -> Tensor:
        denoiser = rv.Reconstruction(task.prior, make(task.observation))
        return rv.TwistedSMC().sample(denoiser, DRAWS, STEPS, generator=rng).draw(DRAWS, rng)

    return draw


def joined(task: Problem) -> tuple[rv.GaussianMixture, tuple[Tensor, Tensor]]:
    """The mixture that (x, y) follows, and what is given of it."""
    prior, operator, y = task.prior, task.observation.operator, task.observation.y
    cross = prior.covariances @ operator.mT
    corner = operator @ cross + NOISE**2 * torch.eye(len(y)).double()
    upper, lower = torch.cat([prior.covariances, cross], 2), torch.cat([cross.mT, corner], 2)
    means = torch.cat([prior.means, prior.means @ operator.mT], 1)
    width = means.shape[1]
    process = rv.Gaussian(rv.Euclidean(width), prior.process.schedule)
    both = rv.GaussianMixture(process, prior.weights, means, torch.cat([upper, lower], 1))
    known = torch.arange(width) >= width - len(y)
    return both, (torch.cat([torch.zeros(width - len(y)).double(), y]), known)


def given(task: Problem, rng: torch.Generator) -> Tensor:
    """What a model of (x, y) with a clock per entry does."""
    both, seen = joined(task)
    x = rv.Ancestral().sample(both, DRAWS, steps=STEPS, given=seen, generator=rng)
    return x[:, : task.prior.means.shape[1]]


def repainted(repeats: int) -> Draw:
    """What a model of (x, y) with one clock does."""

    def draw(task: Problem, rng: torch.Generator) -> Tensor:
        both, seen = joined(task)
        sampler = rv.RePaint(seen, repeats=repeats)
        x = sampler.sample(both, DRAWS, steps=STEPS // repeats, generator=rng)
        return x[:, : task.prior.means.shape[1]]

    return draw


OURS: dict[str, Draw] = {
    "exact draws": lambda task, rng: task.posterior.sample(DRAWS, rng),
    "exact posterior score": lambda task, rng: rv.Ancestral().sample(
        task.posterior, DRAWS, steps=STEPS, generator=rng
    ),
    "prior, not guided": lambda task, rng: rv.Ancestral().sample(
        task.prior, DRAWS, steps=STEPS, generator=rng
    ),
    "DPS": guided(rv.DPS),
    "PiGDM": guided(rv.PiGDM),
    "MomentMatching": guided(rv.MomentMatching),
    "MomentMatching, Heun": guided(rv.MomentMatching, rv.Heun()),
    "model of (x, y), given y": given,
    "model of (x, y), RePaint, 1 x 100": repainted(1),
    "model of (x, y), RePaint, 10 x 10": repainted(10),
    "TwistedSMC, DPS, 20 x 50": twisted(rv.DPS),
    "TwistedSMC, PiGDM, 20 x 50": twisted(rv.PiGDM),
    "TwistedSMC, MomentMatching, 20 x 50": twisted(rv.MomentMatching),
    "TwistedSMC, MomentMatching, 1 x 1000": pooled(rv.MomentMatching),
}


def rivals() -> dict[str, Draw]:
    """Return azula's methods; nothing where it is not installed."""
    if importlib.util.find_spec("azula") is None:
        return {}
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.dps import DPSSampler
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.guidance.tds import TDSSampler
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VPSchedule
    from azula.sample import DDPMSampler

    class Mixture(Denoiser):
        """Our exact denoiser at azula's noise levels, by the same ratio of noise to signal."""

        def __init__(self, prior: rv.GaussianMixture) -> None:
            super().__init__()
            self.schedule = VPSchedule()
            line = rv.Gaussian(prior.process.space, rv.VarianceExploding(1e-4, 1e4))
            self.exact = rv.GaussianMixture(line, prior.weights, prior.means, prior.covariances)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            """The mean given x_t."""
            alpha, sigma = self.schedule(t.double())
            there = self.exact.process.schedule
            growth = 2 * torch.log(torch.tensor(there.sigma_max / there.sigma_min).double())
            at = torch.log1p((sigma / alpha / there.sigma_min) ** 2) / growth
            tick = rv.Grid(torch.stack([at, 0 * at])).ticks()[0]
            return DiracPosterior(self.exact(x_t / alpha, tick).clean)

    def start(task: Problem, rng: torch.Generator) -> Tensor:
        torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))
        return torch.randn((DRAWS, task.prior.means.shape[1]), generator=rng).double()

    def parts(task: Problem) -> tuple[Any, Tensor, Callable[[Tensor], Tensor], Any]:
        seen = task.observation
        apply = lambda x: x @ seen.operator.mT  # noqa: E731
        covariance = IsotropicCovariance(torch.tensor(NOISE**2).double())
        return Mixture(task.prior), seen.y, apply, covariance

    def dps(task: Problem, rng: torch.Generator) -> Tensor:
        prior, y, apply, _ = parts(task)
        return DPSSampler(prior, y, apply, steps=STEPS, silent=True)(start(task, rng))

    def pgdm(task: Problem, rng: torch.Generator) -> Tensor:
        prior, y, apply, _ = parts(task)
        back = torch.linalg.pinv(task.observation.operator)
        sampler = PGDMSampler(prior, y, apply, lambda v: v @ back.mT, steps=STEPS, silent=True)
        return sampler(start(task, rng))

    def mmps(task: Problem, rng: torch.Generator) -> Tensor:
        prior, y, apply, covariance = parts(task)
        denoiser = MMPSDenoiser(prior, y.expand(DRAWS, -1), apply, covariance, iterations=len(y))
        return DDPMSampler(denoiser, steps=STEPS, silent=True)(start(task, rng))

    def tds(task: Problem, rng: torch.Generator) -> Tensor:
        prior, y, apply, _ = parts(task)

        def twist(x: Tensor, ratio: Tensor) -> Tensor:
            variance = NOISE**2 + ratio**2 / (1 + ratio**2)
            return -((y - apply(x)).square().sum(-1)) / (2 * variance) - len(y) / 2 * variance.log()

        return TDSSampler(prior, twist, steps=STEPS, silent=True)(start(task, rng))

    return {"azula DPS": dps, "azula PGDM": pgdm, "azula MMPS": mmps, "azula TDS, 1 x 1000": tds}


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance, unbiased: of equal laws 0 on average."""
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - within)


def sliced(x: Tensor, y: Tensor, rng: torch.Generator) -> float:
    """The sliced Wasserstein distance of order 2 over 200 directions."""
    ways = torch.randn((200, x.shape[1]), generator=rng, dtype=torch.float64)
    ways = torch.nn.functional.normalize(ways, dim=1)
    gap = (x @ ways.mT).sort(0).values - (y @ ways.mT).sort(0).values
    return float(gap.square().mean().sqrt())


def errors(x: Tensor, task: Problem, rng: torch.Generator) -> dict[str, float]:
    """Distances to exact draws, and of mean and covariance to the closed form."""
    law, exact = task.posterior, task.posterior.sample(DRAWS, rng)
    mean = law.weights @ law.means
    off = law.means - mean
    cov = (law.weights[:, None, None] * law.covariances).sum(0) + (law.weights * off.mT) @ off
    lost = int((~x.isfinite().all(1)).sum())
    x = x[x.isfinite().all(1)]
    return {
        "sliced": sliced(x, exact[: len(x)], rng) if len(x) > 1 else float("nan"),
        "energy": energy(x, exact) if len(x) > 1 else float("nan"),
        "mean": float((x.mean(0) - mean).norm() / cov.trace().sqrt()),
        "covariance": float((x.mT.cov() - cov).norm() / cov.norm()),
        "lost": lost,
    }


def measure(seeds: list[int]) -> None:
    """Draw by every method, problem and seed, and keep what was measured."""
    for seed in seeds:
        for table, (size, seen) in SIZES.items():
            task = problem(size, seen, seed)
            for maker, draw in (OURS | rivals()).items():
                rng, start = torch.Generator().manual_seed(1000 + seed), time.perf_counter()
                x = draw(task, rng)
                seconds = time.perf_counter() - start
                row = {"table": table, "maker": maker, "seed": seed, "seconds": seconds}
                LEDGER.keep(row | errors(x, task, torch.Generator().manual_seed(seed)))


def report() -> str:
    """The section of RESULTS.md."""
    words = (
        f"{COMPONENTS} normal laws of standard deviation {SPREAD:g} around means of variance 1, "
        f"noise {NOISE:g}, {STEPS} steps, {DRAWS:,} draws, float64, one thread of a machine that "
        f"did other work; every seed is another mixture, operator and y. Sliced Wasserstein and "
        f"energy distance are to as many exact draws (of equal laws the first line), mean and "
        f"covariance to the closed form, in standard deviations and relative. Less is better."
    )
    lines = LEDGER.heading("python benchmarks/inverse.py", words)
    names = ("sliced", "energy", "mean", "covariance")
    for table in SIZES:
        lines += [
            f"### {table}",
            "",
            "| | sliced Wasserstein | energy distance | mean | covariance | s |",
        ]
        lines += ["|---|--:|--:|--:|--:|--:|"]
        for maker in [
            *OURS,
            *dict.fromkeys(row["maker"] for row in LEDGER.rows if row["maker"] not in OURS),
        ]:
            rows = LEDGER.of(table, maker)
            if rows:
                cells = [cell([row[name] for row in rows], 3) for name in names]
                seconds = cell([row["seconds"] for row in rows], 1)
                lines.append(f"| {maker} | {' | '.join(cells)} | {seconds} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    measure(parser.parse_args().seeds)
    LEDGER.write(report())
