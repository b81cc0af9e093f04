r"""The reversal on a grid 1 = t_T > ... > t_0 = 0: its steps, their divergences, its last step.

.. math:: -\log p(x_0) \le KL(q(x_1 | x_0) \| p) + \sum_{k=2}^T
   E\, KL\big(q(x_{t_{k-1}} | x_{t_k}, x_0) \| p(x_{t_{k-1}} | x_{t_k})\big)
   - E \log p(x_0 | x_{t_1}) .

Source: Sohl-Dickstein et al. (2015), eq. (14); Ho et al. (2020), eq. (5); Austin et al. (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Kind
from reversal.errors import CapabilityError, ClockError, SpaceError, listed
from reversal.grids import Grid
from reversal.noise import Randomness
from reversal.processes.chain import Chain
from reversal.processes.decoders import Decoder, DensityDecoder
from reversal.processes.gaussian import Gaussian, NormalKernel
from reversal.processes.resampling import Resampling
from reversal.processes.variances import StepVariance, step_law


@final
@dataclass(frozen=True)
class ReverseChain:
    """The laws p(x_s | x_t) between neighbors of a grid.

    Args:
        path: ``Gaussian``, a path on finite sets with a bridge, or a product of them.
        times: from 1 down to 0, float64 ``(T + 1,)``, or a dict of them, one per factor.
        variance: of the steps of Gaussian factors.
        decoder: the last step of Gaussian factors.
    """

    path: Any
    times: Any
    variance: StepVariance
    decoder: Decoder

    @classmethod
    def of(
        cls,
        path: Any,
        grid: Any,
        variance: StepVariance | None = None,
        decoder: Decoder | None = None,
    ) -> ReverseChain:
        """Check what is asked.

        Raises:
            CapabilityError: for a path whose bridges have no divergence in closed form.
            ClockError: for a grid that does not go from 1 to 0, or several of unequal lengths.
        """
        state.map(_require, path.parts)
        grids = list(state.leaves(grid))
        sound = all(isinstance(g, Grid) and g.times[0] == 1 and g.times[-1] == 0 for g in grids)
        factors = set(grid) if isinstance(grid, Mapping) else set(path.factors or ())
        if not sound or len({g.steps for g in grids}) != 1 or factors != set(path.factors or ()):
            raise ClockError(
                f"Expected a Grid from 1 to 0, or one per factor of equal lengths, got {grid!r}. "
                f"Write Grid.uniform(1000), or a number of steps."
            )
        times = state.map(lambda g: g.times, grid)
        decoder = DensityDecoder() if decoder is None else decoder
        return cls(path, times, decoder.variance if variance is None else variance, decoder)

    @property
    def steps(self) -> int:
        """T."""
        return len(next(state.leaves(self.times))) - 1

    def time(self, k: Tensor) -> Any:
        """The times t_k, for k ``(B,)`` counted from the data: 0 is 0, T is 1."""
        return state.map(lambda times: times.to(k.device)[self.steps - k], self.times)

    def prior_divergence(self, x_0: Any, generator: Randomness = None) -> Any:
        """KL(q(x_1 | x_0) || p(x_1)): in closed form under Gaussian noise, else a draw of it."""
        one = self.time(torch.full_like(_numbers(x_0), self.steps))

        def gap(path: Any, x: Tensor, at: Any) -> Tensor:
            kernel, prior = path.kernel(x, at), path.prior
            if isinstance(path, Gaussian):
                last = NormalKernel(kernel.signal.alpha * x, kernel.signal.sigma)
                return last.divergence(NormalKernel(torch.zeros_like(x), prior.std))
            x_1 = kernel.sample(generator)
            return kernel.site_log_prob(x_1) - prior.site_log_prob(x_1)

        return state.map(gap, self.path.parts, x_0, one)

    def divergence(self, x_0: Any, x_t: Any, k: Tensor, estimate: Any, cond: Any = None) -> Any:
        """KL of step k from t_k to t_(k-1), k >= 2: ``(B, *sites)`` by factor."""
        t, s = self.time(k), self.time(k - 1)

        def one(path: Any, x: Tensor, y: Tensor, at: Any, to: Any, said: Any) -> Tensor:
            model = step_law(path, y, at, to, said, self.variance, cond)
            return path.bridge(x, y, to, at).divergence(model)

        return state.map(one, self.path.parts, x_0, x_t, t, s, estimate)

    def log_decoded(self, x_0: Any, x_t: Any, estimate: Any, cond: Any = None) -> Any:
        """log p(x_0 | x_t) at t_1: ``(B, *sites)`` by factor."""
        one = torch.ones_like(_numbers(x_0))
        t, s, after = (self.time(k * one) for k in (1, 0, min(2, self.steps)))

        def read(path: Any, x: Tensor, y: Tensor, at: Any, to: Any, up: Any, said: Any) -> Tensor:
            if not path.space.is_real:
                return said.read(Kind.POSTERIOR).log_softmax(-1).gather(-1, x[..., None])[..., 0]
            law = step_law(path, y, at, to, said, self.variance, cond, up)
            return self.decoder.log_prob(law, x)

        return state.map(read, self.path.parts, x_0, x_t, t, s, after, estimate)

    def check(self, x_0: Any) -> None:
        """Raise ``SpaceError`` for data that the decoder cannot draw."""
        state.map(lambda path, x: self._check(path, x), self.path.parts, x_0)

    def _check(self, path: Any, x: Tensor) -> None:
        if path.space.is_real:
            self.decoder.check(x)

    @property
    def measure(self) -> Any:
        """What is scored with respect to, by factor."""
        return state.map(
            lambda path: self.decoder.measure if path.space.is_real else "counting",
            self.path.parts,
        )


def _numbers(x: Any) -> Tensor:
    return torch.zeros(state.batch_size(x), dtype=torch.int64, device=state.like(x).device)


def _require(path: Any) -> None:
    if Capability.BRIDGE in path.provides and isinstance(path, Gaussian | Resampling | Chain):
        return
    raise CapabilityError(
        f"Expected bridges with a divergence in closed form, got {path}, which provides "
        f"{listed(path.provides)}. Use elbo(), which needs a generator alone."
    )


def grid_of(denoiser: Any, grid: Any) -> Any:
    """A grid, or the denoiser's own of so many steps.

    Raises:
        ClockError: for a number of steps below 1.
    """
    if not isinstance(grid, int):
        return grid
    if grid < 1:
        raise ClockError(f"Expected at least one step, got {grid}. Give e.g. 1000.")
    return denoiser.clocks.grid(denoiser.process, grid)


def step_numbers(u: Tensor, steps: int) -> Tensor:
    """Uniform numbers to the steps 2 .. T, alike."""
    if steps < 2:
        raise SpaceError(f"Expected a chain of at least 2 steps, got {steps}.")
    return 2 + (u * (steps - 1)).long().clamp(0, steps - 2)
