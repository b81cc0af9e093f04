r"""Extrapolation from one estimate beyond another: the algebra that guidances share.

.. math:: s_w = s_0 + w (s_1 - s_0),

gradients on real spaces, in whatever kind the second estimate comes: kinds are affine in one
another given x_t; log-ratios on finite sets. At w = 1 it is the second estimate, at 0 the first.
What the first holds for impossible is left to the second from w = 1 on, and stays so below.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from reversal import state
from reversal.core import Estimate, JointEstimate, Kind
from reversal.errors import CapabilityError


def extrapolated(strength: float, start: Any, end: Any) -> Any:
    """Return start + strength (end - start), factor by factor."""
    mixed = state.map(partial(_mix, strength), start, end)
    return JointEstimate(mixed) if isinstance(mixed, dict) else mixed


def check_strength(strength: float) -> None:
    """Raise ``CapabilityError`` unless a strength is a number >= 0."""
    if not strength >= 0:
        raise CapabilityError(f"Expected a strength >= 0, got {strength}. 1 is the condition.")


def precise(estimate: Estimate) -> Estimate:
    """Return an estimate on a finite set in float64, logits normalized there.

    Near t = 1 a score holds what it says of the data in its last digits.
    """
    value = estimate.value.double()
    logits = estimate.kind in (Kind.POSTERIOR, Kind.CAVITY)
    value = value.log_softmax(-1) if logits else value
    return Estimate(estimate.path, estimate.x_t, estimate.t, estimate.kind, value)


def _mix(strength: float, start: Estimate, end: Estimate) -> Estimate:
    if end.path.space.is_real:
        first, last = start.read(end.kind), end.value
        value = first + strength * (last - first)
        beside = None if end.beside is None else _mix(strength, start, end.beside)
        return Estimate(end.path, end.x_t, end.t, end.kind, value, beside)
    if strength == 0:
        return start
    first, last = precise(start).score, precise(end).score
    finite = first > -torch.inf
    value = first + strength * torch.where(finite & (first != last), last - first, 0.0)
    value = torch.where(finite, value, last if strength >= 1 else first)
    return Estimate(end.path, end.x_t, end.t, Kind.SCORE, value)
