r"""The reversal to a tolerance: a step that is tried again meets the same noise, and no other row.

Tests of laws reject at 1e-4.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import noise
from reversal.ode import Rule, walk
from reversal.testing import check_sampler
from tests import cases
from tests.samplers.oracles import RATE, seeded

DOUBLE = torch.empty((), dtype=torch.float64)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(schedule: Any = None) -> rv.GaussianData:
    """N(0.5, 0.2^2): its law at the end is known, and so is that of any pair of rows."""
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(1), schedule), real(0.5), real([0.04]))


class Refusing(Rule):
    """Sums up noise in the clock u = t^(1/3), and refuses a step for noise that is large."""

    calls, power, most, smallest = 1, 0.5, 10.0, 1e-5

    def __init__(self, draw: Any) -> None:
        super().__init__(None, 0.0, 1.0)
        self.draw = draw

    def begin(self, x: Any, t: Tensor, total: Tensor) -> tuple[Any, Tensor]:
        return {}, 0.3 * total

    def trial(self, x: Any, t: Tensor, h: Tensor, known: Any) -> tuple[Any, Any, Tensor]:
        z = self.draw((1 - t) ** 3, (1 - t - h).clamp_min(0) ** 3)
        return x + h.sqrt()[:, None] * z, {}, 2 * (h.sqrt()[:, None] * z).abs()[:, 0]


def test_noise_that_is_refused_is_cut_and_not_drawn_anew():
    """The increments of a row add up to W(1) - W(0), however many steps it was refused.

    Up to a last step that is shorter than a cell. Drawn anew, they have lost a fifth of their
    variance at least.
    """
    n, zero = 2000, torch.zeros(2000, dtype=torch.float64)
    path, x = rv.BrownianPath(range(n), depth=20), zero[:, None]
    rule = Refusing(lambda t, s: noise.normal((n, 1), DOUBLE, path.over(t, s)))
    found = walk(rule, x, zero, zero + 1, 500)
    assert int((found.rejected > 0).sum()) > n / 2
    whole = noise.normal((n, 1), DOUBLE, rv.BrownianPath(range(n), depth=20).over(1.0, 0.0))
    torch.testing.assert_close(found.x, whole, rtol=0, atol=1e-3)
    assert float((found.x - whole).abs().median()) < 1e-9
    source = seeded(0)
    fresh = Refusing(lambda t, s: noise.normal((n, 1), DOUBLE, source))
    assert float(walk(fresh, x, zero, zero + 1, 500).x.var()) < 0.8


@pytest.mark.parametrize(
    "schedule",
    [
        rv.VariancePreserving(),
        pytest.param(rv.Rectified(), marks=pytest.mark.slow),
        pytest.param(rv.VarianceExploding(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_the_law_of_normal_data_comes_back(schedule):
    """Mean, variance and Kolmogorov-Smirnov of 1,000 draws, most of whose rows were refused."""
    n, data = 1000, normal(schedule)
    sampler = rv.AdaptiveSDE(0.01, 0.01)
    z = (sampler.sample(data, n, generator=seeded(1))[:, 0] - 0.5) / 0.2
    assert sampler.rejected is not None and float(sampler.rejected.double().mean()) > 5
    assert abs(float(z.mean())) * n**0.5 < stats.norm.isf(RATE / 6)
    tails = stats.chi2.cdf(float((z - z.mean()).square().sum()), n - 1)
    assert min(tails, 1 - tails) > RATE / 6
    assert stats.kstest(z.numpy(), "norm").pvalue > RATE / 3


@pytest.mark.slow
def test_a_smaller_tolerance_comes_closer_to_the_path_that_euler_converges_to():
    """The same seeds: the distance to Euler in 2,048 steps falls with the tolerance."""
    n, process = 32, rv.Gaussian(rv.Euclidean(2), rv.Cosine(0.1))
    data = rv.GaussianMixture(process, real(2.0, 1.0), real([0.7, -0.4], [-0.8, 0.5]), real(0.5, 1))
    x_1 = process.prior.sample(n, seeded(2), DOUBLE)

    def walked(sampler: Any, steps: int, seed: int = 0) -> Tensor:
        path = rv.BrownianPath(range(seed, seed + n), depth=16)
        grid = rv.Grid.uniform(steps, 0.95, 0.05)
        return sampler.sample(data, n, x_1=x_1, grid=grid, generator=path)

    fine = walked(rv.Euler(), 2048)
    far, near = (
        float((walked(rv.AdaptiveSDE(0.0, at), 1) - fine).norm(dim=1).mean()) for at in (0.2, 0.005)
    )
    assert near < far / 3
    assert 5 * near < float((walked(rv.Euler(), 64, 100) - fine).norm(dim=1).mean())


@pytest.mark.parametrize("make", [rv.ItemNoise, rv.BrownianPath], ids=lambda kind: kind.__name__)
def test_a_row_is_the_same_alone_and_together(make):
    """Bit for bit, on two intervals, with as many calls."""
    data, sampler = normal(), rv.AdaptiveSDE(0.2, 0.1)
    grid = rv.Grid(real(1.0, 0.4, 0.0))
    whole = sampler.sample(data, 3, grid=grid, generator=make(range(3)))
    calls = sampler.calls
    assert calls is not None and len(calls.unique()) > 1
    for row in range(3):
        alone = sampler.sample(data, 1, grid=grid, generator=make([row]))
        assert torch.equal(alone[0], whole[row])
        assert sampler.calls is not None and int(sampler.calls) == int(calls[row])


@pytest.mark.parametrize(
    "process",
    [
        rv.Gaussian(rv.Euclidean(2)),
        pytest.param(rv.Gaussian(rv.Euclidean(2), rv.Rectified()), marks=pytest.mark.slow),
        pytest.param(rv.Brownian(rv.Torus(2)), marks=pytest.mark.slow),
        pytest.param(rv.Brownian(rv.SO3()), marks=pytest.mark.slow),
        pytest.param(
            rv.Independent(
                angle=rv.Brownian(rv.Torus(1)),
                place=rv.Gaussian(rv.Euclidean(2), rv.Rectified()),
                pose=rv.Brownian(rv.SO3()),
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=repr,
)
def test_it_conforms(process):
    check_sampler(rv.AdaptiveSDE(0.2, 0.2), process, n=500)


def test_evidence_stands_and_the_rest_is_conditional():
    """A known entry of normal data: the other follows its conditional law, by 500 draws."""
    process, n = rv.Gaussian(rv.Euclidean(2), rv.Cosine()), 500
    data = rv.GaussianData(process, real(0.7, -0.4), real([0.6, 0.3], [0.3, 0.4]))
    values, known = real([1.5, 0.0]).expand(n, 2), torch.tensor([True, False])
    x = rv.AdaptiveSDE(0.02, 0.02).sample(data, n, given=(values, known), generator=seeded(3))
    assert torch.equal(x[:, 0], values[:, 0])
    mean, variance = -0.4 + 0.3 / 0.6 * (1.5 - 0.7), 0.4 - 0.3**2 / 0.6
    z = (x[:, 1] - mean) / variance**0.5
    assert stats.kstest(z.numpy(), "norm").pvalue > RATE


def test_what_it_cannot_walk_is_refused_before_the_first_step():
    for process in (rv.Mask(rv.Categorical(3)), cases.mixed()):
        oracle = rv.Empirical(process, process.space.example(2, torch.empty(())))
        with pytest.raises(rv.CapabilityError, match="real parts"):
            rv.AdaptiveSDE().sample(oracle, 2)
    pair = rv.Interpolant(rv.Euclidean(1), rv.Paired())
    network = rv.NetworkDenoiser(lambda x, t, cond: x, pair, rv.Velocity())
    with pytest.raises(rv.CapabilityError, match="a generator"):
        rv.AdaptiveSDE().sample(network, 2, x_1=torch.zeros(2, 1))
    for settings in ({"atol": 0.0}, {"rtol": -1.0}, {"last": 2.0}, {"atol": float("nan")}):
        with pytest.raises(rv.CapabilityError, match="rtol >= 0"):
            rv.AdaptiveSDE(**settings)


def test_a_path_that_is_too_coarse_and_a_score_that_is_no_number_are_errors_with_a_cure():
    with pytest.raises(rv.ConvergenceError, match=r"BrownianPath\(seeds, depth=12\)"):
        rv.AdaptiveSDE().sample(normal(), 2, generator=rv.BrownianPath([1, 2], depth=4))
    network = rv.NetworkDenoiser(lambda x, t, cond: x / 0 * 0, rv.Gaussian(rv.Euclidean(1)))
    with pytest.raises(rv.ConvergenceError, match="Loosen the tolerances"):
        rv.AdaptiveSDE().sample(network, 2, generator=seeded(0))
    assert rv.AdaptiveSDE().sample(normal(), 0, generator=seeded(0)).shape == (0, 1)
