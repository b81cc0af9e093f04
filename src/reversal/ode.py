r"""Steps to a tolerance, row by row; for ordinary differential equations Dormand and Prince's.

Every row has its own time, step and error, so that no row changes another's steps. With stages
:math:`k_i = v(y_i, t + c_i h)` at :math:`y_i = \exp_y(h \sum_j a_{ij} k_j)`, a step is accepted
where the root mean square of

.. math:: \frac{h \sum_i (b_i - \hat b_i) k_i}{\text{atol} + \text{rtol} \max(|y|, |y_{new}|)}

is at most 1; on curved spaces the scale is atol + rtol. A step is carried out in the exponential
chart at its start: on rotations every stage is pulled back by the differential of the exponential
map. Source: Dormand and Prince (1980); Hairer, Norsett and Wanner (1993), section II.4; Munthe-Kaas
(1998) for the chart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal import state
from reversal.errors import CapabilityError, ConvergenceError
from reversal.spaces import SO3, Euclidean, Torus, rotations

_NODES = (0.2, 0.3, 0.8, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _SHRINK = 0.9, 0.2


class Solution(NamedTuple):
    """Where the rows end; calls of the velocity and rejected steps of each row, int64 ``(B,)``."""

    x: Any
    calls: Tensor
    rejected: Tensor


class Rule(ABC):
    """One step of every row, from its own time over a length of its own, with its own error.

    Args:
        spaces: a tree of ``Euclidean``, ``Torus`` or ``SO3``, or None for a flat part.
        rtol: the relative tolerance of a step.
        atol: the absolute tolerance of a step.
    """

    calls: int  # of the velocity, in a step
    power: float  # of the error, by which a step shrinks
    most: float  # what a step grows by
    smallest: float  # the least share of the whole interval that a step may have

    def __init__(self, spaces: Any, rtol: float, atol: float) -> None:
        self.spaces, self.rtol, self.atol = spaces, rtol, atol

    @abstractmethod
    def begin(self, x: Any, t: Tensor, total: Tensor) -> tuple[Any, Tensor]:
        """What is known at the start of a step, and the length of the first one, signed."""

    @abstractmethod
    def trial(self, x: Any, t: Tensor, h: Tensor, known: Any) -> tuple[Any, Any, Tensor]:
        """The end of a step, what is known there, and the error of every row in tolerances."""

    @final
    def norm(self, gap: Any, x: Any, y: Any) -> Tensor:
        """The root mean square over all entries of a row, each in units of its tolerance."""
        squares = state.map(self._square, gap, x, y, self.spaces)
        parts = [part.flatten(1) for part in state.leaves(squares)]
        return torch.cat(parts, 1).mean(1).sqrt()

    def _square(self, gap: Tensor, x: Tensor, y: Tensor, space: Any) -> Tensor:
        is_flat = space is None or isinstance(space, Euclidean)
        size = torch.maximum(x.abs(), y.abs()).double() if is_flat else 1.0
        scaled = gap.double() / (self.atol + self.rtol * size)
        return scaled.square().reshape(len(gap), -1)


def walk(rule: Rule, x: Any, t: Tensor, stop: Tensor, max_steps: int) -> Solution:
    """Walk every row from t to its stop by steps whose error is at most one tolerance.

    Raises:
        ConvergenceError: if an error is not finite, or a step underflows, or there are too many.
    """
    total = stop - t
    running = total != 0
    calls, rejected = running.long(), torch.zeros_like(t, dtype=torch.int64)
    if not bool(running.any()):
        return Solution(x, calls, rejected)
    known, h = rule.begin(x, t, total)
    _refuse(rule, running, h, total, t, torch.full_like(t, torch.nan))
    for _ in range(max_steps):
        last = (stop - t).abs() <= h.abs()
        h = torch.where(last, stop - t, h)
        y, end, error = rule.trial(x, t, h, known)
        calls = calls + rule.calls * running
        accepted = running & (error <= 1)
        rejected = rejected + (running & ~accepted)
        x, known = _kept(accepted, y, x), _kept(accepted, end, known)
        t = torch.where(accepted, torch.where(last, stop, t + h), t)
        running = running & ~(accepted & last)
        if not bool(running.any()):
            return Solution(x, calls, rejected)
        h = h * _factor(rule, error, accepted)
        _refuse(rule, running, h, total, t, error)
    raise ConvergenceError(
        f"Expected an end after at most {max_steps} steps, but row "
        f"{int(running.int().argmax())} stands at t = {float(t[running][0]):g}. Loosen rtol "
        f"and atol, compute in float64, or stop before the velocity blows up."
    )


def _factor(rule: Rule, error: Tensor, accepted: Tensor) -> Tensor:
    error = torch.where(error.isfinite(), error, 1e9).clamp_min(1e-10)
    most = torch.where(accepted, rule.most, 1.0)
    return torch.minimum((_SAFETY * error**-rule.power).clamp_min(_SHRINK), most)


def _refuse(
    rule: Rule, running: Tensor, h: Tensor, total: Tensor, t: Tensor, error: Tensor
) -> None:
    tiny = running & ~(h.abs() >= rule.smallest * total.abs())
    if not bool(tiny.any()):
        return
    row = int(tiny.int().argmax())
    raise ConvergenceError(
        f"Expected a step that meets rtol={rule.rtol:g} and atol={rule.atol:g}, but in row "
        f"{row} it has shrunk to {float(h[row]):.1e} at t = {float(t[row]):.6g} (error "
        f"{float(error[row]):.1e} tolerances). Loosen the tolerances, compute in float64, or "
        f"stop before the velocity blows up."
    )


def integrate(
    velocity: Callable[[Any, Tensor], Any],
    x: Any,
    start: Tensor,
    stop: Tensor,
    rtol: float,
    atol: float,
    spaces: Any = None,
    max_steps: int = 2_000,
) -> Solution:
    """Follow dx/dt = velocity(x, t) in every row from its start to its stop.

    Args:
        velocity: maps x and times ``(B,)``, float64, to a tree of tangent vectors; row b of it
            depends on row b of x and t alone.
        x: a tensor ``(B, ...)`` or a dict of them.
        start: times, float64 ``(B,)``.
        stop: times, before or after start; a row that starts at its stop stands still.
        rtol: the relative tolerance of a step.
        atol: the absolute tolerance of a step.
        spaces: a tree of ``Euclidean``, ``Torus`` or ``SO3``, or None for a flat part.
        max_steps: how many steps, rejected ones included, a row may take.

    Returns:
        The solution. The error at the end is about the tolerance times the number of steps, where
        the flow neither contracts nor expands.

    Raises:
        CapabilityError: for a curved space whose exponential chart is not known here.
        ConvergenceError: if a velocity is not finite, or a step underflows, or there are too many.

    Cost: 6 calls a step and one more at the start, as many as the slowest row needs; each step
    waits for the device once.
    """
    state.map(require_chart, x if spaces is None else spaces)
    start, stop = start.double(), stop.double()
    return walk(
        _DormandPrince(velocity, spaces, rtol, atol, start, stop), x, start, stop, max_steps
    )


@final
class _DormandPrince(Rule):
    calls, power, most, smallest = 6, 0.2, 10.0, 1e-13

    def __init__(
        self, velocity: Any, spaces: Any, rtol: float, atol: float, start: Tensor, stop: Tensor
    ) -> None:
        super().__init__(spaces, rtol, atol)
        self.velocity = velocity
        self.low, self.high = torch.minimum(start, stop), torch.maximum(start, stop)

    def begin(self, x: Any, t: Tensor, total: Tensor) -> tuple[Any, Tensor]:
        """A step over which the velocity carries a row a hundredth of its size or tolerance.

        It is a millionth of the way at least, for a row that starts at the origin.
        """
        first = self._look(x, t)
        size, speed = (self.norm(part, x, x) for part in (_sizes(x, self.spaces), first))
        h = 0.01 * size.clamp_min(1e-5) / speed.clamp_min(1e-15)
        return first, h.clamp(1e-6 * total.abs(), total.abs()) * total.sign()

    def trial(self, x: Any, t: Tensor, h: Tensor, known: Any) -> tuple[Any, Any, Tensor]:
        """Seven stages, of which the last is the first of the next step."""
        slopes, y, end = [known], x, known
        for node, row in zip(_NODES, _STAGES, strict=True):
            u = state.map(_combined(h, row), *slopes)
            y = state.map(moved, x, u, self.spaces)
            end = self._look(y, (t + node * h).clamp(self.low, self.high))
            slopes.append(state.map(pulled, u, end, self.spaces))
        gap = state.map(_combined(h, _ERROR), *slopes)
        return y, end, self.norm(gap, x, y)

    def _look(self, x: Any, t: Tensor) -> Any:
        return state.map(lambda v, part: v.to(part.dtype), self.velocity(x, t), x)


def _combined(h: Tensor, row: tuple[float, ...]) -> Callable[..., Tensor]:
    """The rule (k_1, k_2, ...) -> h sum_j a_j k_j of one factor."""

    def combine(*slopes: Tensor) -> Tensor:
        total = row[0] * slopes[0]
        for share, slope in zip(row[1:], slopes[1:], strict=False):
            total = total + share * slope if share else total
        return state.trail(h.to(total), total.ndim - 1) * total

    return combine


def _kept(accepted: Tensor, new: Any, old: Any) -> Any:
    return state.map(lambda a, b: torch.where(state.trail(accepted, a.ndim - 1), a, b), new, old)


def moved(x: Tensor, u: Tensor, space: Any) -> Tensor:
    """The point at coordinate u of the chart at x."""
    return x + u if space is None else space.move(x, u)


def pulled(u: Tensor, v: Tensor, space: Any) -> Tensor:
    """The rate of the chart coordinate u under the velocity v at exp(u)."""
    return rotations.pull(u, v) if isinstance(space, SO3) else v


def _sizes(x: Any, spaces: Any) -> Any:
    """The size of every entry: its value on flat parts, 1 on curved ones."""

    def size(part: Tensor, space: Any) -> Tensor:
        is_flat = space is None or isinstance(space, Euclidean)
        return part.abs() if is_flat else torch.ones_like(part)

    return state.map(size, x, spaces)


def require_chart(space: Any) -> None:
    """Raise ``CapabilityError`` unless a step can be carried out in a chart of the space."""
    if isinstance(space, Tensor | Euclidean | Torus | SO3 | None):
        return
    raise CapabilityError(
        f"Expected Euclidean, Torus or SO3, whose exponential chart is known, to integrate to a "
        f"tolerance on, got {space}. Use Heun() or Euler(churn=0) there."
    )
