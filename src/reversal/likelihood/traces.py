r"""The trace of a Jacobian: the sum of :math:`e_k^T J e_k`, or of :math:`z^T J z` on average."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import torch
from torch import Tensor

AT_ONCE: Final = 2**14
"""The size of a batch of backward passes: small ones gain tenfold by it, large ones nothing."""


def trace(output: Tensor, v: Tensor, again: bool = False) -> Tensor:
    """The trace of d output / d v, item by item, ``(B, 1)``; T backward passes.

    Where ``again``, it can be differentiated itself.
    """
    total = output.new_zeros(len(v))
    axes = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
    for some in axes.split(_chunk(v)):
        z = some[:, None].expand(len(some), *v.shape)
        total = total + _forms(output, v, z, again).sum(0)
    return total[:, None]


def probed(output: Tensor, v: Tensor, signs: Tensor, again: bool = False) -> Tensor:
    """The quadratic form of every sign vector ``(B, K, T)``, ``(B, K)``; K backward passes."""
    parts = [_forms(output, v, z, again) for z in signs.transpose(0, 1).split(_chunk(v))]
    return torch.cat(parts).T


def _chunk(v: Tensor) -> int:
    return max(1, AT_ONCE // max(1, v.numel()))


def _forms(output: Tensor, v: Tensor, z: Tensor, again: bool) -> Tensor:
    """z^T J z for each of the vectors z ``(K, B, T)``, ``(K, B)``."""
    if not output.requires_grad:
        return z.new_zeros(z.shape[:2])
    return torch.stack(
        [(row * own).sum(1) for row, own in zip(_rows(output, v, z, again), z, strict=True)]
    )


def _rows(output: Tensor, v: Tensor, z: Tensor, again: bool) -> Iterator[Tensor] | Tensor:
    """J^T z: all at once where every operation of the network can be, else one by one."""
    pull = partial(
        torch.autograd.grad,
        output,
        v,
        retain_graph=True,
        materialize_grads=True,
        create_graph=again,
    )
    if len(z) > 1:
        try:
            return pull(z, is_grads_batched=True)[0]
        except RuntimeError:  # an operation without a batched derivative
            pass
    return (pull(own)[0] for own in z)
