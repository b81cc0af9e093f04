r"""Time grids as values, and ticks: times that know their row of a coefficient table.

A grid is a decreasing list of times 1 = t_0 > t_1 > ... > t_N = 0. A sampler walks it tick by tick.
Whatever a step needs as a function of time is computed for the whole grid in one vectorized float64
call, the first time that it is asked for, and read row by row as Python numbers after that. What
was computed from learned numbers, which say so by ``depends_on``, is computed anew when they
change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from reversal.errors import ClockError

RUNNING_MAX = 1 - 2.0**-24
"""The latest time that a running site shows in a per-site clock, where exactly 1 means dropped."""
_READ: ContextVar[list[Tensor] | None] = ContextVar("read", default=None)


def depends_on(parameters: Iterable[Tensor]) -> None:
    """Say that the coefficients being evaluated depend on numbers that may change."""
    read = _READ.get()
    if read is not None:
        read.extend(parameters)


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """A strictly decreasing list of times within [0, 1].

    Args:
        times: shape (N + 1,), strictly decreasing; kept in float64.

    Raises:
        ClockError: if the times are not a strictly decreasing list within [0, 1].
    """

    times: Tensor
    clock: list[float] = field(init=False, repr=False)
    _tables: dict[Any, list[Any]] = field(default_factory=dict, repr=False)
    _learned: dict[Any, list[tuple[Tensor, Any]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        times = torch.as_tensor(self.times, dtype=torch.float64, device="cpu")
        inside = (
            times.ndim == 1 and len(times) > 1 and bool((times >= 0).all() & (times <= 1).all())
        )
        if not (inside and bool((times.diff() < 0).all())):
            raise ClockError(
                f"Expected a grid of at least two strictly decreasing times within [0, 1], got "
                f"{_shown(times)}. Use Grid.uniform(steps) or Grid.power(steps, exponent)."
            )
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "clock", times.tolist())

    @classmethod
    def uniform(cls, steps: int, start: float = 1.0, stop: float = 0.0) -> Grid:
        """Equal steps from ``start`` down to ``stop``."""
        return cls.power(steps, 1.0, start, stop)

    @classmethod
    def power(cls, steps: int, exponent: float, start: float = 1.0, stop: float = 0.0) -> Grid:
        r"""Steps that shrink towards ``stop``: :math:`t_k = b + (a - b) (1 - k/N)^p`."""
        if steps < 1:
            raise ClockError(f"Expected at least one step, got steps={steps}. Give steps >= 1.")
        u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return cls(stop + (start - stop) * u**exponent)

    @classmethod
    def respaced(cls, total: int, steps: int) -> Grid:
        """At most ``steps`` steps among the times k/total, as equal as can be."""
        steps = min(max(steps, 1), total)
        return cls(torch.linspace(total, 0, steps + 1, dtype=torch.float64).round() / total)

    @classmethod
    def quadratic(cls, steps: int, start: float = 1.0, stop: float = 0.0) -> Grid:
        """Steps that shrink linearly towards ``stop``."""
        return cls.power(steps, 2.0, start, stop)

    @classmethod
    def cosine(cls, steps: int, start: float = 1.0, stop: float = 0.0) -> Grid:
        r"""Steps that shrink towards both ends: :math:`t_k = b + (a - b)(1 + \cos(\pi k/N))/2`."""
        u = cls.power(steps, 1.0).times
        return cls(stop + (start - stop) * torch.sin(u * torch.pi / 2) ** 2)

    @classmethod
    def karras(
        cls, process: Any, steps: int, rho: float = 7.0, least: float = 2e-3, most: float = 80.0
    ) -> Grid:
        r"""Noise-to-signal ratios of equal steps in :math:`(\sigma/\alpha)^{1/\rho}`, then 0.

        Args:
            process: a Gaussian process, or its schedule.
            steps: N; N - 1 of them between the ratios, the last one to 0.
            rho: how much the steps shrink towards the data.
            least: the last ratio but 0, or that of the first instant if it is greater.
            most: the first ratio, or that at t = 1 if it is less; the grid starts at 1 in any case.

        Source: Karras et al. (2022), eq. (5).
        """
        schedule, low, high = _ratios(process, steps, least, most)
        u = torch.linspace(0, 1, max(steps, 2), dtype=torch.float64)[:steps]
        ends = [(end / rho).exp() for end in (high, low)]
        return cls._at(schedule, rho * (ends[0] + u * (ends[1] - ends[0])).log())

    @classmethod
    def log_snr(cls, process: Any, steps: int, least: float = 2e-3, most: float = 80.0) -> Grid:
        """Equal steps in the log of the noise-to-signal ratio, then 0; arguments as of ``karras``.

        Source: Lu et al. (2022), DPM-Solver, section 3.
        """
        schedule, low, high = _ratios(process, steps, least, most)
        u = torch.linspace(0, 1, max(steps, 2), dtype=torch.float64)[:steps]
        return cls._at(schedule, torch.lerp(high, low, u))

    @classmethod
    def share(
        cls, process: Any, steps: int, scale: float | None = None, exponent: float = 4 / 3
    ) -> Grid:
        r"""Shares of noise :math:`\sigma/(c \alpha + \sigma)` that fall as :math:`(1 - k/N)^p`.

        At ratio c the noise is half of what lies between data: two independent draws of d entries
        of variance 1 are :math:`\sqrt{2 d}` apart, and a flow decides between them at ratios near
        :math:`c_d = \sqrt{d/2}`. Few steps are needed there most, many steps reach the width of the
        data as well; hence the default :math:`c = 1 + (c_d - 1) \min(1, 10/N)`, with
        :math:`c_d \ge 1`. That blend, and p, are fitted to mixtures in 2 to 64 dimensions.

        Args:
            process: a Gaussian process; its schedule will do where the scale is given.
            steps: N.
            scale: c.
            exponent: p, how much the steps shrink towards the data.
        """
        schedule, _, _ = _ratios(process, steps, 1e-9, math.inf)
        c = _scale(process, steps) if scale is None else scale
        if not (0 < c < math.inf and 0 < exponent < math.inf):
            raise ClockError(
                f"Expected finite numbers scale > 0 and exponent > 0, got {scale} and {exponent}. "
                f"Leave them out for the defaults."
            )
        most = 1 / (1 + c * schedule.log_ratio(torch.ones((), dtype=torch.float64)).exp())
        shares = most * torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1] ** exponent
        return cls._at(schedule, (c * shares / (1 - shares)).log())

    @classmethod
    def _at(cls, schedule: Any, logs: Tensor) -> Grid:
        """The grid of these log-ratios, its first time set to 1, and 0."""
        times = schedule.time_of(-logs)
        times[0] = 1.0
        return cls(torch.cat([times, times.new_zeros(1)]))

    @classmethod
    def mean(cls, grids: list[Grid]) -> Grid:
        """The mean of several grids of one length: the common clock of a product."""
        return cls(torch.stack([grid.times for grid in grids]).mean(0))

    @property
    def steps(self) -> int:
        """The number of steps N."""
        return len(self.times) - 1

    def ticks(self, pattern: Tensor | None = None, running: Tensor | None = None) -> list[Tick]:
        """Return the N + 1 times as ticks, for shared or partly stopped clocks.

        Args:
            pattern: the clocks of the stopped sites, ``(B, *sites)``: 0 known, 1 dropped.
            running: bool of the same shape: the sites whose clock is the tick's own time.
        """
        for key in self._learned:
            del self._tables[key]
        self._learned.clear()
        return [Tick(self, row, pattern, running) for row in range(len(self.times))]

    def refined(self, theta: float) -> Grid:
        """The grid with one node in each step, a share ``theta`` of the way down; made once."""
        if ("refined", theta) not in self._tables:
            nodes = self.times[:-1] + theta * self.times.diff()
            inner = torch.stack([self.times[:-1], nodes], 1).flatten()
            self._tables["refined", theta] = [Grid(torch.cat([inner, self.times[-1:]]))]
        return self._tables["refined", theta][0]

    def table(self, function: Callable[..., Any], offsets: tuple[int, ...]) -> list[Any]:
        """Tabulate ``function`` at rows k, k + offset_1, ...: one call, then Python numbers."""
        key = (function, offsets)
        if key not in self._tables or (self._learned and self._has_changed(key)):
            rows = len(self.times) - max(offsets, default=0)
            times = [self.times[:rows], *(self.times[o : o + rows] for o in offsets)]
            values, read = _watched(function, times)
            self._tables[key] = _rows(values, rows)
            if read:
                self._learned[key] = [(part, _mark(part)) for part in read]
        return self._tables[key]

    def _has_changed(self, key: Any) -> bool:
        """Whether a table was computed from learned numbers that are others now."""
        return any(_mark(part) != mark for part, mark in self._learned.get(key, ()))


@final
class Tick:
    """One time of a grid, with the clock that it shows to a network."""

    __slots__ = ("grid", "pattern", "row", "running", "time")

    def __init__(
        self, grid: Grid, row: int, pattern: Tensor | None, running: Tensor | None
    ) -> None:
        self.grid, self.row, self.pattern, self.running = grid, row, pattern, running
        self.time = grid.clock[row]

    def __float__(self) -> float:
        return self.time

    def at(self, function: Callable[..., Any], *later: Tick) -> Any:
        """Read the row of ``function(self, *later)``; later ticks are of the same grid."""
        offsets = tuple([tick.row - self.row for tick in later]) if later else ()
        return self.grid.table(function, offsets)[self.row]

    def raised(self, later: Tick, rule: Callable[[Tensor], tuple[Tensor]]) -> tuple[Tick, ...]:
        """The tick at time ``rule(self)``, not before this one; this tick; and ``later``."""
        up = self.at(rule)[0]
        if up <= self.time:
            return self, self, later
        tables, key = self.grid._tables, ("raised", rule, self.row, later.row, up)
        if key not in tables:
            tables[key] = [Grid(torch.tensor([up, self.time, later.time], dtype=torch.float64))]
        hat, t, s = tables[key][0].ticks(self.pattern, self.running)
        return hat, t, s

    def refined(self, later: Tick, theta: float) -> tuple[Tick, Tick, Tick]:
        """This tick, the node a share ``theta`` of the way down, and ``later``, on one grid."""
        fine = self.grid.refined(theta)
        rows = (2 * self.row, 2 * self.row + 1, 2 * later.row)
        t, rho, s = (Tick(fine, row, self.pattern, self.running) for row in rows)
        return t, rho, s

    def clock(self, batch: int, like: Tensor) -> Tensor:
        """Return what a network is shown: ``(B,)``, or ``(B, *sites)`` with stopped sites."""
        if self.pattern is None or self.running is None:
            return like.new_full((batch,), self.time)
        now = min(self.time, RUNNING_MAX)
        return torch.where(self.running, now, self.pattern.to(like))


@torch.no_grad()
def _ratios(process: Any, steps: int, least: float, most: float) -> tuple[Any, Tensor, Tensor]:
    """The schedule of a process, and the logs of its least and greatest ratio."""
    schedule = process if hasattr(process, "time_of") else getattr(process, "schedule", None)
    if schedule is None or not hasattr(schedule, "time_of"):
        raise ClockError(
            f"Expected a Gaussian process or its schedule for noise-to-signal ratios, got "
            f"{process}. Use process.grid(steps) or Grid.power(steps, exponent)."
        )
    last = schedule.signal(torch.ones((), dtype=torch.float64))
    high = torch.minimum(last.sigma / last.alpha, torch.tensor(most, dtype=torch.float64))
    if not (isinstance(steps, int) and steps >= 1 and 0 < least < float(high)):
        raise ClockError(
            f"Expected steps >= 1 and 0 < least < most, got steps={steps!r}, least={least} and a "
            f"greatest ratio of {float(high):g}. Leave least and most out for the defaults."
        )
    first = -schedule.log_ratio(torch.tensor(2.0**-60, dtype=torch.float64))
    low = torch.tensor(least, dtype=torch.float64).log()
    return schedule, torch.maximum(low, first + 1e-3), high.log()


def _scale(process: Any, steps: int) -> float:
    """Half the distance of two draws of unit variance, and less of it with more steps."""
    if not hasattr(process, "space"):
        raise ClockError(
            f"Expected a process, whose dimension says the scale, got {process}. Give scale=1.0."
        )
    half = (math.prod(process.space.event_shape) / 2) ** 0.5
    return 1 + max(half - 1, 0.0) * min(1.0, 10 / steps)


Time = Tensor | Tick | Mapping[str, "Tensor | Tick"]


def evaluate(function: Callable[..., Any], *times: Tensor | Tick, dtype: torch.dtype) -> Any:
    """Evaluate coefficients at times: from the table for ticks, in float64 for tensors.

    ``function`` maps float64 times to a (named) tuple of tensors; it must be the same object at
    every call (a method of a schedule), for it is the key of the table.
    """
    first, later = times[0], times[1:]
    if isinstance(first, Tick) and (not later or _are_of(first.grid, later)):
        return first.at(function, *later)  # pyright: ignore[reportArgumentType]
    values = function(*(_double(t) for t in times))
    return _like(values, (value.to(dtype) for value in values))


@torch.no_grad()
def _watched(function: Callable[..., Any], times: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """The values of a function, and the learned numbers that it read."""
    token = _READ.set(read := [])
    try:
        return function(*times), read
    finally:
        _READ.reset(token)


def _mark(part: Tensor) -> Any:
    """What changes whenever a tensor is written to; never the same where torch does not count."""
    return object() if part.is_inference() else (part.data_ptr(), part._version)


def _are_of(grid: Grid, times: tuple[Tensor | Tick, ...]) -> bool:
    return all(isinstance(t, Tick) and t.grid is grid for t in times)


def _double(t: Tensor | Tick) -> Tensor:
    return torch.tensor(float(t), dtype=torch.float64) if isinstance(t, Tick) else t.double()


def _like(values: Any, parts: Any) -> Any:
    return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)


def _rows(values: Any, rows: int) -> list[Any]:
    columns = [value.expand(rows).tolist() for value in values]
    return [_like(values, row) for row in zip(*columns, strict=True)]


def _shown(times: Tensor) -> str:
    return f"shape {tuple(times.shape)}" if times.numel() > 8 else f"{times.tolist()}"
