r"""Parametrizations: what a network outputs, how that becomes an estimate, and its divergence.

Each target is a conditional quantity whose posterior expectation the estimate is, and each loss is
a Bregman divergence, whose minimizer is that expectation: squared error for clean, noise and
velocity, squared error of the noise for the score on real spaces, score entropy on finite sets,
cross-entropy for posterior and cavity. Source: Benton et al. (2024), section 5; Lou et al. (2024),
Theorem 3.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal.core import Capability, Estimate, Kernel, Kind, Path
from reversal.errors import CapabilityError
from reversal.grids import evaluate
from reversal.processes.gaussian import Gaussian
from reversal.processes.resampling import Resampling

_TINY = 1e-12


class Parametrization(ABC):
    """What the output of a network means."""

    kind: Kind

    @abstractmethod
    def prepare(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        """What the network is fed in place of x_t."""

    @abstractmethod
    def estimate(self, path: Any, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        """Read an output as an estimate."""

    @abstractmethod
    def loss(self, path: Any, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """The divergence of an output from its conditional target, ``(B, *sites)``."""

    @abstractmethod
    def noise_error(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        """What the root of this divergence is multiplied by to be the error of the noise."""


class _Regressed(Parametrization):
    """Outputs that are regressed on their target by squared error."""

    @final
    def prepare(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        return x_t

    @final
    def estimate(self, path: Path, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        return Estimate(path, x_t, t, self.kind, output)

    @final
    def loss(self, path: Path, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        return _square(path, output - kernel.target(self.kind, x_t))

    @final
    def noise_error(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        return _gaussian(path).noise_error(self.kind, t, x_t.dtype)


@final
@dataclass(frozen=True)
class Clean(_Regressed):
    """The network outputs E[x_0 | x_t]."""

    kind = Kind.CLEAN


@final
@dataclass(frozen=True)
class Noise(_Regressed):
    """The network outputs E[epsilon | x_t]; on a manifold, minus the scaled score."""

    kind = Kind.NOISE


@final
@dataclass(frozen=True)
class Velocity(_Regressed):
    """The network outputs the velocity of the probability flow, dx/dt."""

    kind = Kind.VELOCITY


@final
@dataclass(frozen=True)
class Heads(Parametrization):
    """Two outputs of one network, ``(B, 2, *E)``, where a path converts neither into the other.

    On an ``Interpolant`` with noise the default gives the velocity of the flow and, from the noise,
    the score: what a flow and what a diffusion needs. The loss is the sum of both. Source:
    Albergo, Boffi and Vanden-Eijnden (2023), section 2.

    Args:
        first: ``Velocity``, ``Clean`` or ``Noise``.
        second: another one of them.
    """

    first: Parametrization = Velocity()
    second: Parametrization = Noise()

    def __post_init__(self) -> None:
        pair = (self.first, self.second)
        if not all(isinstance(how, _Regressed) for how in pair) or self.first == self.second:
            raise CapabilityError(
                f"Expected two different ones of Velocity(), Clean() and Noise() for heads, got "
                f"{self.first} and {self.second}. Write Heads(Velocity(), Noise())."
            )
        object.__setattr__(self, "kind", self.first.kind)

    def prepare(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        """x_t itself."""
        return x_t

    def estimate(self, path: Path, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        """The first one, with the second beside it."""
        beside = self.second.estimate(path, x_t, t, output[:, 1])
        return Estimate(path, x_t, t, self.kind, output[:, 0], beside)

    def loss(self, path: Path, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """The sum of both."""
        one = self.first.loss(path, kernel, output[:, 0], x_t, t)
        return one + self.second.loss(path, kernel, output[:, 1], x_t, t)

    def noise_error(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        """Refused: two errors have no common scale."""
        raise CapabilityError(
            "Expected one output to weigh by its level of noise, got two. Leave out the weighting."
        )


@final
@dataclass(frozen=True)
class Score(Parametrization):
    """The network outputs the score, or all log-ratios ``(B, *sites, N)`` on a finite set."""

    kind = Kind.SCORE

    def prepare(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        """x_t itself."""
        return x_t

    def estimate(self, path: Path, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        """The output itself, -inf beyond a site's own values."""
        return Estimate(path, x_t, t, Kind.SCORE, _within(path.space, output))

    def loss(self, path: Any, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """Squared error of the noise on real spaces; score entropy per unit of t on finite sets."""
        target = kernel.target(Kind.SCORE, x_t)
        if not path.space.is_real:
            return path.forward(x_t, t).gap(_within(path.space, output), target)
        to_noise = path.conversion(Kind.SCORE, Kind.NOISE)
        if to_noise is None:
            raise CapabilityError(
                f"Expected a path whose noise can be told from its score, got {path}. "
                f"Its default is {default(path)}."
            )
        return _square(path, to_noise(output, x_t, t) - to_noise(target, x_t, t))

    def noise_error(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        """1: it is the error of the noise."""
        return torch.ones_like(_gaussian(path).signal(t, x_t.dtype).alpha)


class _Logits(Parametrization):
    """Logits over the values of each site, cross-entropy with the clean code."""

    @final
    def prepare(self, path: Path, x_t: Tensor, t: Any) -> Tensor:
        return x_t

    @final
    def estimate(self, path: Any, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        valid = path.space.valid
        if valid is not None:
            output = output.masked_fill(~valid.to(output.device), -torch.inf)
        logits = output.log_softmax(-1)
        return Estimate(path, x_t, t, self.kind, self.complete(path, logits, x_t))

    @final
    def loss(self, path: Any, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        logits = self.estimate(path, x_t, t, output).posterior
        return -logits.gather(-1, kernel.target(self.kind, x_t)[..., None]).squeeze(-1)

    @final
    def noise_error(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        return _gaussian(path).noise_error(self.kind, t, x_t.dtype)

    @abstractmethod
    def complete(self, path: Any, logits: Tensor, x_t: Tensor) -> Tensor:
        """Put in what is known of the prediction without a network."""


@final
@dataclass(frozen=True)
class Posterior(_Logits):
    """The network outputs logits of p(x_0^d | x_t), ``(B, *sites, num_states)``."""

    kind = Kind.POSTERIOR

    def complete(self, path: Any, logits: Tensor, x_t: Tensor) -> Tensor:
        """A value that no resampling could have drawn, as under masking, is certain."""
        if not isinstance(path, Resampling) or path.has_full_support:
            return logits
        sure = torch.full_like(logits, -torch.inf)
        sure = sure.scatter(-1, x_t.clamp(max=path.space.num_values - 1)[..., None], 0.0)
        certain = path.log_fresh_at(x_t) == -torch.inf
        return torch.where(certain[..., None], sure, logits)


@final
@dataclass(frozen=True)
class Cavity(_Logits):
    """The network outputs logits of p(x_0^d | x_t without coordinate d)."""

    kind = Kind.CAVITY

    def complete(self, path: Any, logits: Tensor, x_t: Tensor) -> Tensor:
        """Nothing: the cavity does not know its own coordinate."""
        return logits


class _Scales(NamedTuple):
    inward: Tensor
    skip: Tensor
    out: Tensor


@final
@dataclass(frozen=True)
class Preconditioned(Parametrization):
    r"""Inputs and targets of unit variance at every t, for data of standard deviation ``scale``.

    .. math:: E[x_0 | x_t] = c_{skip} x_t + c_{out} F(c_{in} x_t), \quad
       c_{in}^{-2} = \alpha^2 s^2 + \sigma^2, \quad c_{skip} = \alpha s^2 c_{in}^2, \quad
       c_{out} = \sigma s c_{in} .

    Source: Karras et al. (2022), appendix B.6, with a signal level alpha.
    """

    scale: float = 1.0
    kind = Kind.CLEAN

    def prepare(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        """c_in x_t."""
        return self._scales(path, x_t, t).inward * x_t

    def estimate(self, path: Any, x_t: Tensor, t: Any, output: Tensor) -> Estimate:
        """The clean estimate."""
        at = self._scales(path, x_t, t)
        return Estimate(path, x_t, t, Kind.CLEAN, at.skip * x_t + at.out * output)

    def loss(self, path: Any, kernel: Kernel, output: Tensor, x_t: Tensor, t: Any) -> Tensor:
        """Squared error of F."""
        at = self._scales(path, x_t, t)
        out = at.out.clamp_min(_TINY)
        return _square(path, output - (kernel.target(Kind.CLEAN, x_t) - at.skip * x_t) / out)

    def noise_error(self, path: Any, x_t: Tensor, t: Any) -> Tensor:
        """c_out times that of the clean estimate."""
        return self._scales(path, x_t, t).out * path.noise_error(Kind.CLEAN, t, x_t.dtype)

    def _scales(self, path: Any, x_t: Tensor, t: Any) -> Any:
        if not isinstance(path, Gaussian):
            raise CapabilityError(
                f"Expected Gaussian noise to precondition, got {path}. Use Noise() or Posterior()."
            )
        return evaluate(_ScalesOf(path.schedule, self.scale), path.space.align(t), dtype=x_t.dtype)


@final
@dataclass(frozen=True)
class _ScalesOf:
    schedule: Any
    scale: float

    def __call__(self, t: Tensor) -> _Scales:
        signal = self.schedule.signal(t)
        inward = (signal.alpha**2 * self.scale**2 + signal.sigma**2).rsqrt()
        return _Scales(
            inward, signal.alpha * self.scale**2 * inward**2, signal.sigma * self.scale * inward
        )


def default(path: Any) -> Parametrization:
    """The parametrization that suits a path: preconditioned, noise, velocity, posterior, score."""
    if isinstance(path, Gaussian):
        return Preconditioned()
    if not path.space.is_real:
        return Posterior() if path.conversion(Kind.POSTERIOR, Kind.SCORE) else Score()
    if path.conversion(Kind.SCORE, Kind.NOISE):
        return Noise()
    return Velocity() if Capability.VELOCITY in path.provides else Clean()


def _within(space: Any, ratios: Tensor) -> Tensor:
    """Put -inf beyond the values of each packed site; the mask is a state of every site."""
    valid = None if space.is_real else space.valid
    if valid is None:
        return ratios
    extra = ratios.shape[-1] - valid.shape[-1]
    valid = torch.nn.functional.pad(valid, (0, extra), value=True)
    return ratios.masked_fill(~valid.to(ratios.device), -torch.inf)


def _square(path: Any, error: Tensor) -> Tensor:
    """Squared length of a tangent vector at every site."""
    extra = len(path.space.tangent_shape) - len(path.space.sites)
    return (error**2).flatten(error.ndim - extra).sum(-1) if extra else error**2


def _gaussian(path: Any) -> Gaussian:
    if not isinstance(path, Gaussian):
        raise CapabilityError(
            f"Expected Gaussian noise to weigh by its level, got {path}, whose divergence has a "
            f"scale of its own. Leave out its weighting."
        )
    return path
