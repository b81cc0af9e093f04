r"""What exact oracles found wrong in other libraries, as sentences that hold here; no peer needed.

What was found, and where the sentence stands that is not in this file:

- an exponential integrator of measured order 0.8 in place of 2: `samplers/test_multistep.py` and
  `samplers/test_order.py` measure the order of every sampler;
- guidance whose strength falls with the batch: `guidance/test_reconstruction.py`, an item is guided
  alike in any batch;
- exact divergences of flat vectors alone, and state norms over the batch:
  `likelihood/test_flow.py`, densities of images, and a row alone and in a batch;
- distances of a point to itself that are no number, and geodesics that leave the space:
  `spaces/test_rotations.py`, values and derivatives at every angle;
- minibatch plans that use some targets twice: `processes/test_couplings.py`, the exact plan is a
  permutation;
- likelihoods from too few steps, wrong without a word: `likelihood/test_flow.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import reversal as rv
from tests.samplers.oracles import seeded

FLOWS = [
    rv.Ancestral(eta=0),
    rv.Euler(churn=0),
    rv.Heun(),
    rv.Multistep(2, eta=0),
    rv.Multistep(3, eta=0),
    rv.DEIS(3),
    rv.UniPC(2),
]
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.VarianceExploding(), rv.Betas.linear(100)]
LINSPACE = torch.tensor([100, 75, 51, 26, 1, 0], dtype=torch.float64) / 100
"""The times 99, 74, 50, 25, 0 of 100 steps, which one library leaves for 79, 54, 30, 5, -20."""


class Recording(nn.Module):
    """A network that writes down when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.times.append(float(t[0]))
        return torch.tanh(x_t.flip(-1)) * (1 + t[:, None].to(x_t))


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn((n, 2), generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("sampler", FLOWS, ids=str)
def test_a_walk_asks_at_the_times_of_its_grid_and_at_no_others(sampler):
    network = Recording()
    denoiser = rv.NetworkDenoiser(network, rv.Gaussian(rv.Euclidean(2)), rv.Noise())
    sampler.sample(denoiser, 3, grid=rv.Grid(LINSPACE), x_1=normal(3))
    assert set(network.times) == set(LINSPACE[:-1].tolist())


def test_ddim_steps_from_each_time_of_the_grid_to_the_next():
    """Song, Meng and Ermon (2021), eq. (12) at eta 0, on the spacing that goes wrong elsewhere."""
    schedule = rv.Betas.linear(100)
    denoiser = rv.NetworkDenoiser(Recording(), rv.Gaussian(rv.Euclidean(2), schedule), rv.Noise())
    signal, x = schedule.signal(LINSPACE), normal(3)
    got = rv.Ancestral(eta=0).sample(denoiser, 3, grid=rv.Grid(LINSPACE), x_1=x)
    for k, t in enumerate(LINSPACE[:-1]):
        noise = denoiser.network(x, t.expand(3))
        clean = (x - signal.sigma[k] * noise) / signal.alpha[k]
        x = signal.alpha[k + 1] * clean + signal.sigma[k + 1] * noise
    torch.testing.assert_close(got, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", [rv.Euler(churn=0), rv.Heun()], ids=str)
def test_a_walk_on_a_manifold_starts_where_its_grid_starts(sampler):
    """Two halves are the whole, from 0.8 and not from 1, and each asks at its own times."""
    process = rv.Brownian(rv.Torus(2))
    network = Recording()
    denoiser = rv.NetworkDenoiser(network, process, rv.Velocity())
    whole = rv.Grid(real(0.8, 0.7, 0.55, 0.3))
    x_1 = process.prior.sample(3, seeded(1), normal(3))
    first = sampler.sample(denoiser, 3, grid=rv.Grid(whole.times[:3]), x_1=x_1)
    second = sampler.sample(denoiser, 3, grid=rv.Grid(whole.times[2:]), x_1=first)
    assert set(network.times) - {0.3} == set(whole.times[:3].tolist())
    torch.testing.assert_close(second, sampler.sample(denoiser, 3, grid=whole, x_1=x_1))


@pytest.mark.parametrize("times", [(1, 0.5, 0.5, 0), (1, 0.4, 0.6, 0)], ids=str)
def test_a_time_that_comes_twice_is_refused(times):
    with pytest.raises(rv.ClockError, match="strictly decreasing"):
        rv.Grid(real(*times))


@pytest.mark.parametrize("sampler", [*FLOWS, rv.Adaptive(1e-3, 1e-3)], ids=str)
def test_the_flow_draws_no_noise(sampler):
    """The generator is where it was."""
    data = rv.GaussianData(rv.Gaussian(rv.Euclidean(2)), normal(1)[0], torch.eye(2).double())
    generator = seeded(3)
    sampler.sample(data, 4, steps=4, x_1=normal(4), generator=generator)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


MULTISTEP = [s for s in FLOWS if isinstance(s, rv.Multistep | rv.DEIS | rv.UniPC)]


@pytest.mark.parametrize("sampler", MULTISTEP, ids=str)
def test_16_equal_steps_of_a_multistep_method_err_less_than_those_of_ddim(sampler):
    """The mean error along the flow of N(0.3, 0.25), on the linear beta, from 1 to 0.05."""
    process = rv.Gaussian(rv.Euclidean(2))
    data = rv.GaussianData(process, real(0.3, 0.3), 0.25 * torch.eye(2).double())
    x_1, grid = normal(64), rv.Grid.uniform(16, 1.0, 0.05)
    level = process.schedule.signal(real(1.0, 0.05))
    spread = (0.25 * level.alpha**2 + level.sigma**2).sqrt()
    center = 0.3 * level.alpha
    exact = center[1] + spread[1] / spread[0] * (x_1 - center[0])

    def error(which: Any) -> float:
        x = which.sample(data, 64, grid=grid, x_1=x_1)
        return float((x - exact).abs().mean())

    assert 4 * error(sampler) < error(rv.Ancestral(eta=0))


class Counter(TorchDispatchMode):
    """How many operations torch was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(work: Any, n: int) -> int:
    with Counter() as counter:
        work(n)
    return counter.count


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_noising_many_items_takes_as_many_operations_as_noising_two(schedule):
    """No loop over the items: what a training step asks for at every batch."""
    process = rv.Gaussian(rv.Euclidean(2), schedule)

    def noise(n: int) -> None:
        t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
        process.kernel(torch.zeros(n, 2), t).sample(seeded(0))

    assert operations(noise, 2) == operations(noise, 256)


@pytest.mark.parametrize("sampler", [*FLOWS, rv.Ancestral(), rv.Multistep(), rv.Euler()], ids=str)
def test_stepping_many_items_takes_as_many_operations_as_stepping_two(sampler):
    denoiser = rv.NetworkDenoiser(Recording(), rv.Gaussian(rv.Euclidean(2)), rv.Noise())

    def walk(n: int) -> None:
        sampler.sample(denoiser, n, steps=4, x_1=torch.zeros(n, 2), generator=seeded(0))

    assert operations(walk, 2) == operations(walk, 256)


def test_plans_use_every_target_once_and_draw_from_the_generator_alone():
    """256 targets of 256; with entropy, equal seeds pair alike (global generators are watched)."""
    x_0, x_1 = normal(256, 1), normal(256, 2)
    paired = rv.OptimalTransport().pair(x_0, x_1)
    assert len(paired.unique(dim=0)) == 256
    once, again, other = (
        rv.OptimalTransport(entropy=1.0).pair(x_0[:32], x_1[:32], generator=seeded(k))
        for k in (4, 4, 5)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_weights_are_not_clipped():
    """At a signal-to-noise ratio of 2.5e5 the loss of the clean estimate has that weight."""
    process = rv.Gaussian(rv.Euclidean(2), rv.Karras(2e-3, 1.0))
    denoiser = rv.NetworkDenoiser(
        lambda x, t, cond: 0 * x, process, rv.Clean(), rv.SharedClock(rv.OnGrid(1))
    )
    losses = rv.Regression(weighting=rv.Simple())(
        denoiser, torch.ones(4, 2).double(), generator=seeded(0)
    )
    torch.testing.assert_close(losses, torch.full((4,), 2 / 2e-3**2).double())
