r"""Networks read evidence in its own units: whitened, with its gaps told from its values.

.. math:: W (\xi - \bar\xi), \qquad W = (\Lambda + \rho)^{-1/2} V^T D^{-1}, \qquad
   V \Lambda V^T = \mathrm{corr}(\xi),

with standard deviations D: entries that say nearly the same, as quantiles of one sample do, would
hide what is in their differences. What varies less than the ridge rho stays small. A gap stands at
the mean, and beside the whitened entries stands which of them are gaps.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RIDGE = 0.02
"""What is added to the variances of directions, in variances of an entry, before they become 1."""


@final
class Whitening(nn.Module):
    """An affine map after which a sample has mean 0 and nearly covariance 1, but for a ridge.

    Args:
        num_features: k.
        gaps: whether entries may be NaN; then which of them are is shown beside the others.

    Attributes:
        num_outputs: k, or 2 k with gaps.
    """

    center: Tensor
    unit: Tensor
    weight: Tensor

    def __init__(self, num_features: int, *, gaps: bool = False) -> None:
        super().__init__()
        self.gaps, self.num_outputs = gaps, num_features * (1 + gaps)
        self.register_buffer("center", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(num_features, dtype=torch.float64))
        self.register_buffer("weight", torch.eye(num_features))

    @torch.no_grad()
    def take(self, sample: Tensor) -> None:
        """Be the map of a sample ``(N, k)``; an entry that never varies is centered."""
        rows = sample.double()
        seen = ~rows.isnan()
        count = seen.sum(0).clamp_min(1)
        mean = rows.nansum(0) / count
        apart = torch.where(seen, rows - mean, 0.0)
        spread = (apart.square().sum(0) / count).sqrt()
        varies = spread > 1e-12 * mean.abs()
        unit = torch.where(varies, spread, 1.0)
        apart = torch.where(varies, apart / unit, 0.0)
        values, vectors = torch.linalg.eigh(apart.T @ apart / len(rows))
        gain = (values.clamp_min(0) + RIDGE).rsqrt()
        self.center.copy_(mean)
        self.unit.copy_(unit)
        self.weight.copy_(gain[:, None] * vectors.T)

    def forward(self, evidence: Tensor) -> Tensor:
        """Return whitened rows ``(B, num_outputs)``; of ``(k,)`` one row."""
        rows = evidence.reshape(-1, len(self.center))
        apart = ((rows - self.center) / self.unit).to(self.weight)
        if not self.gaps:
            return apart @ self.weight.T
        missing = apart.isnan()
        filled = torch.where(missing, 0.0, apart) @ self.weight.T
        return torch.cat([filled, missing.to(filled)], 1)


@final
class EvidenceEncoder(nn.Module):
    r"""What is made of evidence, by blocks :math:`h + V \mathrm{silu}(U\, \mathrm{norm}(h))`.

    Args:
        num_evidence: k.
        hidden_features: the width of the stream.
        num_outputs: the length of what comes out.
        num_blocks: the number of residual blocks.
        gaps: whether entries may be NaN.

    A line of the whitened evidence goes around the blocks: what is linear needs no learning of
    nonlinear units, and is exact far beyond what a normalized stream resolves.
    """

    def __init__(
        self,
        num_evidence: int,
        hidden_features: int,
        num_outputs: int,
        num_blocks: int = 3,
        *,
        gaps: bool = False,
    ) -> None:
        super().__init__()
        self.whitening = Whitening(num_evidence, gaps=gaps)
        self.line = nn.Linear(self.whitening.num_outputs, num_outputs)
        self.inward = nn.Linear(self.whitening.num_outputs, hidden_features)
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
        white = self.whitening(evidence)
        h = self.inward(white)
        for block in self.blocks:
            h = h + block(h)
        return self.line(white) + self.head(F.silu(self.norm(h)))
