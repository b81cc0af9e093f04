"""Likelihoods with a stated error, each with what it is the likelihood of."""

from reversal.likelihood.bound import elbo
from reversal.likelihood.implicit import implicit_elbo
from reversal.likelihood.value import Likelihood

__all__ = ["Likelihood", "elbo", "implicit_elbo"]
