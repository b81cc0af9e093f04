"""Networks that two libraries can share, and the walks of diffusers' schedulers over them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reversal as rv
from tests.samplers.oracles import seeded

STEPS = 1000


def peer(name: str) -> Any:
    """A library that we are compared with; the module of tests is skipped by its name without."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[bench]'")


class Small(nn.Module):
    """A small random perceptron of (x, t)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        rng = seeded(7)
        self.inner = nn.Parameter(torch.randn(3, width, generator=rng, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(width, 2, generator=rng, dtype=torch.float64) / width)

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """tanh between two matrices."""
        fed = torch.cat([x_t, t[:, None].to(x_t)], 1)
        return torch.tanh(fed @ self.inner.to(x_t)) @ self.outer.to(x_t)


def mixture(process: Any, dtype: torch.dtype = torch.float64) -> rv.GaussianMixture:
    """Three components, one of them tight."""
    means = torch.tensor([[1.2, -0.4], [-0.9, 0.8], [0.1, -1.3]], dtype=dtype)
    variances = torch.tensor([0.02, 0.2, 0.4], dtype=dtype)
    return rv.GaussianMixture(process, torch.tensor([1.0, 2.0, 1.0]), means, variances)


def network(process: Any, dtype: torch.dtype = torch.float64) -> rv.NetworkDenoiser:
    """The random perceptron, as a guess of the noise."""
    return rv.NetworkDenoiser(Small().to(dtype), process, rv.Noise())


DENOISERS = {"exact mixture": mixture, "random network": network}


def start(process: Any, dtype: torch.dtype = torch.float64, n: int = 16) -> Tensor:
    """The n states that both walks begin with."""
    z = torch.randn((n, 2), generator=seeded(11), dtype=torch.float64)
    return (process.prior.std * z).to(dtype)


def walk(sampler: Any, denoiser: Any, grid: Any, x: Tensor, generator: Any = None) -> list[Tensor]:
    """Our states after every step."""
    seen: list[Tensor] = []
    sampler.sample(
        denoiser,
        len(x),
        grid=grid,
        x_1=x,
        generator=generator,
        on_step=lambda k, state: seen.append(state),
    )
    return seen


@torch.no_grad()
def scheduled(
    scheduler: Any, predict: Callable[[Tensor, int], Tensor], x: Tensor, **options: Any
) -> list[Tensor]:
    """The states of a scheduler of diffusers, where ``predict(x, k)`` is its k-th output."""
    seen: list[Tensor] = []
    for k, t in enumerate(scheduler.timesteps):
        output = predict(x, k)
        x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        seen.append(x)
    return seen


def noise_of(denoiser: Any, times: Tensor) -> Callable[[Tensor, int], Tensor]:
    """The noise that a denoiser sees at the k-th of some times."""

    def predict(x: Tensor, k: int) -> Tensor:
        return denoiser(x, times[k].expand(len(x))).read(rv.Kind.NOISE)

    return predict


def integer_grid(scheduler: Any, last: float = 0.0) -> rv.Grid:
    """The times (k + 1)/1000 of the steps k that a scheduler visits, then ``last``."""
    times = (scheduler.timesteps.double() + 1) / STEPS
    return rv.Grid(torch.cat([times, torch.tensor([last], dtype=torch.float64)]))


def assert_same_walk(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-4) -> None:
    """Every state of two walks, to the tolerance, in units of the data."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other.to(mine), rtol=tolerance, atol=tolerance)
    for before, after in pairwise(ours):
        assert not torch.equal(before, after)
