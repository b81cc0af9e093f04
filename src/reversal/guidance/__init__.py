"""Guidance: a denoiser of a denoiser, so that it meets every sampler."""

from reversal.guidance.adjusted import Adjusted, Clip, DynamicThreshold
from reversal.guidance.autoguidance import Autoguidance
from reversal.guidance.classifier import Classifier
from reversal.guidance.classifier_free import ClassifierFree
from reversal.guidance.constant_length import ConstantDPS
from reversal.guidance.evidence import DPS, MomentMatching, PiGDM, Together
from reversal.guidance.interval import GuidanceInterval
from reversal.guidance.observation import LinearObservation
from reversal.guidance.reconstruction import Reconstruction
from reversal.guidance.twisted import Particles, TwistedSMC

__all__ = [
    "DPS", "Adjusted", "Autoguidance", "Classifier", "ClassifierFree", "Clip", "ConstantDPS",
    "DynamicThreshold", "GuidanceInterval", "LinearObservation", "MomentMatching", "Particles",
    "PiGDM", "Reconstruction", "Together", "TwistedSMC",
]  # fmt: skip
