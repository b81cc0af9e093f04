r"""Explicit score matching: towards a score that is known, such as an oracle's or a teacher's.

.. math:: J = E_{q_t} \Phi\Big(\frac{q_t}{\beta}\Big) = E_{q_t}\Big[\tfrac12 |r - s|_a^2\Big],
   \qquad E_{q_t} \sum_y R(y \to x) \big[e^{s_y} - e^{r_y} + e^{r_y} (r_y - s_y)\big],

with s the score of the denoiser and r that of the target. It is at least 0, and 0 where they agree;
at the exact r it is the implicit objective with the constant put back, J(s) - J(r). Source:
Hyvarinen (2005), eq. (2); Vincent (2011); Benton et al. (2024), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Objective, Process
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.objectives.noised import noised
from reversal.objectives.sameness import is_same
from reversal.state import State, Tree


@final
class Explicit(Objective):
    """The divergence of a denoiser from one that is taken to be right, which gets no gradient.

    Args:
        target: a denoiser of the same process (the object itself, or one of the same definition):
            ``Empirical``, ``Enumerated``, ``GaussianData``, or a trained one, to be distilled into
            the other.
        weight: a positive function of t, as of ``Implicit``.

    Cost: one call of both.
    """

    def __init__(self, target: Denoiser, weight: Callable[[Tensor], Tensor] | None = None) -> None:
        self.target, self.weight = target, weight
        self._known: Process | None = None

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
            CapabilityError: if the process has no generator, or is another than that of the target.
            ClockError: if the clock law of the denoiser is not shared, or entries are missing.
        """
        ours = denoiser.process
        self._require_same(ours)
        clock, x_t = noised(denoiser, x_0, observed, x_1, generator)
        t = clock.time
        with torch.no_grad():
            known = self.target(x_t, t, cond).score
        loss = explicit_rate(ours, t, denoiser(x_t, t, cond).score, known, x_t)
        return clock.weigh(loss if self.weight is None else self.weight(t) * loss)

    def _require_same(self, ours: Process) -> None:
        """Compare the definitions once per process."""
        theirs = self.target.process
        if self._known is not ours and not is_same(ours, theirs):
            raise CapabilityError(
                f"Expected a target of the process of the denoiser, {ours}, got one of another, "
                f"{theirs}: their scores belong to other marginals. Give both the same process."
            )
        self._known = ours


def explicit_rate(process: Process, t: Tensor, score: Any, target: Any, x: State) -> Tensor:
    """The integrand of J at states x and times t, ``(B,)``, nats per unit of t."""
    laws = process.forward(x, t)
    gaps = state.map(lambda law, s, r: state.sum_sites(law.gap(s, r)), laws, score, target)
    return state.total(gaps)
