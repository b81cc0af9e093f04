"""What training minimizes."""

from reversal.objectives.implicit import Implicit, ScoreMatching, implicit_rate
from reversal.objectives.regression import Regression
from reversal.objectives.step_bound import StepBound

__all__ = ["Implicit", "Regression", "ScoreMatching", "StepBound", "implicit_rate"]
