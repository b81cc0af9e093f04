r"""Condition dropout: an objective that hides the condition of some items.

.. math:: c' = \varnothing \text{ with probability } p, \quad c' = c \text{ else,}

item by item, so that one network learns both of the laws that ``ClassifierFree`` combines. Source:
Ho and Salimans (2022), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Denoiser, Objective
from reversal.errors import CapabilityError, SpaceError, listed
from reversal.noise import Randomness
from reversal.state import State, Tree


@final
class ConditionDropout(Objective):
    """An objective of an objective.

    Args:
        objective: what is trained, such as ``Regression()``.
        prob: the probability that an item loses its condition.
        null: what stands for none: a number or one row, or a dict of those for a dict of
            conditions. It must be no legal condition: one code more, or a flag that is else 1.
        apart: whether the parts of a dict are lost each on its own, to be guided one by one.

    Raises:
        CapabilityError: if ``prob`` is no probability; when called without a condition.
    """

    def __init__(
        self, objective: Objective, prob: float = 0.1, *, null: Any, apart: bool = False
    ) -> None:
        if not 0 <= prob <= 1:
            raise CapabilityError(f"Expected a probability of dropout, got {prob}. Give e.g. 0.1.")
        self.objective, self.prob, self.null, self.apart = objective, prob, null, apart

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses of the inner objective, ``(B,)``.

        Args:
            denoiser: what is trained.
            x_0: data.
            cond: a tensor ``(B, *)``, or a dict of those.
            observed: handed on.
            x_1: handed on.
            generator: where randomness comes from; the coins are drawn first.
        """
        n, like = state.batch_size(x_0), state.like(x_0)
        for part in state.leaves(cond):
            if not isinstance(part, Tensor) or part.shape[:1] != (n,):
                got = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"{part!r}"
                raise CapabilityError(
                    f"Expected a condition to drop, a tensor with one row for each of {n} items "
                    f"or a dict of those, got {got}. Pass cond=, or use the objective alone."
                )
        parts = list(cond) if self.apart and isinstance(cond, Mapping) else [""]
        lost = noise.uniform((n, len(parts)), like, generator) < self.prob
        coins = dict(zip(parts, lost.unbind(1), strict=True)) if parts != [""] else lost[:, 0]
        kept = state.map(_replaced, cond, in_place_of(self.null, cond), coins)
        return self.objective(denoiser, x_0, kept, observed, x_1, generator)


def in_place_of(null: Any, cond: Any) -> Any:
    """Return the condition that stands for none in the shape of ``cond``.

    A number or one row is repeated for every row of a tensor, part by part in a dict. What fits no
    tensor is returned as it is.

    Raises:
        SpaceError: if a dict lacks a part, or a null of reals stands for codes.
    """
    if isinstance(cond, Mapping) and isinstance(null, Mapping):
        if set(null) != set(cond):
            raise SpaceError(
                f"Expected a null for each part of the condition, {listed(cond)}, got "
                f"{listed(null)}. Give one for each."
            )
        return {name: in_place_of(null[name], part) for name, part in cond.items()}
    if not isinstance(cond, Tensor) or not isinstance(null, Tensor | int | float):
        return null
    row = torch.as_tensor(null, device=cond.device)
    if row.is_floating_point() and not cond.is_floating_point():
        raise SpaceError(
            f"Expected a null of the condition's dtype, {cond.dtype}, got {null!r}. "
            f"Give one code more than there are."
        )
    row = row.to(cond.dtype)
    fits = row.ndim <= cond.ndim and all(
        a in (1, b) for a, b in zip(reversed(row.shape), reversed(cond.shape), strict=False)
    )
    return row.expand_as(cond) if fits else null


def _replaced(part: Tensor, null: Any, lost: Tensor) -> Tensor:
    if not isinstance(null, Tensor) or null.shape != part.shape:
        raise SpaceError(
            f"Expected a null that stands for rows of shape {tuple(part.shape[1:])}, got {null!r}. "
            f"Give a number or one row."
        )
    return torch.where(state.trail(lost, part.ndim - 1), null, part)
