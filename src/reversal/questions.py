"""What is asked of a sampler: which sites stand known, and which are dropped.

A known site stands at time 0 with the given value; a dropped site stands at 1 and is marginalized
out; the others run. Neither moves: the stop mask is the union of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.errors import ClockError, ConvergenceError, SpaceError, listed
from reversal.grids import Grid
from reversal.state import State, Tree

if TYPE_CHECKING:
    from reversal.space import Space


@final
@dataclass(frozen=True)
class Question:
    """The known and the dropped sites of n items.

    Args:
        values: the known values, per factor a tensor ``(n, *E)`` or None.
        known: per factor a bool mask ``(n, *sites)`` or None.
        dropped: per factor a bool mask ``(n, *sites)`` or None.
    """

    values: Tree = None
    known: Tree = None
    dropped: Tree = None

    @property
    def stop(self) -> Tree:
        """The union of known and dropped, per factor; None where every site runs."""
        if self.known is None and self.dropped is None:
            return None
        return state.map(_union, self.known, self.dropped)

    def start(self, space: Space, prior: State, x_1: State | None) -> State:
        """Put together the first state: prior draws, then ``x_1``, then the known values.

        A dropped site holds its prior draw, whatever ``x_1`` says.
        """
        x = prior if x_1 is None else state.map(_keep_dropped, x_1, prior, self.dropped, space.lift)
        if self.values is None:
            return x
        return state.map(_put_known, x, self.values, self.known, space.lift)

    def ticks(self, space: Space, grid: Grid | Mapping[str, Grid]) -> list[Tree]:
        """Return the times of a grid as trees of ticks that know the stopped sites.

        Raises:
            ClockError: if ``grid`` is neither a ``Grid`` nor one per factor, of one length.
        """
        lengths = {part.steps if isinstance(part, Grid) else None for part in state.leaves(grid)}
        factors = set(grid) if isinstance(grid, Mapping) else set(space.factors or ())
        if None in lengths or len(lengths) != 1 or factors != set(space.factors or ()):
            raise ClockError(
                f"Expected a Grid, or one Grid per factor with equal numbers of steps, for "
                f"{space}, got {grid!r}. Use Grid.uniform(steps), or process.grid(steps)."
            )
        if self.stop is None and isinstance(grid, Grid):
            return list(grid.ticks())
        names = grid if isinstance(grid, Mapping) else self.stop
        if not isinstance(names, Mapping):
            return list(grid.ticks(*_pattern(self.known, self.dropped)))  # pyright: ignore
        columns = {
            name: state.take(grid, name).ticks(
                *_pattern(state.take(self.known, name), state.take(self.dropped, name))
            )
            for name in names
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_counts(n: Any, steps: Any) -> None:
    """Raise unless n is an integer >= 0 and steps one >= 1."""
    if not isinstance(n, int) or n < 0:
        raise SpaceError(f"Expected n, an integer >= 0, got {n!r}. 0 gives an empty batch.")
    if not isinstance(steps, int) or steps < 1:
        raise ClockError(f"Expected steps, an integer >= 1, got {steps!r}. Give e.g. 100.")


def check_finite(x: State, sampler: object) -> State:
    """Return the states at the end of a walk.

    Raises:
        ConvergenceError: if any real one is not finite; reads values, once a walk.
    """
    for name, part in x.items() if isinstance(x, Mapping) else (("", x),):
        bad = ~part.flatten(1).isfinite().all(1) if part.is_floating_point() else None
        if bad is not None and bool(bad.any()):
            where = f" in {name!r}" if name else ""
            raise ConvergenceError(
                f"Expected finite states at the end of {sampler}, but {int(bad.sum())} of "
                f"{len(bad)} items are not{where}, the first of them item {int(bad.int().argmax())}"
                f". The steps were too long for what they followed, or the network's output is not "
                f"finite. Take more steps; with guidance, less strength or more noise in the "
                f"observation (DPS makes steps stiff: take PiGDM or MomentMatching)."
            )
    return x


def ask(space: Space, n: int, given: Any, dropped: Any, like: Tensor) -> Question:
    """Read ``given`` and ``dropped`` as the contract writes them.

    Args:
        space: where the data live.
        n: the number of items.
        given: ``{"factor": values}`` or ``{"factor": (values, known)}`` on a product, and
            ``(values, known)`` on a plain space; known is ``sites`` or ``(n, *sites)``; one row
            broadcasts; where known is False any legal value stands.
        dropped: ``{"factor": True}`` or ``{"factor": mask}``; a mask on a plain space.
        like: shows the device and dtype of the states.

    Raises:
        SpaceError: for unknown factors, wrong shapes or dtypes, values outside the space.
        ClockError: if a site is both known and dropped.
    """
    if given is None and dropped is None:
        return Question()
    parts = space.parts
    if not isinstance(parts, Mapping):
        values, known = _evidence("x", parts, n, given, like)
        question = Question(values, known, _mask("x", parts, n, dropped, like))
    else:
        known_of = _named("given", given, parts)
        read = {k: _evidence(k, p, n, known_of.get(k), like) for k, p in parts.items()}
        lost = _named("dropped", dropped, parts)
        question = Question(
            {name: pair[0] for name, pair in read.items()},
            {name: pair[1] for name, pair in read.items()},
            {name: _mask(name, p, n, lost.get(name), like) for name, p in parts.items()},
        )
    state.map(_disjoint, question.known, question.dropped)
    return question


def _named(argument: str, mapping: Any, parts: Mapping[str, Space]) -> Mapping[str, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise SpaceError(
            f"Expected `{argument}` to be a dict over the factors {listed(parts)}, got "
            f"{type(mapping).__name__}. Write {argument}={{'{next(iter(parts))}': ...}}."
        )
    flat = state.flatten(mapping)
    unknown = set(flat) - set(parts)
    if unknown:
        raise SpaceError(
            f"Expected `{argument}` to name factors among {listed(parts)}, got {listed(unknown)}. "
            f"Use one of those names."
        )
    return flat


def _evidence(name: str, space: Space, n: int, given: Any, like: Tensor) -> tuple[Any, Any]:
    if given is None:
        return None, None
    values, known = given if isinstance(given, tuple) and len(given) == 2 else (given, True)
    try:
        values = torch.as_tensor(values).to(like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpaceError(
            f"Expected the given values of `{name}` as numbers, or as (values, known), got "
            f"{given!r}. Write given={{'{name}': tensor}}."
        ) from error
    values = values.to(like.dtype) if space.is_real else values
    if values.shape == space.event_shape:
        values = values[None]
    if values.shape[1:] != space.event_shape or values.shape[0] not in (1, n):
        raise SpaceError(
            f"Expected the given values of `{name}` to have shape {(n, *space.event_shape)} or one "
            f"row {(1, *space.event_shape)}, got {tuple(values.shape)}. Give one row per sample."
        )
    known = _mask(name, space, n, known, like)
    filled = torch.where(state.trail(known, space.lift), values, space.example(n, values))
    space.check(filled, f"given[{name!r}]")
    return filled, known


def _mask(name: str, space: Space, n: int, mask: Any, like: Tensor) -> Any:
    if mask is None or mask is False:
        return None
    mask = torch.as_tensor(mask, device=like.device)
    if mask.dtype != torch.bool:
        raise SpaceError(
            f"Expected the mask of `{name}` to be bool, got {mask.dtype}. Write mask.bool()."
        )
    if mask.ndim and mask.shape not in (space.sites, (n, *space.sites), (1, *space.sites)):
        raise SpaceError(
            f"Expected the mask of `{name}` to have shape {space.sites} (its sites) or "
            f"{(n, *space.sites)}, got {tuple(mask.shape)}. A site is what is noised as one."
        )
    return mask.expand(n, *space.sites)


def _union(known: Tensor | None, dropped: Tensor | None) -> Tensor | None:
    if known is None or dropped is None:
        return dropped if known is None else known
    return known | dropped


def _disjoint(known: Tensor | None, dropped: Tensor | None) -> None:
    if known is not None and dropped is not None and bool((known & dropped).any()):
        raise ClockError(
            "Expected every site to be running, known or dropped, got sites that are both given "
            "and dropped. Take them out of one of the two."
        )


def _pattern(known: Tensor | None, dropped: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    stop = _union(known, dropped)
    if stop is None:
        return None, None
    late = torch.zeros_like(stop) if dropped is None else dropped
    return late.float(), ~stop


def _keep_dropped(x: Tensor, prior: Tensor, dropped: Tensor | None, lift: int) -> Tensor:
    return x if dropped is None else torch.where(state.trail(dropped, lift), prior, x)


def _put_known(x: Tensor, values: Tensor | None, known: Tensor | None, lift: int) -> Tensor:
    return (
        x if values is None or known is None else torch.where(state.trail(known, lift), values, x)
    )
