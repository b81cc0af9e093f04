r"""A law on a small finite product of categories, enumerated: the oracle of every sequence."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Path
from reversal.denoisers.empirical import Empirical
from reversal.errors import SpaceError


@final
class Enumerated(Denoiser):
    """The exact denoiser of a law given as a table.

    Args:
        process: a path on ``Categorical(K, *sites)`` or a product of such spaces.
        probabilities: one axis per site, in the order of the factors and their sites, each as long
            as the site's number of states.

    Raises:
        SpaceError: if the table does not have one axis per site of the right length.

    Cost: every state with positive probability, at every call.
    """

    def __init__(self, process: Path, probabilities: Tensor) -> None:
        super().__init__()
        parts = list(state.leaves(process.space.parts))
        real = any(part.is_real for part in parts)
        axes = [] if real else [size for part in parts for size in _sizes(part)]
        if real or tuple(probabilities.shape) != tuple(axes):
            raise SpaceError(
                f"Expected a table with one axis per site, of shape {tuple(axes)}, for "
                f"{process.space}, got {tuple(probabilities.shape)}. Sum to one over all axes."
            )
        support = probabilities.nonzero()
        columns = iter(support.split([part_size(part) for part in parts], dim=1))
        atoms = state.map(lambda part: next(columns).reshape(-1, *part.sites), process.space.parts)
        self.process: Any = process
        self.states: Any = atoms
        self.oracle = Empirical(process, atoms, probabilities[tuple(support.T)])
        self.clocks: Any = self.oracle.clocks

    @property
    def like(self) -> Tensor:
        """The table's device and dtype."""
        return self.oracle.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The exact posteriors."""
        return self.oracle(x_t, t, cond)


def part_size(space: Any) -> int:
    """The number of sites of a space."""
    return len(_sizes(space))


def _sizes(space: Any) -> list[int]:
    count = 1
    for length in space.sites:
        count *= length
    return list(space.cardinalities) if space.cardinalities else [space.num_values] * count
