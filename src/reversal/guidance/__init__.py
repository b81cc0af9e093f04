"""Guidance: a denoiser of a denoiser, so that it meets every sampler."""

from reversal.guidance.autoguidance import Autoguidance
from reversal.guidance.classifier import Classifier
from reversal.guidance.classifier_free import ClassifierFree
from reversal.guidance.interval import GuidanceInterval

__all__ = ["Autoguidance", "Classifier", "ClassifierFree", "GuidanceInterval"]
