r"""How a probability flow is followed: to a tolerance, row by row, or in equal steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.errors import ClockError
from reversal.ode import integrate, moved, pulled

Velocity = Callable[[Any, Tensor], Any]
"""States and times ``(B,)`` to a tree of tangent vectors, row by row."""


class Solver(ABC):
    """A way to follow a velocity from one time to another."""

    @abstractmethod
    def solve(self, velocity: Velocity, x: Any, start: float, stop: float, spaces: Any) -> Any:
        """Return where the states x come to; ``spaces`` has None for a part without curvature."""

    @property
    @abstractmethod
    def coarser(self) -> Solver:
        """A solver with a larger error, against which this one is held."""

    @property
    @abstractmethod
    def resolution(self) -> float:
        """The relative difference from the coarser solution that may be due to chance."""


@final
@dataclass(frozen=True)
class DormandPrince(Solver):
    """Orders 5 and 4, every row with its own steps: ``ode.integrate``.

    Args:
        rtol: the relative tolerance of a step.
        atol: the absolute tolerance of a step.
        max_steps: how many steps a row may take.
    """

    rtol: float = 1e-6
    atol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps >= 1):
            raise ClockError(f"Expected positive tolerances and a step at least, got {self}.")

    @property
    def coarser(self) -> DormandPrince:
        """Tolerances ten times as large."""
        return replace(self, rtol=10 * self.rtol, atol=10 * self.atol)

    @property
    def resolution(self) -> float:
        """The tolerance of the coarser one."""
        return 10 * max(self.rtol, self.atol)

    def solve(self, velocity: Velocity, x: Any, start: float, stop: float, spaces: Any) -> Any:
        """Step until every row is there.

        Raises:
            ConvergenceError: if a velocity is not finite, or a row needs too many steps.
        """
        clock = torch.zeros(state.batch_size(x), dtype=torch.float64, device=state.like(x).device)
        ends = (clock + start, clock + stop)
        return integrate(velocity, x, *ends, self.rtol, self.atol, spaces, self.max_steps).x


@final
@dataclass(frozen=True)
class RungeKutta(Solver):
    """The classical method of order 4 in equal steps, four calls each.

    Args:
        steps: how many. A single one has no coarser solution to be held against.
    """

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ClockError(f"Expected a number of steps >= 1, got {self.steps!r}. Give e.g. 50.")

    @property
    def coarser(self) -> RungeKutta:
        """Half as many steps.

        Raises:
            ClockError: if there is only one.
        """
        if self.steps < 2:
            raise ClockError(
                "Expected at least 2 steps, of which half can be held against all to see whether "
                "they are enough, got 1. Write RungeKutta(50)."
            )
        return RungeKutta(self.steps // 2)

    @property
    def resolution(self) -> float:
        """None: the error of equal steps is smooth in their number."""
        return 0.0

    def solve(self, velocity: Velocity, x: Any, start: float, stop: float, spaces: Any) -> Any:
        """Take every step."""
        h = (stop - start) / self.steps
        clock = torch.zeros(state.batch_size(x), dtype=torch.float64, device=state.like(x).device)
        for k in range(self.steps):
            x = _classical(velocity, x, clock + start + k * h, h, spaces)
        return x


def _classical(velocity: Velocity, x: Any, t: Tensor, h: float, spaces: Any) -> Any:
    """One step in the exponential chart at x."""

    def slope(share: float, before: Any) -> Any:
        u = state.map(lambda k: share * h * k, before)
        y = state.map(moved, x, u, spaces)
        return state.map(pulled, u, velocity(y, t + share * h), spaces)

    first = velocity(x, t)
    second = slope(0.5, first)
    third = slope(0.5, second)
    fourth = slope(1.0, third)
    u = state.map(lambda a, b, c, d: h / 6 * (a + 2 * b + 2 * c + d), first, second, third, fourth)
    return state.map(moved, x, u, spaces)
