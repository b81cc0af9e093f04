r"""Multistep exponential integrators: an ancestral step around an estimate that leans on past ones.

With :math:`\lambda = \log(\alpha/\sigma)` and h its length over the step from t to s, the flow is

.. math:: \frac{x_s}{\sigma_s} = \frac{x_t}{\sigma_t} + \int e^\lambda D \, d\lambda, \qquad
   \frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} - \int e^{-\lambda} E \, d\lambda,

with D the clean estimate and E that of the noise. For a constant estimate this is the step of DDIM;
a polynomial through the estimates at the nodes :math:`r_k = (\lambda_k - \lambda_t) / h` gives the
same step around

.. math:: \tilde D = D_t + \sum_k c_k (D_k - D_t), \qquad \sum_k c_k r_k^i = m_i(\pm h), \qquad
   m_i(k) = \int_0^1 e^{k u} u^i du \Big/ \int_0^1 e^{k u} du ,

with + for the clean estimate and - for the noise. The members of the family differ in what is
extrapolated, in how many past estimates they keep, and in whether a single node takes
:math:`m_1 = 1/2`, which has the same order. Source: Hochbruck and Ostermann (2010) for the family;
the leaves name theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Estimate, Kind, Sampler
from reversal.grids import evaluate
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.schedules import SignalSchedule
from reversal.state import Tree


class Look(NamedTuple):
    """What one factor looked like: its time, its state, its estimate, and that as the kind kept."""

    time: Any
    x: Tensor
    estimate: Any
    value: Tensor


class _Past(NamedTuple):
    end: Any
    looks: tuple[Tree, ...]


class Leaning(Sampler):
    """The family; a leaf says what it keeps, and what it makes of that.

    It remembers its last steps: `sample` has a memory of its own for each call, and a `step` that
    does not begin where the last one ended, at the very same time object, begins anew. By hand,
    walk one batch at a time, or give each a sampler of its own.
    """

    kind: Kind = Kind.CLEAN
    _past: _Past | None = None

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many past looks are kept."""

    @abstractmethod
    def settle(self, path: Any, now: Look, *past: Look) -> Look:
        """Amend the state where the walk stands, now that its estimate is known."""

    @abstractmethod
    def move(self, generator: Randomness, path: Any, s: Any, now: Look, *past: Look) -> Tensor:
        """Move one factor to s."""

    @final
    def advance(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Any,
        s: Any,
        cond: Any,
        stop: Tree,
        generator: Randomness,
    ) -> Any:
        """Look, amend, and draw from the bridge around the leaning estimate."""
        parts = denoiser.process.parts
        past = self._past.looks if self._past is not None and self._past.end is t else ()
        now = state.map(self._look, parts, x_t, t, denoiser(x_t, t, cond))
        if past:
            now = state.map(self.settle, parts, now, *past)
        self._past = _Past(s, (now, *past)[: self.depth])
        return state.map(partial(self.move, generator), parts, s, now, *past)

    def _look(self, path: Any, x_t: Tensor, t: Any, estimate: Estimate) -> Look:
        kept = estimate.read(self.kind) if isinstance(path, Gaussian) else x_t
        return Look(t, x_t, estimate, kept)


def lean(
    kind: Kind,
    is_half: bool,
    path: Any,
    s: Any,
    base: Look,
    past: tuple[Look, ...],
    end: Any = None,
) -> Estimate:
    """Return the estimate at ``base`` that leans on ``past`` ones, and on one at s if ``end``.

    Args:
        kind: clean or noise.
        is_half: whether a single node takes m_1 = 1/2.
        path: ``Gaussian``.
        s: where the step ends.
        base: the look where it starts.
        past: earlier looks, the latest first.
        end: the look at s, if there is one.
    """
    past = tuple(look for look in past if look.value.shape == base.value.shape)
    nodes = past if end is None else (end, *past)
    if not nodes or not isinstance(path, Gaussian):
        return base.estimate
    rule = _Weights(path.schedule, 1 if kind is Kind.CLEAN else -1, is_half, end is not None)
    times = (*(look.time for look in reversed(past)), base.time, s)
    weights = evaluate(rule, *map(path.space.align, times), dtype=base.x.dtype)
    value = base.value
    for weight, look in zip(weights, nodes, strict=True):
        value = value + weight * (look.value - base.value)
    return Estimate(path, base.x, base.time, kind, value)


@final
@dataclass(frozen=True)
class _Weights:
    """The weights c_k of the nodes, those of fewer nodes where a lambda is infinite."""

    schedule: SignalSchedule
    sign: int
    is_half: bool
    has_end: bool

    def __call__(self, *times: Tensor) -> tuple[Tensor, ...]:
        *past, base, end = (self._log_ratio(time) for time in times)
        h = end - base
        nodes = [(at - base) / h for at in reversed(past)]
        return tuple(self._solved([torch.ones_like(h), *nodes] if self.has_end else nodes, h))

    def _solved(self, nodes: list[Tensor], h: Tensor) -> list[Tensor]:
        if not nodes:
            return []
        moments = _moments(self.sign * h, len(nodes))
        if self.is_half and len(nodes) == 1:
            moments = [torch.full_like(h, 0.5)]
        weights = torch.broadcast_tensors(
            *(_lagrange(k, nodes, moments) for k in range(len(nodes)))
        )
        sound = torch.stack(weights).isfinite().all(0)
        fewer = [*self._solved(nodes[:-1], h), torch.zeros_like(h)]
        return [torch.where(sound, *pair) for pair in zip(weights, fewer, strict=True)]

    def _log_ratio(self, time: Tensor) -> Tensor:
        signal = self.schedule.signal(time)
        return signal.alpha.log() - signal.sigma.log()


def _lagrange(k: int, nodes: list[Tensor], moments: list[Tensor]) -> Tensor:
    """The mean of the polynomial that is 1 at node k, and 0 at 0 and at the other nodes."""
    coefficients, scale = [torch.ones_like(nodes[k])], nodes[k]
    for j, node in enumerate(nodes):
        if j != k:
            shifted = [torch.zeros_like(node), *coefficients]
            kept = [*coefficients, torch.zeros_like(node)]
            coefficients = [a - node * b for a, b in zip(shifted, kept, strict=True)]
            scale = scale * (nodes[k] - node)
    return sum(a * m for a, m in zip(coefficients, moments, strict=True)) / scale  # pyright: ignore[reportReturnType]


def _moments(k: Tensor, count: int) -> list[Tensor]:
    """m_1(k), ..., m_count(k) by quadrature, to rounding for |k| up to 60."""
    u, weights = _quadrature()
    mass = weights * (k[..., None] * u - k.clamp_min(0)[..., None]).exp()
    return [(mass * u**i).sum(-1) / mass.sum(-1) for i in range(1, count + 1)]


@cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Gauss-Legendre on [0, 1]."""
    from numpy.polynomial.legendre import leggauss

    nodes, weights = leggauss(48)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
