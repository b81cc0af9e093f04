"""Guidance: a denoiser of a denoiser, so that it meets every sampler."""

from reversal.guidance.adjusted import Adjusted, Clip, DynamicThreshold
from reversal.guidance.classifier import Classifier
from reversal.guidance.classifier_free import ClassifierFree

__all__ = ["Adjusted", "Classifier", "ClassifierFree", "Clip", "DynamicThreshold"]
