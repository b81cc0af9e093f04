"""How good samples are: numbers with an interval, measured against real data."""

from reversal.metrics.copying import Copying, copying, nearest_distances
from reversal.metrics.recognition import Share, recognition

__all__ = ["Copying", "Share", "copying", "nearest_distances", "recognition"]
