r"""One Gaussian denoiser, any Gaussian schedule: only the ratio of signal to noise matters.

With t' the time at which the schedule that was trained has the ratio :math:`\alpha_t / \sigma_t`,

.. math:: x' = \frac{\alpha'_{t'}}{\alpha_t}\, x_t, \qquad E[x_0 | x_t] = D(x', t') .

Exact, since x' has the law that the denoiser knows. Source: Kingma et al. (2021), section 5.1;
Karras et al. (2022), eq. (8).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import tensor
from reversal.core import Denoiser, Estimate, Kind
from reversal.errors import CapabilityError
from reversal.grids import RUNNING_MAX
from reversal.processes.gaussian import Gaussian
from reversal.schedules import SignalSchedule
from reversal.schedules.signal import TINY


@final
class Rescheduled(Denoiser):
    """A denoiser under another schedule of the same noise.

    Args:
        denoiser: of a ``Gaussian`` process.
        schedule: the one to sample or score with.

    Raises:
        CapabilityError: if the denoiser is not of Gaussian noise, or the schedule starts with less
            signal than the denoiser was trained on.

    Cost: one call, and two lookups of a schedule.
    """

    def __init__(self, denoiser: Denoiser, schedule: SignalSchedule) -> None:
        super().__init__()
        own = denoiser.process
        if not isinstance(own, Gaussian):
            raise CapabilityError(
                f"Expected a denoiser of Gaussian noise to reschedule, got one of {own}. On a "
                f"product, reschedule before you train."
            )
        end = torch.ones((), dtype=torch.float64)
        lowest = own.schedule.log_ratio(end)
        if bool(schedule.log_ratio(end) < lowest - 1e-9):
            last = float(schedule.time_of(lowest))
            raise CapabilityError(
                f"Expected a schedule that keeps log(alpha / sigma) at or above {float(lowest):.4g}"
                f", the least that {own.schedule} was trained on, got {schedule}. Use its first "
                f"part: Shortened({schedule}, {last - 5e-7:.6f})."
            )
        self.denoiser = denoiser
        self.clocks = denoiser.clocks
        self.process: Any = Gaussian(own.space, schedule)

    @property
    def like(self) -> Tensor:
        """The inner denoiser's."""
        return self.denoiser.like

    def forward(self, x_t: Tensor, t: Any, cond: Any = None) -> Estimate:
        """Ask the inner denoiser at the time of the same signal-to-noise ratio."""
        clock = tensor(t, len(x_t), x_t).double()
        time, scale = self._inner(clock)
        wide = state.trail(scale, x_t.ndim - scale.ndim).to(x_t)
        estimate = self.denoiser(wide * x_t, time, cond)
        return Estimate(self.process, x_t, t, Kind.CLEAN, estimate.read(Kind.CLEAN))

    def _inner(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The clock and the scale of x under the inner schedule; what is stopped stays stopped."""
        outer, inner = self.process.schedule, self.denoiser.process.schedule
        time = inner.time_of(outer.log_ratio(t))
        time = time.clamp(min=TINY)
        scale = _size(inner, time) / _size(outer, t)
        if t.ndim > 1:
            dropped = self.denoiser.process.prior.std / self.process.prior.std
            time = torch.where(t == 1, 1.0, time.clamp(max=RUNNING_MAX))
            scale = torch.where(t == 1, dropped, scale)
        return torch.where(t == 0, 0.0, time), torch.where(t == 0, 1.0, scale)


def _size(schedule: SignalSchedule, t: Tensor) -> Tensor:
    """The standard deviation of noisy unit data, whose ratio is the scale at both ends."""
    signal = schedule.signal(t)
    return torch.hypot(signal.alpha, signal.sigma)
