"""Generators as operators on functions: adjoints, reversals from beta, Phi and the objectives."""

from reversal.operators.derivatives import Field, Function, Tangent
from reversal.operators.local import Local
from reversal.operators.neighbors import Neighbors
from reversal.operators.operator import Adjoint, Linear, Operator, Reversal, Sum, Tilt, Timed
from reversal.operators.traces import Traces

__all__ = [
    "Adjoint", "Field", "Function", "Linear", "Local", "Neighbors", "Operator", "Reversal", "Sum",
    "Tangent", "Tilt", "Timed", "Traces",
]  # fmt: skip
