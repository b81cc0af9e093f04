r"""Randomness comes from the arguments alone, item by item where that is asked, and without bias.

Under ``ItemNoise`` item i's n-th draw of element j is a hash of (seed_i, n, j), so it cannot depend
on the batch. A categorical draw inverts a float64 sum: a stay-or-jump choice at K = 50257 with jump
mass 1e-2 to 1e-4 has the right rate, which a float32 exponential race misses.
"""

from __future__ import annotations

import math
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import noise, state
from reversal.core import Denoiser, Estimate, Kind, Leap
from tests.samplers import oracles
from tests.samplers.oracles import RATE, seeded

DOUBLE = torch.empty((), dtype=torch.float64)
SINGLE = torch.empty(())
WIDTH = 50_257
SAMPLERS = [
    rv.Ancestral(),
    rv.Euler(churn=0),
    rv.Euler(churn=1),
    rv.Euler(churn=2),
    rv.Heun(),
    rv.Multistep(),
    rv.UniPC(),
    rv.DEIS(),
]
samplers = pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
singles = pytest.mark.parametrize("like", [SINGLE, DOUBLE], ids=["float32", "float64"])


def z_limit(tests: int = 1) -> float:
    """The two-sided normal quantile at the declared failure rate, shared by several tests."""
    return float(stats.norm.isf(RATE / 2 / tests))


def batches(n: int, size: int, shuffled: bool) -> list[Tensor]:
    order = torch.randperm(n, generator=seeded(1)) if shuffled else torch.arange(n)
    return list(order.split(size))


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_draws_of_an_item_do_not_depend_on_its_batch(size: int, shuffled: bool) -> None:
    """Uniforms, normals, integers and categorical draws are the same bits in any batch."""
    seeds = torch.arange(64) * 7919 - 100
    weights = torch.rand(64, 3, 700, generator=seeded(2))

    def draw(rows: Tensor) -> list[Tensor]:
        stream = rv.ItemNoise(seeds[rows])
        n = len(rows)
        return [
            noise.uniform((n, 5), DOUBLE, stream),
            noise.normal((n, 2, 3), DOUBLE, stream),
            noise.uniform((n,), SINGLE, stream),
            noise.normal((n, 4), SINGLE, stream),
            noise.integers(torch.tensor([3, 9]), (n, 2), DOUBLE, stream),
            noise.categorical(weights[rows], stream),
            noise.categorical(weights[rows, :, :20], stream),
        ]

    whole = draw(torch.arange(64))
    for rows in batches(64, size, shuffled):
        assert all(torch.equal(a, b[rows]) for a, b in zip(draw(rows), whole, strict=True))


@samplers
def test_samples_of_an_item_do_not_depend_on_its_batch(sampler: Any) -> None:
    """Real factors agree to 1e-10 in float64, finite ones exactly; evidence goes with the item."""
    atoms, n = oracles.five_factors(), 64
    seeds = torch.arange(n) + 1000
    values = atoms.states["token"][torch.arange(n) % 6]

    def draw(rows: Tensor) -> dict[str, Tensor]:
        given = {"token": (values[rows], rows % 2 == 0)}
        stream = rv.ItemNoise(seeds[rows])
        return sampler.sample(atoms.denoiser, len(rows), steps=6, given=given, generator=stream)

    whole = draw(torch.arange(n))
    for size, shuffled in ((7, False), (64, True)):
        for rows in batches(n, size, shuffled):
            for name, part in draw(rows).items():
                assert torch.allclose(
                    part.double(), whole[name][rows].double(), rtol=0, atol=1e-10
                ), name


@samplers
def test_one_seed_gives_one_sample(sampler: Any) -> None:
    """Equal generators give equal bits, others do not, and no global generator is touched."""
    atoms = oracles.five_factors()

    def draw(seed: int) -> dict[str, Tensor]:
        return sampler.sample(atoms.denoiser, 20, steps=5, generator=seeded(seed))

    before = torch.get_rng_state()
    first, again, other = draw(3), draw(3), draw(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_equal_seeds_give_equal_items() -> None:
    """A repeated seed repeats its item, and a stream moves on with every draw."""
    stream = rv.ItemNoise([5, 6, 5])
    first, second = noise.normal((3, 4), DOUBLE, stream), noise.normal((3, 4), DOUBLE, stream)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_wrong_number_of_seeds_is_refused() -> None:
    """The error names both numbers."""
    with pytest.raises(rv.SpaceError, match="3 seeds"):
        noise.uniform((4,), DOUBLE, rv.ItemNoise([1, 2, 3]))


@singles
@pytest.mark.parametrize("axis", ["items", "elements", "draws"])
def test_item_noise_is_uniform_and_normal(like: Tensor, axis: str) -> None:
    """Kolmogorov-Smirnov across neighboring seeds, within one draw, and along one stream."""
    if axis == "draws":
        stream = rv.ItemNoise([12])
        u = torch.cat([noise.uniform((1, 1), like, stream).flatten() for _ in range(2000)])
        z = torch.cat([noise.normal((1, 1), like, stream).flatten() for _ in range(2000)])
    else:
        shape = (40_000,) if axis == "items" else (1, 40_000)
        stream = rv.ItemNoise(torch.arange(shape[0]))
        u, z = noise.uniform(shape, like, stream), noise.normal(shape, like, stream)
    assert bool(((u >= 0) & (u < 1)).all() & torch.isfinite(z).all())
    assert stats.kstest(u.flatten().double().numpy(), "uniform").pvalue > RATE
    assert stats.kstest(z.flatten().double().numpy(), "norm").pvalue > RATE


@pytest.mark.parametrize("gap", [1, 2, 64, 2**32])
def test_neighboring_streams_are_uncorrelated(gap: int) -> None:
    """Seeds s and s + gap, elements j and j + 1, draws n and n + 1: z-tests of the correlation."""
    n, size = 2000, 10
    stream, other = rv.ItemNoise(torch.arange(n)), rv.ItemNoise(torch.arange(n) + gap)
    first, second = (noise.normal((n, size), DOUBLE, stream) for _ in range(2))
    shifted = noise.normal((n, size), DOUBLE, other)
    pairs = [(first, shifted), (first, second), (first[:, :-1], first[:, 1:]), (second, shifted)]
    scores = [float((a * b).sum()) / a.numel() ** 0.5 for a, b in pairs]
    squares = [float(((a**2 - 1) * (b**2 - 1)).sum() / 2) / a.numel() ** 0.5 for a, b in pairs]
    assert max(abs(score) for score in scores + squares) < z_limit(8)


@pytest.mark.parametrize("source", ["generator", "items"])
@pytest.mark.parametrize("size", [5, 600, WIDTH])
@singles
def test_categorical_follows_its_weights(size: int, source: str, like: Tensor) -> None:
    """Pearson's test over 40 groups of states; a state of weight zero is never drawn."""
    n = 8_000 if size == WIDTH else 40_000
    weights = torch.rand(size, generator=seeded(6), dtype=like.dtype) ** 4
    weights[::3] = 0
    stream = seeded(7) if source == "generator" else rv.ItemNoise(torch.arange(n))
    parts = torch.arange(n).split(40 if size == WIDTH else 1000)
    if source == "generator":
        drawn = torch.cat([noise.categorical(weights.expand(len(p), size), stream) for p in parts])
    else:
        drawn = torch.cat(
            [noise.categorical(weights.expand(len(p), size), rv.ItemNoise(p)) for p in parts]
        )
    assert bool((weights[drawn] > 0).all())
    groups = min(40, size)
    group = (torch.arange(size) * groups) // size
    law = torch.zeros(groups, dtype=torch.float64).scatter_add(0, group, weights.double())
    counts = group[drawn].bincount(minlength=groups)
    assert oracles.p_value(counts, law / law.sum()) > RATE


def test_extreme_weights_are_never_confused() -> None:
    """One state holds all but 1e-30 of the mass, or all the mass is at either end."""
    for size in (5, 600, WIDTH):
        weights = torch.zeros(4, size)
        weights[0, 0] = weights[1, -1] = 1.0
        weights[2] = 1e-30
        weights[2, size // 2] = 1.0
        weights[3, 1:3] = 1e-38
        drawn = noise.categorical(weights.repeat(50, 1), seeded(8)).view(50, 4)
        assert bool((drawn[:, 0] == 0).all() & (drawn[:, 1] == size - 1).all())
        assert bool((drawn[:, 2] == size // 2).all())
        assert bool(((drawn[:, 3] == 1) | (drawn[:, 3] == 2)).all())


@final
class Flat(Denoiser):
    """The exact denoiser of one uniform token: its posterior given nothing but the token."""

    def __init__(self, process: Any) -> None:
        super().__init__()
        self.process, self.clocks = process, rv.AnyClock()

    @property
    def like(self) -> Tensor:
        return SINGLE

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> Estimate:
        size = self.process.space.num_values
        law = torch.full((1, size), 1 / size).log()
        cavity = law.expand(len(x_t), size)
        return Estimate(self.process, x_t, t, Kind.CAVITY, cavity).to(Kind.POSTERIOR)


def check_rate(hits: int, n: int, rate: float) -> None:
    """A z-test of a count."""
    z = (hits - n * rate) / (n * rate * (1 - rate)) ** 0.5
    assert abs(z) < z_limit()


DRAWS = {1e-2: 10_000, 1e-3: 30_000, 1e-4: 400_000}
masses = pytest.mark.parametrize("mass", DRAWS)
masses_here = pytest.mark.parametrize(
    "mass", [1e-2, 1e-3, pytest.param(1e-4, marks=pytest.mark.slow)]
)


@masses_here
@pytest.mark.parametrize("leaps", [True, False], ids=["leap", "one draw"])
def test_jump_mass_in_float32(mass: float, leaps: bool) -> None:
    """At K = 50257: whether first, as ``Leap`` does, and stay and jump by one inversion."""
    weights = torch.rand(WIDTH, generator=seeded(9)) + 0.5
    weights[0] = 0
    weights = weights / weights.sum() * mass
    generator, moved, above = seeded(10), 0, 0
    for part in torch.arange(DRAWS[mass]).split(50):
        n, x = len(part), torch.zeros(len(part), dtype=torch.int64)
        if leaps:
            drawn = Leap(torch.full((n,), mass), weights.expand(n, WIDTH)).sample(x, generator)
        else:
            whole = weights.clone()
            whole[0] = 1 - mass
            drawn = noise.categorical(whole.expand(n, WIDTH), generator)
        moved += int((drawn != 0).sum())
        above += int((drawn >= WIDTH // 2).sum())
    check_rate(moved, DRAWS[mass], mass)
    upper = weights.double()[WIDTH // 2 :].sum() / weights.double().sum()
    check_rate(above, moved, float(upper))


@pytest.mark.parametrize("noisy", [None, rv.ItemNoise(range(200))], ids=["shared", "items"])
def test_rows_that_are_not_wanted_change_no_other_row(noisy: Any) -> None:
    """Picking rows before the sum is inverted gives the draws that inverting all of them gives."""
    weights = torch.rand(200, 3, 40, generator=seeded(0))
    wanted = torch.rand(200, 3, generator=seeded(1)) < 0.1
    assert 0 < int(wanted.sum()) < wanted.numel()
    every = noise.categorical(weights, seeded(2) if noisy is None else noisy)
    again = rv.ItemNoise(range(200)) if noisy else seeded(2)
    some = noise.categorical(weights, again, wanted)
    assert torch.equal(some[wanted], every[wanted])
    assert noise.categorical(weights, seeded(3), torch.zeros_like(wanted)).shape == wanted.shape


@masses
@pytest.mark.parametrize("sampler", [rv.Ancestral(), rv.Euler()], ids=str)
@pytest.mark.parametrize("kind", [rv.Mask, rv.Uniform])
def test_jump_mass_of_a_step_in_float32(
    kind: Any, sampler: Any, mass: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step at K = 50257 jumps with the closed-form probability to 1e-5, and draws do so at K = 2.

    Of one uniform token the mask leaves at rate 1 / t, and a value, under uniform noise, at rate
    (1 - 1/K) / (1 - t).
    """
    t = 0.5

    def step(size: int, n: int, seed: int) -> tuple[Any, Tensor]:
        denoiser = Flat(kind(rv.Categorical(size)))
        x = torch.full((n,), size if kind is rv.Mask else 0)
        clocks = [torch.full((n,), at, dtype=torch.float64) for at in (t, t - mass / 2)]
        x_s = sampler.step(denoiser, x, clocks[0], clocks[1], generator=seeded(seed))
        return denoiser.process, x_s != x

    path, moved = step(2, DRAWS[mass], 16)
    check_rate(int(moved.sum()), len(moved), chance_of(sampler, path, mass, t))
    seen: list[Tensor] = []
    monkeypatch.setattr(Leap, "sample", lambda leap, x, *rest: (seen.append(leap.prob), x)[1])
    path, _ = step(WIDTH, 2, 17)
    assert abs(float(seen[0][0]) / chance_of(sampler, path, mass, t) - 1) < 1e-5


def chance_of(sampler: Any, path: Any, mass: float, t: float) -> float:
    """The jump probability of one step of length mass / 2 from t, for a single uniform token."""
    size, step = path.space.num_values, mass / 2
    masked = path.noisy_space.num_states > size
    if isinstance(sampler, rv.Ancestral):
        return step / t if masked else step / (1 - t + step) * (1 - 1 / size)
    return -math.expm1(-(step / t if masked else step / (1 - t) * (1 - 1 / size)))


def test_the_exact_denoiser_above_is_exact() -> None:
    """``Flat`` agrees with the enumerated uniform law."""
    for kind in (rv.Mask, rv.Uniform):
        process = kind(rv.Categorical(4))
        exact = rv.Enumerated(process, torch.full((4,), 0.25).double())
        x = process.noisy_space.example(3, SINGLE) + torch.tensor([0, 2, 3])
        t = torch.tensor([0.2, 0.5, 0.9]).double()
        assert torch.allclose(
            Flat(process)(x, t).posterior.exp().double(), exact(x, t).posterior.exp(), atol=1e-6
        )
        assert state.batch_size(x) == 3
