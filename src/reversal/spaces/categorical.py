"""Finite sets: K states per site, or packed sites of mixed cardinalities."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal.core import JumpSpace, Leap
from reversal.errors import SpaceError
from reversal.noise import Randomness
from reversal.spaces.shapes import checked_shape


@final
class Categorical(JumpSpace):
    """Codes 0 .. K - 1, int64, every code a site.

    ``Categorical(27)`` has sites (); ``Categorical(27, 256)`` has (256,);
    ``Categorical((2, 16, 42))`` packs one site per cardinality, padded to the largest.

    Args:
        num_states: K, or one cardinality per site.
        sites: the shape of the sites; empty with packed cardinalities.
        masked: whether there is one more state, K, the mask.

    Raises:
        SpaceError: unless the numbers are positive integers.
    """

    def __init__(
        self, num_states: int | tuple[int, ...], *sites: int, masked: bool = False
    ) -> None:
        packed = num_states if isinstance(num_states, tuple) else None
        checked_shape("Categorical", packed or (num_states, *sites))  # pyright: ignore
        if packed and sites:
            raise SpaceError(
                f"Expected packed cardinalities {packed} to fix the sites, got the sites {sites} "
                f"too. Write Categorical({packed})."
            )
        self.cardinalities, self.masked = packed, masked
        self.num_values = max(packed or (int(num_states),))  # pyright: ignore
        self.num_states = self.num_values + masked
        self.event_shape = self.sites = self.tangent_shape = (len(packed),) if packed else sites

    @property
    def valid(self) -> Tensor | None:
        """Which values each site may take, ``(*sites, K)`` bool; None if all may take all."""
        if self.cardinalities is None or len(set(self.cardinalities)) == 1:
            return None
        return torch.arange(self.num_values) < torch.tensor(self.cardinalities)[:, None]

    def with_mask(self) -> Categorical:
        """The same sites with one more state, the mask."""
        return Categorical(self.cardinalities or self.num_values, *self._own_sites(), masked=True)  # pyright: ignore

    def contains(self, x: Tensor) -> Tensor:
        """Every code is one of its site's states."""
        high = torch.tensor(self.cardinalities or self.num_values, device=x.device)
        inside = (x >= 0) & (x < high)
        if self.masked:
            inside = inside | (x == self.num_values)
        return inside[..., None].flatten(1).all(1)

    def example(self, n: int, like: Tensor) -> Tensor:
        """State 0."""
        return torch.zeros((n, *self.event_shape), dtype=torch.int64, device=like.device)

    @property
    def num_jumps(self) -> int:
        """One jump per state: where to."""
        return self.num_states

    def hop(self, x: Tensor, k: Tensor) -> Tensor:
        """State k, where the site may take it."""
        if self.cardinalities is None:
            return k
        high = torch.tensor(self.cardinalities, device=x.device)
        return torch.where((k < high) | (k == self.num_values), k, x)

    def back(self, x: Tensor, k: Tensor) -> Tensor:
        """To x."""
        return x

    def jump(self, x: Tensor, rates: Tensor, generator: Randomness = None) -> Tensor:
        """One jump at most: codes have no order. Source: Campbell et al. (2022), section 4.1."""
        return self.leap(x, Leap.of_rates(rates), generator)

    def _own_sites(self) -> tuple[int, ...]:
        return () if self.cardinalities else self.sites

    def __repr__(self) -> str:
        inside = [str(self.cardinalities or self.num_values), *map(str, self._own_sites())]
        return f"Categorical({', '.join(inside)}{', masked=True' if self.masked else ''})"
