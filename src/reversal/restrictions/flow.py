r"""The probability flow of one real site: an increasing map between noise and data.

With :math:`x_t = r_t\,(\cos\theta\, x_0 + \sin\theta\, \epsilon)` and u = x_t / r_t, the flow is

.. math:: \frac{du}{d\theta} = \cos\theta\, \hat\epsilon(u, \theta) - \sin\theta\,
   \hat x_0(u, \theta), \qquad \frac{du}{d\theta}\Big|_{\theta = 0} = 0 ,

under every Gaussian schedule. In one dimension trajectories do not cross, so the flow is increasing
in u: it carries the normal law at :math:`\theta_1` to the law of the data, quantile by quantile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal.core import Kind
from reversal.errors import CapabilityError
from reversal.processes import Gaussian

FLOW_STEPS: Final = 20
GROWTH: Final = 4.0
FINE: Final = 4096
"""The steps of the path's grid among which those of a flow are chosen."""
Look = Callable[[float, Tensor], Any]


@final
class SiteFlow:
    """The flow of one site of a path.

    Args:
        path: ``Gaussian``.
        steps: the number K of steps: geometric towards data, so that lumps and gaps of the law are
            crossed in steps no longer than the angle itself.

    Raises:
        CapabilityError: if the path is another.

    Cost: 2 K - 1 network calls a way. Order: 2 in K. Source: Heun's method as in Karras et al.
    (2022), Algorithm 1, in the angle of Salimans and Ho (2022).
    """

    def __init__(self, path: Any, steps: int = FLOW_STEPS) -> None:
        if not isinstance(path, Gaussian):
            raise CapabilityError(
                f"Expected Gaussian noise on a site that is restricted to intervals, got {path}. "
                f"Ask for values of it, or noise it by Gaussian()."
            )
        fine = path.grid(FINE).times.flip(0)
        angles = _angles(path, fine)
        rows = torch.searchsorted(angles, angles[-1] * _shares(steps)).clamp(max=FINE)
        self.times: list[float] = fine[rows].tolist()
        signal = path.schedule.signal(fine[rows])
        self.radii: list[float] = torch.hypot(signal.alpha, signal.sigma).tolist()
        self.angles: list[float] = torch.atan2(signal.sigma, signal.alpha).tolist()
        self.cosines: list[float] = torch.cos(torch.tensor(self.angles).double()).tolist()
        self.sines: list[float] = torch.sin(torch.tensor(self.angles).double()).tolist()

    def to_noise(self, look: Look, x_0: Tensor) -> Tensor:
        """Return the standard normal quantiles of data ``(n,)``; ``look(t, x_t)`` estimates."""
        return self._walk(look, x_0 / self.radii[0], range(len(self.times)))

    def to_data(self, look: Look, z: Tensor) -> Tensor:
        """Return the data of standard normal quantiles ``(n,)``."""
        return self._walk(look, z, range(len(self.times) - 1, -1, -1)) * self.radii[0]

    def _walk(self, look: Look, u: Tensor, rows: range) -> Tensor:
        velocity = self._velocity(look, u, rows[0])
        for row, to in itertools.pairwise(rows):
            h = self.angles[to] - self.angles[row]
            ahead = self._velocity(look, u + h * velocity, to)
            u = u + h / 2 * (velocity + ahead)
            velocity = self._velocity(look, u, to) if to != rows[-1] else ahead
        return u

    def _velocity(self, look: Look, u: Tensor, row: int) -> Tensor:
        if row == 0:
            return torch.zeros_like(u)
        estimate = look(self.times[row], self.radii[row] * u)
        clean, noise = estimate.read(Kind.CLEAN), estimate.read(Kind.NOISE)
        return self.cosines[row] * noise - self.sines[row] * clean


def _angles(path: Gaussian, times: Tensor) -> Tensor:
    signal = path.schedule.signal(times)
    return torch.atan2(signal.sigma, signal.alpha)


def _shares(steps: int) -> Tensor:
    """Return the angles k = 0, ..., K as shares of the last, (e^{ck/K} - 1) / (e^c - 1)."""
    k = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return torch.expm1(GROWTH * k) / math.expm1(GROWTH)
