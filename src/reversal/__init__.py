"""reversal: learn to generate any kind of data by reversing the noise that destroys it."""

from importlib import import_module
from typing import TYPE_CHECKING

from reversal.clocks import (
    AnyClock,
    FactorClocks,
    LowDiscrepancy,
    MixedClocks,
    OnGrid,
    SharedClock,
    SiteClocks,
)
from reversal.core import Capability, Estimate, Generator, JointEstimate, Kind
from reversal.data.conditions import between, none_of, one_of
from reversal.data.support import Box
from reversal.denoisers import (
    Empirical,
    Energy,
    Enumerated,
    GaussianData,
    GaussianMixture,
    NetworkDenoiser,
)
from reversal.errors import (
    CapabilityError,
    CheckpointError,
    ClockError,
    ConvergenceError,
    DataError,
    NotFittedError,
    ReversalError,
    SpaceError,
)
from reversal.grids import Grid
from reversal.guidance import Adjusted, Classifier, ClassifierFree, Clip, DynamicThreshold
from reversal.likelihood import Likelihood, elbo, implicit_elbo
from reversal.networks import ConditionalMLP, Perceptron, Transformer
from reversal.noise import BrownianPath, ItemNoise
from reversal.objectives import Implicit, Regression, ScoreMatching
from reversal.one_site import OneSite
from reversal.parametrizations import (
    Cavity,
    Clean,
    Noise,
    Posterior,
    Preconditioned,
    Score,
    Velocity,
)
from reversal.processes import (
    Brownian,
    Chain,
    FromGenerator,
    Gaussian,
    Independent,
    Interpolant,
    Mask,
    Paired,
    Uniform,
)
from reversal.samplers import (
    DEIS,
    Adaptive,
    Ancestral,
    Euler,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    UniPC,
)
from reversal.schedules import (
    Cosine,
    CosineSurvival,
    ExponentialSurvival,
    LinearSurvival,
    QuadraticVariance,
    Rectified,
    VarianceExploding,
    VariancePreserving,
)
from reversal.spaces import SO3, Categorical, Counts, Euclidean, Product, Simplex, Torus

if TYPE_CHECKING:
    from reversal.amortized import AmortizedPosterior
    from reversal.metrics.pooling import Pooled, pool, pool_draws
    from reversal.model import Model, load

__all__ = [
    "Euclidean", "Categorical", "Counts", "Torus", "SO3", "Simplex", "Product",
    "Gaussian", "Mask", "Uniform", "Brownian", "Independent", "Interpolant", "Paired", "Chain",
    "FromGenerator",
    "VariancePreserving", "Cosine", "VarianceExploding", "Rectified",
    "LinearSurvival", "CosineSurvival", "ExponentialSurvival", "QuadraticVariance",
    "Empirical", "GaussianData", "GaussianMixture", "Enumerated", "Energy", "NetworkDenoiser",
    "Clean", "Noise", "Velocity", "Score", "Posterior", "Cavity", "Preconditioned",
    "SharedClock", "FactorClocks", "SiteClocks", "OneSite", "MixedClocks", "AnyClock",
    "OnGrid", "LowDiscrepancy",
    "Regression", "Implicit", "ScoreMatching",
    "Euler", "Ancestral", "Heun", "Multistep", "UniPC", "DEIS", "Adaptive",
    "PredictorCorrector", "Langevin", "Grid", "ItemNoise", "BrownianPath",
    "ClassifierFree", "Classifier", "Adjusted", "Clip", "DynamicThreshold",
    "elbo", "implicit_elbo", "Likelihood",
    "Perceptron", "Transformer", "ConditionalMLP", "AmortizedPosterior", "Box",
    "Model", "load", "between", "one_of", "none_of", "pool", "pool_draws", "Pooled",
    "Generator", "Estimate", "JointEstimate", "Kind", "Capability",
    "ReversalError", "SpaceError", "DataError", "ClockError", "CapabilityError",
    "NotFittedError", "CheckpointError", "ConvergenceError",
]  # fmt: skip


_HOMES = {
    "AmortizedPosterior": "reversal.amortized",
    "Model": "reversal.model",
    "load": "reversal.model",
    "pool": "reversal.metrics.pooling",
    "pool_draws": "reversal.metrics.pooling",
    "Pooled": "reversal.metrics.pooling",
}


def __getattr__(name: str) -> object:
    """Load the facade, and the table libraries behind it, when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'reversal' has no attribute {name!r}")
