r"""Chains: a list of transition matrices on the grid t = k/T, a Markov process in discrete time.

.. math:: q(x_{k} | x_{k-1}) = Q_k[x_{k-1}, x_k], \qquad
   q(x_k | x_0) = \bar Q_k[x_0, x_k], \quad \bar Q_k = Q_1 \cdots Q_k .

There is no generator between grid times; the bridge is Bayes' rule. Source: Austin et al. (2021),
eq. (2) to (4), and the reversal by :math:`\sum_k p(k | x_t) q(x_s | x_t, k)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise
from reversal.core import Capability, Kernel, Kind, Leap, Path, Prior
from reversal.errors import CapabilityError, ClockError, SpaceError
from reversal.grids import Grid, Tick
from reversal.noise import Randomness
from reversal.processes.resampling import LeapKernel
from reversal.spaces.categorical import Categorical


@final
class Chain(Path):
    """D3PM's list of kernels, the same on every site.

    Args:
        space: ``Categorical(K, *sites)``.
        kernels: T row-stochastic matrices ``(K, K)``; the prior is the last marginal of a
            uniform start, so choose kernels that mix.

    Raises:
        SpaceError: unless each kernel is a row-stochastic matrix of the right size.

    Cost: K^2 per site and step, T K^2 numbers of memory.
    """

    provides = frozenset({Capability.BRIDGE, Capability.PRIOR})

    def __init__(self, space: Categorical, kernels: Sequence[Tensor]) -> None:
        if not isinstance(space, Categorical) or space.valid is not None or space.masked:
            raise SpaceError(
                f"Expected a Categorical space whose sites all take the same values, got {space}. "
                f"Write Chain(Categorical(5, 10), kernels)."
            )
        size = space.num_states
        table = [torch.as_tensor(k, dtype=torch.float64) for k in kernels]
        for k, kernel in enumerate(table):
            sound = kernel.shape == (size, size) and bool((kernel >= 0).all())
            if not (sound and torch.allclose(kernel.sum(-1), kernel.new_ones(size), atol=1e-8)):
                raise SpaceError(
                    f"Expected kernel {k} to be a row-stochastic matrix {(size, size)}, got shape "
                    f"{tuple(kernel.shape)}. Each row is a law over the next state."
                )
        if not table:
            raise SpaceError("Expected at least one kernel, got none. Give a list of T matrices.")
        self.space, self.kernels = space, torch.stack(table)
        steps = [torch.eye(size, dtype=torch.float64)]
        for kernel in table:
            steps.append(steps[-1] @ kernel)
        self.cumulative = torch.stack(steps)

    def __repr__(self) -> str:
        return f"Chain({self.space}, {self.num_steps} kernels)"

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.kernels)

    @property
    def noisy_space(self) -> Categorical:
        """The space itself."""
        return self.space

    @property
    def prior(self) -> Prior:
        """The last marginal of a uniform start."""
        return ChainPrior(self.space, self.cumulative[-1].mean(0))

    def kernel(self, x_0: Tensor, t: Any) -> ChainKernel:
        """Rows of the cumulative matrix.

        Raises:
            ClockError: if a time is not on the grid k/T.
        """
        return ChainKernel(x_0, self._at(self.cumulative, t))

    def transition(self, x_s: Tensor, s: Any, t: Any) -> ChainKernel:
        """Rows of the product of the kernels between two grid times."""
        return ChainKernel(x_s, self._between(s, t))

    def bridge(self, x_0: Tensor, x_t: Tensor, s: Any, t: Any) -> LeapKernel:
        """Bayes' rule."""
        sure = torch.nn.functional.one_hot(x_0, self.space.num_states).double()
        return LeapKernel(x_t, self._leap(sure, x_t, t, s))

    def ancestor(self, x_t: Tensor, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> LeapKernel:
        """The bridge averaged over the posterior."""
        posterior = estimate.read(Kind.POSTERIOR).softmax(-1)
        return LeapKernel(x_t, self._leap(posterior, x_t, t, s))

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """The posterior gives the score."""
        return (
            self._score_of_posterior if (source, target) == (Kind.POSTERIOR, Kind.SCORE) else None
        )

    def grid(self, steps: int) -> Grid:
        """At most T steps among the times k/T, as equal as can be."""
        return Grid.respaced(self.num_steps, steps)

    def _row(self, t: Any) -> Tensor:
        scaled = torch.as_tensor(float(t) if isinstance(t, Tick) else t).double() * self.num_steps
        row = scaled.round()
        if not bool(((scaled - row).abs() < 1e-3).all()):
            raise ClockError(
                f"Expected times on the grid k/{self.num_steps} of a chain, got "
                f"{scaled.flatten()[:3].tolist()} over {self.num_steps}. It has no law between "
                f"them; train it with SharedClock(OnGrid({self.num_steps}))."
            )
        return row.long()

    def _at(self, table: Tensor, t: Any) -> Tensor:
        row = self._row(self.space.align(t))
        return table.to(row.device)[row]

    def _between(self, s: Any, t: Any) -> Tensor:
        """The kernels from s to t, multiplied: one matrix, or one per item and site."""
        first, last = (self._row(self.space.align(at)) for at in (s, t))
        pairs = torch.stack(torch.broadcast_tensors(first, last), -1)
        every, own = pairs.view(-1, 2).unique(dim=0, return_inverse=True)
        if len(every) == 0:
            return torch.eye(self.space.num_states, dtype=torch.float64, device=first.device)
        table = torch.stack([self._product(*pair) for pair in every.tolist()]).to(first.device)
        return table[0] if len(every) == 1 else table[own.view(pairs.shape[:-1])]

    def _product(self, first: int, last: int) -> Tensor:
        result = torch.eye(self.space.num_states, dtype=torch.float64)
        for kernel in self.kernels[first:last]:
            result = result @ kernel
        return result

    def _weights(self, posterior: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """m_k / q(x_t | k), zero where the chain cannot come from k."""
        likelihood = _columns(self._at(self.cumulative, t), x_t).to(posterior)
        return torch.where(likelihood > 0, posterior / likelihood.clamp_min(1e-300), 0.0)

    def _score_of_posterior(self, value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        weights = self._weights(value.softmax(-1), x_t, t)
        return _times(weights, self._at(self.cumulative, t)).log()

    def _leap(self, posterior: Tensor, x_t: Tensor, t: Any, s: Any) -> Leap:
        ahead = _columns(self._between(s, t), x_t).to(posterior)
        law = ahead * _times(self._weights(posterior, x_t, t), self._at(self.cumulative, s))
        stay = law.gather(-1, x_t[..., None]).squeeze(-1)
        weights = law.scatter(-1, x_t[..., None], 0.0)
        return Leap.of_masses(stay, weights)


@final
@dataclass(frozen=True, eq=False)
class ChainKernel(Kernel):
    """Rows of a transition matrix, ``(K, K)`` or one per item."""

    x_0: Tensor
    matrix: Tensor

    def sample(self, generator: Randomness = None) -> Tensor:
        """Draw from the rows."""
        return noise.categorical(self._rows(), generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of every site."""
        return self._rows().gather(-1, x[..., None]).squeeze(-1).log()

    def target(self, kind: Kind, x_t: Tensor) -> Tensor:
        """The clean codes, or log-ratios."""
        if kind is Kind.POSTERIOR:
            return self.x_0
        if kind is not Kind.SCORE:
            raise CapabilityError(f"Expected posterior or score on a chain, got {kind}.")
        return self._rows().log() - self.site_log_prob(x_t)[..., None]

    def _rows(self) -> Tensor:
        matrix = self.matrix.to(self.x_0.device)
        matrix = matrix.expand(*self.x_0.shape, *matrix.shape[-2:])
        own = self.x_0[..., None, None].expand(*self.x_0.shape, 1, matrix.shape[-1])
        return matrix.gather(-2, own).squeeze(-2)


@final
@dataclass(frozen=True, eq=False)
class ChainPrior(Prior):
    """One law on every site."""

    space: Categorical
    law: Tensor

    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Tensor:
        """Draw n arrays of codes."""
        law = self.law if like is None else self.law.to(like.device)
        return noise.categorical(law.expand(n, *self.space.sites, -1), generator)

    def site_log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of every site."""
        return self.law.to(x.device)[x].log()


def _columns(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix[k, x] for every k, ``(B, *sites, K)``."""
    wide = matrix.to(x.device).expand(*x.shape, *matrix.shape[-2:])
    own = x[..., None, None].expand(*x.shape, wide.shape[-2], 1)
    return wide.gather(-1, own).squeeze(-1)


def _times(weights: Tensor, matrix: Tensor) -> Tensor:
    return (weights[..., None, :] @ matrix.to(weights)).squeeze(-2)
