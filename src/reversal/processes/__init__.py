"""How data are noised: one file per process or path."""

from reversal.processes.brownian import Brownian
from reversal.processes.chain import Chain
from reversal.processes.couplings import (
    Coupling,
    OptimalTransport,
    Paired,
    Samples,
    Unpaired,
)
from reversal.processes.from_generator import FromGenerator
from reversal.processes.gaussian import Gaussian, NormalPrior
from reversal.processes.independent import Independent
from reversal.processes.interpolant import BrownianBridge, Interpolant
from reversal.processes.mask import Mask
from reversal.processes.uniform import Uniform

__all__ = [
    "Brownian",
    "BrownianBridge",
    "Chain",
    "Coupling",
    "FromGenerator",
    "Gaussian",
    "Independent",
    "Interpolant",
    "Mask",
    "NormalPrior",
    "OptimalTransport",
    "Paired",
    "Samples",
    "Uniform",
    "Unpaired",
]
