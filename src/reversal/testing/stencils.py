r"""Derivatives by central differences, and the neighbors of a state.

Nine points reach order eight: with steps of 1/100 of the length over which the function changes,
rounding and truncation stay near 1e-11 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.operators import Neighbors

OFFSETS = (-4, -3, -2, -1, 1, 2, 3, 4)
_FIRST = (1 / 280, -4 / 105, 1 / 5, -4 / 5, 4 / 5, -1 / 5, 4 / 105, -1 / 280)
_SECOND = (-1 / 560, 8 / 315, -1 / 5, 8 / 5, 8 / 5, -1 / 5, 8 / 315, -1 / 560)
_CENTER = -205 / 72


def first(values: Tensor, step: float) -> Tensor:
    """First derivative from the values at the eight offsets, along dimension 0."""
    return torch.tensordot(torch.tensor(_FIRST, dtype=values.dtype), values, 1) / step


def second(values: Tensor, center: Tensor, step: float) -> Tensor:
    """Second derivative from the same values and the one at the center."""
    around = torch.tensordot(torch.tensor(_SECOND, dtype=values.dtype), values, 1)
    return (around + _CENTER * center) / step**2


def in_time(function: Callable[[float], Tensor], t: float, step: float = 1e-3) -> Tensor:
    """The derivative of a function of time."""
    return first(torch.stack([function(t + k * step) for k in OFFSETS]), step)


def repeated(x: Any, times: int) -> Any:
    """Stack a state ``times`` times along the batch."""
    return state.map(lambda part: part.repeat(times, *[1] * (part.ndim - 1)), x)


def replaced(x: Any, name: str, part: Tensor) -> Any:
    """The state with factor ``name`` replaced; a plain state is its own only factor."""
    return {**x, name: part} if isinstance(x, dict) else part


@final
@dataclass(frozen=True)
class Moves:
    """The points around x along each tangent direction of one factor.

    Args:
        points: ``8 T B`` states, T the number of tangent directions.
        step: the length of a step.
        tangents: T.
        batch: B.
    """

    points: Any
    step: float
    tangents: int
    batch: int

    @classmethod
    def around(cls, space: Any, x: Any, name: str, step: float) -> Moves:
        """Walk from x along every tangent direction of factor ``name`` of ``space``."""
        part = state.take(space.parts, name)
        own = state.take(x, name)
        tangents, batch = math.prod(part.tangent_shape), len(own)
        offsets = step * torch.tensor(OFFSETS, dtype=own.dtype)
        frame = offsets[:, None, None] * torch.eye(tangents, dtype=own.dtype)
        v = frame[:, :, None].expand(-1, -1, batch, -1).reshape(-1, *part.tangent_shape)
        wide = repeated(x, len(OFFSETS) * tangents)
        moved = part.move(state.take(wide, name), v)
        return cls(replaced(wide, name, moved), step, tangents, batch)

    def scalar(self, values: Tensor) -> Tensor:
        """Shape one number per point as ``(8, T, B)``."""
        return values.reshape(len(OFFSETS), self.tangents, self.batch)

    def diagonal(self, vectors: Tensor) -> Tensor:
        """Component i of a vector field at the points along direction i, ``(8, T, B)``."""
        field = vectors.reshape(len(OFFSETS), self.tangents, self.batch, self.tangents)
        return field.diagonal(dim1=1, dim2=3).mT

    def gradient(self, values: Tensor) -> Tensor:
        """The derivatives of one number per point, ``(B, T)``."""
        return first(self.scalar(values), self.step).T


@final
@dataclass(frozen=True)
class Around:
    """The states one jump from x along one factor, in one batch.

    Args:
        points: ``S N B`` states, S sites and N jumps; a jump that there is not leaves x as it is.
        near: the neighbors that they are.
        back: the jump that leads back to x, ``(S, N, B)``.
        differs: whether the point is not x itself, ``(S, N, B)``.
    """

    points: Any
    near: Neighbors
    back: Tensor
    differs: Tensor

    @classmethod
    def of(cls, noisy_space: Any, x: Any, name: str) -> Around:
        """All neighbors of x along factor ``name``."""
        near, back, points = Neighbors(noisy_space, name), [], []
        for site, k, y in near.every(x):
            at = torch.full((state.batch_size(x),), site)
            back.append(near.back(x, at, torch.full_like(at, k)))
            points.append(y)
        first_, *rest = points
        wide = state.map(lambda *parts: torch.cat(parts), first_, *rest)
        shape = (math.prod(near.part.sites), near.part.num_jumps, state.batch_size(x))
        own = state.take(repeated(x, len(points)), name)
        moved = (state.take(wide, name) != own).reshape(len(own), -1).any(1)
        return cls(wide, near, torch.stack(back).view(shape), moved.view(shape))

    def scalar(self, values: Tensor) -> Tensor:
        """Shape one number per point as ``(S, N, B)``."""
        return values.reshape(self.differs.shape)

    def returning(self, table: Tensor) -> Tensor:
        """The entry of a table at every point for the jump back to x, ``(S, N, B)``."""
        sites, jumps, batch = self.differs.shape
        at = torch.arange(sites).repeat_interleave(jumps * batch)
        return self.scalar(self.near.entry(table, at, self.back.flatten()))

    def out(self, table: Tensor) -> Tensor:
        """A table at x, ``(B, *sites, N)``, as ``(S, N, B)``."""
        sites, jumps, batch = self.differs.shape
        return table.reshape(batch, sites, jumps).permute(1, 2, 0)


def legal(part: Any) -> Tensor:
    """Which codes each site of a finite space may take, ``(N, *sites)``."""
    codes = torch.arange(part.num_states).reshape(-1, *[1] * len(part.sites))
    high = torch.tensor(part.cardinalities or part.num_values)
    allowed = (codes < high) | (codes == part.num_values if part.masked else False)
    return allowed.expand(part.num_states, *part.sites)


def every_code(part: Any) -> tuple[Tensor, Tensor]:
    """Return states with code k at every site, 0 where it is illegal, and where it is legal."""
    allowed = legal(part)
    codes = torch.arange(part.num_states).reshape(-1, *[1] * len(part.sites))
    return torch.where(allowed, codes, 0), allowed
