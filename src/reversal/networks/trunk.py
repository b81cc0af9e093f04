"""What is between the ports of a product: the family of networks, and how one is described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reversal.networks.embeddings import FactorPort, TimeEmbedding

NUM_CONDITIONS = 64
"""The width of the time embedding that modulates the blocks."""


class Trunk(nn.Module, ABC):
    """A network over the factors of a product: dicts in, dicts out.

    Args:
        ports: how each factor enters and leaves.
    """

    def __init__(self, ports: Mapping[str, FactorPort]) -> None:
        super().__init__()
        self.names = tuple(ports)
        self.ports = nn.ModuleList(ports.values())
        self.times = TimeEmbedding()
        num_times = self.times.num_features * len(ports)
        self.conditions = nn.Linear(num_times, NUM_CONDITIONS)

    @abstractmethod
    def outputs(self, features: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
        """Return one output per port, in the shape that it gives them.

        Args:
            features: what the sites of each factor show, ``(B, S, F)``.
            condition: the embedded times, ``(B, NUM_CONDITIONS)``.
        """

    @final
    def forward(
        self, x_t: Mapping[str, Tensor], t: Mapping[str, Tensor] | Tensor, cond: Any = None
    ) -> dict[str, Tensor]:
        """Return one output per factor.

        Args:
            x_t: states, per factor ``(B, *E)``.
            t: clocks, per factor ``(B, *sites)`` or ``(B,)``, or one ``(B,)`` for all.
            cond: not used.
        """
        shown = dict.fromkeys(self.names, t) if isinstance(t, Tensor) else t
        clocks = {name: shown[name].to(self.conditions.weight) for name in self.names}
        ports: Any = zip(self.names, self.ports, strict=True)
        features = [port.features(x_t[name], clocks[name]) for name, port in ports]
        times = torch.cat([self.times(clocks[name]) for name in self.names], 1)
        outputs = self.outputs(features, F.silu(self.conditions(times)))
        return dict(zip(self.names, outputs, strict=True))


@dataclass(frozen=True)
class Architecture(ABC):
    """The size of a trunk, whatever its ports: what a model is told and a run remembers.

    A leaf has the arguments of its trunk as fields, and defaults for them.
    """

    trunk: ClassVar[type[Any]]

    @final
    def build(self, ports: Mapping[str, FactorPort]) -> Trunk:
        """Return a new network; its weights come from torch's own generator."""
        return self.trunk(ports, **asdict(self))
