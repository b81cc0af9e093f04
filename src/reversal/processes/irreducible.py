r"""Whether all states of a process lead to one another, as far as that can be looked at.

The states of a chain are explored by the jumps that the space has, whatever their rates, and joined
where a rate is positive; then come strongly connected components. A chain is irreducible if there
is one. Beside real factors, on which the rates may depend, a rate counts as positive if it is at
one of many draws of them. Source: Norris (1997), section 1.2; Tarjan (1972), as in scipy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch

from reversal import state
from reversal.core import JumpSpace, Prior
from reversal.errors import CapabilityError
from reversal.operators import Local, Neighbors
from reversal.processes.movement import require_exit, require_movement
from reversal.spaces import Product

ENTRIES: Final = 1_000_000
"""How many pairs of a state and a jump are looked at, and how many numbers are drawn."""
COLUMNS: Final = 20
"""How many jumps a state of an infinite space may have to be looked at."""
LEVELS: Final = 100
"""How many jumps away from the first state an infinite space is explored."""
STATES: Final = 2_000
"""How many states of it at most."""
DRAWS: Final = 4_096
"""How many draws of the prior stand for real factors, at most."""
FEWEST: Final = 64
"""With less nothing is said."""


def require_irreducible(operator: Local, prior: Prior) -> None:
    """Refuse a process whose states do not all lead to one another, as far as that is looked at.

    *Finite spaces*, sites and factors jointly, are looked at in full, if they are small: 1,000
    states of one site, 15 sites of two. *Infinite ones*, such as counts, are looked at up to
    ``LEVELS`` jumps away from their example (at most ``STATES`` states), and what is refused is a
    part that no rate leaves and none enters: a pure death process passes. On *larger* finite ones
    only a draw of the prior that no rate leaves is refused.

    *Real factors* are looked at where ``DRAWS`` draws of the prior are (fewer, down to ``FEWEST``,
    if a million numbers do not suffice): a site that neither drifts nor diffuses at any of them is
    refused, and so is a process without any noise at all. That a covariance of lower rank is spread
    by the drift is believed. *Jumps beside them* are taken as possible if they are at one of these
    draws. So what passes is irreducible if the real factors can go everywhere; and a rate that is
    positive with a prior probability of p alone is missed, and may be what is refused for, with
    probability (1 - p)^n at n draws: 4e-5 at p = 1/400 and n = 4,096.

    Raises:
        CapabilityError: naming two states, the first of which has no path to the second, or what
            does not move.

    Cost: a call of the generator for all states, or all draws, and one of ``hop`` per site and
    jump.
    """
    parts = list(state.leaves(operator.space.parts))
    jumping: list[Any] = [part for part in parts if isinstance(part, JumpSpace)]
    columns = sum(math.prod(part.sites) * part.num_jumps for part in jumping)
    draws = None
    if len(jumping) < len(parts):
        draws = _drawn(prior, columns + sum(math.prod(part.event_shape) for part in parts))
        if draws is None:
            return
        require_movement(operator, draws)
    if not jumping:
        return
    is_finite = all(hasattr(part, "num_states") for part in jumping)
    count = (
        math.prod(part.num_states ** math.prod(part.sites) for part in jumping) if is_finite else 0
    )
    if count * columns > ENTRIES or (not is_finite and columns > COLUMNS):
        if is_finite and draws is None and columns * FEWEST <= ENTRIES:
            require_exit(operator, _drawn(prior, columns))
        return
    chain = _Chain.explored(operator, count or STATES, draws)
    pair = None if chain is None else chain.apart(is_finite)
    if pair is not None:
        where = "" if draws is None else ", at whatever draw of the prior the other factors stand"
        raise CapabilityError(
            f"Expected an irreducible chain, but no path leads from state {pair[0]} to state "
            f"{pair[1]}{where}: no stationary law is the only one and charges both. Add rates, or "
            f"use Mask, which absorbs every state by t = 1."
        )


def _drawn(prior: Prior, numbers: int) -> Any:
    """Draws of the prior, none where that takes too many numbers."""
    count = min(DRAWS, ENTRIES // max(numbers, 1))
    return None if count < FEWEST else prior.sample(count, torch.Generator().manual_seed(0))


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
    def explored(cls, operator: Local, most: int, draws: Any) -> _Chain | None:
        """Explore at most as many states as given, by all jumps, level by level."""
        space = operator.space
        if draws is not None:
            named = space.factors.items()
            space = Product({name: part for name, part in named if isinstance(part, JumpSpace)})
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
        return cls._linked(operator, space, states, keys, draws)

    @classmethod
    def _linked(
        cls, operator: Local, space: Any, states: Any, keys: np.ndarray, draws: Any
    ) -> _Chain | None:
        order, here = np.argsort(keys), np.arange(len(keys))
        jumps = list(_jumps(space, states))
        times = min(1 if draws is None else DRAWS, ENTRIES // (len(jumps) * len(keys)))
        if draws is not None and times < FEWEST:
            return None
        wide = states if draws is None else _beside(states, draws, times)
        laws, is_open = operator.characteristics(wide), np.zeros(len(keys), dtype=bool)
        sources, targets = [], []
        for name, site, k, y in jumps:
            rates = state.take(laws, name).rates
            rate = rates.reshape(len(rates), -1, rates.shape[-1])[:, site, k].detach()
            is_positive = (rate.view(-1, len(keys)) > 0).any(0).cpu().numpy()
            there = _keys(y)
            at = np.searchsorted(keys[order], there).clip(max=len(keys) - 1)
            is_known = keys[order][at] == there
            is_open |= ~is_known
            flows = is_known & is_positive
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


def _beside(states: Any, draws: Any, times: int) -> Any:
    """Every state beside every one of so many draws of the other factors."""
    rows = torch.arange(times) % state.batch_size(draws)
    count = state.batch_size(states)
    wide = {name: part.repeat(times, *[1] * (part.ndim - 1)) for name, part in states.items()}
    rest = {name: part for name, part in draws.items() if name not in states}
    return {
        **{
            name: part[rows.to(part.device)].repeat_interleave(count, 0)
            for name, part in rest.items()
        },
        **wide,
    }


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
