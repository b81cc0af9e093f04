"""Comparisons that fail with a sentence: which identity, of what, at which t, and by how much."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-9


def require(holds: bool, sentence: str) -> None:
    """Raise ``AssertionError`` with the sentence unless it holds."""
    if not holds:
        raise AssertionError(sentence)


def require_close(
    identity: str,
    got: Tensor,
    expected: Tensor,
    *,
    of: object,
    t: float | None = None,
    size: Tensor | float = 1.0,
    tolerance: float = TOLERANCE,
) -> None:
    r"""Require :math:`|got - expected| \le tolerance \cdot (1 + size)`, entry by entry.

    Args:
        identity: the identity, as a noun: "Fisher's identity".
        got: any shape.
        expected: a shape that broadcasts with it; equal infinities agree.
        of: the object under test.
        t: the time, where there is one.
        size: the magnitude of the terms that cancel in the identity.
        tolerance: the bound.

    Raises:
        AssertionError: naming the identity, the object, the time and the gap.
    """
    got, expected = torch.broadcast_tensors(got.detach().double(), expected.detach().double())
    gap = torch.where(got == expected, 0.0, (got - expected).abs())
    gap = gap / (1 + torch.as_tensor(size, dtype=torch.float64).detach())
    worst = float(gap.nan_to_num(nan=torch.inf).max()) if gap.numel() else 0.0
    at = "" if t is None else f" at t = {t:g}"
    require(
        worst <= tolerance,
        f"{identity} fails for {of}{at}: the two sides differ by {worst:.3g}, more than "
        f"{tolerance:.3g} (relative to one plus the size of their terms).",
    )
