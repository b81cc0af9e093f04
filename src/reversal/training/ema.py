r"""An exponential moving average of weights, with a short memory at the start.

.. math:: \bar\theta_k = d_k \bar\theta_{k-1} + (1 - d_k) \theta_k, \qquad
   d_k = \min\big(d, \tfrac{1 + k}{10 + k}\big) .
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn


@final
class MovingAverage:
    """The average of a module's parameters over training.

    Args:
        module: whose parameters are followed.
        decay: d, the share kept at every update.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        self.shadow = [p.detach().clone() for p in self.parameters]
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mean, parameter in zip(self.shadow, self.parameters, strict=True):
            mean.lerp_(parameter, 1 - decay)

    def snapshot(self) -> list[Tensor]:
        """Return a copy of the average."""
        return [part.clone() for part in self.shadow]

    def named(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return weights in the order of the parameters by their names."""
        return dict(zip(self.names, weights, strict=True))

    @torch.no_grad()
    def install(self, weights: list[Tensor]) -> None:
        """Write weights into the module."""
        for parameter, part in zip(self.parameters, weights, strict=True):
            parameter.copy_(part)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module have the average inside the block, and its own weights again after it."""
        own = [p.detach().clone() for p in self.parameters]
        self.install(self.shadow)
        try:
            yield
        finally:
            self.install(own)
