r"""One site restricted to a set: how probable that is, and draws from what is left.

A finite site is drawn from its conditional p(c | known), one network call, with the codes outside
the set struck out. A real site is drawn through its probability flow T, increasing from N(0, 1) to
the conditional law: an interval [a, b] has the preimage [a', b'], and with u uniform

.. math:: P(a \le x \le b \mid known) = \Phi(b') - \Phi(a'), \qquad
   x = T\big(\Phi^{-1}(\Phi(a') + u\,(\Phi(b') - \Phi(a')))\big) .
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from reversal import noise
from reversal.core import Estimate
from reversal.noise import Randomness
from reversal.restrictions.context import Context, Site, named
from reversal.restrictions.flow import FLOW_STEPS, SiteFlow

NOTHING: Final = 1e-6
"""A probability that no estimate tells from zero."""


class Drawn(NamedTuple):
    """Values of a site within its set, and the log-probability of the set; both ``(n,)``."""

    values: Tensor
    log_prob: Tensor


class Restriction(ABC):
    """A site and the set it may lie in."""

    site: Site

    @abstractmethod
    def log_prob(self, context: Context) -> Tensor:
        """Return the log-probability of the set given what is known, float64 ``(n,)``, in nats."""

    @abstractmethod
    def draw(self, context: Context, generator: Randomness = None) -> Drawn:
        """Draw the site given what is known and that it lies in the set."""


@final
@dataclass(frozen=True, eq=False)
class InCodes(Restriction):
    """A finite site and the codes that it may have.

    Args:
        site: where.
        members: whether each code may be, bool ``(K,)``.

    Exact for an exact denoiser whose prior says nothing of the data, as a mask. Cost: one call.
    """

    site: Site
    members: Tensor

    def log_prob(self, context: Context) -> Tensor:
        one, index = context.distinct()
        return self._logits(one).logsumexp(-1)[index]

    def draw(self, context: Context, generator: Randomness = None) -> Drawn:
        one, index = context.distinct()
        logits = self._logits(one)
        log_prob = logits.logsumexp(-1)
        weights = (logits - logits.amax(-1, keepdim=True)).exp().nan_to_num(0.0)
        return Drawn(noise.categorical(weights[index], generator), log_prob[index])

    def _logits(self, context: Context) -> Tensor:
        at = (slice(None), *self.site.place)
        logits = context.look(self.site, 1.0).posterior[at].double()[:, : len(self.members)]
        logits = logits.log_softmax(-1)
        return logits.masked_fill(~self.members.to(logits.device), -torch.inf)


@final
@dataclass(frozen=True, eq=False)
class InIntervals(Restriction):
    """A real site and a union of intervals.

    Args:
        site: where.
        ends: float64 ``(m, 2)``, in increasing order; infinite ends need no flow.
        steps: of the flow.

    Exact up to the error of the flow, of order 2 in its steps, for an exact denoiser; a draw lies
    in its interval in any case. Items of which the same is known share the flow of the ends. Cost:
    2 K - 1 calls for the ends and as many for the draws.
    """

    site: Site
    ends: Tensor
    steps: int = FLOW_STEPS

    def log_prob(self, context: Context) -> Tensor:
        one, index = context.distinct()
        return self._masses(self._preimage(one)).logsumexp(-1)[index]

    def draw(self, context: Context, generator: Randomness = None) -> Drawn:
        one, index = context.distinct()
        preimage = self._preimage(one)
        masses = self._masses(preimage)
        log_prob = masses.logsumexp(-1)
        weights = (masses - masses.amax(-1, keepdim=True)).exp().nan_to_num(0.0)
        chosen = noise.categorical(weights[index], generator)
        low, high = preimage[index, chosen].unbind(-1)
        u = noise.uniform((len(context),), low, generator)
        z = between_quantiles(low, high, u).to(context.denoiser.like)
        x = self._flow(context).to_data(partial(self._look, context), z).double()
        return Drawn(_within(x, *self.ends.to(x)[chosen].unbind(-1)), log_prob[index])

    def _preimage(self, context: Context) -> Tensor:
        """The standard normal quantiles of the ends given each item, float64 ``(n, m, 2)``."""
        ends = self.ends.flatten()
        image = ends.expand(len(context), -1).clone()
        finite = ends.isfinite()
        count = int(finite.sum())
        if count:
            repeated = context.repeated(count)
            x_0 = ends[finite].repeat(len(context)).to(context.denoiser.like)
            z = self._flow(context).to_noise(partial(self._look, repeated), x_0)
            image[:, finite] = z.double().view(len(context), count)
        return image.unflatten(1, (-1, 2)).cummax(2).values

    @staticmethod
    def _masses(preimage: Tensor) -> Tensor:
        return log_mass(*preimage.unbind(-1))

    def _flow(self, context: Context) -> SiteFlow:
        return SiteFlow(named(context.denoiser.process.parts)[self.site.factor], self.steps)

    def _look(self, context: Context, t: float, x_t: Tensor) -> Any:
        """The estimate at the site alone, ``(n,)``."""
        found = context.look(self.site, t, x_t)
        return _AtSite(found, (slice(None), *self.site.place))


@final
class _AtSite:
    """An estimate, read at one site."""

    def __init__(self, estimate: Estimate, at: Any) -> None:
        self.estimate, self.at = estimate, at

    def read(self, kind: Any) -> Tensor:
        return self.estimate.read(kind)[self.at]


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """Return log(Phi(high) - Phi(low)), accurate in both tails; -inf where low >= high."""
    flipped = low > 0
    a, b = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    log_a, log_b = log_ndtr(a), log_ndtr(b)
    gap = torch.where(log_b > log_a, log_a - log_b, 0.0)
    return log_b + torch.where(gap > -0.6931, (-torch.expm1(gap)).log(), torch.log1p(-gap.exp()))


def is_sure(ends: Tensor) -> bool:
    """Whether all that intervals ``(m, 2)`` leave out of N(0, 1) is single numbers, or nothing."""
    infinite = torch.tensor([torch.inf], dtype=torch.float64)
    left_out = torch.stack([torch.cat([-infinite, ends[:, 1]]), torch.cat([ends[:, 0], infinite])])
    return bool(log_mass(*left_out).exp().sum() < NOTHING)


def between_quantiles(low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """Return Phi^{-1}(Phi(low) + u (Phi(high) - Phi(low))), mirrored where low > 0."""
    flipped = low > 0
    a, b = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    p, q = log_ndtr(a).exp(), log_ndtr(b).exp()  # torch's ndtr is 0 below -9
    z = ndtri(p + torch.where(flipped, 1 - u, u) * (q - p)).clamp(a, b)
    return torch.where(flipped, -z, z)


def _within(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Reflect at an end what the error of the flow put beyond it."""
    x = torch.where(x < low, 2 * low - x, torch.where(x > high, 2 * high - x, x))
    return x.clamp(low, high)
