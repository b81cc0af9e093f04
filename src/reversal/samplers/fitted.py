r"""A grid that is fitted to a denoiser: the N steps that err least along its own flow.

A fine walk of the probability flow passes through the nodes; the step from node i straight to node
j takes the estimate at i for constant, and misses the walk by

.. math:: c_{ij} = E\, |\hat x_j(x_i) - x_j|^2\,
   \frac{\operatorname{Var} x_0}{\operatorname{Var} x_j} ,

counted as it arrives at the data under a normal law, whose flow contracts by the ratio of standard
deviations. The grid is the cheapest way of N steps from the first node to the last one, found
exactly, by dynamic programming. Source: Chen et al. (2024), "On the trajectory regularity of
ODE-based diffusion sampling", section 4. Deviations: errors are squared, for those of different
steps hardly correlate, and carried to the data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reversal.core import Denoiser
from reversal.errors import ClockError
from reversal.grids import Grid
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.questions import check_counts, check_finite
from reversal.samplers.multistep import Multistep


@torch.no_grad()
def fitted_grid(
    denoiser: Denoiser,
    steps: int,
    n: int = 256,
    nodes: int = 96,
    cond: Any = None,
    generator: Randomness = None,
    x_1: Tensor | None = None,
) -> Grid:
    """Choose N times among the nodes of the process's own grid.

    Args:
        denoiser: of a Gaussian process; a guided one is fitted as it is guided.
        steps: N.
        n: how many states walk.
        nodes: the steps of the fine walk, N at least.
        cond: handed to the denoiser, for n states.
        generator: where the first states come from.
        x_1: the first states; prior draws if None.

    Returns:
        A ``Grid`` like any other: its ``times`` are numbers to be kept, and ``Grid(times)`` is it.

    Raises:
        ClockError: if the process is not Gaussian, or there are fewer nodes than steps.
        ConvergenceError: if the fine walk is not finite.

    Cost: ``nodes`` calls for n states, and the memory of twice as many states.
    """
    check_counts(n, steps)
    path = denoiser.process
    if not isinstance(path, Gaussian):
        raise ClockError(
            f"Expected a Gaussian process to fit a grid to, got {path}. Use process.grid(steps)."
        )
    if not isinstance(nodes, int) or nodes < steps or n < 2:
        raise ClockError(
            f"Expected n >= 2 states and at least as many nodes as steps, {steps}, got n={n} and "
            f"nodes={nodes!r}. Leave them out for the defaults."
        )
    first = path.prior.sample(n, generator, denoiser.like) if x_1 is None else x_1
    path.noisy_space.check(first, "x_1", n)
    fine = path.grid(nodes)
    chosen = cheapest(_costs(denoiser, fine, first, cond), steps)
    return Grid(fine.times[chosen])


def _costs(denoiser: Denoiser, fine: Grid, x: Tensor, cond: Any) -> Tensor:
    """What a step from node i to node j costs, ``(M + 1, M + 1)``; infinity unless i < j."""
    path, walk, ticks = denoiser.process, Multistep(eta=0), fine.ticks()
    states, estimates = [x], []
    for t, s in pairwise(ticks):
        estimates.append(denoiser(states[-1], t, cond))
        states.append(walk.step(denoiser, states[-1], t, s, cond))
    check_finite(states[-1], "a fine walk")
    spreads = torch.stack([state.double().var(0).sum() for state in states])
    costs = torch.full((len(ticks), len(ticks)), torch.inf, dtype=torch.float64)
    for i, estimate in enumerate(estimates):
        for j in range(i + 1, len(ticks)):
            end = path.ancestor(states[i], ticks[i], ticks[j], estimate, 0.0).mean
            missed = (end - states[j]).double().square().flatten(1).sum(1).mean()
            costs[i, j] = missed * spreads[-1] / spreads[j]
    return costs


def cheapest(costs: Tensor, steps: int) -> list[int]:
    """The nodes of the cheapest way of so many steps from the first node to the last one.

    Args:
        costs: of a step from node i to node j, ``(M + 1, M + 1)``, infinity unless i < j.
        steps: from 1 to M.
    """
    total, last = costs[0], []
    for _ in range(steps - 1):
        total, before = (total[:, None] + costs).min(0)
        last.append(before)
    nodes = [len(costs) - 1]
    for before in reversed(last):
        nodes.append(int(before[nodes[-1]]))
    return [0, *reversed(nodes)]
