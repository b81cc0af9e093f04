"""How data are noised: one file per process or path."""

from reversal.processes.brownian import Brownian
from reversal.processes.chain import Chain
from reversal.processes.from_generator import FromGenerator
from reversal.processes.gaussian import Gaussian
from reversal.processes.independent import Independent
from reversal.processes.interpolant import Interpolant, Paired
from reversal.processes.mask import Mask
from reversal.processes.uniform import Uniform

__all__ = [
    "Brownian",
    "Chain",
    "FromGenerator",
    "Gaussian",
    "Independent",
    "Interpolant",
    "Mask",
    "Paired",
    "Uniform",
]
