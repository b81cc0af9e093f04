"""The running real factors of a state, and one vector of all their tangent directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state


@final
@dataclass(frozen=True)
class Tangents:
    """The factors that flow, and their tangent vectors as one, ``(B, T)``.

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
        """The real factors of which any site runs."""
        every = _named(space.parts)
        stops = _named(state.complete(stop, every), every)
        parts = {
            name: part
            for name, part in every.items()
            if part.is_real and not _is_full(stops[name], state.batch_size(x))
        }
        like = state.like(x)
        count = torch.zeros(state.batch_size(x), dtype=torch.float64, device=like.device)
        for name, part in parts.items():
            lift = math.prod(part.tangent_shape) // math.prod(part.sites)
            count = count + lift * (math.prod(part.sites) - _stopped(stops[name], count))
        return cls(parts, {name: stops[name] for name in parts}, like.dtype, count)

    @property
    def dimension(self) -> int:
        """T."""
        return sum(math.prod(part.tangent_shape) for part in self.parts.values())

    def flowing(self, x: Any) -> dict[str, Tensor]:
        """The flowing factors of states, in float64."""
        named = _named(x)
        return {name: named[name].double() for name in self.parts}

    def put(self, flowing: Mapping[str, Tensor], x: Any) -> Any:
        """States x with these in the place of their flowing factors."""
        shown = {name: flowing[name].to(self.dtype) for name in self.parts}
        return {**x, **shown} if isinstance(x, Mapping) else shown.get("", x)

    def walked(self, flowing: Mapping[str, Tensor], v: Tensor) -> dict[str, Tensor]:
        """The flowing factors moved along a tangent vector ``(B, T)``."""
        steps = self.split(v)
        return {name: part.move(flowing[name], steps[name]) for name, part in self.parts.items()}

    def joined(self, velocity: Any) -> Tensor:
        """Tangents by factor as one vector in float64, 0 at stopped sites."""
        named, rows = _named(velocity), []
        for name, part in self.parts.items():
            own, stop = named[name].double(), self.stop[name]
            if stop is not None:
                own = torch.where(state.trail(stop, own.ndim - stop.ndim), 0.0, own)
            rows.append(own.reshape(len(own), math.prod(part.tangent_shape)))
        return torch.cat(rows, 1)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """One vector as tangents by factor."""
        shapes = {name: part.tangent_shape for name, part in self.parts.items()}
        columns = vector.split([math.prod(each) for each in shapes.values()], 1)
        return {
            name: column.reshape(len(column), *each)
            for (name, each), column in zip(shapes.items(), columns, strict=True)
        }


def _named(tree: Any, names: Any = None) -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return dict(tree)
    return {"": tree} if names is None else dict.fromkeys(names, tree)


def _is_full(stop: Tensor | None, n: int) -> bool:
    return stop is not None and n > 0 and bool(stop.all())


def _stopped(stop: Tensor | None, like: Tensor) -> Tensor:
    """How many sites of each item stand, ``(B,)``."""
    return torch.zeros_like(like) if stop is None else state.sum_sites(stop.double())
