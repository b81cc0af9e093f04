r"""Networks that read evidence: where a law lies given it, and what is left to denoise.

A `ConditionalGaussian` says mean and Cholesky factor of a normal law given the evidence,

.. math:: z | \xi \approx N\big(m(\xi), L(\xi) L(\xi)^T\big), \qquad u = L(\xi)^{-1} (z - m(\xi)),

and a `ConditionalMLP` is a network of a noisy vector and evidence,

.. math:: h_0 = W x_t + e(\xi), \qquad
   h_{l+1} = \mathrm{block}_l\big(h_l;\, \mathrm{silu}(U [\phi(t), e(\xi)])\big),

with the blocks of `mlp` and the encoder of `evidence`. Source of the modulation: Perez et al.
(2018), eq. (1), for evidence; Peebles and Xie (2023), section 3.2, for time.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reversal.networks.embeddings import TimeEmbedding
from reversal.networks.evidence import EvidenceEncoder
from reversal.networks.mlp import ResidualBlock
from reversal.networks.trunk import NUM_CONDITIONS

FIT_RIDGE = 1e-3
"""The ridge of the first line, in variances of whitened evidence."""


@final
class ConditionalGaussian(nn.Module):
    """The normal law of a vector given evidence.

    Args:
        num_features: d.
        num_evidence: k.
        hidden_features: the width of its encoder.
        gaps: whether entries of the evidence may be NaN.

    It is the standard normal law until `take` gives it a start.
    """

    def __init__(
        self,
        num_features: int,
        num_evidence: int,
        *,
        hidden_features: int = 128,
        gaps: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = d = num_features
        outputs = d + d * (d + 1) // 2
        self.encoder = EvidenceEncoder(num_evidence, hidden_features, outputs, gaps=gaps)
        for part in (self.encoder.head, self.encoder.line):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)

    @torch.no_grad()
    def take(self, z: Tensor, evidence: Tensor) -> None:
        """Whiten the evidence, and start at the line of least squares with its residuals.

        For a linear simulator with normal noise and prior that is the posterior already.

        Args:
            z: a sample ``(N, d)``.
            evidence: what belongs to it, ``(N, k)``.
        """
        self.encoder.whitening.take(evidence)
        white = self.encoder.whitening(evidence).double()
        rows = torch.cat([white, torch.ones_like(white[:, :1])], 1)
        square = rows.T @ rows / len(rows)
        ridge = FIT_RIDGE * torch.eye(len(square), dtype=square.dtype)
        ridge[-1, -1] = 0.0
        solution = torch.linalg.solve(square + ridge, rows.T @ z.double() / len(rows))
        left = z.double() - rows @ solution
        covariance = left.T @ left / len(left)
        floor = 1e-6 * torch.diag(covariance.diagonal().clamp_min(1e-6))
        factor = torch.linalg.cholesky(covariance + floor)
        d, line = self.num_features, self.encoder.line
        line.weight[:d].copy_(solution[:-1].T)
        line.bias[:d].copy_(solution[-1])
        places, columns = torch.tril_indices(d, d)
        entries = factor[places, columns]
        diagonal = places == columns
        line.bias[d:].copy_(torch.where(diagonal, entries.abs().log(), entries))

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
        gaps: whether entries of the evidence may be NaN.

    ``network.encoder.whitening.take(evidence)`` gives the evidence its units. Cost: about
    (2 d + 2 k + (8 + 2 blocks) hidden) * hidden multiplications per item.
    """

    def __init__(
        self,
        num_features: int,
        num_evidence: int,
        *,
        hidden_features: int = 128,
        num_blocks: int = 3,
        dropout: float = 0.0,
        gaps: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = EvidenceEncoder(num_evidence, hidden_features, hidden_features, gaps=gaps)
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
        return self.decode(x_t, t, self.encoder(cond))

    def decode(self, x_t: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """Return the same of encoded evidence ``(B, hidden)``: of many draws, encode it once."""
        e = e.expand(len(x_t), -1)
        condition = F.silu(self.conditions(torch.cat([self.times(t), e], 1)))
        h = self.inward(x_t) + e
        for block in self.blocks:
            h = block(h, condition)
        return self.head(F.silu(self.norm(h)))
