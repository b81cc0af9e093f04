r"""Solvers of ordinary differential equations in which no row changes another's steps.

A field maps times ``(B,)`` and values ``(B, n)`` to slopes ``(B, n)``, row by row. Every row has a
clock and a step size of its own, so that it comes out alike in whatever batch it is solved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from reversal.errors import ClockError

Field = Callable[[Tensor, Tensor], Tensor]
"""(t, y) to dy/dt."""
Norm = Callable[[Tensor], Tensor]
"""Scaled errors ``(B, n)`` to one number per row, at most 1 where a step is good enough."""
Project = Callable[[Tensor], Tensor]
"""Values near the manifold on which a field lives to values on it."""


class Solved(NamedTuple):
    """Where the rows came to, and whether each of them came to the end."""

    y: Tensor
    reached: Tensor


class Solver(ABC):
    """A way to follow a field from one time to another."""

    @abstractmethod
    def solve(
        self, field: Field, y: Tensor, start: float, stop: float, project: Project, norm: Norm
    ) -> Solved:
        """Follow the field; ``project`` is applied after every step."""

    @abstractmethod
    def coarser(self) -> Self:
        """The same solver with a larger error, against which this one is held."""


@final
@dataclass(frozen=True)
class RungeKutta(Solver):
    """The classical method of order 4 with equal steps; four calls each.

    Args:
        steps: how many, at least 2, so that a coarser solution can be held against it.
    """

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 2:
            raise ClockError(f"Expected a number of steps >= 2, got {self.steps!r}. Give e.g. 50.")

    def coarser(self) -> RungeKutta:
        """Half as many steps; of a single one there is no half, and 2 become 1."""
        half = replace(self)
        object.__setattr__(half, "steps", self.steps // 2)
        return half

    def solve(
        self, field: Field, y: Tensor, start: float, stop: float, project: Project, norm: Norm
    ) -> Solved:
        """Take every step."""
        h = (stop - start) / self.steps
        for k in range(self.steps):
            t = y.new_full((len(y),), start + k * h)
            first = field(t, y)
            second = field(t + h / 2, y + h / 2 * first)
            third = field(t + h / 2, y + h / 2 * second)
            fourth = field(t + h, y + h * third)
            y = project(y + h / 6 * (first + 2 * second + 2 * third + fourth))
        return Solved(y, y.isfinite().all(1))


_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_LEAST = 1e-9


@final
@dataclass(frozen=True)
class DormandPrince(Solver):
    r"""Order 5 with an error estimate of order 4, each row with steps of its own.

    A step of length h is taken where the norm of :math:`e_i / (atol + rtol\, |y_i|)` is at most 1,
    and the next one is :math:`0.9\, h\, \|e\|^{-1/5}`, between a fifth of h and five times h.

    Args:
        rtol: the relative error of a step.
        atol: the absolute error of a step.
        max_steps: rows that are not there by then say so.

    Cost: six calls a step of the whole batch. Source: Dormand and Prince (1980), RK5(4)7M; Hairer,
    Norsett and Wanner (1993), section II.4.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps >= 1):
            raise ClockError(f"Expected positive tolerances and a step at least, got {self}.")

    def coarser(self) -> DormandPrince:
        """Tolerances ten times as large."""
        return replace(self, rtol=10 * self.rtol, atol=10 * self.atol)

    def solve(
        self, field: Field, y: Tensor, start: float, stop: float, project: Project, norm: Norm
    ) -> Solved:
        """Step until every row is there, or gives up."""
        sign, span = (1.0, stop - start) if stop > start else (-1.0, start - stop)
        went = y.new_zeros(len(y))
        h = torch.full_like(went, span / 100)
        slope = field(torch.full_like(went, start), y)
        for _ in range(self.max_steps):
            live = (went < span) & (h > _LEAST * span)
            if not bool(live.any()):
                break
            h_now = torch.minimum(h, span - went)
            moved, last, error = self._step(field, y, slope, start + sign * went, sign * h_now)
            size = norm(error / (self.atol + self.rtol * torch.maximum(y.abs(), moved.abs())))
            size = torch.where(size.isfinite(), size, torch.inf)
            taken = live & (size <= 1)
            y = torch.where(taken[:, None], project(moved), y)
            slope = torch.where(taken[:, None], last, slope)
            arrives = taken & (h_now >= span - went)
            went = torch.where(arrives, span, torch.where(taken, went + h_now, went))
            factor = (0.9 * size.clamp_min(1e-12) ** -0.2).clamp(0.2, 5.0)
            h = torch.where(live, h_now * factor, h)
        return Solved(y, went >= span)

    def _step(
        self, field: Field, y: Tensor, slope: Tensor, t: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next value, its slope, and the estimate of the error, ``(B, n)`` each."""
        slopes, length, at = [slope], h[:, None], y
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            at = y + length * _combined(weights, slopes)
            slopes.append(field(t + node * h, at))
        return at, slopes[-1], length * _combined(_ERROR, slopes)


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = [w * k for w, k in zip(weights, slopes, strict=True) if w]
    return torch.stack(terms).sum(0)
