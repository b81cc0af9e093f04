"""What a model was fitted to: the way between a caller's data and the states of a product.

A source knows the space of its states, encodes data, reads conditions as a sampler is given them,
and writes states back in the caller's form. A new kind of data is a new leaf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from reversal.errors import DataError
from reversal.restrictions import Restriction
from reversal.spaces import Product

State = dict[str, Tensor]


class Encoded(NamedTuple):
    """States and which of their sites are present, both dicts over the factors."""

    state: State
    present: dict[str, Tensor]


class Target(NamedTuple):
    """One discrete site: its factor, its place among the factor's sites, its number of values."""

    factor: str
    place: tuple[int, ...]
    num_values: int


class Source(ABC):
    """The way between data and states."""

    whole_factors: ClassVar[bool] = True
    """Whether a factor is a thing by itself, and not a pack of columns."""

    @property
    @abstractmethod
    def space(self) -> Product:
        """Where the states live."""

    @abstractmethod
    def encode(self, data: Any, seed: int = 0) -> Encoded:
        """Return the states of data, gaps and left out factors marked as not present."""

    @abstractmethod
    def decode(self, state: State, seed: int | None = None, conditions: Any = None) -> Any:
        """Return states in the caller's form.

        With a seed there are gaps as often as they were seen, but none where a condition holds.
        """

    @abstractmethod
    def given(self, conditions: Any, n: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the equalities as ``{factor: (values, known)}``, one row or n rows each."""

    @abstractmethod
    def restrictions(self, conditions: Any) -> tuple[Restriction, ...]:
        """Return the other conditions: sites and the sets that they may lie in."""

    @abstractmethod
    def events(self, conditions: Any) -> tuple[tuple[Restriction, ...], dict[str, Any]]:
        """Return the equalities of finite sites as sets of one code, and the others as `given`."""

    @abstractmethod
    def write_given(self, samples: Any, conditions: Any) -> Any:
        """Write conditions into samples, to the last bit of the caller's type."""

    @abstractmethod
    def complete(
        self, data: Any, states: list[State], present: dict[str, Tensor], first: int = 0
    ) -> Any:
        """Return draws x rows of data whose gaps are filled from states, one state per draw.

        Where data are some rows of more, `first` is the number of the first of them.
        """

    @abstractmethod
    def without(self, data: Any, name: str) -> Any:
        """Return data in which a target is a gap everywhere, whether it was there or not."""

    @abstractmethod
    def target(self, name: str) -> Target:
        """Return where a discrete column or factor stands."""

    @abstractmethod
    def probabilities(self, name: str, values: np.ndarray, data: Any) -> Any:
        """Return probabilities ``(B, K)`` of a target in the caller's form."""

    @abstractmethod
    def log_jacobian(self, encoded: Encoded) -> Tensor:
        """Return log |dz/dx| summed over the present sites, float64 ``(B,)``."""

    @property
    @abstractmethod
    def measure(self) -> dict[str, str]:
        """The reference measure of each column or factor."""

    @abstractmethod
    def space_yaml(self) -> str:
        """Return what is modelled, as text that a person reads: YAML."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types."""


def by_name(conditions: Any) -> Mapping[str, Any]:
    """Return conditions, which are a mapping.

    Raises:
        DataError: if they are none.
    """
    if not isinstance(conditions, Mapping):
        raise DataError(
            f"Expected a dict of names and values in `given`, got {conditions!r}. "
            'Write given={"species": "Adelie"}.'
        )
    return conditions


def required(names: Mapping[str, Any]) -> str:
    """Return names as a short list for a message."""
    shown = [repr(name) for name in list(names)[:8]]
    return ", ".join(shown) + (", ..." if len(names) > 8 else "")
