r"""The samplers of diffusers, step by step on the same grid and the same network, to 1e-4.

The networks are the exact denoiser of a mixture and a random perceptron. ``Betas`` is their list of
noise variances; their step k is our time (k + 1)/1000. `DDIMScheduler` on "linspace" spacing steps
to times that are not those of its grid, so DDIM is compared on the two spacings where it is right;
`test_defects.py` holds ours to its grid on the third.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import reversal as rv
from tests.peers.walks import (
    DENOISERS,
    STEPS,
    assert_same_walk,
    integer_grid,
    mixture,
    noise_of,
    peer,
    scheduled,
    start,
    walk,
)
from tests.samplers.oracles import seeded, slope

diffusers = peer("diffusers")
networks = pytest.mark.parametrize("name", DENOISERS)
PROCESS = rv.Gaussian(rv.Euclidean(2), rv.Betas.linear(STEPS))
COMMON = {"num_train_timesteps": STEPS, "beta_start": 1e-4, "beta_end": 0.02}
"""The linear schedule of Ho et al. (2020), which is their default too."""


def both(
    sampler: Any,
    scheduler: Any,
    name: str,
    dtype: torch.dtype,
    last: float = 0.0,
    **options: Any,
) -> tuple[Any, Any]:
    """The walks of both libraries from the same start over the scheduler's own grid."""
    denoiser, x = DENOISERS[name](PROCESS, dtype), start(PROCESS, dtype)
    grid = integer_grid(scheduler, last)
    ours = walk(sampler, denoiser, grid, x, seeded(5))
    drawn = {"generator": seeded(5)} if options.pop("is_random", False) else {}
    return ours, scheduled(scheduler, noise_of(denoiser, grid.times), x, **drawn, **options)


@networks
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta, spacing, name):
    scheduler = diffusers.DDIMScheduler(**COMMON, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(20)
    ours, theirs = both(
        rv.Ancestral(eta), scheduler, name, torch.float64, eta=eta, is_random=eta > 0
    )
    assert_same_walk(ours, theirs)


@networks
@pytest.mark.parametrize(
    ("variance", "sampler"),
    [("fixed_small", rv.Ancestral()), ("fixed_large", rv.Ancestral(variance=rv.LargeVariance()))],
    ids=["small", "large"],
)
def test_ddpm(variance, sampler, name):
    """Their last step, from time 1, adds no noise either."""
    scheduler = diffusers.DDPMScheduler(
        **COMMON, clip_sample=False, timestep_spacing="leading", variance_type=variance
    )
    scheduler.set_timesteps(20)
    assert_same_walk(*both(sampler, scheduler, name, torch.float64, is_random=True))


@networks
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("order", [1, 2])
def test_dpm_solver_plus_plus(order, spacing, name):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **COMMON, solver_order=order, timestep_spacing=spacing
    )
    scheduler.set_timesteps(20)
    assert_same_walk(*both(rv.Multistep(order, eta=0), scheduler, name, torch.float32))


@networks
@pytest.mark.parametrize("order", [1, 2])
def test_stochastic_dpm_solver_plus_plus(order, name):
    """SDE-DPM-Solver++, noise for noise."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **COMMON, solver_order=order, algorithm_type="sde-dpmsolver++"
    )
    scheduler.set_timesteps(20)
    assert_same_walk(*both(rv.Multistep(order), scheduler, name, torch.float32, is_random=True))


@networks
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order, name):
    """Down to the first of 1000 steps, where they keep their order to the end as we do."""
    scheduler = diffusers.UniPCMultistepScheduler(
        **COMMON, solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min"
    )
    scheduler.set_timesteps(20)
    ours, theirs = both(rv.UniPC(order), scheduler, name, torch.float64, last=1 / STEPS)
    assert_same_walk(ours, theirs)


@networks
def test_unipc_with_its_defaults_down_to_0(name):
    scheduler = diffusers.UniPCMultistepScheduler(**COMMON)
    scheduler.set_timesteps(20)
    assert_same_walk(*both(rv.UniPC(2), scheduler, name, torch.float64))


@networks
@pytest.mark.parametrize("is_karras", [False, True], ids=["linspace", "karras"])
@pytest.mark.parametrize("kind", ["Euler", "Heun"])
def test_euler_and_heun_in_sigma(kind, is_karras, name):
    """They follow the flow in sigma with alpha = 1, which is the schedule ``Karras(most, 1)``."""
    make = getattr(diffusers, f"{kind}DiscreteScheduler")
    scheduler = make(**COMMON, timestep_spacing="linspace", use_karras_sigmas=is_karras)
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.double()
    if kind == "Heun":
        sigmas = torch.cat([sigmas[:1], sigmas[1::2]])
    process = rv.Gaussian(rv.Euclidean(2), rv.Karras(float(sigmas[0]), 1.0))
    grid = rv.Grid(sigmas / sigmas[0])
    denoiser, x = DENOISERS[name](process), start(process)
    sampler = rv.Heun() if kind == "Heun" else rv.Euler(churn=0)
    asked = grid.times.repeat_interleave(2)[1:] if kind == "Heun" else grid.times
    scheduler.is_scale_input_called = True
    theirs = scheduled(scheduler, noise_of(denoiser, asked), x)
    assert_same_walk(
        walk(sampler, denoiser, grid, x), theirs[1::2] + theirs[-1:] if kind == "Heun" else theirs
    )


def graded(steps: int) -> torch.Tensor:
    """Times from 0.95 to 0.05 whose steps start and end short."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return 0.95 - 0.9 * (3 * u**2 - 2 * u**3)


def test_order_three_deviates_from_the_program_and_has_order_three():
    """They give the second difference half of its integral, which leaves order 2; ours has 3."""
    schedule = rv.Cosine(0.1)
    data = mixture(rv.Gaussian(rv.Euclidean(2), schedule))
    x = start(data.process)
    fine = walk(rv.UniPC(3), data, rv.Grid(graded(600)), x)[-1]

    def theirs(steps: int) -> float:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **COMMON, solver_order=3, lower_order_final=False
        )
        scheduler.set_timesteps(steps)
        signal = schedule.signal(graded(steps))
        scheduler.sigmas = signal.sigma / signal.alpha
        scheduler.config["final_sigmas_type"] = "sigma_min"
        gap = scheduled(scheduler, noise_of(data, graded(steps)), x)[-1] - fine
        return float(gap.norm(dim=1).mean())

    def ours(steps: int) -> float:
        gap = walk(rv.Multistep(3, eta=0), data, rv.Grid(graded(steps)), x)[-1] - fine
        return float(gap.norm(dim=1).mean())

    counts = [32, 64, 128]
    assert abs(slope(counts, [ours(n) for n in counts]) - 3) < 0.25
    assert abs(slope(counts, [theirs(n) for n in counts]) - 2) < 0.25
