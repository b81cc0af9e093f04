"""The running real factors of a state as one vector per item, and their tangents as another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state


@final
@dataclass(frozen=True)
class Tangents:
    """Coordinates ``(B, n)`` and tangent vectors ``(B, T)`` of the factors that flow.

    Args:
        parts: the flowing factors by name; "" names a plain space.
        stop: their stopped sites, ``(B, *sites)``, or None.
        dtype: what the states are shown in.
        running: the number of tangent dimensions of the running sites, ``(B,)``.
    """

    parts: dict[str, Any]
    stop: dict[str, Tensor | None]
    dtype: torch.dtype
    running: Tensor

    @classmethod
    def of(cls, space: Any, x: Any, stop: Any) -> Tangents:
        """The factors of which any site runs."""
        parts = {name: part for name, part in _named(space.parts).items() if part.is_real}
        stops = _named(state.complete(stop, space.parts), _named(space.parts))
        parts = {k: p for k, p in parts.items() if stops[k] is None or not bool(stops[k].all())}
        like = state.like(x)
        count = torch.zeros(state.batch_size(x), dtype=torch.float64, device=like.device)
        for name, part in parts.items():
            runs = _runs(part, stops[name], len(count), like.device)
            lift = math.prod(part.tangent_shape) / math.prod(part.sites)
            count = count + lift * runs.flatten(1).sum(1) if runs.ndim > 1 else count + lift * runs
        return cls(parts, {name: stops[name] for name in parts}, like.dtype, count)

    @property
    def dimension(self) -> int:
        """T."""
        return sum(math.prod(part.tangent_shape) for part in self.parts.values())

    def flat(self, x: Any) -> Tensor:
        """The coordinates of states, in float64."""
        named = _named(x)
        rows = [named[name].double().flatten(1) for name in self.parts]
        return torch.cat(rows, 1) if rows else state.like(x).new_zeros((state.batch_size(x), 0))

    def tree(self, coordinates: Tensor, x: Any) -> Any:
        """States x with the flowing factors at these coordinates, on their manifolds."""
        columns = self._split(coordinates, "event_shape")
        moved = {}
        for name, part in self.parts.items():
            y = columns[name]
            on = y if is_flat(part) else part.move(y, y.new_zeros((len(y), *part.tangent_shape)))
            moved[name] = on.to(self.dtype)
        return {**x, **moved} if isinstance(x, dict) else moved.get("", x)

    def projected(self, coordinates: Tensor) -> Tensor:
        """The coordinates of the nearest states."""
        columns = self._split(coordinates, "event_shape")
        rows = [
            y if is_flat(part) else part.move(y, y.new_zeros((len(y), *part.tangent_shape)))
            for (name, part) in self.parts.items()
            for y in (columns[name],)
        ]
        return torch.cat([row.flatten(1) for row in rows], 1) if rows else coordinates

    def walked(self, x: Any, v: Tensor) -> Any:
        """States moved along a tangent vector."""
        named, steps = _named(x), self._split(v, "tangent_shape")
        moved = {
            name: part.move(named[name], steps[name].to(self.dtype))
            for name, part in self.parts.items()
        }
        return {**x, **moved} if isinstance(x, dict) else moved.get("", x)

    def joined(self, velocity: Any) -> Tensor:
        """The velocities of the factors as one vector, 0 at stopped sites, in float64."""
        named, rows = _named(velocity), []
        for name, part in self.parts.items():
            own, stop = named[name].double(), self.stop[name]
            if stop is not None:
                own = torch.where(state.trail(stop, own.ndim - stop.ndim), 0.0, own)
            rows.append(own.reshape(len(own), math.prod(part.tangent_shape)))
        return torch.cat(rows, 1)

    def pushed(self, x: Any, velocity: Tensor) -> Tensor:
        """The slope of the coordinates along a tangent vector."""
        named, steps, rows = _named(x), self._split(velocity, "tangent_shape"), []
        for name, part in self.parts.items():
            v, own = steps[name], named[name].double()
            slope = v if part.tangent_shape == part.event_shape else _pushed(part, own, v)
            rows.append(slope.flatten(1))
        return torch.cat(rows, 1)

    def _split(self, vector: Tensor, shape: str) -> dict[str, Tensor]:
        shapes = {name: getattr(part, shape) for name, part in self.parts.items()}
        columns = vector.split([math.prod(each) for each in shapes.values()], 1)
        return {
            name: column.unflatten(1, each) if each else column.squeeze(1)
            for (name, each), column in zip(shapes.items(), columns, strict=True)
        }


def is_flat(part: Any) -> bool:
    """Whether every array is a state."""
    return part.measure == "Lebesgue" and part.tangent_shape == part.event_shape


def _pushed(part: Any, x: Tensor, v: Tensor) -> Tensor:
    """The derivative of the exponential map at 0, applied to v."""
    zero = torch.zeros_like(v)
    return torch.func.jvp(lambda w: part.move(x, w), (zero,), (v,))[1]


def _runs(part: Any, stop: Tensor | None, n: int, device: torch.device) -> Tensor:
    if stop is None:
        return torch.ones((n, *part.sites), dtype=torch.float64, device=device)
    return (~stop).double()


def _named(tree: Any, names: Any = None) -> dict[str, Any]:
    if isinstance(tree, dict):
        return tree
    return {"": tree} if names is None else dict.fromkeys(names, tree)
