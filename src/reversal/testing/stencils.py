r"""Derivatives by central differences, and the neighbors of a state.

Nine points reach order eight: with steps of 1/100 of the length over which the function changes,
rounding and truncation stay near 1e-11 in float64. On finite sets the neighbors of x are the states
that differ from x at one site.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state

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
class Neighbors:
    """The states that differ from x at one site of one finite factor.

    Args:
        points: ``S N B`` states, S sites and N codes; an illegal code leaves x as it is.
        sites: S.
        codes: N.
        own: the codes of x, ``(S, B)``.
        differs: whether the point is legal and not x itself, ``(S, N, B)``.
    """

    points: Any
    sites: int
    codes: int
    own: Tensor
    differs: Tensor

    @classmethod
    def of(cls, noisy_space: Any, x: Any, name: str) -> Neighbors:
        """All neighbors of x along factor ``name``."""
        part = state.take(noisy_space.parts, name)
        flat = state.take(x, name).reshape(len(state.take(x, name)), -1)
        batch, sites = flat.shape
        wide = flat.expand(sites, part.num_states, batch, sites).clone()
        codes = torch.arange(part.num_states)[None, :, None]
        allowed = legal(part).reshape(part.num_states, sites).T[..., None]
        new = torch.where(allowed, codes, flat.T[:, None])
        index = torch.arange(sites)[:, None, None, None]
        wide.scatter_(-1, index.expand(*new.shape, 1), new[..., None])
        points = replaced(
            repeated(x, sites * part.num_states), name, wide.reshape(-1, *part.event_shape)
        )
        return cls(points, sites, part.num_states, flat.T, new != flat.T[:, None])

    def scalar(self, values: Tensor) -> Tensor:
        """Shape one number per point as ``(S, N, B)``."""
        return values.reshape(self.sites, self.codes, -1)

    def back(self, table: Tensor) -> Tensor:
        """Entry (site, code of x) of a table at the neighbor that differs there: ``(S, N, B)``."""
        wide = table.reshape(self.sites, self.codes, -1, self.sites, table.shape[-1])
        here = torch.stack([wide[d, :, :, d] for d in range(self.sites)])
        own = self.own[:, None, :, None].expand(*here.shape[:-1], 1)
        return here.gather(-1, own).squeeze(-1)

    def out(self, table: Tensor) -> Tensor:
        """A table at x, ``(B, *sites, N)``, as ``(S, N, B)``."""
        return table.reshape(len(table), self.sites, self.codes).permute(1, 2, 0)


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
