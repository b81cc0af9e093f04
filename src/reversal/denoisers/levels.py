"""Signal and noise levels of every site under Gaussian noise, stopped sites included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal.clocks import spread, tensor
from reversal.grids import Tick, evaluate


def levels(path: Any, x_t: Tensor, t: Any) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma, ``(B, *sites)``; one row for all items where a tick is shared.

    A known site has alpha = 1 and sigma = 0; in a clock per site a dropped one has alpha = 0 and
    sigma = 1.
    """
    if isinstance(t, Tick) and t.pattern is None:
        now = evaluate(path.schedule.signal, t, dtype=x_t.dtype)
        shape = (1, *path.space.sites)
        return x_t.new_full(shape, now.alpha), x_t.new_full(shape, now.sigma)
    clock = tensor(t, len(x_t), x_t)
    at = spread(path.space, clock)
    now = path.schedule.signal(at.double())
    dropped = (at == 1) & (clock.ndim > 1)
    alpha = torch.where(dropped, 0.0, now.alpha).to(x_t)
    return alpha, torch.where(dropped, 1.0, now.sigma).to(x_t)
