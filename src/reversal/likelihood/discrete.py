r"""The bound of a chain: the reversal in T steps, of any process with bridges, on any grid.

DDPM's is the Gaussian instance, D3PM's the finite one. As T grows it comes to ``elbo``, from below
at a rate of 1/T: under Gaussian noise with the larger variance on data with a density, and with the
smaller one on levels. The other one keeps a gap, for the last steps of a grid divide the noise by
the same numbers, however many there are. See ``processes.reverse_chain`` for the equation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Denoiser
from reversal.errors import ClockError
from reversal.likelihood.posed import Posed
from reversal.likelihood.value import Likelihood
from reversal.noise import Randomness
from reversal.processes.decoders import Decoder
from reversal.processes.reverse_chain import ReverseChain, grid_of, step_numbers
from reversal.processes.variances import StepVariance
from reversal.state import State, Tree


@torch.no_grad()
def elbo_discrete(
    denoiser: Denoiser,
    x: State,
    grid: Any,
    variance: StepVariance | None = None,
    decoder: Decoder | None = None,
    given: Any = None,
    observed: Tree = None,
    num_samples: int | None = None,
    generator: Randomness = None,
    cond: Any = None,
) -> Likelihood:
    """Estimate the evidence lower bound of the reversal in the steps of a grid.

    Args:
        denoiser: an estimate with a clean value on Gaussian factors, a posterior on finite ones.
        x: states of the data space; any legal value where an entry is missing.
        grid: a ``Grid`` from 1 to 0, or one per factor; a number T takes the denoiser's own.
        variance: ``LargeVariance()``, ``SmallVariance()`` or a ``LearnedVariance``; None is the
            first for data with a density, and the second for levels.
        decoder: the last step on Gaussian factors: ``DensityDecoder()`` (default), or
            ``DiscretizedDecoder(levels)`` for probabilities of levels.
        given: what is conditioned on, as of ``elbo``.
        observed: the entries present; the others are marginalized out.
        num_samples: draws per item, one step of equal strata each; a multiple of T - 1 visits every
            step equally often. None is T - 1.
        generator: where randomness comes from.
        cond: handed to the denoiser and to a learned variance.

    Returns:
        An unbiased estimate of a lower bound on log p. Its standard error comes from the difference
        of neighboring strata, which contains that of their means: it is conservative.

    Raises:
        CapabilityError: where a bridge has no divergence in closed form: use ``elbo``.
        ClockError: for a grid that is none, or a question outside the clock law.
        SpaceError: for data that are no levels under a discretized decoder.

    Cost: 2 num_samples calls.
    """
    path = denoiser.process
    path.space.check(x, "x")
    chain = ReverseChain.of(path, grid_of(denoiser, grid), variance, decoder)
    chain.check(x)
    posed = Posed.of(denoiser, x, given, observed, cond, generator)
    count = max(1, chain.steps - 1) if num_samples is None else num_samples
    if not isinstance(count, int) or count < 1:
        raise ClockError(f"Expected num_samples >= 1 or None, got {num_samples!r}.")
    draws = torch.stack([_draw(chain, posed, j, count) for j in range(count)])
    law = "" if decoder is None else decoder.law
    return Likelihood(draws.mean(0), _neighborly(draws), 0.0, "lower bound", chain.measure, law)


def _draw(chain: ReverseChain, posed: Posed, stratum: int, strata: int) -> Tensor:
    """One unbiased draw of the whole bound, ``(B,)``."""
    ends = posed.running(chain.prior_divergence(posed.x, posed.generator))
    value = _decoded(chain, posed) - ends
    if chain.steps < 2:
        return value
    u = noise.uniform((posed.size,), posed.like, posed.generator)
    k = step_numbers((stratum + u) / strata, chain.steps)
    _, x_t, estimate = posed.look(chain.time(k))
    gaps = chain.divergence(posed.x, x_t, k, estimate, posed.cond)
    return value - (chain.steps - 1) * posed.running(gaps)


def _decoded(chain: ReverseChain, posed: Posed) -> Tensor:
    one = torch.ones(posed.size, dtype=torch.int64, device=posed.like.device)
    _, x_t, estimate = posed.look(chain.time(one))
    return posed.running(chain.log_decoded(posed.x, x_t, estimate, posed.cond))


def _neighborly(draws: Tensor) -> Tensor:
    """The standard error of a mean over strata, from pairs of neighbors; infinite for one draw.

    The last stratum is the neighbor of the first, so that each is counted twice. Source: Wolter
    (2007), chapter 8, successive differences.
    """
    n = len(draws)
    if n < 2 or draws.numel() == 0:
        return torch.full_like(draws[0], torch.inf)
    return ((draws - draws.roll(1, 0)).square().sum(0) / 2).sqrt() / n


def bits_per_dim(found: Likelihood, space: Any) -> Likelihood:
    r"""The negative log-likelihood in bits per entry: :math:`-\log_2 p(x) / D`.

    Of a density it depends on the units of the data; of integers it does not. ``measure`` and
    ``law`` stay with the number, and its kind says what the sign has turned it into.

    Args:
        found: a likelihood of whole states.
        space: the space of the data, whose entries are counted: D is all of them.
    """
    entries = sum(part_entries(part) for part in state.leaves(space.parts))
    unit = entries * torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    turned = found.kind.replace("lower bound", "upper bound")
    return replace(
        found,
        value=-found.value / unit,
        stderr=found.stderr / unit,
        bias=found.bias / unit,
        kind=f"{turned}, bits per dimension",
    )


def part_entries(space: Any) -> int:
    """The number of entries of an array, or of sites of anything else."""
    count = 1
    for length in space.sites:
        count *= length
    return count
