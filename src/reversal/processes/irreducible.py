r"""Whether every state of a chain can be reached from every other one.

The states are explored by the jumps that the space has, whatever their rates, and joined where a
rate is positive; then come strongly connected components. A chain is irreducible if there is one.
Source: Norris (1997), section 1.2; Tarjan (1972), as in scipy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch

from reversal import state
from reversal.core import JumpSpace
from reversal.errors import CapabilityError
from reversal.operators import Local, Neighbors

ENTRIES: Final = 1_000_000
"""How many pairs of a state and a jump are looked at."""
COLUMNS: Final = 20
"""How many jumps a state of an infinite space may have to be looked at."""
LEVELS: Final = 100
"""How many jumps away from the first state an infinite space is explored."""
STATES: Final = 2_000
"""How many states of it at most."""


def require_irreducible(operator: Local) -> None:
    """Refuse a chain whose states do not all lead to one another, as far as that is looked at.

    Of finite spaces, sites and factors jointly, all states are looked at, if they are few:
    1,000 of one site, 15 sites of two. Of an infinite one, such as counts, the states up to
    ``LEVELS`` jumps away from its example (at most ``STATES``) are, and what is refused is a part
    that no rate leaves and none enters: a pure death process passes. Nothing is said of larger
    spaces, of products with real factors, nor of diffusions, which a covariance of full rank makes
    irreducible.

    Raises:
        CapabilityError: naming two states, the first of which has no path to the second.

    Cost: a call of the generator for all states, and one of ``hop`` per site and jump.
    """
    parts = list(state.leaves(operator.space.parts))
    if not all(isinstance(part, JumpSpace) for part in parts):
        return
    columns = sum(math.prod(part.sites) * part.num_jumps for part in parts)
    is_finite = all(hasattr(part, "num_states") for part in parts)
    count = (
        math.prod(part.num_states ** math.prod(part.sites) for part in parts) if is_finite else 0
    )
    if count * columns > ENTRIES or (not is_finite and columns > COLUMNS):
        return
    pair = _Chain.explored(operator, count or STATES).apart(is_finite)
    if pair is not None:
        raise CapabilityError(
            f"Expected an irreducible chain, but no path leads from state {pair[0]} to state "
            f"{pair[1]}: no stationary law is the only one and charges both. Add rates, or use "
            f"Mask, which absorbs every state by t = 1."
        )


@final
@dataclass(frozen=True)
class _Chain:
    """Explored states, and the links between them.

    Args:
        states: S of them.
        links: indices of pairs with a positive rate, each ``(E,)``.
        is_open: whether a jump of a state leads to where nothing was explored, ``(S,)``.
    """

    states: Any
    links: tuple[np.ndarray, np.ndarray]
    is_open: np.ndarray

    @classmethod
    def explored(cls, operator: Local, most: int) -> _Chain:
        """Explore at most as many states as given, by all jumps, level by level."""
        space = operator.space
        states = border = space.example(1, torch.zeros((), dtype=torch.float64))
        keys = _keys(states)
        for _ in range(LEVELS):
            found = _joined([y for _, _, _, y in _jumps(space, border)])
            new, rows = np.unique(_keys(found), return_index=True)
            rows = rows[~np.isin(new, keys)]
            if not len(rows) or len(keys) + len(rows) > most:
                break
            border = _rows(found, rows)
            states, keys = _joined([states, border]), np.concatenate((keys, _keys(border)))
        return cls._linked(operator, states, keys)

    @classmethod
    def _linked(cls, operator: Local, states: Any, keys: np.ndarray) -> _Chain:
        order, here = np.argsort(keys), np.arange(len(keys))
        laws, is_open = operator.characteristics(states), np.zeros(len(keys), dtype=bool)
        sources, targets = [], []
        for name, site, k, y in _jumps(operator.space, states):
            rates = state.take(laws, name).rates
            rate = rates.reshape(len(keys), -1, rates.shape[-1])[:, site, k].detach().cpu().numpy()
            there = _keys(y)
            at = np.searchsorted(keys[order], there).clip(max=len(keys) - 1)
            is_known = keys[order][at] == there
            is_open |= ~is_known
            flows = is_known & (rate > 0)
            sources.append(here[flows])
            targets.append(order[at][flows])
        return cls(states, (np.concatenate(sources), np.concatenate(targets)), is_open)

    def apart(self, is_finite: bool) -> tuple[Any, Any] | None:
        """Two states, the first of which has no path to the second; None if none were found."""
        from scipy import sparse

        size, (source, target) = len(self.is_open), self.links
        graph = sparse.coo_array((np.ones(len(source), dtype=bool), self.links), (size, size))
        number, label = sparse.csgraph.connected_components(graph.tocsr(), connection="strong")
        crosses = label[source] != label[target]
        loose = np.ones(number, dtype=bool)
        loose[label[source[crosses]]] = False
        loose[label[self.is_open]] = False
        if not is_finite:
            loose[label[target[crosses]]] = False
        if number == 1 or not loose.any():
            return None
        inside = label == loose.argmax()
        return self._shown(inside.argmax()), self._shown((~inside).argmax())

    def _shown(self, row: Any) -> Any:
        return state.map(lambda part: part[int(row)].tolist(), self.states)


def _jumps(space: Any, x: Any) -> Iterator[tuple[str, int, int, Any]]:
    """Every factor, site and jump, with the states that they lead to."""
    for name in list(space.factors) if space.factors else [""]:
        for site, k, y in Neighbors(space, name).every(x):
            yield name, site, k, y


def _keys(x: Any) -> np.ndarray:
    """One number per state, the same for the same state alone: a linear hash of 64 bits."""
    codes = torch.cat([part.reshape(len(part), -1) for part in state.leaves(x)], 1).cpu().numpy()
    odd = np.random.default_rng(0).integers(-(2**62), 2**62, codes.shape[1]) * 2 + 1
    return codes.astype(np.int64) @ odd


def _joined(states: list[Any]) -> Any:
    first, *rest = states
    return state.map(lambda *parts: torch.cat(parts), first, *rest)


def _rows(x: Any, rows: np.ndarray) -> Any:
    return state.map(lambda part: part[torch.as_tensor(rows, device=part.device)], x)
