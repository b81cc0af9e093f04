r"""Implicit score matching: the score of the marginals from draws of x_t alone.

.. math:: J = E_{q_t}\Big[\tfrac12 s^T a s
   + \nabla \cdot \big(a s + \tfrac12 \nabla \cdot a - f\big)\Big], \qquad
   J = E_{q_t} \sum_y \big[R(y \to x) e^{s_y(x)} - R(x \to y) (1 + s_x(y))\big],

on real spaces and on jumps, with :math:`s_x(y)` the log-ratio that the denoiser gives at y for the
jump back to x; their sum over the factors of a product. J differs from denoising score matching by
what does not depend on the score, and its integral over t is the bound on -log p with constants
kept. The jump term is a divergence for any positive ratios, coherent or not. With random probes z
in place of the trace it is sliced score matching, whose plain and reduced-variance forms are

.. math:: E_z \big[z^T (\nabla s) z + \tfrac12 (z^T s)^2\big], \qquad
   E_z \big[z^T (\nabla s) z\big] + \tfrac12 |s|^2 ,

of which ours is the second: the same mean and cost, with less variance. Source: Hyvarinen (2005);
Song et al. (2019), sliced score matching; Benton et al. (2024), section 4.2 and Theorem 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Generator, JumpSpace, Objective, Process
from reversal.denoisers.energy import Energy
from reversal.noise import Randomness
from reversal.objectives.noised import noised
from reversal.operators import Neighbors, Tangent, Traces
from reversal.operators.derivatives import inner
from reversal.state import State, Tree

Scores = Callable[[Any], Any]
"""States to a tree of scores."""


@final
class Implicit(Objective):
    """The implicit loss of a denoiser whose estimates have a score; the process needs no kernel.

    Args:
        probes: random signs per divergence, for spaces of many dimensions; None for the exact
            trace, one backward pass per tangent dimension.
        jumps: jumps drawn per item, for spaces of many neighbors; None visits every neighbor, one
            call of the denoiser each.
        weight: a positive function of t, ``(B,)`` to ``(B,)``: it moves effort between times and
            leaves the minimizer where it is; 1 if None, for which the loss is the bound's rate.

    All derivatives are vector-Jacobian products by the state, taken inside the loss. DDP may wrap
    the network; FSDP has to wrap the whole loss, since the network's weights are gone between its
    call and such a product.
    """

    def __init__(
        self,
        probes: int | None = None,
        jumps: int | None = None,
        weight: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.traces, self.weight = Traces(probes, jumps), weight

    @classmethod
    def sliced(
        cls, projections: int = 1, weight: Callable[[Tensor], Tensor] | None = None
    ) -> Implicit:
        """Sliced score matching of the marginals, with reduced variance.

        Source: Song et al. (2019), section 3; their projections are random signs here.
        """
        return cls(probes=projections, weight=weight)

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses, ``(B,)``, nats per unit of t.

        Raises:
            ClockError: if the clock law of the denoiser is not shared, or entries are missing.
            CapabilityError: if the path has no generator, or the estimate no score.
        """
        clock, x_t = noised(denoiser, x_0, observed, x_1, generator)
        t, traces = clock.time, replace(self.traces, generator=generator)
        loss = implicit_rate(denoiser.process, t, lambda y: denoiser(y, t, cond).score, x_t, traces)
        return clock.weigh(loss if self.weight is None else self.weight(t) * loss)


@final
class ScoreMatching:
    r"""Generalized score matching of an unnormalized model :math:`p \propto e^{-E}` to data.

    .. math:: J(E) = E_{data}\Big[\frac{L^* e^{-E}}{e^{-E}} - L E\Big],

    with L the generator of a process at one time: Brownian motion gives Hyvarinen's objective,
    jumps to neighbors a ratio matching, on any space. The minimizer is the law of the data, where
    the process moves between all states that it charges. Source: Hyvarinen (2005, 2007); Lyu
    (2009); Benton et al. (2024), section 5.

    Args:
        energy: a module, ``x -> (B,)``.
        process: whose generator compares neighbors.
        at: the time at which the generator is taken.
        probes: as of ``Implicit``.
        jumps: as of ``Implicit``.
    """

    def __init__(
        self,
        energy: Callable[[Any], Tensor],
        process: Process,
        at: float = 0.5,
        probes: int | None = None,
        jumps: int | None = None,
    ) -> None:
        self.process, self.at, self.traces = process, at, Traces(probes, jumps)
        self.model = Energy(lambda x, t, cond: -energy(x), process)

    def __call__(self, x: State, generator: Randomness = None) -> Tensor:
        """Return the losses of data x, ``(B,)``."""
        self.process.space.check_form(x, "x")
        t = torch.full((state.batch_size(x),), self.at, dtype=state.like(x).dtype)
        t = t.to(state.like(x).device)
        traces = replace(self.traces, generator=generator)
        return implicit_rate(self.process, t, lambda y: self.model(y, t).score, x, traces)


def implicit_rate(
    process: Process,
    t: Tensor,
    scores: Scores,
    x: State,
    traces: Traces = Traces(),
) -> Tensor:
    """The integrand of J at states x and times t, ``(B,)``, nats per unit of t."""
    look = _Look(process, t, scores, x, traces)
    laws, here, space = process.forward(x, t), scores(x), process.noisy_space
    total = torch.zeros((), device=t.device)
    for name in list(space.factors) if space.factors else [""]:
        jumps = isinstance(state.take(space.parts, name), JumpSpace)
        term = look.of_jumps if jumps else look.of_drift
        total = total + term(name, state.take(laws, name), state.take(here, name))
    return total


@final
@dataclass(frozen=True)
class _Look:
    """What is seen around x at t: the terms of one factor, ``(B,)``, from its law and score."""

    process: Process
    t: Tensor
    scores: Scores
    x: Any
    traces: Traces

    def of_drift(self, name: str, law: Generator, score: Tensor) -> Tensor:
        def field(y: Any) -> Tensor:
            there = state.take(self.process.forward(y, self.t), name)
            flow = there.pull(state.take(self.scores(y), name))
            if there.divergence is not None:
                flow = flow + there.divergence / 2
            return flow if there.drift is None else flow - there.drift

        trace = Tangent(self.process.noisy_space, name).divergence(field, self.x, self.traces)
        return inner(score, law.pull(score)) / 2 + trace

    def of_jumps(self, name: str, law: Generator, score: Tensor) -> Tensor:
        into = law.jumps.into.to(score.dtype)  # pyright: ignore[reportOptionalMemberAccess]
        back = torch.where(into > 0, into * score.exp(), 0.0)
        rates = law.rates.to(score.dtype)
        change = state.sum_sites(back.sum(-1)) - state.sum_sites(rates.sum(-1))
        neighbors = Neighbors(self.process.noisy_space, name)
        back = partial(self._back, neighbors)
        return change - self.traces.visit(neighbors, self.x, rates, back)

    def _back(self, neighbors: Neighbors, site: Tensor, k: Tensor, y: Any) -> Tensor:
        """The log-ratio that the scores give at y for the jump back to x."""
        table = state.take(self.scores(y), neighbors.name)
        return neighbors.entry(table, site, neighbors.back(self.x, site, k))
