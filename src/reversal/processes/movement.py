"""What must move if all states are to lead to one another, at draws of the prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.core import Generator, JumpSpace
from reversal.errors import CapabilityError
from reversal.operators import Local


def require_movement(operator: Local, draws: Any) -> None:
    """Refuse a real factor with a site that moves at no draw, and a process without noise.

    Where neither drift nor covariance of a site is other than 0, it keeps the value it started
    from, which no law at t = 1 forgets. Where nothing is random, x_t is a function of x_0.

    Raises:
        CapabilityError: naming the site, or that there is no noise.
    """
    laws, count = operator.characteristics(draws), state.batch_size(draws)
    named = operator.space.factors or {"": operator.space}
    is_random = any(isinstance(part, JumpSpace) for part in named.values())
    for name, part in named.items():
        if isinstance(part, JumpSpace):
            continue
        law = state.take(laws, name)
        drifts, spreads = (_nonzero(v, count, part.sites) for v in (law.drift, law.covariance))
        is_random |= bool(spreads.any())
        rests = ~(drifts | spreads)
        if bool(rests.any()):
            site = rests.nonzero()[0].tolist()
            which = f"site {site} of {part}" if site else f"{part}"
            raise CapabilityError(
                f"Expected an irreducible process, but {which} neither drifts nor diffuses at any "
                f"of {count} draws of the prior: it keeps the value it starts from. Give it a "
                f"covariance."
            )
    if not is_random:
        raise CapabilityError(
            f"Expected an irreducible process, got one without noise: its covariance is 0 at all "
            f"{count} draws of the prior, and nothing jumps. Give it a covariance, or use "
            f"Interpolant for a flow."
        )


def require_exit(operator: Local, draws: Any) -> None:
    """Refuse a chain that no rate leaves at one of the draws, whatever else it does.

    Raises:
        CapabilityError: naming the state.
    """
    laws = operator.characteristics(draws)
    leaving = state.total(state.map(_leaving, operator.space.parts, laws))
    if bool((leaving <= 0).any()):
        row = int((leaving <= 0).nonzero()[0])
        stuck = state.map(lambda part: part[row].flatten()[:8].tolist(), draws)
        raise CapabilityError(
            f"Expected an irreducible chain, but no rate leads out of a state that the prior draws,"
            f" which begins with {stuck}. Add rates, or use Mask, which absorbs every state by "
            f"t = 1."
        )


def _leaving(part: Any, law: Generator) -> Tensor:
    return law.total.flatten(1).sum(1) if part.sites else law.total


def _nonzero(value: Any, count: int, sites: tuple[int, ...]) -> Tensor:
    """Whether an entry of a site is other than 0 at one of the draws, of the shape of the sites."""
    if value is None:
        return torch.zeros(sites, dtype=torch.bool)
    value = torch.as_tensor(value).detach()
    if value.ndim <= 1 + len(sites):
        value = value.expand(count, *sites)
    return (value != 0).reshape(count, *sites, -1).any(-1).any(0)
