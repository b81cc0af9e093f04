"""Draw noisy states at one time per item, for the losses that are integrands over time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reversal import state
from reversal.clocks import Clock
from reversal.core import Capability, Denoiser
from reversal.errors import CapabilityError, ClockError
from reversal.noise import Randomness
from reversal.state import State, Tree


def noised(
    denoiser: Denoiser, x_0: State, observed: Tree, x_1: State | None, generator: Randomness
) -> tuple[Clock, Any]:
    """Return a clock of times ``(B,)`` of the denoiser's law, and draws of x_t.

    Raises:
        CapabilityError: if the path has no generator, or is given both ends.
        ClockError: if the clock law of the denoiser is not shared, or entries are missing.
    """
    process, n = denoiser.process, state.batch_size(x_0)
    if Capability.GENERATOR not in process.provides or x_1 is not None:
        raise CapabilityError(
            f"Expected a process with a generator, and no x_1, got {process}. Use Regression()."
        )
    clock = denoiser.clocks.sample(process.space, n, state.like(x_0), generator)
    apart = not isinstance(clock.time, Tensor) or clock.time.ndim > 1
    if observed is not None or apart or clock.running is not None:
        raise ClockError(
            "Expected one time per item and no gaps for a loss of the generator, got others. "
            "Use SharedClock() and whole rows."
        )
    return clock, process.kernel(x_0, clock.time).sample(generator)
