"""What several scripts share: when a noise level is reached, and Gaussian data through the steps.

Under Gaussian data an ancestral step is linear. Its matrix and noise are read off the library's own
step; means and covariances are then followed exactly.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import reversal as rv


def time_of_snr(schedule: rv.VariancePreserving, log_snr: Tensor) -> Tensor:
    """When log(alpha^2 / sigma^2) has these values under a linear beta."""
    lost, start = 2 * torch.log1p((-log_snr).exp()), schedule.beta_min
    slope = schedule.beta_max - start
    return ((start**2 + slope * lost).sqrt() - start) / slope


def time_of_sigma(schedule: rv.VarianceExploding, sigma: Any) -> Tensor:
    """When sigma has these values."""
    low, high = schedule.sigma_min, schedule.sigma_max
    growth = torch.tensor(high / low, dtype=torch.float64).log()
    return torch.log1p((torch.as_tensor(sigma, dtype=torch.float64) / low) ** 2) / (2 * growth)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(N(0, p) || N(0, q)), from the eigenvalues of p relative to q."""
    half = torch.linalg.cholesky(q)
    inner = torch.linalg.solve_triangular(half, p, upper=False)
    excess = torch.linalg.eigvalsh(torch.linalg.solve_triangular(half, inner.mT, upper=False)) - 1
    return (excess - torch.log1p(excess)).sum() / 2


def follow(denoiser: rv.GaussianData, grid: rv.Grid) -> tuple[float, float]:
    """KL of the path of centered data from the exact start, and KL of its end."""
    process, C = denoiser.process, denoiser.covariance
    unit = torch.eye(len(C), dtype=torch.float64)
    alpha, sigma = process.schedule.signal(grid.times)[:2]
    marginals = [a**2 * C + b**2 * unit for a, b in zip(alpha, sigma, strict=True)]
    sampled, path = marginals[0], torch.zeros((), dtype=torch.float64)
    for k, (t, s) in enumerate(pairwise(grid.ticks())):
        step = process.ancestor(unit, t, s, denoiser(unit, t))
        A, noise = step.mean.mT, step.std**2 * unit
        cross = (alpha[k] / alpha[k + 1]) * marginals[k + 1]
        gain = torch.linalg.solve(marginals[k], cross).mT
        path += divergence(marginals[k + 1] - gain @ cross, noise)
        path += (((A - gain) @ marginals[k]) * (A - gain)).sum() / (2 * step.std**2)
        sampled = A @ sampled @ A.mT + noise
    return float(path), float(divergence(marginals[-1], sampled))
