"""Products: named factors, nested ones flattened; a state is a dict of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Space
from reversal.errors import SpaceError


@final
class Product(Space):
    """A product of spaces by name: ``Product(pose=SO3(), label=Categorical(10))``.

    Factors of a nested product get dotted names. Also takes one mapping, for such names.
    """

    def __init__(self, factors: Mapping[str, Space] | None = None, /, **named: Space) -> None:
        if not isinstance(factors, Mapping | None):
            factors = {"": factors}
        given = {**(factors or {}), **named}
        opened = {k: s.parts if isinstance(s, Product) else s for k, s in given.items()}
        self.factors: dict[str, Space] = state.flatten(opened)
        wrong = [k for k, space in self.factors.items() if not k or not isinstance(space, Space)]
        if wrong or not self.factors:
            raise SpaceError(
                f"Expected Product to take named spaces, got {given}. "
                f"Write Product(pose=SO3(), label=Categorical(10))."
            )
        self.event_shape = {k: space.event_shape for k, space in self.factors.items()}  # pyright: ignore
        self.sites = {k: space.sites for k, space in self.factors.items()}  # pyright: ignore
        self.tangent_shape = {k: space.tangent_shape for k, space in self.factors.items()}  # pyright: ignore

    def contains(self, x: Mapping[str, Tensor]) -> Tensor:
        """Every factor lies in its space."""
        inside = [space.contains(x[name]) for name, space in self.factors.items()]
        return torch.stack(inside).all(0)

    def example(self, n: int, like: Tensor) -> dict[str, Tensor]:
        """An example of every factor."""
        return {name: space.example(n, like) for name, space in self.factors.items()}

    def move(self, x: Any, v: Any) -> Any:
        """Walk in every factor."""
        return {name: space.move(x[name], v[name]) for name, space in self.factors.items()}

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{k}={s}' for k, s in self.factors.items())})"
