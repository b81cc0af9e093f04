"""Training: a loop that knows nothing of the model, averaged weights, runs on disk."""

from reversal.training.ema import MovingAverage
from reversal.training.loop import Plan, Progress, Trace, train

__all__ = ["MovingAverage", "Plan", "Progress", "Trace", "train"]
