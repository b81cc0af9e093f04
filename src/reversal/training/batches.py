r"""The order of the items: permutation after permutation, a function of the step alone.

Batch k holds the places :math:`kB, \dots, (k+1)B - 1` of the permutations of all items, one after
another; every item is seen equally often, up to one visit.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from reversal.training.permutations import Feistel, permutation

MOST = 2**31 - 1


@final
class Batches:
    """Batches of one size for ever.

    Args:
        num_items: n.
        size: B.
        generator: one number is drawn from it.

    Memory: the permutation that is in use, see `permutations`.
    """

    def __init__(self, num_items: int, size: int, generator: torch.Generator) -> None:
        self.num_items, self.size = num_items, size
        self.seed = int(torch.randint(MOST, (), generator=generator))
        self._kept: dict[int, Tensor | Feistel] = {}

    def at(self, step: int) -> Tensor:
        """Return the items ``(B,)`` of a step."""
        start, stop = step * self.size, (step + 1) * self.size
        parts = []
        for turn in range(start // self.num_items, -(-stop // self.num_items)):
            first = turn * self.num_items
            parts.append(self._turn(turn)[max(0, start - first) : stop - first])
        return torch.cat(parts)

    def _turn(self, number: int) -> Tensor | Feistel:
        """Return a permutation; the last one is kept."""
        if number not in self._kept:
            own = torch.Generator().manual_seed((self.seed + number) % MOST)
            self._kept = {}
            self._kept = {number: permutation(self.num_items, own)}
        return self._kept[number]
