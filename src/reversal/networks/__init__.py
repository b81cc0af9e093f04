"""Networks in plain torch: what a factor shows, and what a trunk makes of it."""

from reversal.networks.conditional import ConditionalGaussian, ConditionalMLP
from reversal.networks.embeddings import CodePort, FactorPort, RealPort, TimeEmbedding
from reversal.networks.evidence import EvidenceEncoder, Whitening
from reversal.networks.mlp import Perceptron, ResidualBlock, ResidualMLP
from reversal.networks.transformer import (
    SiteHead,
    SiteLinear,
    SiteTransformer,
    Transformer,
    TransformerBlock,
)
from reversal.networks.trunk import Architecture, Trunk
from reversal.networks.unet import UNet

__all__ = [
    "Architecture", "CodePort", "ConditionalGaussian", "ConditionalMLP", "EvidenceEncoder",
    "FactorPort", "Perceptron", "RealPort", "ResidualBlock", "ResidualMLP", "SiteHead",
    "SiteLinear", "SiteTransformer", "TimeEmbedding", "Transformer", "TransformerBlock", "Trunk",
    "UNet", "Whitening",
]  # fmt: skip
