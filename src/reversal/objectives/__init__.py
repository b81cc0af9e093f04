"""What training minimizes."""

from reversal.objectives.regression import Regression

__all__ = ["Regression"]
