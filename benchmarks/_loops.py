"""The loops of other libraries over a network, as their users write them, with 50 steps.

What a library prepares before a walk, such as its list of times, is made outside of what is timed,
as ours is kept by the grid. A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor


class Loop(ABC):
    """One method of one library."""

    name: str
    calls: int

    @abstractmethod
    def prepare(self, network: Any, steps: int) -> Any:
        """What is made before a walk."""

    @abstractmethod
    def walk(self, made: Any, network: Any, x: Tensor) -> Tensor:
        """The walk."""


@final
class Scheduler(Loop):
    """A scheduler of diffusers."""

    def __init__(self, kind: str, calls: int = 1, **settings: Any) -> None:
        self.name, self.calls = f"diffusers {kind}", calls
        self.kind, self.settings = kind, settings

    def prepare(self, network: Any, steps: int) -> Any:
        """The scheduler with its times, and what the network is shown of each."""
        import diffusers

        made = getattr(diffusers, f"{self.kind}Scheduler")(**self.settings)
        made.set_timesteps(steps)
        return made

    def walk(self, made: Any, network: Any, x: Tensor) -> Tensor:
        """Their loop; the time is shown as a share, so that no network meets large numbers."""
        scale = getattr(made, "scale_model_input", lambda x, t: x)
        for t in made.timesteps:
            noise = network(scale(x, t), (t / 1000).expand(len(x)), None)
            x = made.step(noise, t, x, return_dict=False)[0]
        return x


@final
class Azula(Loop):
    """A sampler of azula."""

    def __init__(self, kind: str, calls: int = 1, **settings: Any) -> None:
        self.name, self.calls = f"azula {kind}", calls
        self.kind, self.settings = kind, settings

    def prepare(self, network: Any, steps: int) -> Any:
        """The denoiser and the sampler."""
        import azula.sample
        from azula.denoise import Denoiser, DiracPosterior
        from azula.noise import VPSchedule

        class Plain(Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = VPSchedule()

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
                alpha, sigma = self.schedule(t)
                noise = network(x_t, t.expand(len(x_t)), None)
                return DiracPosterior((x_t - sigma * noise) / alpha)

        make = getattr(azula.sample, f"{self.kind}Sampler")
        return make(Plain(), steps=steps, silent=True, **self.settings)

    def walk(self, made: Any, network: Any, x: Tensor) -> Tensor:
        """Their call."""
        return made(x)


@final
class Solver(Loop):
    """A fixed-step method of flow_matching."""

    def __init__(self, method: str, calls: int = 1) -> None:
        self.name, self.calls, self.method = f"flow_matching {method}", calls, method

    def prepare(self, network: Any, steps: int) -> Any:
        """The solver and its times."""
        from flow_matching.solver import ODESolver

        solver = ODESolver(velocity_model=lambda x, t: network(x, t.expand(len(x)), None))
        return solver, torch.linspace(0, 1, steps + 1)

    def walk(self, made: Any, network: Any, x: Tensor) -> Tensor:
        """Their solver on a given grid."""
        solver, times = made
        return solver.sample(x, time_grid=times, step_size=None, method=self.method)


_LOOPS: dict[str, dict[str, list[Loop]]] = {
    "diffusers": {
        "Ancestral(eta=0), DDIM": [Scheduler("DDIM", clip_sample=False)],
        "Ancestral(), DDPM": [Scheduler("DDPM", clip_sample=False)],
        "Euler(churn=0), flow": [Scheduler("EulerDiscrete")],
        "Heun()": [Scheduler("HeunDiscrete", 2)],
        "Multistep(2, eta=0)": [Scheduler("DPMSolverMultistep")],
        "Multistep(3, eta=0)": [Scheduler("DPMSolverMultistep", solver_order=3)],
        "DEIS(2)": [Scheduler("DEISMultistep")],
        "UniPC(2)": [Scheduler("UniPCMultistep")],
        "Euler(churn=0), straight": [Scheduler("FlowMatchEulerDiscrete")],
    },
    "azula": {
        "Ancestral(eta=0), DDIM": [Azula("DDIM")],
        "Ancestral(), DDPM": [Azula("DDPM")],
        "Euler(churn=0), flow": [Azula("Euler")],
        "Euler(), reversal": [Azula("Ito")],
        "Heun()": [Azula("Heun", 2)],
        "Multistep(2, eta=0)": [Azula("xEAB")],
        "Multistep(3, eta=0)": [Azula("xEAB", order=3)],
        "DEIS(2)": [Azula("zEAB")],
    },
    "flow_matching": {
        "Euler(churn=0), straight": [Solver("euler")],
        "Heun(), straight": [Solver("midpoint", 2)],
    },
}


def loops(method: str) -> list[Loop]:
    """The loops of the installed libraries for one of our rows."""
    found = [name for name in _LOOPS if importlib.util.find_spec(name)]
    return [loop for name in found for loop in _LOOPS[name].get(method, [])]
