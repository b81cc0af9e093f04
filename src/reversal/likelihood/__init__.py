"""Likelihoods with a stated error, each with what it is the likelihood of."""

from reversal.likelihood.bound import elbo
from reversal.likelihood.dequantization import (
    UniformDequantization,
    VariationalDequantization,
    dequantized,
    dequantized_bound,
    dequantized_log_prob,
)
from reversal.likelihood.discrete import bits_per_dim, elbo_discrete
from reversal.likelihood.flow import flow_log_prob, sample_with_log_prob
from reversal.likelihood.implicit import implicit_elbo
from reversal.likelihood.maximum import MaximumLikelihood
from reversal.likelihood.solvers import DormandPrince, RungeKutta
from reversal.likelihood.value import Likelihood

__all__ = [
    "DormandPrince", "Likelihood", "MaximumLikelihood", "RungeKutta", "UniformDequantization",
    "VariationalDequantization", "bits_per_dim", "dequantized", "dequantized_bound",
    "dequantized_log_prob", "elbo", "elbo_discrete", "flow_log_prob", "implicit_elbo",
    "sample_with_log_prob",
]  # fmt: skip
