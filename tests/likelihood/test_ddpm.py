r"""DDPM's chain is a Gaussian process seen on a grid: its kernels, its steps, its losses.

.. math:: q(x_k | x_{k-1}) = N(\sqrt{1 - \beta_k} x_{k-1}, \beta_k), \quad
   \bar\alpha_k = \prod_{j \le k} (1 - \beta_j), \quad
   \tilde\beta_k = \frac{1 - \bar\alpha_{k-1}}{1 - \bar\alpha_k} \beta_k .
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.clocks import SharedClock
from reversal.processes.variances import step_law
from reversal.testing import check_process

DOUBLE = torch.float64
LISTS = [rv.Betas.linear(40, 1e-3, 0.3), rv.Betas.cosine(40)]
lists = pytest.mark.parametrize("schedule", LISTS, ids=["linear", "cosine"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE)


def times(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=DOUBLE)


@lists
def test_every_kernel_between_neighbors_is_that_of_the_list(schedule):
    process, total = rv.Gaussian(rv.Euclidean(3), schedule), schedule.steps
    x = normal(1, 3)
    for k in range(1, total + 1):
        law: Any = process.transition(x, times((k - 1) / total), times(k / total))
        beta = schedule.betas[k - 1]
        torch.testing.assert_close(law.mean, (1 - beta).sqrt() * x, atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(law.std.squeeze() ** 2, beta, atol=1e-12, rtol=1e-10)


@lists
def test_the_marginal_and_the_two_variances_are_those_of_the_paper(schedule):
    """Ho et al. (2020), eq. (4) and (7); the larger one is beta."""
    process, total = rv.Gaussian(rv.Euclidean(1), schedule), schedule.steps
    kept = (1 - schedule.betas).cumprod(0)
    signal = schedule.signal(torch.arange(1, total + 1, dtype=DOUBLE) / total)
    torch.testing.assert_close(signal.alpha**2, kept, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(signal.sigma**2, 1 - kept, atol=1e-12, rtol=1e-9)
    x_t, clean = normal(1, 1), normal(1, 1, seed=1)
    for k in range(2, total + 1):
        t, s = times(k / total), times((k - 1) / total)
        estimate = rv.Estimate(process, x_t, t, rv.Kind.CLEAN, clean)
        beta, last, this = schedule.betas[k - 1], kept[k - 2], kept[k - 1]
        tilde = (1 - last) / (1 - this) * beta
        mean = last.sqrt() * beta / (1 - this) * clean
        mean = mean + (1 - beta).sqrt() * (1 - last) / (1 - this) * x_t
        for variance, wanted in ((rv.SmallVariance(), tilde), (rv.LargeVariance(), beta)):
            law = step_law(process, x_t, t, s, estimate, variance)
            torch.testing.assert_close(law.mean, mean, atol=1e-10, rtol=1e-9)
            torch.testing.assert_close(law.std.squeeze() ** 2, wanted, atol=1e-12, rtol=1e-8)


def test_the_process_of_one_step_conforms():
    """One step has one rate; with more of them the checks would differentiate across its jumps."""
    check_process(rv.Gaussian(rv.Euclidean(2), rv.Betas([0.9999])))


def test_a_denoiser_trained_on_grid_times_is_asked_at_no_others():
    """In any number of steps; the subset is as equal as can be, and ends at the data."""
    schedule, asked = rv.Betas.linear(1000), []

    def network(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        asked.extend(t.tolist())
        return x

    clocks = SharedClock(rv.OnGrid(1000))
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    denoiser = rv.NetworkDenoiser(network, process, rv.Noise(), clocks)
    rv.Ancestral().sample(denoiser, 1, steps=30, generator=seeded(0))
    assert len(asked) == 30
    steps = torch.tensor(asked, dtype=DOUBLE) * 1000
    assert (steps - steps.round()).abs().max() < 1e-3
    assert steps.round().int().tolist()[0] == 1000
    assert set((-steps.round().diff()).int().tolist()) <= {33, 34}
    grid = denoiser.clocks.grid(process, 5000)
    assert grid.steps == 1000


@pytest.mark.parametrize("steps", [4, 10, 40])
@pytest.mark.parametrize(
    "variance", [rv.SmallVariance(), rv.LargeVariance()], ids=["small", "large"]
)
def test_samples_of_any_number_of_steps_have_the_law_of_their_chain(variance, steps):
    """With Gaussian data every step is affine, so that mean and variance follow by recursion."""
    schedule = LISTS[0]
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    mean, cov = 0.6, 0.3
    denoiser = rv.GaussianData(process, times(mean), times(cov)[None])
    grid = rv.Grid.respaced(schedule.steps, steps)
    n = 20_000
    x = rv.Ancestral(variance=variance).sample(denoiser, n, grid=grid, generator=seeded(3))
    at = schedule.signal(grid.times)
    center, spread = torch.zeros((), dtype=DOUBLE), torch.ones((), dtype=DOUBLE)
    for k in range(steps):
        a, b = at.alpha[k], at.alpha[k + 1]
        v, w = at.sigma[k] ** 2, at.sigma[k + 1] ** 2
        gain = a * cov / (a**2 * cov + v)
        fraction = 1 - (a / b) ** 2 * w / v
        of_x, of_clean = a / b * w / v, b * fraction
        noise = w * fraction
        if isinstance(variance, rv.LargeVariance) and w > 0:
            noise = v * fraction
        slope = of_x + of_clean * gain
        center = slope * center + of_clean * (1 - gain * a) * mean
        spread = slope**2 * spread + noise
    assert abs(x.mean() - center) < 4.4 * (spread / n).sqrt()
    assert abs(x.var() / spread - 1) < 4.4 * (2 / n) ** 0.5


def test_the_default_variance_and_the_small_one_draw_the_same():
    denoiser = rv.GaussianData(rv.Gaussian(rv.Euclidean(1), LISTS[1]), times(0.6), times(0.3)[None])
    drawn = [
        rv.Ancestral(variance=variance).sample(denoiser, 50, steps=12, generator=seeded(4))
        for variance in (None, rv.SmallVariance())
    ]
    torch.testing.assert_close(*drawn, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "decoder", [None, rv.DiscretizedDecoder(rv.Levels(8))], ids=["density", "levels"]
)
def test_the_loss_of_steps_is_minus_the_bound(decoder):
    process = rv.Gaussian(rv.Euclidean(2), LISTS[0])
    mean = torch.full((2,), 0.1, dtype=DOUBLE)
    denoiser = rv.GaussianData(process, mean, 0.2 * torch.eye(2, dtype=DOUBLE))
    codes = torch.randint(0, 8, (6000, 2), generator=seeded(5))
    x = rv.Levels(8).encode(codes).double()
    grid = rv.Grid.respaced(40, 8)
    loss = rv.StepBound(grid, decoder=decoder)(denoiser, x, generator=seeded(6))
    bound = rv.elbo_discrete(denoiser, x, grid, decoder=decoder, generator=seeded(7)).value
    gap = loss + bound
    assert abs(gap.mean()) < 4.4 * gap.std() / len(x) ** 0.5


def test_a_learned_variance_comes_to_the_best_one_and_the_mean_stays():
    """Gaussian data in one dimension: the variance of x_s given x_t is known at every step."""
    steps, cov = 5, 0.3
    schedule = rv.Betas.linear(5, 0.05, 0.6)
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    table = torch.nn.Parameter(torch.full((steps + 1,), 0.5, dtype=DOUBLE))
    shift = torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE))

    def mean(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        at = schedule.signal(t.double())
        return (at.alpha * cov / (at.alpha**2 * cov + at.sigma**2))[:, None] * x + shift

    def share(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return table[(t * steps).round().long()][:, None].expand_as(x)

    denoiser = rv.NetworkDenoiser(mean, process, rv.Clean(), SharedClock(rv.OnGrid(steps)))
    variance = rv.LearnedVariance(share)
    objective = rv.StepBound(steps, variance, trains_mean=False)
    optimizer, generator = torch.optim.Adam([table, shift], 0.02), seeded(8)
    for _ in range(300):
        x = cov**0.5 * torch.randn(2000, 1, generator=generator, dtype=DOUBLE)
        loss = objective(denoiser, x, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        assert shift.grad is None
        optimizer.step()
    at = schedule.signal(torch.arange(steps + 1, dtype=DOUBLE) / steps)
    for k in range(2, steps + 1):
        a, b, v, w = at.alpha[k], at.alpha[k - 1], at.sigma[k] ** 2, at.sigma[k - 1] ** 2
        added = v - (a / b) ** 2 * w
        left = cov * v / (a**2 * cov + v)
        best = added * w / v + (b * added / v) ** 2 * left
        learned = table[k].item()
        found = learned * added.log() + (1 - learned) * (added * w / v).log()
        assert float(found) == pytest.approx(float(best.log()), abs=0.05)
    assert shift.item() == 0


def test_gradients_of_the_loss_of_levels_are_finite(global_seed):
    """Also at the first and last level, under float32, and through steps that an item is not at."""
    network = torch.nn.Linear(2, 2)
    process = rv.Gaussian(rv.Euclidean(2), rv.Betas.linear(1000))
    denoiser = rv.NetworkDenoiser(lambda x, t, cond: network(x), process, rv.Noise())
    head = torch.nn.Linear(2, 2)
    variance = rv.LearnedVariance(lambda x, t, cond: head(x))
    x = rv.Levels().encode(torch.tensor([[0, 255], [128, 3]]).repeat(200, 1))
    objective = rv.StepBound(1000, variance, rv.DiscretizedDecoder())
    loss = objective(denoiser, x, generator=seeded(9))
    loss.mean().backward()
    assert loss.isfinite().all()
    for parameter in (*network.parameters(), *head.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_what_is_wrong_is_refused_with_the_cure():
    for betas in ([], [0.1, 1.0], [[0.1]], [math.nan]):
        with pytest.raises(rv.ClockError, match=r"numbers in \(0, 1\).* Betas.linear"):
            rv.Betas(betas)
    with pytest.raises(rv.CapabilityError, match="eta=1 where a variance"):
        rv.Ancestral(eta=0.0, variance=rv.LargeVariance())
    torus = rv.Empirical(rv.Brownian(rv.Torus(1)), torch.zeros(1, 1))
    with pytest.raises(rv.CapabilityError, match="Gaussian noise to choose"):
        rv.Ancestral(variance=rv.LargeVariance()).sample(torus, 1)
    denoiser = rv.GaussianData(rv.Gaussian(rv.Euclidean(1)), times(0.0), times(1.0)[None])
    with pytest.raises(rv.CapabilityError, match="complete data"):
        rv.StepBound(4)(denoiser, torch.zeros(1, 1).double(), observed=torch.tensor([True]))
