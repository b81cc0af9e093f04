"""The states one jump away along one factor, and tables with one column per jump."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state


@final
@dataclass(frozen=True)
class Neighbors:
    """The neighbors along jumping factor ``name`` of ``space``; of the space itself if plain.

    Sites are numbered as they lie in memory; a table is ``(B, *sites, N)``, N the number of jumps.
    """

    space: Any
    name: str = ""

    @property
    def part(self) -> Any:
        """The factor."""
        return state.take(self.space.parts, self.name)

    def every(self, x: Any) -> Iterator[tuple[int, int, Any]]:
        """Yield every site and jump, with the states that they lead to."""
        own = state.take(x, self.name)
        for site in range(math.prod(self.part.sites)):
            for k in range(self.part.num_jumps):
                yield site, k, self.hop(x, *_indices(own, site, k))

    def hop(self, x: Any, site: Tensor, k: Tensor) -> Any:
        """The states after jump k of one site each, both ``(B,)``."""
        own = state.take(x, self.name)
        landed = self._flat(self.part.hop(own, self._spread(own, k)))
        at = site[:, None]
        moved = self._flat(own).scatter(1, at, landed.gather(1, at)).view_as(own)
        return {**x, self.name: moved} if self.space.factors else moved

    def back(self, x: Any, site: Tensor, k: Tensor) -> Tensor:
        """The jump that leads back to x, ``(B,)``."""
        own = state.take(x, self.name)
        index = self._flat(self.part.back(own, self._spread(own, k)))
        return index.gather(1, site[:, None]).squeeze(1)

    def entry(self, table: Tensor, site: Tensor, k: Tensor) -> Tensor:
        """One entry of a table per item, ``(B,)``."""
        rows = table.reshape(len(table), math.prod(self.part.sites), self.part.num_jumps)
        row = rows.gather(1, site[:, None, None].expand(-1, 1, rows.shape[2])).squeeze(1)
        return row.gather(1, k[:, None]).squeeze(1)

    def gathered(self, x: Any, columns: Sequence[Tensor]) -> Tensor:
        """The table whose entries ``(B,)`` come in the order of ``every``."""
        own = state.take(x, self.name)
        shape = (*own.shape, self.part.num_jumps)
        return torch.stack(list(columns), 1).view(shape)

    def into(self, x: Any, rates: Any) -> Tensor:
        """The table of rates into x, by a function from states to tables of rates out of them."""
        own, columns = state.take(x, self.name), []
        for site, k, y in self.every(x):
            at, jump = _indices(own, site, k)
            rate = self.entry(rates(y), at, self.back(x, at, jump))
            moved = self._flat(state.take(y, self.name) != own).any(1)
            columns.append(torch.where(moved, rate, 0.0))
        return self.gathered(x, columns)

    def _flat(self, own: Tensor) -> Tensor:
        return own.reshape(len(own), math.prod(self.part.sites))

    def _spread(self, own: Tensor, k: Tensor) -> Tensor:
        return k.view(-1, *[1] * (own.ndim - 1)).expand_as(own)


def _indices(own: Tensor, site: int, k: int) -> tuple[Tensor, Tensor]:
    zero = torch.zeros(len(own), dtype=torch.int64, device=own.device)
    return zero + site, zero + k
