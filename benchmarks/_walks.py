"""Samplers of four libraries behind one interface: from states at a first ratio to data.

A walk is given states y = x / alpha at its own first noise-to-signal ratio, and a number of network
calls that it may not exceed; the network is the exact clean estimate. Where a peer rounds the time
that it tells the network, it is told the exact one here. A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import torch
from _mixtures import MOST, Problem
from torch import Tensor

import reversal as rv


@final
@dataclass
class Counted:
    """The exact clean estimate, which counts how often it is asked."""

    problem: Problem
    calls: int = 0

    def __call__(self, y: Tensor, ratio: Any) -> Tensor:
        """E[x_0 | y]."""
        self.calls += 1
        return self.problem.clean(y, ratio)


class Walk(ABC):
    """One sampler with its grid; ``is_flow`` where no noise is drawn on the way."""

    name: str
    is_flow: bool = True

    @abstractmethod
    def first(self, calls: int) -> float:
        """The ratio at which it starts."""

    @abstractmethod
    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Walk to data."""


@final
@dataclass
class Ours(Walk):
    """A sampler of this library, on the process's own grid if no other is named."""

    name: str
    sampler: Any
    per_step: int = 1
    is_flow: bool = True
    schedule: Any = field(default_factory=rv.VariancePreserving)
    spacing: Callable[[Any, int], rv.Grid] | None = None

    def first(self, calls: int) -> float:
        """The ratio at t = 1; that of the exact trajectories where no signal is left."""
        last = self.schedule.signal(torch.ones((), dtype=torch.float64))
        return min(float(last.sigma / last.alpha), MOST)

    def denoiser(self, clean: Counted, size: int) -> rv.NetworkDenoiser:
        """The exact estimate as a network."""
        process = rv.Gaussian(rv.Euclidean(size), self.schedule)

        def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            signal = self.schedule.signal(t[:1].double())
            alpha = signal.alpha.clamp_min(1 / MOST)
            return clean(x / alpha, signal.sigma / alpha)

        return rv.NetworkDenoiser(network, process, rv.Clean())

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Walk as anybody would."""
        denoiser = self.denoiser(clean, y.shape[1])
        last = self.schedule.signal(torch.ones((), dtype=torch.float64))
        x_1 = y * last.alpha if last.alpha > 0 else y / MOST
        steps = (calls + self.per_step - 1) // self.per_step
        grid = self.spacing(denoiser.process, steps) if self.spacing else None
        return self.sampler.sample(denoiser, len(y), steps=steps, grid=grid, x_1=x_1, generator=rng)


OURS: list[Walk] = [
    Ours("`UniPC()`, `Grid.share`", rv.UniPC(), spacing=rv.Grid.share),
    Ours("`UniPC()`", rv.UniPC()),
    Ours("`UniPC(3)`", rv.UniPC(3)),
    Ours("`Multistep(2, eta=0)`", rv.Multistep(2, eta=0)),
    Ours("`Multistep(3, eta=0)`", rv.Multistep(3, eta=0)),
    Ours("`DEIS()`", rv.DEIS()),
    Ours("`Heun()`", rv.Heun(), 2),
    Ours("`Euler(churn=0)`", rv.Euler(churn=0)),
    Ours("`Ancestral(eta=0)`", rv.Ancestral(eta=0)),
    Ours("`Multistep()`", rv.Multistep(), is_flow=False),
    Ours("`Ancestral()`", rv.Ancestral(), is_flow=False),
]


class _Scheduled(Walk):
    """A scheduler of diffusers with what it is made by."""

    def __init__(self, name: str, kind: str, per_step: int = 1, **settings: Any) -> None:
        self.name = f"diffusers {name}"
        self.kind, self.per_step, self.settings = kind, per_step, settings

    def made(self, calls: int) -> Any:
        """The scheduler with its steps."""
        import diffusers

        scheduler = getattr(diffusers, self.kind)(**self.settings)
        scheduler.set_timesteps((calls + self.per_step - 1) // self.per_step)
        return scheduler


@final
class Preserving(_Scheduled):
    """States x of unit variance, and a network that outputs the noise."""

    def ratios(self, scheduler: Any) -> Tensor:
        """The ratio of every step."""
        if hasattr(scheduler, "sigmas"):
            return scheduler.sigmas.double()
        left = scheduler.alphas_cumprod.double()[scheduler.timesteps]
        return ((1 - left) / left).sqrt()

    def first(self, calls: int) -> float:
        """That of the first step."""
        return float(self.ratios(self.made(calls))[0])

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Their loop."""
        scheduler = self.made(calls)
        ratios = self.ratios(scheduler)
        x = y / (1 + ratios[0] ** 2).sqrt()
        for k, t in enumerate(scheduler.timesteps):
            ratio = ratios[k]
            size = (1 + ratio**2).sqrt()
            noise = (x * size - clean(x * size, ratio)) / ratio
            x = scheduler.step(noise, t, x, return_dict=False)[0].double()
        return x


@final
class Exploding(_Scheduled):
    """States y of unit signal, and a network that outputs the noise."""

    def first(self, calls: int) -> float:
        """That of the first step."""
        return float(self.made(calls).sigmas[0])

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Their loop."""
        scheduler = self.made(calls)
        scheduler.is_scale_input_called = True
        for k, t in enumerate(scheduler.timesteps):
            ratio = scheduler.sigmas[k].double()
            noise = (y - clean(y, ratio)) / ratio
            y = scheduler.step(noise, t, y, return_dict=False)[0].double()
        return y


@final
class Preconditioned(_Scheduled):
    """States y of unit signal, and a network with EDM's inputs and outputs."""

    def first(self, calls: int) -> float:
        """That of the first step."""
        return float(self.made(calls).sigmas[0])

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Their loop, around the output that makes the exact estimate."""
        scheduler = self.made(calls)
        scheduler.is_scale_input_called = True
        scale = scheduler.config.sigma_data
        for k, t in enumerate(scheduler.timesteps):
            ratio = scheduler.sigmas[k].double()
            size = (ratio**2 + scale**2).sqrt()
            output = (clean(y, ratio) - (scale / size) ** 2 * y) * size / (ratio * scale)
            y = scheduler.step(output, t, y, return_dict=False)[0].double()
        return y


@final
class Azula(Walk):
    """A sampler of azula on its variance-preserving schedule and its linear grid."""

    def __init__(self, kind: str, per_step: int = 1, **settings: Any) -> None:
        self.name = f"azula {kind}"
        self.kind, self.per_step, self.settings = kind, per_step, settings

    def first(self, calls: int) -> float:
        """That at its time 1."""
        from azula.noise import VPSchedule

        alpha, sigma = VPSchedule()(torch.ones((), dtype=torch.float64))
        return float(sigma / alpha)

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Their call."""
        import azula.sample
        from azula.denoise import Denoiser, DiracPosterior
        from azula.noise import VPSchedule

        class Exact(Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = VPSchedule()

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
                alpha, sigma = self.schedule(t.double())
                return DiracPosterior(clean(x_t / alpha, sigma / alpha))

        make = getattr(azula.sample, f"{self.kind}Sampler")
        steps = calls // self.per_step
        sampler = make(Exact(), steps=steps, silent=True, dtype=torch.float64, **self.settings)
        alpha, _ = VPSchedule()(torch.ones((), dtype=torch.float64))
        return sampler(y * alpha)


@final
class FlowMatching(Walk):
    """A fixed-step method of flow_matching on straight lines."""

    def __init__(self, method: str, per_step: int) -> None:
        self.name = f"flow_matching {method}"
        self.method, self.per_step = method, per_step

    def first(self, calls: int) -> float:
        """All noise."""
        return MOST

    def run(self, clean: Counted, y: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        """Their solver from 0 to 1 with equal steps."""
        from flow_matching.solver import ODESolver

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            alpha = t.double().clamp_min(1 / MOST)
            left = (1 - t.double()).clamp_min(1e-12)
            return (clean(x / alpha, left / alpha) - x) / left

        steps = calls // self.per_step
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        solver = ODESolver(velocity_model=velocity)
        return solver.sample(y / MOST, time_grid=times, step_size=None, method=self.method)


_STEPS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
_PEERS: dict[str, list[Walk]] = {
    "diffusers": [
        Preserving("DDIM", "DDIMScheduler", clip_sample=False, **_STEPS),
        Preserving(
            "DDIM trailing",
            "DDIMScheduler",
            clip_sample=False,
            timestep_spacing="trailing",
            **_STEPS,
        ),
        Preserving("DPM++2M", "DPMSolverMultistepScheduler", **_STEPS),
        Preserving(
            "DPM++2M Karras", "DPMSolverMultistepScheduler", use_karras_sigmas=True, **_STEPS
        ),
        Preserving("DPM++2M log-SNR", "DPMSolverMultistepScheduler", use_lu_lambdas=True, **_STEPS),
        Preserving("UniPC", "UniPCMultistepScheduler", **_STEPS),
        Preserving("UniPC Karras", "UniPCMultistepScheduler", use_karras_sigmas=True, **_STEPS),
        Preserving("DEIS", "DEISMultistepScheduler", **_STEPS),
        Exploding("Euler Karras", "EulerDiscreteScheduler", use_karras_sigmas=True, **_STEPS),
        Exploding("Heun", "HeunDiscreteScheduler", 2, **_STEPS),
        Exploding("Heun Karras", "HeunDiscreteScheduler", 2, use_karras_sigmas=True, **_STEPS),
        Preconditioned("EDM Euler", "EDMEulerScheduler"),
        Preconditioned("EDM DPM++2M", "EDMDPMSolverMultistepScheduler"),
    ],
    "azula": [
        Azula("DDIM"),
        Azula("Euler"),
        Azula("Heun", 2),
        Azula("zAB"),
        Azula("zEAB"),
        Azula("xEAB"),
        Azula("REAB"),
    ],
    "flow_matching": [FlowMatching("euler", 1), FlowMatching("midpoint", 2)],
}


def peers() -> list[Walk]:
    """The walks of the libraries that are installed."""
    found = [name for name in _PEERS if importlib.util.find_spec(name)]
    return [walk for name in found for walk in _PEERS[name]]
