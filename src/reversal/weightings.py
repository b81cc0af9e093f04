r"""Weightings: how much the error of the noise counts at each signal-to-noise ratio.

.. math:: \ell = w_t\, |\hat\epsilon - \epsilon|^2, \qquad r_t = \alpha_t^2 / \sigma_t^2, \qquad
   -\tfrac{d}{dt} \log r_t = g_t^2 / \sigma_t^2 .

Every regression under Gaussian noise is this loss, up to w: an error of the clean data is
:math:`\sigma/\alpha` times that of the noise, and so on. Source: Kingma and Gao (2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from reversal.schedules import Signal


class Weighting(ABC):
    """A factor on the squared error of the noise.

    It ``keeps_bound`` where the mean loss depends on the ends of the schedule alone: where w is a
    function of r times -d log r / dt.
    """

    keeps_bound = False

    @abstractmethod
    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """Return the loss of a squared error of the noise, ``(B, *sites)``."""


@final
@dataclass(frozen=True)
class Simple(Weighting):
    """w = 1. Source: Ho et al. (2020), eq. (14)."""

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """The error itself."""
        return error


@final
@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    r"""w = g^2 / (2 sigma^2): the path divergence per unit of t, a bound in nats.

    Source: Song, Durkan et al. (2021); Kingma et al. (2021).
    """

    keeps_bound = True

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """Half the decay of the log signal-to-noise ratio, times the error."""
        return _decay(signal) / 2 * error


@final
@dataclass(frozen=True)
class KarrasWeighting(Weighting):
    r"""w = 1 + (sigma / (alpha s))^2: unit loss at the start for data of standard deviation s.

    With ``LogNormalTimes`` it is EDM's. Source: Karras et al. (2022), table 1.
    """

    scale: float = 1.0

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """The weight (sigma^2 + s^2) / (sigma s)^2 of the clean error, in terms of the noise."""
        return (1 + (signal.sigma / (signal.alpha * self.scale)) ** 2) * error


@final
@dataclass(frozen=True)
class MinSNR(Weighting):
    """w = min(1, gamma / r): the clean error with a weight of at most gamma.

    Source: Hang et al. (2023).
    """

    gamma: float = 5.0

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """Clip the ratio."""
        return (self.gamma * (signal.sigma / signal.alpha) ** 2).clamp(max=1) * error


@final
@dataclass(frozen=True)
class SigmoidWeighting(Weighting):
    """w = sigmoid(bias - log r) g^2 / (2 sigma^2): monotone, so still a bound, with noisy data.

    Source: Kingma and Gao (2023); Hoogeboom et al. (2024).
    """

    bias: float = 2.0
    keeps_bound = True

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """The likelihood's weight, fading where little noise is left."""
        log_ratio = 2 * (signal.alpha.log() - signal.sigma.log())
        return torch.sigmoid(self.bias - log_ratio) * _decay(signal) / 2 * error


@final
class LearnedWeighting(nn.Module, Weighting):
    r"""Divide a loss by its own size, learned beside the network: :math:`L e^{-u(r)} + u(r)`.

    At the minimum u = log E[L | r], so that every noise level contributes 1. Give its parameters to
    the optimizer. Source: Karras et al. (2024); Kendall et al. (2018).

    Args:
        base: what is divided.
        width: of the network of log r.
    """

    def __init__(self, base: Weighting | None = None, width: int = 64) -> None:
        super().__init__()
        self.base = base or Simple()
        self.inner, self.outer = nn.Linear(1, width), nn.Linear(width, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def weigh(self, error: Tensor, signal: Signal) -> Tensor:
        """The loss over its size, plus the logarithm of that."""
        log_ratio = signal.alpha.log() - signal.sigma.log()
        hidden = nn.functional.silu(self.inner((log_ratio / 4)[..., None].to(self.inner.weight)))
        log_size = self.outer(hidden).squeeze(-1).to(error)
        return self.base.weigh(error, signal) * (-log_size).exp() + log_size


def _decay(signal: Signal) -> Tensor:
    """-d log r / dt = g^2 / sigma^2."""
    return signal.diffusion / signal.sigma**2
