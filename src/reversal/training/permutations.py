r"""Random permutations of n places: stored ones, and beyond a size ones that are computed.

A permutation of n numbers takes 8 n bytes. Beyond ``MOST_STORED`` it is a Feistel network instead,
which needs no memory: with a place written as two halves (l, r) of b bits and keyed mixing
functions f_k, each round

.. math:: (l, r) \mapsto (r,\ l \oplus f_k(r))

is a bijection of the 2^{2b} >= n numbers. What lands at n or beyond is sent through again, until it
lands below n: that is a bijection of 0, ..., n - 1 too. The mixing function is a finalizer of
MurmurHash3 (Appleby 2011).

Sources: Luby and Rackoff (1988); Black and Rogaway (2002), "Ciphers with arbitrary finite domains",
section 3 (cycle walking).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

MOST_STORED: Final = 2**20
ROUNDS: Final = 6
MASK: Final = 2**32 - 1


@final
@dataclass(frozen=True)
class Feistel:
    """A permutation of 0, ..., n - 1 that is computed where it is asked for.

    Args:
        size: n.
        keys: one number in [0, 2^32) per round.

    Cost: less than four walks of six rounds per place on average.
    """

    size: int
    keys: tuple[int, ...]

    @classmethod
    def draw(cls, size: int, generator: torch.Generator) -> Feistel:
        """Return a random permutation."""
        keys = torch.randint(MASK + 1, (ROUNDS,), generator=generator)
        return cls(size, tuple(keys.tolist()))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: Tensor | slice) -> Tensor:
        """Return what stands at places, int64 ``(B,)`` in [0, n), or at a slice of them."""
        if isinstance(places, slice):
            places = torch.arange(*places.indices(self.size))
        found = self._once(places)
        while bool((beyond := found >= self.size).any()):
            found[beyond] = self._once(found[beyond])
        return found

    @property
    def _bits(self) -> int:
        """b, the bits of a half."""
        return max(1, -(-(self.size - 1).bit_length() // 2))

    def _once(self, places: Tensor) -> Tensor:
        bits = self._bits
        half = (1 << bits) - 1
        left, right = places >> bits, places & half
        for key in self.keys:
            left, right = right, left ^ (_mixed(right ^ key) & half)
        return left << bits | right


def permutation(size: int, generator: torch.Generator) -> Tensor | Feistel:
    """Return a random permutation of 0, ..., size - 1; its memory is bounded."""
    if size <= MOST_STORED:
        return torch.randperm(size, generator=generator)
    return Feistel.draw(size, generator)


def _mixed(numbers: Tensor) -> Tensor:
    """Return numbers in [0, 2^32) with all of their bits mixed."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = numbers ^ numbers >> shift
        numbers = (numbers * factor) & MASK
    return numbers ^ numbers >> 16
