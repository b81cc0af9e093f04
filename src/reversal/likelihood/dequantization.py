r"""Probabilities of integers by a density: numbers are spread over the cells of their levels.

With a level x(c), the width h of its cell and u in [0, 1)^D,

.. math:: \log P(c) \ge E_{u \sim q(\cdot | c)}\big[\log p(x(c) + (u - \tfrac12) h)
   - \log q(u | c)\big] + D \log h, \qquad P(c) = \int_{cell(c)} p(x)\, dx .

Uniform u makes q = 1. A learned q closes the gap; the bound is on the same P(c). Source: Theis, van
den Oord and Bethge (2016), section 3.1; Ho et al. (2019), eq. (12).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from reversal import noise
from reversal.errors import ClockError, SpaceError
from reversal.likelihood.value import Likelihood
from reversal.noise import Randomness
from reversal.processes.decoders import Levels


class Spread(NamedTuple):
    """Places in the cells, in [0, 1), ``(B, *E)``, and their log-density, ``(B,)``."""

    u: Tensor
    log_prob: Tensor


class Dequantization(ABC):
    """A law of places in the cells, given the integers."""

    levels: Levels
    law: str

    @abstractmethod
    def draw(self, codes: Tensor, generator: Randomness = None) -> Spread:
        """Draw a place in every cell, differentiably in the parameters of the law."""


@final
@dataclass(frozen=True)
class UniformDequantization(Dequantization):
    """Anywhere in the cell alike.

    Args:
        levels: the numbers of the integers; a model is trained on ``dequantized`` data of the same.
    """

    levels: Levels = Levels()

    @property
    def law(self) -> str:
        """Whose probability it bounds, and how."""
        return f"{self.levels.count} levels, uniform dequantization"

    def draw(self, codes: Tensor, generator: Randomness = None) -> Spread:
        """Uniform numbers."""
        u = noise.uniform(codes.shape, _real(codes), generator)
        return Spread(u, u.new_zeros(len(codes), dtype=torch.float64))


@final
class VariationalDequantization(nn.Module, Dequantization):
    r"""A logistic normal law in every cell: :math:`u = \text{sigmoid}(m + e^{l} z)`.

    Args:
        network: called with the levels as real numbers ``(B, *E)``; outputs m and l stacked last,
            ``(B, *E, 2)``. Train it by minimizing ``-dequantized_bound(...)``; m = 0 and l = 0.5
            is near to uniform.
        levels: the numbers of the integers.
    """

    def __init__(self, network: Any, levels: Levels | None = None) -> None:
        super().__init__()
        self.network, self.levels = network, Levels() if levels is None else levels

    @property
    def law(self) -> str:
        """Whose probability it bounds, and how."""
        return f"{self.levels.count} levels, variational dequantization"

    def draw(self, codes: Tensor, generator: Randomness = None) -> Spread:
        """Logistic normal numbers.

        Raises:
            SpaceError: if the network outputs another shape than ``(B, *E, 2)``.
        """
        x = self.levels.encode(codes)
        output = self.network(x)
        if not isinstance(output, Tensor) or output.shape != (*codes.shape, 2):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise SpaceError(
                f"Expected a mean and a log-scale per entry, of shape {(*codes.shape, 2)}, got "
                f"{got}. Stack them on a last dimension."
            )
        mean, log_scale = output.unbind(-1)
        z = noise.normal(codes.shape, output, generator)
        logit = mean + log_scale.exp() * z
        log_normal = -(z**2) / 2 - log_scale - math.log(2 * math.pi) / 2
        slope = nn.functional.logsigmoid(logit) + nn.functional.logsigmoid(-logit)
        log_prob = (log_normal - slope).double().flatten(1).sum(1)
        return Spread(logit.sigmoid(), log_prob)


def dequantized(codes: Tensor, levels: Levels | None = None, generator: Randomness = None) -> Any:
    """Integers as real numbers, each uniform in its cell: what a density of them is trained on."""
    levels = Levels() if levels is None else levels
    spread = UniformDequantization(levels).draw(codes, generator)
    return _placed(codes, levels, spread.u)


def dequantized_bound(
    log_prob: Callable[[Tensor], Tensor],
    codes: Tensor,
    dequantization: Dequantization,
    generator: Randomness = None,
) -> Tensor:
    """One draw of the bound, ``(B,)``, which may be differentiated.

    Args:
        log_prob: the log-density of real numbers ``(B, *E)``, or an estimate of a bound on it.
        codes: integers, (B, *E).
        dequantization: where in the cells they are put.
        generator: where the places come from.
    """
    levels = dequantization.levels
    spread = dequantization.draw(codes, generator)
    width = codes[:1].numel() * math.log(levels.spacing)
    return log_prob(_placed(codes, levels, spread.u)).double() - spread.log_prob + width


@torch.no_grad()
def dequantized_log_prob(
    score: Callable[[Tensor], Likelihood],
    codes: Tensor,
    dequantization: Dequantization | None = None,
    num_samples: int = 8,
    generator: Randomness = None,
) -> Likelihood:
    """Bound the log-probability of integers by a density, from below.

    Args:
        score: the likelihood of real numbers, such as ``lambda x: flow_log_prob(denoiser, x)`` or
            ``lambda x: elbo(denoiser, x)``.
        codes: integers, (B, *E).
        dequantization: ``UniformDequantization()`` of 8-bit images in [-1, 1] if None.
        num_samples: how many places are drawn for every item.
        generator: where the places come from.

    Returns:
        A lower bound on log P with respect to counting measure. Its standard error is that of the
        draws, in which the noise of ``score`` is contained, or that of ``score`` for one draw; its
        bias is the mean of those of ``score``; its ``law`` says what was scored.

    Raises:
        SpaceError: for numbers that are no integers of the levels.
    """
    how = UniformDequantization() if dequantization is None else dequantization
    if not isinstance(num_samples, int) or num_samples < 1:
        raise ClockError(f"Expected num_samples >= 1, got {num_samples!r}. Give e.g. 8.")
    found: list[Likelihood] = []

    def log_prob(x: Tensor) -> Tensor:
        found.append(score(x))
        return found[-1].value

    draws = [dequantized_bound(log_prob, codes, how, generator) for _ in range(num_samples)]
    values = torch.stack(draws)
    one = num_samples < 2 or values.numel() == 0
    stderr = found[0].stderr if one else values.std(0) / num_samples**0.5
    bias = sum(each.bias for each in found) / num_samples
    late = next((each.kind for each in found if "not converged" in each.kind), "")
    kind = f"lower bound by a {late}" if late else "lower bound"
    return Likelihood(values.mean(0), stderr, bias, kind, "counting", how.law)


def _placed(codes: Tensor, levels: Levels, u: Tensor) -> Tensor:
    return levels.encode(codes).to(u) + (u - 0.5) * levels.spacing


def _real(codes: Tensor) -> Tensor:
    return torch.empty((), device=codes.device)
