"""Networks in plain torch: what a factor shows, and what a trunk makes of it."""

from reversal.networks.embeddings import CodePort, FactorPort, RealPort, TimeEmbedding
from reversal.networks.mlp import ResidualBlock, ResidualMLP

__all__ = ["CodePort", "FactorPort", "RealPort", "ResidualBlock", "ResidualMLP", "TimeEmbedding"]
