"""The instances that every generic check runs on: one of each kind, and products of them."""

from __future__ import annotations

from typing import Any

import torch

import reversal as rv


def chain(*sites: int) -> rv.Chain:
    """Eight kernels on four states: a cyclic walk that also resamples, not symmetric."""
    size, eye = 4, torch.eye(4, dtype=torch.float64)
    onward = eye.roll(1, 1)
    fresh = torch.full((size, size), 1 / size, dtype=torch.float64)
    shares = [0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9, 1.0]
    return rv.Chain(
        rv.Categorical(size, *sites),
        [(1 - b) * (0.8 * eye + 0.2 * onward) + b * fresh for b in shares],
    )


def mixed() -> rv.Independent:
    """One factor of every kind."""
    return rv.Independent(
        place=rv.Gaussian(rv.Euclidean(2), rv.Cosine()),
        word=rv.Uniform(rv.Categorical(5)),
        label=rv.Mask(rv.Categorical((2, 3, 4))),
        angle=rv.Brownian(rv.Torus(1)),
        pose=rv.Brownian(rv.SO3()),
    )


def _log_signal(t: torch.Tensor) -> torch.Tensor:
    """A signal that no named schedule has: log alpha = -3 t^2 - t."""
    return -3 * t**2 - t


def _noise(t: torch.Tensor) -> torch.Tensor:
    """Its noise, which grows beyond that of unit data."""
    return 1.5 * torch.sin(torch.pi / 2 * t)


def bent(strength: float = 1.0, **options: Any) -> rv.LearnedSchedule:
    """A learned schedule on which a training has been."""
    schedule = rv.LearnedSchedule(**options).requires_grad_(False)
    wave = torch.linspace(0, 9, len(schedule.heights))
    schedule.heights += strength * (2 + 2 * wave.sin())
    schedule.slopes += strength * wave.cos() / 2
    schedule.centers += strength * (2 * wave).sin() / 20
    return schedule


SPACES = [
    rv.Euclidean(2),
    rv.Euclidean(1, 3, 3),
    rv.Categorical(5),
    rv.Categorical(3, 4),
    rv.Categorical((2, 3, 5)),
    rv.Categorical((2, 3, 5)).with_mask(),
    rv.Torus(2),
    rv.SO3(),
    rv.SO3(2),
    rv.Product(place=rv.Euclidean(2), label=rv.Categorical(3, 4), pose=rv.SO3(2)),
]

SIGNALS = [
    rv.VariancePreserving(),
    rv.Cosine(),
    rv.Cosine(exponent=2.0),
    rv.VarianceExploding(),
    rv.Rectified(),
    rv.QuadraticBeta(),
    rv.OrnsteinUhlenbeck(),
    rv.Karras(),
    rv.SubVariancePreserving(),
    rv.Shortened(rv.Rectified(), 0.99),
    rv.Signals(_log_signal, _noise),
    bent(),
]
JUMPS = [
    (rv.Mask, rv.LinearSurvival()),
    (rv.Mask, rv.CosineSurvival()),
    (rv.Uniform, rv.LinearSurvival()),
    (rv.Uniform, rv.ExponentialSurvival()),
]
_FINITE = [rv.Categorical(5), rv.Categorical(3, 4), rv.Categorical((2, 3, 5))]

PROCESSES: list[rv.core.Process] = [
    *(rv.Gaussian(rv.Euclidean(2), at) for at in SIGNALS),
    *(rv.Gaussian(rv.Euclidean(1, 3, 3), at) for at in SIGNALS),
    *(family(space, at) for space in _FINITE for family, at in JUMPS),
    *(rv.Brownian(space) for space in (rv.Torus(2), rv.SO3(), rv.SO3(2))),
    mixed(),
]

PATHS = [
    rv.Interpolant(rv.Euclidean(2), rv.Paired()),
    rv.Interpolant(rv.Euclidean(2), rv.Paired(), noise=0.5),
    rv.Interpolant(rv.Euclidean(2), rv.OptimalTransport(), noise=0.5, sigma_min=0.1),
    rv.Interpolant(rv.Euclidean(1, 3, 3), rv.Unpaired(), sigma_min=0.1),
    rv.BrownianBridge(rv.Euclidean(2), rv.Paired(), noise=0.5),
    chain(),
    chain(2),
]

SAMPLERS = [
    rv.Euler(),
    rv.Euler(churn=0.0),
    rv.Euler(churn=0.5),
    rv.Euler(churn=2.0),
    rv.Ancestral(),
    rv.Heun(),
    rv.Multistep(),
    rv.UniPC(),
    rv.DEIS(),
]
