r"""Whether the prior of a process given by its generator is the law at t = 1.

With a kernel, :math:`KL(q_1 \| \pi) = E_{q_1}[\pi / q_1 - 1 - \log(\pi / q_1)]` says it, for data
on three atoms. Without one x_1 is simulated, and a divergence of KL allows no function f more than

.. math:: |E_{q_1} f - E_\pi f| \le \sqrt{\chi^2(q_1 \| \pi)}\, \operatorname{sd}_\pi f
   \approx \sqrt{2\,KL}\, \operatorname{sd}_\pi f .

A prior that is stationary, :math:`L^* \pi = 0`, is refused where some f shows more beyond doubt;
one that is not has to show less, beyond doubt, with many more draws.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.processes import FromGenerator
from reversal.testing.comparison import TOLERANCE, require
from reversal.testing.trial import WEIGHTS, draw_states

_FEW, _MANY = 4_000, 100_000
_DRAWS = 4_000
_FAR = 4.9  # standard errors: 32 functions stay within them but for one time in 3e-5
_FUNCTIONS = 8


def prior_is_reached(
    process: FromGenerator, x: Any, mismatch: float, source: torch.Generator
) -> None:
    """KL(q_1 | prior) is at most ``mismatch`` nats per site for data of unit variance.

    Args:
        process: with or without a kernel.
        x: draws of the prior, in float64.
        mismatch: nats per site.
        source: of all draws.

    Raises:
        AssertionError: saying whether the prior is stationary, and by how much q_1 is off.
    """
    flow = drift_of_prior(process, x)
    sites = sum(math.prod(part.sites) for part in state.leaves(process.space.parts))
    known = f"the prior of {process} fails: it is " + (
        "stationary, but the process is too short to reach it"
        if flow <= TOLERANCE
        else f"not stationary (L* pi / pi is up to {flow:.2g} of the rates), nor the law at t = 1"
    )
    if process.exact is not None:
        gap = divergence(process, source) / sites
        require(
            gap <= mismatch,
            f"{known}: KL(q_1 | prior) is {gap:.3g} nats per site for data of unit variance, more "
            f"than {mismatch:.3g}.",
        )
        return
    count = _FEW if flow <= TOLERANCE else _MANY
    doubt = _FAR * math.sqrt(2 / count) * (-1 if flow <= TOLERANCE else 1)
    apart, allowed = distance(process, count, source), math.sqrt(2 * mismatch * sites)
    require(
        apart + doubt <= allowed,
        f"{known}: a mean over draws of x_1 is {apart:.3g} standard deviations from that of the "
        f"prior (error {abs(doubt):.2g}), where KL(q_1 | prior) <= {mismatch:g} nats per site "
        f"allows {allowed:.2g}.",
    )


def drift_of_prior(process: FromGenerator, x: Any) -> float:
    """The largest L* pi / pi at draws of the prior, in units of one plus the generator's size."""
    rate = process.operator.adjoint_relative(process.prior.log_prob)(x).detach()
    size = sum(size_of(law) for law in state.leaves(process.laws(x)))
    return float((rate.abs() / (1 + size)).detach().max())


def divergence(process: FromGenerator, source: torch.Generator) -> float:
    """KL(q_1 | prior), nats, of three atoms under the kernel that was given."""
    atoms, one = _atoms(process, source), torch.ones(_DRAWS, dtype=torch.float64)
    x = process.kernel(_each(atoms, _DRAWS), one).sample(source)
    logs = [
        process.kernel(
            state.map(lambda a, k=k: a[k : k + 1].expand(_DRAWS, *a.shape[1:]), atoms), one
        ).log_prob(x)
        for k in range(len(WEIGHTS))
    ]
    log_q = torch.stack(logs).logsumexp(0) - math.log(len(WEIGHTS))
    log_ratio = process.prior.log_prob(x) - log_q
    return float((torch.expm1(log_ratio) - log_ratio).mean())


def distance(process: FromGenerator, count: int, source: torch.Generator) -> float:
    """The largest difference of means between x_1 and the prior, in standard deviations."""
    start = _each(_atoms(process, source), count)
    last = process.kernel(start, torch.ones(count, dtype=torch.float64)).sample(source)
    prior = process.prior.sample(count, source, torch.empty((), dtype=torch.float64))
    flat = [
        torch.cat([part.double().reshape(count, -1) for part in state.leaves(y)], 1)
        for y in (last, prior)
    ]
    center, spread = flat[1].mean(0), flat[1].std(0).clamp_min(1e-9)
    axes = torch.randn(len(center), _FUNCTIONS, dtype=torch.float64, generator=source)
    seen = [_functions((y - center) / spread @ (axes / axes.norm(dim=0))) for y in flat]
    pooled = ((seen[0].var(0) + seen[1].var(0)) / 2).sqrt().clamp_min(1e-9)
    return float(((seen[0].mean(0) - seen[1].mean(0)) / pooled).abs().max())


def size_of(law: Any) -> Tensor:
    """The sum of the magnitudes of what a generator is made of, ``(B,)``."""
    parts = [part.flatten(1).abs().sum(1) for part in numbers(law) if part.ndim > 1]
    return sum(parts, torch.zeros((), dtype=torch.float64))


def numbers(law: Any) -> list[Tensor]:
    """The tensors of a generator."""
    if law.jumps is not None:
        return [law.rates, law.jumps.into]
    parts = (law.drift, law.covariance, law.divergence)
    return [part for part in parts if isinstance(part, Tensor)]


def _functions(y: Tensor) -> Tensor:
    """Slices of states, their squares and their waves."""
    return torch.cat((y, y**2, (1.5 * y).cos(), (1.5 * y).sin()), 1)


def _atoms(process: FromGenerator, source: torch.Generator) -> Any:
    """States of unit variance or uniform codes; of the prior where a space has no such draws."""
    parts = list(state.leaves(process.space.parts))
    if all(part.is_real or hasattr(part, "num_states") for part in parts):
        return draw_states(process.space, len(WEIGHTS), source)
    return process.prior.sample(len(WEIGHTS), source, torch.empty((), dtype=torch.float64))


def _each(atoms: Any, count: int) -> Any:
    return state.map(lambda part: part[torch.arange(count) % len(part)], atoms)
