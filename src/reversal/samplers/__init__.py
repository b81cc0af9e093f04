"""Ways to walk from noise to data: one file per sampler."""

from reversal.samplers.adaptive import Adaptive
from reversal.samplers.adaptive_sde import AdaptiveSDE
from reversal.samplers.ancestral import Ancestral
from reversal.samplers.corrector import PredictorCorrector
from reversal.samplers.deis import DEIS
from reversal.samplers.euler import Euler
from reversal.samplers.fitted import fitted_grid
from reversal.samplers.heun import Heun
from reversal.samplers.langevin import Langevin
from reversal.samplers.multistep import Multistep
from reversal.samplers.repaint import RePaint
from reversal.samplers.unipc import UniPC

__all__ = [
    "DEIS", "Adaptive", "AdaptiveSDE", "Ancestral", "Euler", "Heun", "Langevin", "Multistep",
    "PredictorCorrector", "RePaint", "UniPC", "fitted_grid",
]  # fmt: skip
