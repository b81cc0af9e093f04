"""How good samples are: numbers with an interval, measured against real data.

Metrics of tables take frames of pandas, polars or Arrow, or `Rows` that `aligned` made of several
frames once for all.
"""

from reversal.metrics.calibration import Reliability, covered, pit, reliability
from reversal.metrics.copying import Copying, copying, nearest_distances
from reversal.metrics.intervals import Estimate, auc, bootstrap
from reversal.metrics.nearest import Nearest, copies, nearest
from reversal.metrics.recognition import Share, recognition
from reversal.metrics.rows import Rows, Schema, aligned
from reversal.metrics.sbc import Band, Calibration, band, sbc
from reversal.metrics.scores import crps, energy_distance
from reversal.metrics.shape import Shape, shape
from reversal.metrics.straightness import straightness
from reversal.metrics.trend import Trend, trend
from reversal.metrics.two_sample import c2st
from reversal.metrics.utility import Utility, utility

__all__ = [
    "aligned", "Rows", "Schema",
    "shape", "Shape", "trend", "Trend", "c2st",
    "nearest", "Nearest", "copies", "utility", "Utility",
    "reliability", "Reliability", "pit", "covered", "sbc", "Calibration", "band", "Band",
    "crps", "energy_distance",
    "auc", "bootstrap", "Estimate", "Share",
    "copying", "Copying", "nearest_distances", "recognition",
    "straightness",
]  # fmt: skip
