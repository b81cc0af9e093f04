"""What reverses: a network, or an exact posterior."""

from reversal.denoisers.empirical import Empirical
from reversal.denoisers.energy import Energy
from reversal.denoisers.enumerated import Enumerated
from reversal.denoisers.gaussian import GaussianData
from reversal.denoisers.mixture import GaussianMixture
from reversal.denoisers.network import NetworkDenoiser

__all__ = [
    "Empirical", "Energy", "Enumerated", "GaussianData", "GaussianMixture", "NetworkDenoiser",
]  # fmt: skip
