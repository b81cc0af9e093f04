"""Schedules: how much signal, or how many sites, or how little variance is left at time t.

Three types, evaluated in float64 on tensors of times.
"""

from reversal.schedules.betas import Betas
from reversal.schedules.derived import Shortened, Signals
from reversal.schedules.exploding import Karras, VarianceExploding
from reversal.schedules.fading import Rectified, SubVariancePreserving
from reversal.schedules.learned import LearnedSchedule
from reversal.schedules.preserving import (
    Cosine,
    OrnsteinUhlenbeck,
    QuadraticBeta,
    VariancePreserving,
)
from reversal.schedules.signal import Signal, SignalSchedule, Step
from reversal.schedules.survival import (
    CosineSurvival,
    ExponentialSurvival,
    LinearSurvival,
    Renewal,
    Survival,
    SurvivalSchedule,
)
from reversal.schedules.variance import (
    QuadraticVariance,
    Variance,
    VarianceSchedule,
    VarianceStep,
)

__all__ = [
    "Betas",
    "Cosine",
    "CosineSurvival",
    "ExponentialSurvival",
    "Karras",
    "LearnedSchedule",
    "LinearSurvival",
    "OrnsteinUhlenbeck",
    "QuadraticBeta",
    "QuadraticVariance",
    "Rectified",
    "Renewal",
    "Shortened",
    "Signal",
    "SignalSchedule",
    "Signals",
    "Step",
    "SubVariancePreserving",
    "Survival",
    "SurvivalSchedule",
    "Variance",
    "VarianceExploding",
    "VariancePreserving",
    "VarianceSchedule",
    "VarianceStep",
]
