"""The bound of a process that can only be simulated."""

from __future__ import annotations

from typing import Any

import torch

from reversal import noise, state
from reversal.core import Denoiser
from reversal.likelihood.bound import require
from reversal.likelihood.value import Likelihood, mean_of_draws
from reversal.noise import Randomness
from reversal.objectives.implicit import implicit_rate
from reversal.operators import Local, Traces
from reversal.state import State


@torch.no_grad()
def implicit_elbo(
    denoiser: Denoiser,
    x: State,
    num_samples: int = 64,
    generator: Randomness = None,
    cond: Any = None,
    probes: int | None = None,
    jumps: int | None = None,
) -> Likelihood:
    r"""Estimate the bound of a process that can only be simulated.

    .. math:: \log p(x_0) \ge \log \pi(x_0) - \int_0^1
       E\Big[\frac{L^* \beta}{\beta} + L \log \frac{\beta}{\pi} \,\Big|\, x_0\Big] dt,

    with pi the prior: it needs no density of a kernel, and no last step. It is log p(x_0), up to
    the prior gap, at the exact score. Source: Benton et al. (2024), Theorem 1, with Dynkin's
    formula for log pi, which takes the noise of late times out.

    Args:
        denoiser: estimates with a score, under one time per item.
        x: states of the data space.
        num_samples: draws per item, one time of equal strata each.
        generator: where randomness comes from.
        cond: handed to the denoiser.
        probes: as of ``Implicit``.
        jumps: as of ``Implicit``.

    Returns:
        An unbiased estimate of a lower bound; where the data have no smooth density its variance is
        infinite.

    Raises:
        CapabilityError: if the process has no generator or no prior.

    Cost: per draw, a simulation, an ``implicit_rate`` and the same of the prior.
    """
    path = denoiser.process
    path.space.check(x, "x")
    state.map(require, path.parts)
    n, like = state.batch_size(x), state.like(x).double()
    traces = Traces(probes, jumps, generator)
    draws = []
    for stratum in range(num_samples):
        u = (stratum + noise.uniform((n,), like, generator)) / num_samples
        t = (u**2).to(like)
        x_t = path.kernel(x, t).sample(generator)
        rate = implicit_rate(path, t, lambda y, t=t: denoiser(y, t, cond).score, x_t, traces)
        known = Local.of(path, t, traces)(path.prior.log_prob)(x_t).detach()
        draws.append(path.prior.log_prob(x).double() - 2 * u * (rate - known).double())
    return mean_of_draws(path, torch.stack(draws))
