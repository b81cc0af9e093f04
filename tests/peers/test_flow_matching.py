r"""The solver of flow_matching, on the same grid and network, to 1e-4.

Their time runs from noise at 0 to data at 1, so their velocity at 1 - t is minus ours at t.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from tests.peers.walks import Small, assert_same_walk, mixture, peer, start, walk

peer("flow_matching")
solver = peer("flow_matching.solver")


def exact(path: Any) -> Any:
    """The exact velocity of a mixture under straight lines to noise."""
    return mixture(path)


def random_network(path: Any) -> Any:
    """A perceptron that outputs a velocity."""
    return rv.NetworkDenoiser(Small(), path, rv.Velocity())


CASES = {
    "exact mixture, Rectified": lambda: exact(rv.Gaussian(rv.Euclidean(2), rv.Rectified())),
    "random network, Rectified": lambda: random_network(
        rv.Gaussian(rv.Euclidean(2), rv.Rectified())
    ),
    "random network, Interpolant": lambda: random_network(
        rv.Interpolant(rv.Euclidean(2), rv.Unpaired(rv.NormalPrior(rv.Euclidean(2), 1.0)))
    ),
}
cases = pytest.mark.parametrize("name", CASES)
TIMES = torch.linspace(1, 0.02, 13, dtype=torch.float64) ** 1.5


def theirs(denoiser: Any, times: Tensor, x: Tensor, **options: Any) -> list[Tensor]:
    """Their states at the times of a grid of ours."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return -denoiser(x, (1 - t).clamp(0, 1).expand(len(x))).read(rv.Kind.VELOCITY)

    found = solver.ODESolver(velocity_model=velocity).sample(
        x, time_grid=1 - times, step_size=None, return_intermediates=True, **options
    )
    return list(found[1:])


def begin() -> Tensor:
    return start(rv.Gaussian(rv.Euclidean(2), rv.Rectified()))


@cases
@pytest.mark.parametrize(
    ("method", "sampler"), [("euler", rv.Euler(churn=0)), ("heun2", rv.Heun())], ids=str
)
def test_fixed_steps(method, sampler, name):
    denoiser, x = CASES[name](), begin()
    ours = walk(sampler, denoiser, rv.Grid(TIMES), x)
    assert_same_walk(ours, theirs(denoiser, TIMES, x, method=method))


@cases
def test_euler_down_to_the_data(name):
    """Ours ends with a bridge around the clean estimate: on straight lines that is Euler's step."""
    denoiser, x, times = CASES[name](), begin(), torch.linspace(1, 0, 11, dtype=torch.float64)
    ours = walk(rv.Euler(churn=0), denoiser, rv.Grid(times), x)
    assert_same_walk(ours, theirs(denoiser, times, x, method="euler"))


@cases
def test_steps_to_a_tolerance(name):
    """Down to 0.2, for theirs look beyond the end of a grid and read in between."""
    denoiser, x, times = CASES[name](), begin(), TIMES[:9:4]
    ours = walk(rv.Adaptive(1e-6, 1e-6), denoiser, rv.Grid(times), x)
    assert_same_walk(ours, theirs(denoiser, times, x, method="dopri5", rtol=1e-6, atol=1e-6))
