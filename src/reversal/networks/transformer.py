r"""A transformer over the sites of a product, modulated by time.

A site is a token: what it shows, through weights of its own. Blocks of attention and perceptrons,

.. math:: h^i_0 = W^i \phi(x^i_t, t^i) + e^i, \qquad
   h \leftarrow h + g \odot \mathrm{attention}(\mathrm{mod}(h)), \qquad
   h \leftarrow h + g' \odot \mathrm{perceptron}(\mathrm{mod}'(h)), \qquad
   \mathrm{mod}(h) = (1 + a) \odot \mathrm{norm}(h) + b,

with a, b and g affine in the time embedding and 0 at first; every site has an output of its own,
:math:`V^i \mathrm{norm}(h^i) + v^i`. Source: Vaswani et al. (2017), section 3.2; the modulation:
Peebles and Xie (2023), section 3.2 (adaLN-Zero); tokens of columns: Gorishniy et al. (2021),
section 3.3. Deviation: sites have their own output weights.
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

WIDENED = 2
"""How many times wider than the stream the perceptron of a block is inside."""


@final
class SiteLinear(nn.Module):
    r"""An affine map per site, :math:`y^i = W^i x^i + e^i`, ``(B, S, F)`` to ``(B, S, G)``.

    Args:
        num_sites: S.
        num_inputs: F.
        num_outputs: G.
    """

    def __init__(self, num_sites: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        bound = num_inputs**-0.5
        weight = torch.empty(num_sites, num_inputs, num_outputs).uniform_(-bound, bound)
        bias = torch.empty(num_sites, num_outputs).uniform_(-bound, bound)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map every site by its own weights."""
        return torch.baddbmm(self.bias[:, None], x.transpose(0, 1), self.weight).transpose(0, 1)


@final
class SiteHead(nn.Module):
    r"""What every site says, :math:`y^i = V^i h^i + v^i`, 0 at first.

    Args:
        port: what shapes the outputs.
        num_inputs: the width of a token, H.

    The weights are those of outputs that there are; products are padded as the outputs are.
    """

    def __init__(self, port: FactorPort, num_inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_inputs, port.num_outputs))
        self.bias = nn.Parameter(torch.zeros(1, port.num_outputs))

    def forward(self, tokens: Tensor, port: FactorPort) -> Tensor:
        """Turn tokens ``(B, S, H)`` into what the factor's denoiser reads."""
        weight, bias = port.shape(self.weight), port.shape(self.bias)
        by_site = (
            weight.reshape(len(weight), port.num_sites, -1),
            bias.reshape(1, port.num_sites, -1),
        )
        maps, shifts = (part.transpose(0, 1) for part in by_site)
        said = torch.baddbmm(shifts, tokens.transpose(0, 1), maps).transpose(0, 1)
        return said.reshape(len(tokens), *bias.shape[1:])


@final
class TransformerBlock(nn.Module):
    """Attention between sites, then a perceptron within each.

    Args:
        hidden_features: the width of the stream.
        num_heads: the number of heads; it divides the width.
        num_conditions: the width of the time embedding.
        dropout: the probability that an inner unit of the perceptron is left out in training.
    """

    def __init__(
        self, hidden_features: int, num_heads: int, num_conditions: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(hidden_features, elementwise_affine=False)
        self.modulation = nn.Linear(num_conditions, 6 * hidden_features)
        self.queries_keys_values = nn.Linear(hidden_features, 3 * hidden_features)
        self.mixed = nn.Linear(hidden_features, hidden_features)
        self.inner = nn.Linear(hidden_features, WIDENED * hidden_features)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(WIDENED * hidden_features, hidden_features)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Return the tokens ``(B, S, H)`` after this block."""
        scale, shift, gate, *inside = self.modulation(condition)[:, None].chunk(6, -1)
        h = h + gate * self._attention(torch.addcmul(shift, self.norm(h), 1 + scale))
        scale, shift, gate = inside
        inner = F.silu(self.inner(torch.addcmul(shift, self.norm(h), 1 + scale)))
        return h + gate * self.outer(self.dropout(inner))

    def _attention(self, h: Tensor) -> Tensor:
        heads = self.queries_keys_values(h).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.mixed(mixed.transpose(1, 2).flatten(2))


@final
class SiteTransformer(Trunk):
    """A transformer with one token per site.

    Args:
        ports: how each factor enters and leaves.
        hidden_features: the width of a token, H.
        num_blocks: the number of blocks.
        num_heads: the number of heads of attention; it divides the width.
        dropout: the probability that an inner unit of a perceptron is left out in training.

    Raises:
        ValueError: if the number of heads does not divide the width.

    Cost: S H (features + outputs of a site + blocks (8 H + 2 S)) multiplications per item of S
    sites.
    """

    def __init__(
        self,
        ports: Mapping[str, FactorPort],
        *,
        hidden_features: int = 64,
        num_blocks: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        if num_heads < 1 or hidden_features % num_heads:
            raise ValueError(
                f"Expected heads that share the width, got num_heads={num_heads} and "
                f"hidden_features={hidden_features}. Choose a width that is a multiple of it."
            )
        super().__init__(ports)
        self.inward = nn.ModuleList(
            SiteLinear(port.num_sites, port.num_features, hidden_features)
            for port in ports.values()
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden_features, num_heads, NUM_CONDITIONS, dropout)
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_features)
        self.heads = nn.ModuleList(SiteHead(port, hidden_features) for port in ports.values())

    def outputs(self, features: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
        """Turn sites into tokens, let them see each other, and read them one by one."""
        entries: Any = zip(self.inward, features, strict=True)
        h = torch.cat([inward(part) for inward, part in entries], 1)
        for block in self.blocks:
            h = block(h, condition)
        tokens = self.norm(h).split([part.shape[1] for part in features], 1)
        exits: Any = zip(self.ports, self.heads, tokens, strict=True)
        return [head(part, port) for port, head, part in exits]


@final
@dataclass(frozen=True)
class Transformer(Architecture):
    """The size of a `SiteTransformer`.

    Args:
        hidden_features: the width of a token.
        num_blocks: the number of blocks.
        num_heads: the number of heads of attention; it divides the width.
        dropout: the share of inner units left out in training; None for 0.1.
    """

    trunk: ClassVar[type[Any]] = SiteTransformer
    hidden_features: int = 64
    num_blocks: int = 3
    num_heads: int = 4
    dropout: float | None = None
