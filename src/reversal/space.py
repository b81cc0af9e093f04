"""Spaces: where data live, what has a clock, and how to walk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.errors import ClockError, SpaceError, listed
from reversal.generators import Leap
from reversal.grids import Tick
from reversal.noise import Randomness


class Space(ABC):
    """Where x lives: ``event_shape`` E, ``sites`` (what has a clock), ``tangent_shape``.

    ``measure`` names what a density is with respect to.
    """

    event_shape: tuple[int, ...]
    sites: tuple[int, ...]
    tangent_shape: tuple[int, ...]
    is_real: bool = True
    measure: str = "Lebesgue"
    factors: Mapping[str, Space] | None = None

    @abstractmethod
    def contains(self, x: Any) -> Tensor:
        """Tell item by item, ``(B,)`` bool, whether a state of the right shape lies here."""

    @abstractmethod
    def example(self, n: int, like: Tensor) -> Any:
        """Return n copies of one legal state, to stand where no value is known."""

    @abstractmethod
    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """Walk from x along the tangent vector v, ``(B, *tangent_shape)``: the exponential map."""

    @final
    @property
    def parts(self) -> Any:
        """The factors of a product by name; the space itself elsewhere."""
        return self.factors or self

    @final
    @property
    def lift(self) -> Any:
        """The number of event dimensions beyond the sites, per factor."""
        return state.map(lambda part: len(part.event_shape) - len(part.sites), self.parts)

    @final
    def align(self, t: Any) -> Any:
        """Shape a clock ``(B,)`` or ``(B, *sites)`` so that it broadcasts over the sites.

        Raises:
            ClockError: for another shape or dtype; for times outside [0, 1], on the CPU, where
                looking at values does not wait for a device.
        """
        if isinstance(t, Tick):
            return t
        if not isinstance(t, Tensor):
            raise ClockError(
                f"Expected a clock as a tensor of shape (B,) or (B, *{self.sites}), got {t!r}. "
                f"Write torch.full((B,), t)."
            )
        if t.ndim == 0 or t.shape[1:] not in ((), self.sites) or not t.is_floating_point():
            raise ClockError(
                f"Expected a floating clock of shape (B,) or (B, *{self.sites}) in {self}, got "
                f"{tuple(t.shape)} of {t.dtype}. Give one time per item, or one per site."
            )
        if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
            raise ClockError(
                f"Expected times within [0, 1], got {t.min().item():g} to {t.max().item():g}. "
                f"0 is data and 1 is noise; map other conventions to it."
            )
        return t if t.ndim > 1 else t[(...,) + (None,) * len(self.sites)]

    @final
    def check(self, x: Any, name: str = "x", n: int | None = None) -> None:
        """Raise ``SpaceError`` unless x is a batch (of n) states of this space; reads values."""
        self.check_form(x, name)
        if n is not None and state.batch_size(x) != n:
            raise SpaceError(
                f"Expected `{name}` to have {n} items, got {state.batch_size(x)}. Give one each."
            )
        for key, part in self.parts.items() if self.factors else (("", self),):
            values = x[key] if self.factors else x
            inside = part.contains(values)
            if not bool(inside.all()):
                row = int((~inside).nonzero()[0])
                where = f"{name}[{key!r}]" if self.factors else name
                raise SpaceError(
                    f"Expected every item of `{where}` to lie in {part}, but item {row} does not: "
                    f"{values[row].flatten()[:4].tolist()}... "
                    f"Look for NaN, codes out of range, a wrong scale."
                )

    @final
    def check_form(self, x: Any, name: str = "x") -> None:
        """Raise ``SpaceError`` unless x has the factors, shapes and dtypes of this space."""
        if self.factors:
            if not isinstance(x, Mapping) or set(x) != set(self.factors):
                got = listed(x) if isinstance(x, Mapping) else type(x).__name__
                raise SpaceError(
                    f"Expected `{name}` to be a dict with the factors {listed(self.factors)}, got "
                    f"{got}. Give one tensor per factor."
                )
            for key, part in self.factors.items():
                part.check_form(x[key], f"{name}[{key!r}]")
            if len({len(x[key]) for key in self.factors}) > 1:
                sizes = {key: len(x[key]) for key in self.factors}
                raise SpaceError(
                    f"Expected as many items in every factor of `{name}`, got {sizes}. "
                    f"Give one row of each factor per item."
                )
            return
        if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[1:] != self.event_shape:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise SpaceError(
                f"Expected `{name}` to have shape (B, *{self.event_shape}) in {self}, got {got}. "
                f"Put the batch first and the event shape last."
            )
        if not (x.is_floating_point() if self.is_real else x.dtype == torch.int64):
            wanted = "a floating dtype" if self.is_real else "torch.int64"
            raise SpaceError(
                f"Expected `{name}` to have {wanted} in {self}, got {x.dtype}. Convert it first."
            )


class JumpSpace(Space):
    """Where sites jump: a table of rates has one column for each of ``num_jumps`` jumps."""

    is_real = False
    measure = "counting"
    is_ordered = False  # whether a jump is the same step at every state, such as one up
    num_jumps: int

    @abstractmethod
    def hop(self, x: Tensor, k: Tensor) -> Tensor:
        """Where jump k leads from x, site by site; x itself where there is no such jump."""

    @abstractmethod
    def back(self, x: Tensor, k: Tensor) -> Tensor:
        """The jump that leads from ``hop(x, k)`` to x."""

    @abstractmethod
    def jump(self, x: Tensor, rates: Tensor, generator: Randomness = None) -> Tensor:
        """Draw from x after one Euler step: ``rates``, ``(B, *sites, N)``, are integrated over it.

        Where states have no order it is one jump at most, ``leap(x, Leap.of_rates(rates))``: a
        second one would follow rates that belong to another state. On ordered states every jump
        happens a Poisson number of times (tau-leaping).
        """

    @final
    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """Refused: there is no tangent to walk along."""
        raise SpaceError(f"Expected a space with tangents, got {self}. Its states jump instead.")

    @final
    def leap(self, x: Tensor, law: Leap, generator: Randomness = None) -> Tensor:
        """Draw the next state from x by the law of one step."""
        return law.sample(x, generator, self.hop)
