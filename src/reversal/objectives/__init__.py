"""What training minimizes."""

from reversal.objectives.action import ActionMatching
from reversal.objectives.dropout import ConditionDropout
from reversal.objectives.explicit import Explicit, explicit_rate
from reversal.objectives.implicit import Implicit, ScoreMatching, implicit_rate
from reversal.objectives.least_variance import LeastVariance
from reversal.objectives.regression import Regression
from reversal.objectives.step_bound import StepBound

__all__ = [
    "ActionMatching", "ConditionDropout", "Explicit", "Implicit", "LeastVariance", "Regression",
    "ScoreMatching", "StepBound", "explicit_rate", "implicit_rate",
]  # fmt: skip
