r"""Networks that read evidence: where a law lies given it, and what is left to denoise.

A `ConditionalGaussian` says mean and Cholesky factor of a normal law given the evidence,

.. math:: z | \xi \approx N\big(m(\xi), L(\xi) L(\xi)^T\big), \qquad u = L(\xi)^{-1} (z - m(\xi)),

and a `ConditionalMLP` is a network of a noisy vector and evidence,

.. math:: h_0 = W x_t + e(\xi), \qquad
   h_{l+1} = \mathrm{block}_l\big(h_l;\, \mathrm{silu}(U [\phi(t), e(\xi)])\big),

with the blocks of `mlp`. Both see evidence whitened: entries that say nearly the same, as quantiles
of one sample do, would hide what is in their differences. Source of the modulation: Perez et al.
(2018), eq. (1), for evidence; Peebles and Xie (2023), section 3.2, for time.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reversal.networks.embeddings import TimeEmbedding
from reversal.networks.mlp import ResidualBlock
from reversal.networks.trunk import NUM_CONDITIONS

RIDGE = 0.02
"""What is added to the variances of directions, in variances of an entry, before they become 1."""


@final
class Whitening(nn.Module):
    r"""An affine map after which a sample has mean 0 and nearly covariance 1, but for a ridge.

    .. math:: W (\xi - \bar\xi), \qquad W = (\Lambda + \rho)^{-1/2} V^T D^{-1}, \qquad
       V \Lambda V^T = \mathrm{corr}(\xi),

    with standard deviations D. What varies less than the ridge stays small.

    Args:
        num_features: k.
    """

    center: Tensor
    weight: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(num_features))
        self.register_buffer("weight", torch.eye(num_features))

    @torch.no_grad()
    def take(self, sample: Tensor) -> None:
        """Be the map of a sample ``(N, k)``; an entry that never varies is centered."""
        rows = sample.double()
        spread = rows.std(0, correction=0)
        unit = torch.where(spread > 0, spread, 1.0)
        apart = (rows - rows.mean(0)) / unit
        values, vectors = torch.linalg.eigh(apart.T @ apart / len(rows))
        gain = (values.clamp_min(0) + RIDGE).rsqrt()
        self.center.copy_(rows.mean(0))
        self.weight.copy_(gain[:, None] * vectors.T / unit)

    def forward(self, evidence: Tensor) -> Tensor:
        """Return whitened rows ``(B, k)``; of ``(k,)`` one row."""
        apart = evidence.reshape(-1, len(self.center)) - self.center
        return apart.to(self.weight) @ self.weight.T


@final
class EvidenceEncoder(nn.Module):
    r"""What is made of evidence, by blocks :math:`h + V \mathrm{silu}(U\, \mathrm{norm}(h))`.

    Args:
        num_evidence: k.
        hidden_features: the width of the stream.
        num_outputs: the length of what comes out.
        num_blocks: the number of residual blocks.
    """

    def __init__(
        self, num_evidence: int, hidden_features: int, num_outputs: int, num_blocks: int = 3
    ) -> None:
        super().__init__()
        self.whitening = Whitening(num_evidence)
        self.inward = nn.Linear(num_evidence, hidden_features)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden_features),
                nn.Linear(hidden_features, hidden_features),
                nn.SiLU(),
                nn.Linear(hidden_features, hidden_features),
            )
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_features)
        self.head = nn.Linear(hidden_features, num_outputs)

    def forward(self, evidence: Tensor) -> Tensor:
        """Return ``(B, num_outputs)`` of evidence ``(B, k)``, or one row of ``(k,)``."""
        h = self.inward(self.whitening(evidence))
        for block in self.blocks:
            h = h + block(h)
        return self.head(F.silu(self.norm(h)))


@final
class ConditionalGaussian(nn.Module):
    """The normal law of a vector given evidence.

    Args:
        num_features: d.
        num_evidence: k.
        hidden_features: the width of its encoder.

    It is the standard normal law before training. ``network.encoder.whitening.take(evidence)``
    gives the evidence its units.
    """

    def __init__(self, num_features: int, num_evidence: int, *, hidden_features: int = 128) -> None:
        super().__init__()
        self.num_features = d = num_features
        self.encoder = EvidenceEncoder(num_evidence, hidden_features, d + d * (d + 1) // 2)
        nn.init.zeros_(self.encoder.head.weight)
        nn.init.zeros_(self.encoder.head.bias)

    def forward(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean ``(B, d)`` and the lower Cholesky factor ``(B, d, d)``."""
        d = self.num_features
        mean, entries = self.encoder(evidence).split([d, d * (d + 1) // 2], 1)
        rows, columns = torch.tril_indices(d, d)
        factor = entries.new_zeros(len(entries), d, d)
        factor[:, rows, columns] = torch.where(rows == columns, entries.exp(), entries)
        return mean, factor

    def log_prob(self, z: Tensor, evidence: Tensor) -> Tensor:
        """Return the log-density of ``(B, d)`` given ``(B, k)``."""
        u, log_det = self.to_unit(z, evidence)
        return -(u**2).sum(1) / 2 - self.num_features * math.log(2 * math.pi) / 2 - log_det

    def to_unit(self, z: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, ``(B, d)``, and log det L, ``(B,)``."""
        mean, factor = self(evidence)
        u = torch.linalg.solve_triangular(factor, (z.to(mean) - mean)[..., None], upper=False)
        return u.squeeze(-1), factor.diagonal(dim1=1, dim2=2).log().sum(1)

    def from_unit(self, u: Tensor, evidence: Tensor) -> Tensor:
        """Return m + L u."""
        mean, factor = self(evidence)
        return mean + (factor @ u[..., None]).squeeze(-1)


@final
class ConditionalMLP(nn.Module):
    """A network ``(x_t, t, cond)`` on vectors, for ``NetworkDenoiser`` on ``Euclidean(d)``.

    Args:
        num_features: d.
        num_evidence: k, the length of the evidence.
        hidden_features: the width of the stream, and of what is made of the evidence.
        num_blocks: the number of residual blocks.
        dropout: the probability that an inner unit is left out in training.

    ``network.encoder.whitening.take(evidence)`` gives the evidence its units. Cost: about
    (2 d + k + (8 + 2 blocks) hidden) * hidden multiplications per item.
    """

    def __init__(
        self,
        num_features: int,
        num_evidence: int,
        *,
        hidden_features: int = 128,
        num_blocks: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = EvidenceEncoder(num_evidence, hidden_features, hidden_features)
        self.times = TimeEmbedding()
        self.conditions = nn.Linear(self.times.num_features + hidden_features, NUM_CONDITIONS)
        self.inward = nn.Linear(num_features, hidden_features)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_features, NUM_CONDITIONS, dropout) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_features)
        self.head = nn.Linear(hidden_features, num_features)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Return one vector per item, ``(B, d)``.

        Args:
            x_t: noisy vectors ``(B, d)``.
            t: times ``(B,)``.
            cond: evidence ``(B, k)``; one ``(k,)`` or ``(1, k)`` is common to all items.
        """
        e = self.encoder(cond).expand(len(x_t), -1)
        condition = F.silu(self.conditions(torch.cat([self.times(t), e], 1)))
        h = self.inward(x_t) + e
        for block in self.blocks:
            h = block(h, condition)
        return self.head(F.silu(self.norm(h)))
