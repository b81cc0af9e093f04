r"""A schedule that is learned: a monotone network between two noise levels.

.. math:: \log \frac{\sigma_t^2}{\alpha_t^2} = \gamma(t)
   = \gamma_0 + (\gamma_1 - \gamma_0) \frac{h(t) - h(0)}{h(1) - h(0)}, \qquad
   h(t) = t + \sum_k a_k\, \mathrm{sigmoid}(b_k (t - c_k)), \quad a_k, b_k > 0,

with :math:`\alpha^2 + \sigma^2 = 1`. The bound on the likelihood in continuous time depends on
:math:`\gamma_0` and :math:`\gamma_1` alone, and the variance of its estimate on all of gamma.
Source: Kingma et al. (2021), sections 4 and 5.1 and appendix H; deviation: the network is a sum of
sigmoids, whose derivative is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from reversal.grids import RUNNING_MAX, depends_on
from reversal.schedules.signal import Signal, SignalSchedule, check_positive


class _Shape(NamedTuple):
    """The value of h at a time, and its derivative."""

    value: Tensor
    rate: Tensor


@final
class LearnedSchedule(nn.Module, SignalSchedule):
    """A variance-preserving schedule with parameters, for ``Gaussian`` and the optimizer.

    A ``NetworkDenoiser`` of such a process has the schedule among its modules: its parameters are
    trained, moved and saved with those of the network. ``LeastVariance`` is the objective that
    learns the shape; a plain ``Regression`` refuses to, for it has its least value where the noise
    is easy. Show the network ``level`` in the place of t, so that what it has learned of a
    noise level stays true when the time of that level changes:

        schedule = LearnedSchedule()
        NetworkDenoiser(network, Gaussian(space, schedule), time=schedule.level)

    Args:
        least: sigma/alpha from the first instant on; at t = 0 itself there is no noise.
        most: sigma/alpha at t = 1.
        bends: the number of sigmoids.
        learns_ends: whether both ends have a gradient too. Only a loss that has all terms of the
            bound has its least value at useful ends: ``StepBound``.

    Raises:
        ClockError: unless 0 < least < most and bends >= 1.
    """

    def __init__(
        self,
        least: float = 1e-3,
        most: float = 100.0,
        bends: int = 16,
        learns_ends: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.least, self.most, self.learns_ends = least, most, learns_ends
        check_positive(self, 0 < least < most < math.inf and isinstance(bends, int) and bends >= 1)
        centers = (torch.arange(bends) + 0.5) / bends
        self.heights = nn.Parameter(torch.full((bends,), -3.0))
        self.slopes = nn.Parameter(torch.full((bends,), math.log(2.0 * bends)))
        self.centers = nn.Parameter(centers)
        first, last = 2 * math.log(least), 2 * math.log(most)
        ends = torch.tensor([first, math.log(last - first)])
        self.ends = nn.Parameter(ends, requires_grad=learns_ends)
        self._first, self._span = ends[0].item(), ends[1].double().exp().item()

    def __repr__(self) -> str:
        bits = b"".join(repr(part.tolist()).encode() for part in self.parameters())
        return f"LearnedSchedule({self.least}, {self.most}, {sha256(bits).hexdigest()[:6]})"

    def shape_parameters(self) -> Iterator[nn.Parameter]:
        """Those that bend gamma between its ends, and leave the bound as it is."""
        yield from (self.heights, self.slopes, self.centers)

    def level(self, t: Tensor) -> Tensor:
        """The level of noise for a network, like t: gamma from 0 to 1 between the first ends.

        In a clock per site what stands at 0 or 1 stands there, and nothing else does at 1.
        """
        level = (self._gamma(t.double())[0] - self._first) / self._span
        if t.ndim > 1:
            level = torch.where((t > 0) & (t < 1), level.clamp(max=RUNNING_MAX), t.double())
        return level.to(t)

    def signal(self, t: Tensor) -> Signal:
        """All coefficients at t; the rates at 0 are those of the first instant."""
        gamma, rate = self._gamma(t)
        noisy = t > 0
        alpha = torch.where(noisy, (logsigmoid(-gamma) / 2).exp(), 1.0)
        sigma = torch.where(noisy, (logsigmoid(gamma) / 2).exp(), 0.0)
        beta = torch.sigmoid(gamma) * rate
        sigma_dot = (logsigmoid(gamma) / 2 + logsigmoid(-gamma)).exp() * rate / 2
        return Signal(alpha, sigma, -beta * alpha / 2, sigma_dot, -beta / 2, beta)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Half of log sigmoid(-gamma), and 0 at t = 0."""
        return torch.where(t > 0, logsigmoid(-self._gamma(t)[0]) / 2, 0.0)

    def diffused(self, t: Tensor) -> Tensor:
        """The integral of the rate alone, without the noise of the first instant."""
        first = self._gamma(torch.zeros_like(t))[0]
        return softplus(self._gamma(t)[0]) - softplus(first)

    def _gamma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and its derivative, in the dtype of t."""
        depends_on(self.parameters())
        first, log_span = self.ends.to(t)
        low, at, high = map(partial(self._bent, t), (0.0, None, 1.0))
        scale = log_span.exp() / (high.value - low.value)
        return first + scale * (at.value - low.value), scale * at.rate

    def _bent(self, t: Tensor, end: float | None) -> _Shape:
        """The shape h at an end, or at t."""
        where = t if end is None else t.new_full((), end)
        a, b = softplus(self.heights).to(t), self.slopes.clamp(max=20).exp().to(t)
        bend = torch.sigmoid(b * (where[..., None] - self.centers.to(t)))
        return _Shape(where + bend @ a, 1 + (bend * (1 - bend)) @ (a * b))
