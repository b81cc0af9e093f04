"""What an estimate of a likelihood says: a value, its errors, its kind and its measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state


@final
@dataclass(frozen=True)
class Likelihood:
    """An estimate of log p per item.

    Args:
        value: nats, shape (B,).
        stderr: the standard error of ``value``, shape (B,).
        bias: what is known of its bias, in nats: 0 for an unbiased estimate, and the error of the
            solver, estimated item by item, ``(B,)``, for one that integrates an equation.
        kind: what ``value`` estimates, such as ``lower bound``.
        measure: the reference measure, per factor on a product.
        law: whose likelihood it is, where it is not that of the states that were handed over.
    """

    value: Tensor
    stderr: Tensor
    bias: float | Tensor
    kind: str
    measure: Any
    law: str = ""


def measure(space: Any) -> Any:
    """The reference measure of a space, per factor on a product."""
    return state.map(lambda part: part.measure, space.parts)


def mean_of_draws(path: Any, draws: Tensor, kind: str = "lower bound") -> Likelihood:
    """The mean of independent draws of a bound, ``(num_samples, B)``, with its standard error."""
    one = len(draws) < 2 or draws.numel() == 0
    spread = torch.full_like(draws[0], torch.inf) if one else draws.std(0)
    stderr = spread / len(draws) ** 0.5
    return Likelihood(draws.mean(0), stderr, 0.0, kind, measure(path.space))
