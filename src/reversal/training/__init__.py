"""Training: a loop that knows nothing of the model, averaged weights, runs on disk."""

from reversal.training.ema import MovingAverage
from reversal.training.keeping import Keeper
from reversal.training.logs import Check, TensorBoard
from reversal.training.loop import Plan, Progress, Trace, train

__all__ = [
    "Check", "Keeper", "MovingAverage", "Plan", "Progress", "TensorBoard", "Trace", "train",
]  # fmt: skip
