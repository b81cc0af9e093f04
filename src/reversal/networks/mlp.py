r"""A residual perceptron over all sites of a product, modulated by time.

.. math:: h_0 = W \phi(x_t, t), \qquad
   h_{l+1} = h_l + V_l\, \mathrm{drop}\,\mathrm{silu}\big(U_l\, [(1 + a_l) \odot
   \mathrm{norm}(h_l) + b_l]\big),

with (a_l, b_l) affine in the time embedding, and one linear head per factor. Source of the
modulation: Perez et al. (2018), eq. (1); Peebles and Xie (2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reversal.networks.embeddings import FactorPort
from reversal.networks.trunk import NUM_CONDITIONS, Architecture, Trunk


@final
class ResidualBlock(nn.Module):
    """One modulated residual block.

    Args:
        hidden_features: the width of the stream.
        num_conditions: the width of the time embedding.
        dropout: the probability that an inner unit is left out in training.
    """

    def __init__(self, hidden_features: int, num_conditions: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_features, elementwise_affine=False)
        self.modulation = nn.Linear(num_conditions, 2 * hidden_features)
        self.inner = nn.Linear(hidden_features, hidden_features)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden_features, hidden_features)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Return the stream ``(B, H)`` after this block."""
        scale, shift = self.modulation(condition).chunk(2, -1)
        inside = torch.addcmul(shift, self.norm(h), 1 + scale)
        return h + self.outer(self.dropout(F.silu(self.inner(inside))))


@final
class ResidualMLP(Trunk):
    """A perceptron that reads all sites at once.

    Args:
        ports: how each factor enters and leaves.
        hidden_features: the width of the stream.
        num_blocks: the number of residual blocks.
        dropout: the probability that an inner unit is left out in training.

    Cost: (features + outputs + 2 blocks * hidden) * hidden multiplications per item.
    """

    def __init__(
        self,
        ports: Mapping[str, FactorPort],
        *,
        hidden_features: int = 256,
        num_blocks: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(ports)
        num_features = sum(port.num_sites * port.num_features for port in ports.values())
        self.inward = nn.Linear(num_features, hidden_features)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_features, NUM_CONDITIONS, dropout) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_features)
        self.heads = nn.ModuleList(
            nn.Linear(hidden_features, port.num_outputs) for port in ports.values()
        )
        for head in self.heads:
            nn.init.zeros_(head.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType]

    def outputs(self, features: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
        """Read all sites at once, and say all outputs at once."""
        h = self.inward(torch.cat([flat(part) for part in features], 1))
        for block in self.blocks:
            h = block(h, condition)
        h = F.silu(self.norm(h))
        heads: Any = zip(self.ports, self.heads, strict=True)
        return [port.shape(head(h)) for port, head in heads]


@final
@dataclass(frozen=True)
class Perceptron(Architecture):
    """The size of a `ResidualMLP`.

    Args:
        hidden_features: the width of the stream.
        num_blocks: the number of residual blocks.
        dropout: the share of inner units left out in training; None for 0.1.
    """

    trunk: ClassVar[type[Any]] = ResidualMLP
    hidden_features: int = 256
    num_blocks: int = 4
    dropout: float | None = None


def flat(features: Tensor) -> Tensor:
    """Return ``(B, S, F)`` as ``(B, S F)``: values by site, then known, dropped and clocks."""
    values, flags = features.split([features.shape[-1] - 3, 3], -1)
    return torch.cat([values.flatten(1), flags.mT.flatten(1)], 1)
