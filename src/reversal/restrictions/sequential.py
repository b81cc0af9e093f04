r"""Draws of restricted sites from their truncated joint law, by sequential importance sampling.

With evidence e and sites j = 1, ..., m restricted to sets S_j, site after site is drawn given the
earlier ones, every other site marginalized out,

.. math:: x^j \sim p(x^j \mid x^{<j}, e, x^j \in S_j), \qquad
   w = \prod_{j=1}^m P(x^j \in S_j \mid x^{<j}, e), \qquad E[w] = P(x \in S \mid e),

and rows are resampled by their weights. The first factor of w is the same for all rows: one site
alone needs no weights, and the least probable set goes first, for the weights of the others then
vary least.

Exact: the weights' expectation and each conditional draw, for an exact denoiser, up to the error of
the flow (order 2 in its steps). Approximate: the law of the resampled rows, whose bias is of order
1 / (effective sample size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal.core import Denoiser
from reversal.errors import DataError
from reversal.noise import Randomness
from reversal.particles import effective_size, resampled
from reversal.restrictions.context import LARGEST_CALL, Context
from reversal.restrictions.restriction import Restriction

MOST_ROUNDS: Final = 4
ENOUGH: Final = 0.99
IMPOSSIBLE: Final = 1e-12
ROUNDING: Final = 1e-9


@final
@dataclass(frozen=True)
class Evidence:
    """How well the restrictions are answered.

    Args:
        prob: P(the sites lie in their sets | what is given), an unbiased estimate.
        stderr: its standard error.
        num_draws: how many draws of the restricted sites were made.
        effective_size: how many equally weighted ones they are worth.
        lift: how many times as probable given codes are together as they would be apart; far below
            1 where they hardly occur together.
    """

    prob: float
    stderr: float
    num_draws: int
    effective_size: float
    lift: float = 1.0


@torch.no_grad()
def restricted(
    denoiser: Denoiser,
    n: int,
    restrictions: Sequence[Restriction],
    given: Any = None,
    generator: Randomness = None,
    rounds: int = MOST_ROUNDS,
    largest_call: int = LARGEST_CALL,
) -> tuple[Context, Evidence]:
    """Draw n rows of the restricted sites, given that each lies in its set.

    Rows are drawn n at a time until they are worth n, ``rounds`` times at most.

    Args:
        denoiser: an estimate of the reversal; the question must lie inside its clock law.
        n: the number of rows.
        restrictions: sites and their sets, each site once.
        given: what else is known, one row for all, as a sampler takes it.
        generator: where randomness comes from.
        rounds: the most draws per row.
        largest_call: the largest batch the denoiser is shown.

    Returns:
        The rows, with the restricted sites known beside what was given, and how good they are.

    Raises:
        DataError: if the model holds the restrictions for impossible.
        ClockError: if the question lies outside the clock law.

    Cost: per row and draw one call for a finite site and 4 K - 2 for a real one, K steps of the
    flow; half of those of real sites are shared by rows of which the same is known.
    """
    first = Context.of(denoiser, 1, given, generator, largest_call)
    order = _by_probability(first, restrictions)
    contexts, weights = [], []
    for _ in range(rounds if len(order) > 1 else 1):
        start = Context.of(denoiser, max(n, 1), given, generator, largest_call)
        context, log_weights = sweep(start, order, generator)
        contexts.append(context)
        weights.append(log_weights)
        if effective_size(torch.cat(weights)) >= ENOUGH * n:
            break
    log_weights = torch.cat(weights)
    evidence = _evidence(log_weights)
    _refuse_impossible(evidence.prob)
    rows = resampled(log_weights, n, generator)
    return _joined(contexts).rows(rows), evidence


@torch.no_grad()
def probability(
    denoiser: Denoiser,
    restrictions: Sequence[Restriction],
    given: Any = None,
    num_draws: int = 1000,
    generator: Randomness = None,
    largest_call: int = LARGEST_CALL,
) -> Evidence:
    """Estimate P(every site lies in its set | what is given); exact if there is one restriction."""
    first = Context.of(denoiser, 1, given, generator, largest_call)
    order = _by_probability(first, restrictions)
    if not order:
        return Evidence(1.0, 0.0, 1, 1.0)
    n = num_draws if len(order) > 1 else 1
    start = Context.of(denoiser, n, given, generator, largest_call)
    context, total = sweep(start, order[:-1], generator)
    return _evidence(total + order[-1].log_prob(context))


def sweep(
    context: Context, order: Sequence[Restriction], generator: Randomness
) -> tuple[Context, Tensor]:
    """Draw site after site; return the rows and their log-weights."""
    total = torch.zeros(len(context), dtype=torch.float64, device=context.denoiser.like.device)
    for restriction in order:
        drawn = restriction.draw(context, generator)
        context, total = context.knowing(restriction.site, drawn.values), total + drawn.log_prob
    return context, total


def _by_probability(first: Context, restrictions: Sequence[Restriction]) -> list[Restriction]:
    """Return the least probable first; each must lie in the clock law with those before it."""
    order = list(restrictions)
    if len(order) > 1:
        order = sorted(restrictions, key=lambda each: float(each.log_prob(first)[0]))
    known = first
    for each in order:
        known.refuse(each.site)
        known = known.knowing(each.site, torch.zeros(1))
    return order


def _evidence(log_weights: Tensor) -> Evidence:
    weights, n = log_weights.exp(), len(log_weights)
    mean, spread = float(weights.mean()), float(weights.std()) / n**0.5 if n > 1 else 0.0
    spread = spread if spread > ROUNDING * mean else 0.0
    return Evidence(mean, spread, n, float(effective_size(log_weights)))


def _refuse_impossible(prob: float) -> None:
    if not prob >= IMPOSSIBLE:
        raise DataError(
            f"Expected conditions that can hold together, got some whose probability under the "
            f"model is {prob:.1g}: nothing like that was seen. Ask for less."
        )


def _joined(contexts: list[Context]) -> Context:
    one = contexts[0]
    values = {name: torch.cat([each.values[name] for each in contexts]) for name in one.values}
    known = {name: torch.cat([each.known[name] for each in contexts]) for name in one.known}
    return Context(one.denoiser, values, known, one.largest_call)
