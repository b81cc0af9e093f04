"""What reverses: a network, or an exact posterior."""

from reversal.denoisers.empirical import Empirical
from reversal.denoisers.energy import Action, Energy
from reversal.denoisers.enumerated import Enumerated
from reversal.denoisers.gaussian import GaussianData
from reversal.denoisers.mixture import GaussianMixture
from reversal.denoisers.network import NetworkDenoiser
from reversal.denoisers.rescheduled import Rescheduled

__all__ = [
    "Action", "Empirical", "Energy", "Enumerated", "GaussianData", "NetworkDenoiser",
    "Rescheduled", "GaussianMixture",
]  # fmt: skip
