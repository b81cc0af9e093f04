r"""The variance of one step p(x_s | x_t) around the mean of the bridge at the clean estimate.

With :math:`\beta = \sigma_t^2 - (\alpha_t / \alpha_s)^2 \sigma_s^2` and
:math:`r^2 = \alpha^2 + \sigma^2`,

.. math:: \log v = \nu \log \Big(\beta \frac{r_s^2}{r_t^2}\Big)
   + (1 - \nu) \log \Big(\beta \frac{\sigma_s^2}{\sigma_t^2}\Big) :

nu = 0 is exact for a point, nu = 1 for standard normal data; under a variance-preserving schedule
they are DDPM's beta-tilde and beta. Where s = 0 the smaller one is 0; it stands there for that of
the step before, from higher noise. Source: Ho et al. (2020), section 3.2; Nichol and Dhariwal
(2021), eq. (15).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from reversal.clocks import tensor
from reversal.errors import CapabilityError, SpaceError
from reversal.grids import evaluate
from reversal.processes.gaussian import Gaussian, NormalKernel

_LEAST = 1e-300


class StepVariance(ABC):
    """How much noise a step of the reversal has, between the two extremes."""

    @abstractmethod
    def share(self, x_t: Tensor, t: Any, cond: Any = None) -> Tensor | float:
        """The exponent nu, a number or ``(B, *E)``."""

    @abstractmethod
    def last_share(self, x_t: Tensor, t: Any, cond: Any = None) -> Tensor | float:
        """The exponent in the step that ends at s = 0."""


@final
@dataclass(frozen=True)
class SmallVariance(StepVariance):
    """The variance of the bridge, beta-tilde: the least that any data can have.

    Deviation from Ho et al. (2020): the last step has the larger variance, to which that of x_0
    given x_t comes as t -> 0 where there is a density, and not the smaller one of the step before.
    """

    def share(self, x_t: Tensor, t: Any, cond: Any = None) -> float:
        """0."""
        return 0.0

    def last_share(self, x_t: Tensor, t: Any, cond: Any = None) -> float:
        """1."""
        return 1.0


@final
@dataclass(frozen=True)
class LargeVariance(StepVariance):
    """The variance under standard normal data, beta."""

    def share(self, x_t: Tensor, t: Any, cond: Any = None) -> float:
        """1."""
        return 1.0

    def last_share(self, x_t: Tensor, t: Any, cond: Any = None) -> float:
        """1."""
        return 1.0


@final
class LearnedVariance(nn.Module, StepVariance):
    """A network between the two, entry by entry; outside [0, 1] it extrapolates.

    Args:
        network: called as ``network(x_t, t, cond)``; outputs nu, of the shape of x_t. Its
            parameters are trained by ``StepBound``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def share(self, x_t: Tensor, t: Any, cond: Any = None) -> Tensor:
        """What the network says.

        Raises:
            SpaceError: if the output has another shape than x_t.
        """
        output = self.network(x_t, t, cond)
        if not isinstance(output, Tensor) or output.shape != x_t.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise SpaceError(
                f"Expected one variance per entry, of shape {tuple(x_t.shape)}, got {got}. Give "
                f"the network as many outputs as x_t has entries."
            )
        return output

    def last_share(self, x_t: Tensor, t: Any, cond: Any = None) -> Tensor:
        """The same."""
        return self.share(x_t, t, cond)


class _Logs(NamedTuple):
    small: Tensor
    large: Tensor


@final
@dataclass(frozen=True)
class _LogsOf:
    schedule: Any
    ends: bool

    def __call__(self, t: Tensor, s: Tensor) -> _Logs:
        step = self.schedule.step(t, s)
        small = step.sigma_s**2 * step.fraction
        square_t = step.alpha_t**2 + step.sigma_t**2
        square_s = step.alpha_s**2 + step.sigma_s**2
        large = step.sigma_t**2 * step.fraction * square_s / square_t
        if not self.ends:
            large = torch.where(step.sigma_s == 0, 0.0, large)
        return _Logs(small.clamp_min(_LEAST).log(), large.clamp_min(_LEAST).log())


def step_law(
    path: Any,
    x_t: Tensor,
    t: Any,
    s: Any,
    estimate: Any,
    variance: StepVariance | None = None,
    cond: Any = None,
    after: Any = None,
) -> Any:
    """The law p(x_s | x_t) of one step of the reversal.

    Args:
        path: ``Gaussian``, or any path with a bridge where ``variance`` is None.
        x_t: states, (B, *E).
        t: where a step starts.
        s: where it ends, s < t.
        estimate: what a denoiser says at (x_t, t).
        variance: of Gaussian noise; None is the bridge's own.
        cond: handed to a learned variance.
        after: given where s = 0 and the law is to have a density: the time before t on the grid,
            whose step gives the smaller variance. Without it a step to 0 adds no noise.

    Raises:
        CapabilityError: for a variance on a path without Gaussian noise.
    """
    law = path.ancestor(x_t, t, s, estimate)
    if variance is None or not path.space.is_real:
        return law
    if not isinstance(path, Gaussian):
        raise CapabilityError(
            f"Expected Gaussian noise to choose the variance of, got {path}. Leave variance=None."
        )
    logs, share = _logs(path, t, s, after is not None), variance.share
    if after is not None:
        logs, share = logs._replace(small=_logs(path, after, t, True).small), variance.last_share
    nu = share(x_t, tensor(t, len(x_t), x_t).to(x_t.dtype), cond)
    log_std = (nu * logs.large + (1 - nu) * logs.small) / 2
    return NormalKernel(law.mean, _std(log_std, x_t))


def _std(log_std: Any, like: Tensor) -> Any:
    return log_std.exp().to(like) if isinstance(log_std, Tensor) else math.exp(log_std)


def _logs(path: Gaussian, t: Any, s: Any, ends: bool) -> Any:
    t, s = path.space.align(t), path.space.align(s)
    return evaluate(_LogsOf(path.schedule, ends), t, s, dtype=torch.float64)
