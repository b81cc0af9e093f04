"""Pairs of parameters and evidence: looked at before any work, and learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from reversal.data.support import Line, Support
from reversal.denoisers import NetworkDenoiser
from reversal.errors import DataError
from reversal.networks import ConditionalGaussian, ConditionalMLP
from reversal.objectives import Regression
from reversal.training import Plan, Trace, progress, train

MOST_HELD_OUT = 2048
LEAST = 10
"""The fewest simulations that say which weights to keep, and leave some to learn from."""


def tensor(values: Any) -> Tensor:
    """Return what a caller gave as a tensor on the CPU.

    Raises:
        DataError: if it is not made of real numbers.
    """
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected an array or a tensor of numbers, got {type(values).__name__}: {error}. "
            f"Give numbers alone; reversal.Model takes frames with categories and dates."
        ) from error
    if found.is_complex():
        raise DataError(
            f"Expected real numbers, got {found.dtype}. Give real and imaginary parts side by side."
        )
    return found.detach().cpu()


def real(values: Any) -> Tensor:
    """Return what a caller gave as floating-point numbers; whole ones are read as real."""
    found = tensor(values)
    return found if found.is_floating_point() else found.double()


def looked_at(theta: Any, evidence: Any, support: Support | None) -> tuple[Tensor, Tensor, Support]:
    """Return simulations as tensors, and the support of their parameters.

    Raises:
        DataError: if the two do not fit together, or are not what can be learned.
    """
    theta, evidence = tensor(theta), real(evidence)
    if not theta.is_floating_point():
        raise DataError(
            f"Expected real parameters, got {theta.dtype}, which may be categories. Learn the "
            f"joint law of mixed types with reversal.Model, or give floats to have them read as "
            f"real."
        )
    fits = theta.ndim == evidence.ndim == 2 and len(theta) == len(evidence) >= LEAST
    if not fits or not theta.shape[1] or not evidence.shape[1]:
        raise DataError(
            f"Expected parameters (N, d) and evidence (N, k) of N >= {LEAST} simulations, got "
            f"{tuple(theta.shape)} and {tuple(evidence.shape)}. Give one row per simulation."
        )
    if not bool(theta.isfinite().all()) or bool(evidence.isinf().any()):
        raise DataError(
            f"Expected finite parameters, and evidence that is finite or NaN (a gap), got "
            f"{int((~theta.isfinite()).any(1).sum())} rows of parameters that are not and "
            f"{int(evidence.isinf().any(1).sum())} of evidence with infinities. Leave those "
            f"simulations out, or write NaN where the simulator said nothing."
        )
    support = Line.of(theta) if support is None else support
    if support.length != theta.shape[1]:
        raise DataError(
            f"Expected {support.length} parameters, as the support has, got "
            f"{theta.shape[1]}. Give the support one entry per parameter."
        )
    outside = int((~support.contains(theta)).sum())
    if outside:
        raise DataError(
            f"Expected parameters inside the support, got {outside} rows of {len(theta)} that "
            f"are not. Give the support of the prior that they were drawn from."
        )
    return theta, evidence, support


@final
@dataclass(frozen=True)
class Plans:
    """How the two networks are trained.

    Args:
        normal: the plan of the normal law.
        denoiser: the plan of the denoiser.
        hide: the share of rows of which entries are hidden.
        seed: where order and noise come from.
    """

    normal: Plan
    denoiser: Plan
    hide: float
    seed: int


@final
class Simulations:
    """Pairs to learn from: some say which weights are kept, half of the others serve a network.

    What a normal law leaves of rows that it has learned from is too small: a denoiser of it would
    be too sure. So each network learns from rows that the other has not seen.

    Args:
        z: parameters on the real line, ``(N, d)``.
        evidence: ``(N, k)``, NaN at a gap.
        plans: how to train.
        show: what shows progress.
    """

    def __init__(
        self, z: Tensor, evidence: Tensor, plans: Plans, show: progress.Show | None
    ) -> None:
        self.z, self.evidence, self.plans, self.show = z, evidence, plans, show
        self.generator = torch.Generator().manual_seed(plans.seed)
        order = torch.randperm(len(z), generator=self.generator)
        self.held, others = order.tensor_split([min(len(z) // 10, MOST_HELD_OUT)])
        self.halves = others.tensor_split(2)

    def learn(self, normal: ConditionalGaussian, denoiser: NetworkDenoiser) -> Trace:
        """Train the normal law, then the denoiser of what it leaves."""
        first, second = self.halves
        network: ConditionalMLP = denoiser.network
        normal.take(self.z[first], self.evidence[first])
        network.encoder.whitening.load_state_dict(normal.encoder.whitening.state_dict())

        def likelihood(rows: Tensor, source: torch.Generator) -> Tensor:
            return -normal.log_prob(self.z[rows], self._shown(rows, source))

        def regression(rows: Tensor, source: torch.Generator) -> Tensor:
            shown = self._shown(rows, source)
            with torch.no_grad():
                u, _ = normal.to_unit(self.z[rows], shown)
            return objective(denoiser, u, cond=shown, generator=source)

        objective = Regression()
        self._train(normal, first, self.plans.normal, likelihood)
        return self._train(denoiser, second, self.plans.denoiser, regression)

    def _shown(self, rows: Tensor, source: torch.Generator) -> Tensor:
        """Return the evidence of some rows; of a share of them any entries are hidden."""
        evidence = self.evidence[rows]
        if not self.plans.hide:
            return evidence
        chosen, rate = torch.rand(2, len(rows), 1, generator=source)
        hidden = torch.rand(evidence.shape, generator=source) < rate
        return evidence.masked_fill(hidden & (chosen < self.plans.hide), torch.nan)

    def _train(
        self,
        module: nn.Module,
        rows: Tensor,
        plan: Plan,
        loss: Callable[[Tensor, torch.Generator], Tensor],
    ) -> Trace:
        """Train in place; ``loss`` takes some of the rows and a source of noise."""
        seed = self.plans.seed + 1
        held = self.held.repeat(max(1, MOST_HELD_OUT // len(self.held)))
        return train(
            module,
            lambda index: loss(rows[index], self.generator),
            len(rows),
            plan,
            self.generator,
            lambda: loss(held, torch.Generator().manual_seed(seed)),
            on_progress=self.show,
        )
