r"""Weighted particles: what they are worth, and how they are drawn anew.

The effective sample size :math:`(\sum w)^2 / \sum w^2` is that of Kong, Liu and Wong (1994);
systematic resampling is that of Kitagawa (1996), appendix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reversal import noise
from reversal.noise import Randomness


def effective_size(log_weights: Tensor) -> Tensor:
    """Return (sum w)^2 / sum w^2 over the last dimension, 0 where every weight is 0."""
    if not log_weights.shape[-1]:
        return log_weights.new_zeros(log_weights.shape[:-1])
    size = (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()
    return torch.where(log_weights.amax(-1) == -torch.inf, 0.0, size)


def resampled(log_weights: Tensor, n: int, generator: Randomness = None) -> Tensor:
    """Return n indices in random order, each in proportion to its weight, by one uniform number.

    Equal weights of n draws keep every draw once. Leading dimensions are systems of their own; in
    one whose weights are all 0, every draw counts alike.

    Args:
        log_weights: ``(*systems, m)``, in nats.
        n: how many.
        generator: where randomness comes from.

    Returns:
        int64 of shape ``(*systems, n)``.
    """
    lost = log_weights.amax(-1, keepdim=True) == -torch.inf
    edges = log_weights.masked_fill(lost, 0.0).softmax(-1).cumsum(-1)
    systems = log_weights.shape[:-1]
    u = noise.uniform((*systems, 1), log_weights, generator)
    levels = (torch.arange(n, dtype=torch.float64, device=edges.device) + u) / max(n, 1)
    edges = (edges / edges[..., -1:]).to(levels.dtype)
    index = torch.searchsorted(edges, levels, right=True).clamp(max=edges.shape[-1] - 1)
    order = noise.uniform((*systems, n), log_weights, generator).argsort(-1)
    return index.gather(-1, order)
