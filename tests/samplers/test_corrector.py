r"""Langevin steps leave q_t as it is: one errs by O(size^2), many settle within O(size) of it.

Of Gaussian data one step is x -> M x + m + c z, read off the very code with its noise set to 0 and
to 1, so that moments are pushed exactly; on finite sets the whole law is pushed through the matrix
of a step.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal import noise
from reversal.core import Sampler
from reversal.samplers.correction import correct
from reversal.testing import check_sampler
from tests import cases
from tests.samplers.oracles import Enumeration, seeded, slope, total_variation

SIZES = [0.2, 0.1, 0.05, 0.025]
T, S, WITHIN = 0.5, 0.45, 0.25


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def order(errors: list[float]) -> float:
    """The power of the size with which the errors fall."""
    return slope([1, 2, 4, 8], errors)


def affine(
    data: rv.GaussianData, size: float, patch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor, Tensor]:
    """M, m and the covariance of the noise of one correction, read off the code."""
    frame = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    t, s = (torch.full((3,), at, dtype=torch.float64) for at in (T, S))

    def run(level: float) -> Tensor:
        patch.setattr(noise, "normal", lambda shape, like, generator: 0 * like + level)
        return correct(data, frame, t, s, None, None, None, 1, size)

    still, moved = run(0.0), run(1.0)
    spread = torch.diag((moved - still)[0] ** 2)
    return (still[1:] - still[0]).T, still[0], spread


@pytest.mark.parametrize("schedule", cases.SIGNALS, ids=repr)
def test_gaussian_laws_are_kept_to_second_order(schedule, monkeypatch):
    """One step errs by size^2 in the covariance; the law that many steps settle to by size."""
    mean, covariance = real(0.7, -0.4), real([0.6, 0.3], [0.3, 0.4])
    data = rv.GaussianData(rv.Gaussian(rv.Euclidean(2), schedule), mean, covariance)
    level = schedule.signal(real(S))
    exact = level.alpha**2 * covariance + level.sigma**2 * torch.eye(2)
    one, many = [], []
    for size in SIZES:
        linear, shift, spread = affine(data, size, monkeypatch)
        torch.testing.assert_close(linear @ (level.alpha * mean) + shift, level.alpha * mean)
        one.append(float((linear @ exact @ linear.T + spread - exact).norm()))
        system = torch.eye(4) - torch.kron(linear, linear)
        settled = torch.linalg.solve(system, spread.flatten()).view(2, 2)
        many.append(float((settled - exact).norm()))
    assert abs(order(one) - 2) < WITHIN
    assert abs(order(many) - 1) < WITHIN


@dataclass(frozen=True)
class Corrections(Sampler):
    """One correction at s, and no step from t: what the enumeration of one step needs."""

    size: float

    def check(self, path: Any) -> None:
        """Nothing."""

    def advance(self, denoiser, x_t, t, s, cond, stop, generator):
        return correct(denoiser, x_t, t, s, cond, stop, generator, 1, self.size)


CHAINS = [
    rv.Mask(rv.Categorical(2, 2)),
    rv.Uniform(rv.Categorical(3, 2)),
    rv.Independent(a=rv.Mask(rv.Categorical(2)), b=rv.Uniform(rv.Categorical(3))),
]


def enumerated(process: Any) -> Enumeration:
    parts = [p.space for p in (process.factors or {"": process}).values()]
    shape = [part.num_states for part in parts for _ in range(max(1, *part.sites, 1))]
    table = torch.rand(shape, generator=seeded(1), dtype=torch.float64) + 0.2
    return Enumeration(rv.Enumerated(process, table / table.sum()))


def ticks(path: Any) -> tuple[Any, Any]:
    t, s = rv.Grid(real(T, S)).ticks()
    return tuple(dict.fromkeys(path.factors, at) if path.factors else at for at in (t, s))  # pyright: ignore


@pytest.mark.parametrize("process", CHAINS, ids=repr)
def test_finite_laws_are_kept_to_second_order(process):
    """In total variation: q_s K - q_s, and the stationary law of K."""
    chain = enumerated(process)
    t, s = ticks(process)
    exact, one, many = chain.marginal(S), [], []
    for size in SIZES:
        matrix = chain.matrix(Corrections(10 * size), t, s)
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(exact), dtype=torch.float64))
        one.append(total_variation(exact @ matrix, exact))
        many.append(total_variation(torch.linalg.matrix_power(matrix, 2**14)[0], exact))
    assert abs(order(one) - 2) < WITHIN, one
    assert abs(order(many) - 1) < WITHIN, many


@pytest.mark.parametrize("process", CHAINS[:2], ids=repr)
def test_corrections_take_back_what_a_predictor_errs(process):
    """Five of six steps of Ancestral, with and without 40 small corrections at each time."""
    chain, at = enumerated(process), process.grid(6).ticks()[:-1]
    alone = corrected = chain.marginal(1.0)
    for t, s in pairwise(at):
        step = chain.matrix(rv.Ancestral(), t, s)
        again = torch.linalg.matrix_power(chain.matrix(Corrections(0.05), t, s), 40)
        alone, corrected = alone @ step, corrected @ step @ again
    exact = chain.marginal(at[-1].time)
    assert total_variation(corrected, exact) < 0.6 * total_variation(alone, exact)


@pytest.mark.parametrize("space", [rv.Torus(1), rv.SO3()], ids=str)
def test_laws_on_manifolds_are_kept(space):
    """Draws of q_s, before and after 20 corrections: z-tests of each atom's share, at 1e-4."""
    process, n = rv.Brownian(space), 3000
    like = torch.empty((), dtype=torch.float64)
    atoms = process.prior.sample(3, seeded(2), like)
    oracle = rv.Empirical(process, atoms, real(0.5, 0.3, 0.2))
    chosen = torch.multinomial(real(0.5, 0.3, 0.2), n, True, generator=seeded(3))
    t, s = (torch.full((n,), at, dtype=torch.float64) for at in (0.5, 0.4))
    x = process.kernel(atoms[chosen], s).sample(seeded(4))
    moved = correct(oracle, x, t, s, None, None, seeded(5), 20, 0.02)
    assert float((moved - x).abs().mean()) > 0.1
    before, after = oracle.weights(x, s), oracle.weights(moved, s)
    z = (after.mean(0) - before.mean(0)) / (before.var(0) + after.var(0)).sqrt() * n**0.5
    square = (after**2).mean(0) - (before**2).mean(0)
    wide = square / ((before**2).var(0) + (after**2).var(0)).sqrt() * n**0.5
    assert float(torch.cat([z, wide]).abs().max()) < 4.4


def test_annealed_langevin_finds_the_weights_from_anywhere():
    """From one point, two far modes get 3 to 1 of 2,000 draws, where one level gives them one."""
    process, n = rv.Gaussian(rv.Euclidean(1), rv.VarianceExploding(0.05, 10)), 2000
    data = rv.GaussianMixture(process, real(3.0, 1.0), real([-2.0], [2.0]), real(0.01, 0.01))
    start = torch.full((n, 1), 1.9, dtype=torch.float64)
    x = rv.Langevin(10, 0.3).sample(data, n, steps=60, x_1=start, generator=seeded(6))
    share = float((x > 0).double().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5 + 0.01
    low = rv.Grid(real(0.2, 0.19, 0.18, 0.0))
    stuck = rv.Langevin(100, 0.3).sample(data, n, grid=low, x_1=start, generator=seeded(7))
    assert float((stuck > 0).double().mean()) > 0.99


FAST = [rv.Gaussian(rv.Euclidean(2)), rv.Mask(rv.Categorical(3, 4)), rv.Brownian(rv.Torus(2))]
SLOW = [
    rv.Gaussian(rv.Euclidean(2), rv.Rectified()),
    rv.Uniform(rv.Categorical((2, 3, 5)), rv.ExponentialSurvival()),
    rv.Brownian(rv.SO3(2)),
    cases.mixed(),
]


@pytest.mark.parametrize(
    "process", [*FAST, *(pytest.param(p, marks=pytest.mark.slow) for p in SLOW)], ids=repr
)
@pytest.mark.parametrize(
    "sampler",
    [rv.PredictorCorrector(), rv.PredictorCorrector(rv.Multistep(), 2, 0.3), rv.Langevin(20)],
    ids=repr,
)
def test_they_conform(sampler, process):
    """At 100 steps the bias of every one is below 0.005, half of what 2,000 draws resolve.

    Measured on 10,000 and 40,000 draws; five corrections of Langevin would leave 0.025 on SO(3).
    """
    check_sampler(sampler, process, n=2000, steps=100)


def test_a_walk_has_a_predictor_of_its_own():
    sampler = rv.PredictorCorrector(rv.Multistep())
    assert copy(sampler) == sampler and copy(sampler).predictor is not sampler.predictor


def test_paths_without_a_generator_and_settings_of_no_use_are_refused():
    chain = rv.Empirical(cases.chain(), torch.tensor([0, 1]))
    for sampler in (rv.PredictorCorrector(), rv.Langevin()):
        with pytest.raises(rv.CapabilityError, match="a generator"):
            sampler.sample(chain, 2)
    for make in (
        lambda: rv.PredictorCorrector(corrections=0),
        lambda: rv.PredictorCorrector(size=0.0),
        lambda: rv.Langevin(size=-1.0),
    ):
        with pytest.raises(rv.CapabilityError, match="at least one correction"):
            make()
    with pytest.raises(rv.CapabilityError, match="a sampler for a predictor"):
        rv.PredictorCorrector(rv.Ancestral)  # pyright: ignore[reportArgumentType]
