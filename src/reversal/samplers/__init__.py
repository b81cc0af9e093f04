"""Ways to walk from noise to data: one file per sampler."""

from reversal.samplers.ancestral import Ancestral
from reversal.samplers.euler import Euler
from reversal.samplers.heun import Heun
from reversal.samplers.multistep import Multistep
from reversal.samplers.repaint import RePaint

__all__ = ["Ancestral", "Euler", "Heun", "Multistep", "RePaint"]
