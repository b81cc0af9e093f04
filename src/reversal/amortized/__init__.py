"""Amortized inference: posteriors from simulations alone."""

from reversal.amortized.posterior import AmortizedPosterior

__all__ = ["AmortizedPosterior"]
