"""What a network sees of a clock, and what shows its device and dtype."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reversal import state
from reversal.core import Denoiser
from reversal.grids import RUNNING_MAX


def weight(network: Any) -> Tensor:
    """The first parameter of a network; float32 on the CPU if it has none."""
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            return parameter
    return torch.empty(())


def clock(denoiser: Denoiser, network: Any, x_t: Any, t: Any, has_real: bool) -> Any:
    """The clock as a network sees it: in the dtype of real states, or else of its parameters.

    Args:
        denoiser: what asks the network.
        network: any callable.
        x_t: the states.
        t: their clock, of the process.
        has_real: whether a factor of the states is real.
    """
    like = state.like(x_t)
    shown = denoiser.clocks.show(denoiser.process.space, t, state.batch_size(x_t), like)
    dtype = None
    if has_real:
        dtype = like.dtype
    elif isinstance(network, nn.Module):
        dtype = weight(network).dtype
    return state.map(partial(_cast, dtype), shown)


def _cast(dtype: torch.dtype | None, t: Tensor) -> Tensor:
    """Give a clock a dtype; what runs is not rounded up to 1, which is dropped."""
    if dtype is None or t.dtype == dtype:
        return t
    return torch.where(t < 1, t.clamp(max=RUNNING_MAX), t).to(dtype)
