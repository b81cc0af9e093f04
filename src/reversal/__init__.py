"""reversal: learn to generate any kind of data by reversing the noise that destroys it."""

from importlib import import_module
from typing import TYPE_CHECKING

from reversal.clocks import (
    AnyClock,
    FactorClocks,
    MixedClocks,
    SharedClock,
    SiteClocks,
)
from reversal.core import Capability, Estimate, Generator, JointEstimate, Kind
from reversal.data.conditions import between, none_of, one_of
from reversal.data.support import Box
from reversal.denoisers import (
    Action,
    Empirical,
    Energy,
    Enumerated,
    GaussianData,
    GaussianMixture,
    NetworkDenoiser,
    Rescheduled,
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
from reversal.guidance import (
    DPS,
    Adjusted,
    Autoguidance,
    Classifier,
    ClassifierFree,
    Clip,
    ConstantDPS,
    DynamicThreshold,
    GuidanceInterval,
    LinearObservation,
    MomentMatching,
    Particles,
    PiGDM,
    Reconstruction,
    Together,
    TwistedSMC,
)
from reversal.likelihood import (
    DormandPrince,
    Likelihood,
    MaximumLikelihood,
    RungeKutta,
    UniformDequantization,
    VariationalDequantization,
    bits_per_dim,
    dequantized,
    dequantized_bound,
    dequantized_log_prob,
    elbo,
    elbo_discrete,
    flow_log_prob,
    implicit_elbo,
    sample_with_log_prob,
)
from reversal.networks import ConditionalMLP, Perceptron, Transformer, UNet
from reversal.noise import BrownianPath, ItemNoise
from reversal.objectives import (
    ActionMatching,
    ConditionDropout,
    Explicit,
    Implicit,
    LeastVariance,
    Regression,
    ScoreMatching,
    StepBound,
)
from reversal.one_site import OneSite
from reversal.parametrizations import (
    Cavity,
    Clean,
    Heads,
    Noise,
    Posterior,
    Preconditioned,
    Score,
    Velocity,
)
from reversal.processes import (
    Brownian,
    BrownianBridge,
    Chain,
    FromGenerator,
    Gaussian,
    Independent,
    Interpolant,
    Mask,
    NormalPrior,
    OptimalTransport,
    Paired,
    Samples,
    Uniform,
    Unpaired,
)
from reversal.processes.decoders import DensityDecoder, DiscretizedDecoder, Levels
from reversal.processes.variances import LargeVariance, LearnedVariance, SmallVariance
from reversal.samplers import (
    DEIS,
    Adaptive,
    AdaptiveSDE,
    Ancestral,
    Euler,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    RePaint,
    UniPC,
    fitted_grid,
)
from reversal.schedules import (
    Betas,
    Cosine,
    CosineSurvival,
    ExponentialSurvival,
    Karras,
    LearnedSchedule,
    LinearSurvival,
    OrnsteinUhlenbeck,
    QuadraticBeta,
    QuadraticVariance,
    Rectified,
    Shortened,
    Signals,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from reversal.spaces import SO3, Categorical, Counts, Euclidean, Product, Simplex, Torus
from reversal.times import GridTimes, ImportanceTimes, LogNormalTimes, LowDiscrepancy, OnGrid
from reversal.weightings import (
    KarrasWeighting,
    LearnedWeighting,
    LikelihoodWeighting,
    MinSNR,
    SigmoidWeighting,
    Simple,
)

if TYPE_CHECKING:
    from reversal.amortized import AmortizedPosterior
    from reversal.answers.methods import Flow
    from reversal.metrics.pooling import Pooled, pool, pool_draws
    from reversal.model import Model, load

__all__ = [
    "Euclidean", "Categorical", "Counts", "Torus", "SO3", "Simplex", "Product",
    "Gaussian", "Mask", "Uniform", "Brownian", "Independent", "Interpolant", "BrownianBridge",
    "Paired", "Unpaired", "OptimalTransport", "Samples", "NormalPrior", "Chain",
    "FromGenerator",
    "VariancePreserving", "QuadraticBeta", "Cosine", "OrnsteinUhlenbeck", "VarianceExploding",
    "Karras", "SubVariancePreserving", "Rectified", "Betas", "Signals", "Shortened",
    "LearnedSchedule",
    "LinearSurvival", "CosineSurvival", "ExponentialSurvival", "QuadraticVariance",
    "Empirical", "GaussianData", "GaussianMixture", "Enumerated", "Energy", "Action",
    "NetworkDenoiser", "Rescheduled",
    "Clean", "Noise", "Velocity", "Score", "Posterior", "Cavity", "Preconditioned", "Heads",
    "SharedClock", "FactorClocks", "SiteClocks", "OneSite", "MixedClocks", "AnyClock",
    "LowDiscrepancy", "OnGrid", "GridTimes", "LogNormalTimes", "ImportanceTimes",
    "Regression", "Explicit", "Implicit", "ScoreMatching", "ActionMatching",
    "ConditionDropout", "StepBound", "LeastVariance", "MaximumLikelihood",
    "Simple", "LikelihoodWeighting", "KarrasWeighting", "MinSNR", "SigmoidWeighting",
    "LearnedWeighting",
    "Euler", "Ancestral", "Heun", "Multistep", "UniPC", "DEIS", "Adaptive", "AdaptiveSDE",
    "PredictorCorrector", "Langevin", "RePaint", "Grid", "fitted_grid", "ItemNoise", "BrownianPath",
    "ClassifierFree", "Classifier", "Autoguidance", "GuidanceInterval",
    "Adjusted", "Clip", "DynamicThreshold",
    "Reconstruction", "DPS", "ConstantDPS", "PiGDM", "MomentMatching", "Together",
    "LinearObservation", "TwistedSMC", "Particles",
    "elbo", "implicit_elbo", "Likelihood",
    "flow_log_prob", "sample_with_log_prob", "DormandPrince", "RungeKutta",
    "elbo_discrete", "bits_per_dim", "SmallVariance", "LargeVariance", "LearnedVariance",
    "Levels", "DensityDecoder", "DiscretizedDecoder", "dequantized", "dequantized_bound",
    "dequantized_log_prob", "UniformDequantization", "VariationalDequantization",
    "Perceptron", "Transformer", "ConditionalMLP", "UNet", "AmortizedPosterior", "Box",
    "Model", "load", "Flow", "between", "one_of", "none_of", "pool", "pool_draws", "Pooled",
    "Generator", "Estimate", "JointEstimate", "Kind", "Capability",
    "ReversalError", "SpaceError", "DataError", "ClockError", "CapabilityError",
    "NotFittedError", "CheckpointError", "ConvergenceError",
]  # fmt: skip


_HOMES = {
    "AmortizedPosterior": "reversal.amortized",
    "Flow": "reversal.answers.methods",
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
