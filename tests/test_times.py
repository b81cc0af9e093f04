r"""Importance-weighted times: the mean of the loss stays, its variance falls, its memory is kept.

With exact second moments m_k of K intervals, the weighted loss has the mean square
:math:`(\tfrac1K \sum_k \sqrt{m_k})^2`, and the plain one :math:`\tfrac1K \sum_k m_k`.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.noise import BatchShare
from reversal.training import recipe
from reversal.training.distributed import Alone
from reversal.training.loop import Plan, Run
from reversal.training.snapshot import restore, snapshot

BINS = 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scale(t: Tensor) -> Tensor:
    """A loss that is 400 times as large at one end as at the other."""
    return (6 * t).exp() * (1 + torch.sin(9 * t) / 2)


def remembered(values: Tensor) -> rv.ImportanceTimes:
    """Times with a full memory of losses, ``(bins, memory)``."""
    times = rv.ImportanceTimes(*values.shape)
    t = ((torch.arange(len(values)).double() + 0.5) / len(values))[:, None].expand(values.shape)
    times.weigh(t.flatten(), values.flatten().requires_grad_())
    return times


def exact_moments() -> Tensor:
    """Root second moments of ``scale`` in each interval, by the midpoint rule."""
    t = (torch.arange(BINS * 4000).double() + 0.5) / (BINS * 4000)
    return scale(t).reshape(BINS, -1).square().mean(1).sqrt()


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_that_of_uniform_times_whatever_was_remembered(seed):
    """Any history, 200,000 times within 4.5 standard errors; false alarms below 1e-4 in all."""
    history = torch.randn(BINS, 3, dtype=torch.float64, generator=seeded(seed)).exp() ** 2
    times, n = remembered(history), 200_000
    t = times.sample(n, torch.empty((), dtype=torch.float64), rv.ItemNoise(torch.arange(n)))
    draws = times.weigh(t, scale(t))
    grid = (torch.arange(100_000).double() + 0.5) / 100_000
    assert abs(float(draws.mean() - scale(grid).mean())) < 4.5 * float(draws.std()) / n**0.5
    share = torch.bincount((t * BINS).long(), minlength=BINS) / n
    assert bool(((share - times.probs).abs() < 4.5 * (times.probs / n).sqrt()).all())


def test_the_variance_is_the_least_that_intervals_can_have():
    """With the moments known, to the floor's 1 %; and 4 times below uniform times."""
    roots = exact_moments()
    times = remembered(roots[:, None].expand(BINS, 2).clone())
    torch.testing.assert_close(
        times.probs, 0.999 * roots / roots.sum() + 0.001 / BINS, rtol=1e-12, atol=0
    )
    t = (torch.arange(BINS * 4000).double() + 0.5) / (BINS * 4000)
    probs = times.probs.repeat_interleave(4000) / 4000
    square = (probs * times.weigh(t, scale(t)) ** 2).sum()
    assert float(square / roots.mean() ** 2) == pytest.approx(1, abs=0.01)
    uniform, mean = scale(t).square().mean(), scale(t).mean()
    assert float(uniform - mean**2) > 4 * float(square - mean**2)


def test_an_interval_remembers_its_last_losses():
    """Beside a loop over the items; more than fit at once, none, and what is no number."""
    times, kept = rv.ImportanceTimes(4, 3), [[] for _ in range(4)]
    for seed in range(6):
        g = seeded(seed)
        t = torch.rand(17, generator=g) * (0.7 if seed % 2 else 1.0)
        losses = torch.randn(17, generator=g)
        losses[seed] = float("nan")
        times.weigh(t, losses.requires_grad_())
        for at, loss in zip(t.tolist(), losses.tolist(), strict=True):
            if loss == loss:
                kept[int(4 * at)] = [*kept[int(4 * at)], loss**2][-3:]
        for row, own in zip(times.squares, kept, strict=False):
            held = sorted(value for value in row.tolist() if value)
            assert held == pytest.approx(sorted(own), rel=1e-6)
    before = times.squares.clone()
    times.weigh(torch.rand(9, generator=seeded()), torch.ones(9))
    times.weigh(torch.zeros(0), torch.zeros(0, requires_grad=True))
    assert torch.equal(times.squares, before)


def test_times_are_uniform_until_every_interval_has_seen_enough():
    times = rv.ImportanceTimes(4, 2)
    for t in (0.1, 0.3, 0.6, 0.9, 0.1, 0.3, 0.6):
        times.weigh(torch.tensor([t]), torch.tensor([5.0 * t], requires_grad=True))
        assert times.probs.tolist() == pytest.approx([0.25] * 4)
    times.weigh(torch.tensor([0.9]), torch.tensor([4.5], requires_grad=True))
    assert float(times.probs[3]) > 2 * float(times.probs[1])
    calm = rv.ImportanceTimes(2, 1)
    calm.weigh(torch.tensor([0.2, 0.7]), torch.zeros(2, requires_grad=True))
    assert calm.probs.tolist() == pytest.approx([0.5, 0.5])


class Scaled(torch.nn.Module):
    """A network with one number."""

    def __init__(self) -> None:
        super().__init__()
        self.size = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.size * x


def weighted() -> rv.NetworkDenoiser:
    process = rv.Gaussian(rv.Euclidean(2), rv.Cosine())
    clocks = rv.SharedClock(rv.ImportanceTimes(4, 3))
    return rv.NetworkDenoiser(Scaled(), process, rv.Clean(), clocks)


OBJECTIVES = [
    rv.Regression(),
    rv.Implicit(),
    rv.Explicit(
        rv.GaussianData(rv.Gaussian(rv.Euclidean(2), rv.Cosine()), torch.zeros(2), torch.eye(2))
    ),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_objectives_weigh_and_teach(objective):
    """The same draws cost 1/(K p) times as much as under plain times; losses are remembered."""
    denoiser = weighted()
    times = denoiser.clocks.times
    for k in range(4):
        t = torch.full((3,), k / 4 + 0.1)
        times.weigh(t, torch.full((3,), 4.0**k, requires_grad=True))
    x_0, probs = torch.randn(64, 2, generator=seeded()), times.probs
    with torch.no_grad():
        validated = objective(denoiser, x_0, generator=seeded(1))
    losses = objective(denoiser, x_0, generator=seeded(1))
    torch.testing.assert_close(losses.detach(), validated)
    t = rv.ImportanceTimes.sample(
        remembered(torch.tensor([[1.0], [4], [16], [64]])), 64, x_0, seeded(1)
    )
    plain = weighted()
    plain.clocks = rv.SharedClock(Fixed(t))
    own = objective(plain, x_0, generator=burnt(seeded(1)))
    expected = own / (4 * probs[(4 * t).long()]).to(own)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert int(times.seen[:4].sum()) == 12 + 64


class Fixed(rv.times.Times):
    """Times that were drawn before."""

    def __init__(self, t: Tensor) -> None:
        self.t = t

    def sample(self, n: int, like: Tensor, generator: Any = None) -> Tensor:
        return self.t


def burnt(generator: torch.Generator) -> torch.Generator:
    """The stream after the draws that times take."""
    rv.LowDiscrepancy().sample(64, torch.empty(()), generator)
    return generator


def started(denoiser: rv.NetworkDenoiser) -> tuple[Run, torch.Generator]:
    generator = seeded(5)
    run = Run(denoiser, Plan(steps=12, batch_size=16), 64, generator, None, (), Alone())
    return run, generator


def go(run: Run, generator: torch.Generator, steps: int) -> None:
    data = torch.randn(64, 2, generator=seeded(7))
    for _ in range(steps):
        run.step(rv.Regression()(run.module, data[run.batch()], generator=generator).mean())


def test_a_resumed_training_has_the_memory_of_the_one_that_stopped():
    """Bit for bit, the times that are drawn after it included."""
    whole, g = started(weighted())
    go(whole, g, 5)
    saved = copy.deepcopy(snapshot(whole))
    go(whole, g, 4)
    again, h = started(weighted())
    restore(again, saved)
    go(again, h, 4)
    for name, part in whole.module.state_dict().items():
        assert torch.equal(part, again.module.state_dict()[name]), name
    assert int(whole.module.clocks.times.seen.sum()) == 9 * 16


def test_where_weights_have_no_place_they_are_refused():
    times = rv.ImportanceTimes()
    for make in (
        lambda: rv.SiteClocks(times=times),
        lambda: rv.FactorClocks(times=times),
        lambda: rv.OneSite(times),
        lambda: rv.MixedClocks([(rv.SharedClock(times), 1.0)]),
    ):
        with pytest.raises(rv.ClockError, match=r"SharedClock\(ImportanceTimes\(\)\)"):
            make()
    with pytest.raises(rv.ClockError, match="one process"):
        times.sample(2, torch.empty(()), BatchShare(seeded(), 4, 0, 2))
    with pytest.raises(rv.CheckpointError, match="ImportanceTimes"):
        recipe.clocks_to_config(rv.SharedClock(times))
    for bad in ({"bins": 0}, {"memory": 0}, {"floor": 0.0}, {"bins": 2.5}):
        with pytest.raises(rv.ClockError, match="Expected bins"):
            rv.ImportanceTimes(**bad)
    with pytest.raises(rv.ClockError, match="Expected a grid"):
        rv.GridTimes(5)


def test_grid_times_are_those_of_the_grid_but_0():
    """Every time of eight as often, within 4.5 standard errors of 80,000 draws."""
    grid, n = rv.Grid.quadratic(8), 80_000
    times = rv.GridTimes(grid)
    drawn = times.sample(n, torch.empty((), dtype=torch.float64), rv.ItemNoise(torch.arange(n)))
    values, counts = drawn.unique(return_counts=True)
    torch.testing.assert_close(values, grid.times[:-1].flip(0), rtol=0, atol=0)
    assert bool(((counts / n - 1 / 8).abs() < 4.5 * (1 / 8 * 7 / 8 / n) ** 0.5).all())
    process = rv.Gaussian(rv.Euclidean(1))
    assert rv.SharedClock(times).grid(process, 100) is grid
