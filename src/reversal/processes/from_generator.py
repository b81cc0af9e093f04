r"""A process given by its generator alone, which is simulated where it has no kernel.

.. math:: L_t = \dot v(t)\, L,

with L per unit of an operational time v. Euler's steps draw x_t from x_0, at order 1 in v / steps;
the marginals have no density that is known, so the score is learned by implicit score matching
(``objectives.Implicit``). Source: Benton et al. (2024), section 4.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import (
    Capability,
    DenseJumps,
    Generator,
    JumpSpace,
    Kernel,
    Kind,
    Law,
    Path,
    Prior,
    Process,
)
from reversal.errors import CapabilityError
from reversal.grids import Grid, Tick, evaluate
from reversal.noise import Randomness
from reversal.operators import Local
from reversal.operators.derivatives import Tangent
from reversal.processes.irreducible import require_irreducible
from reversal.schedules import QuadraticVariance, VarianceSchedule

_TINY = 1e-12


@final
class FromGenerator(Process):
    """Noise from a generator: the process with the local characteristics ``generator(x)``.

    Args:
        space: the space; on a product the factors may be coupled.
        generator: states to a ``Generator`` per unit of operational time, or to a dict of them on a
            product. The divergence of a covariance and the rates into x may be left out: they are
            found by differentiation and from the neighbors.
        prior: the law at t = 1, such as the stationary one.
        schedule: the operational time v(t); ``QuadraticVariance`` by default.
        kernel: ``(x_0, v) -> Transition`` where the transition law is known, whose score is then
            derived, or a ``Kernel`` that brings its own; v is ``(B,)``.
        steps: the steps of a simulation.

    Raises:
        CapabilityError: if there is no prior, or the process is not irreducible, as far as it is
            looked at: chains of at most a million pairs of a state and a jump in full, real factors
            and the jumps beside them at draws of the prior, larger chains at draws that nothing
            leaves (see ``processes.irreducible``).

    Cost: ``steps`` evaluations of the generator per draw of x_t where there is no kernel, and one
    of it, at many states, when the process is made.
    """

    starts_singular = False

    def __init__(
        self,
        space: Any,
        generator: Callable[[Any], Any],
        prior: Prior,
        schedule: VarianceSchedule | None = None,
        kernel: Callable[[Any, Tensor], Transition | Kernel] | None = None,
        steps: int = 100,
    ) -> None:
        if not isinstance(prior, Prior):
            raise CapabilityError(
                f"Expected a prior that q_1 is close to, got {prior!r}: a process is reversed from "
                f"its law at t = 1. Give the stationary law, as a Prior."
            )
        self.space, self.operator, self._prior = space, Local(space, generator), prior
        self.schedule = QuadraticVariance() if schedule is None else schedule
        self.exact, self.steps = kernel, steps
        if not isinstance(steps, int) or steps < 1:
            raise CapabilityError(f"Expected at least one step, got steps={steps}. Give steps=100.")
        self.is_coupled = space.factors is not None
        if space.factors:
            self.factors = {name: Factor(self, part) for name, part in space.factors.items()}
        self.provides = frozenset({Capability.GENERATOR, Capability.PRIOR})
        require_irreducible(self.operator, prior)

    def __repr__(self) -> str:
        return f"FromGenerator({self.space}, {self.schedule})"

    @property
    def noisy_space(self) -> Any:
        """The space itself."""
        return self.space

    @property
    def prior(self) -> Prior:
        """The law that was given."""
        return self._prior

    def kernel(self, x_0: Any, t: Any) -> Kernel:
        """The kernel that was given, or a simulation from 0 to t."""
        v = evaluate(self.schedule.variance, _shared(t), dtype=torch.float64).variance
        return self._run(x_0, torch.as_tensor(v, dtype=torch.float64))

    def transition(self, x_s: Any, s: Any, t: Any) -> Kernel:
        """The same from s to t."""
        v = _elapsed(self.schedule, _shared(t), _shared(s))
        return self._run(x_s, torch.as_tensor(v, dtype=torch.float64))

    def bridge(self, x_0: Any, x_t: Any, s: Any, t: Any) -> Kernel:
        """Refused: it needs a transition density."""
        raise CapabilityError(f"Expected a bridge, but {self} has a generator alone. Use Euler().")

    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> Kernel:
        """Refused: it needs a bridge."""
        return self.bridge(x_t, x_t, s, t)

    def elapsed(self, s: Any, t: Any) -> Any:
        """v(t) - v(s)."""
        return _elapsed(self.schedule, _shared(t), _shared(s))

    def forward(self, x: Any, t: Any) -> Any:
        """The generator per unit of t."""
        rates = state.map(partial(_rate, self.schedule), self.space.parts, _shared(t))
        return self._scaled(x, rates)

    def increment(self, x: Any, t: Any, s: Any) -> Any:
        """The generator times v(t) - v(s)."""
        length = partial(_length, self.schedule)
        return self._scaled(x, state.map(length, self.space.parts, _shared(t), _shared(s)))

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """Between score and noise, minus the score in units of 1 / sqrt(v), on real spaces."""
        return _conversion(self.schedule, self.space, source, target)

    def grid(self, steps: int) -> Any:
        """Equal steps in t: equal steps in sqrt(v) under the default schedule."""
        return state.map(lambda part: Grid.uniform(steps), self.space.parts)

    def laws(self, x: Any) -> Any:
        """The generator at x per unit of operational time, complete."""
        given = self.operator.characteristics(x)
        if not self.space.factors:
            return self._completed("", x, given)
        return {name: self._completed(name, x, law) for name, law in given.items()}

    def simulate(self, x: Any, v: Tensor, generator: Randomness = None) -> Any:
        """Run every item for its own operational time v, ``(B,)``, in ``steps`` equal steps."""
        length = v.expand(state.batch_size(x)) / self.steps
        for _ in range(self.steps):
            x = self.walk(x, length, generator)
        return x

    def walk(self, x: Any, length: Tensor, generator: Randomness = None) -> Any:
        """Take one Euler step of operational time ``length``, ``(B,)``."""
        laws = self.operator.characteristics(x)
        lengths = state.map(lambda part: _spread(part, length), self.space.parts)
        frozen = state.map(
            lambda part, law, h: _bare(law).scaled(h, len(part.sites)),
            self.space.parts, laws, lengths,
        )  # fmt: skip
        return state.map(
            lambda part, law, y: law.step(part, y, generator), self.space.parts, frozen, x
        )

    def _run(self, x: Any, v: Tensor) -> Kernel:
        v = v.to(state.like(x).device).expand(state.batch_size(x))
        if self.exact is None:
            return Simulation(self, x, v)
        law = self.exact(x, v)
        return law if isinstance(law, Kernel) else Known(self.space, law)

    def _scaled(self, x: Any, rates: Any) -> Any:
        return state.map(
            lambda part, law, rate: law.scaled(rate, len(part.sites)),
            self.space.parts, self.laws(x), rates,
        )  # fmt: skip

    def _completed(self, name: str, x: Any, law: Generator) -> Generator:
        part = state.take(self.space.parts, name)
        if isinstance(part, JumpSpace):
            given = isinstance(law.jumps, DenseJumps) and law.jumps.back is None
            return law if not given else _with_back(law, self.operator.rates_into(name, x))
        if law.divergence is not None or law.covariance is None:
            return law
        bend = self.operator.divergence_of_covariance(name)(x)
        bend = bend if torch.is_grad_enabled() else bend.detach()
        return Generator(law.drift, law.covariance, None, law.lift, bend)


@final
@dataclass(frozen=True)
class Factor(Path):
    """One factor of a process whose parts may be coupled: it shows its space and conversions."""

    whole: FromGenerator
    space: Any
    starts_singular = False
    is_coupled = True
    provides = frozenset({Capability.GENERATOR, Capability.PRIOR})

    def __repr__(self) -> str:
        return f"a factor {self.space} of {self.whole}"

    @property
    def noisy_space(self) -> Any:
        """The space itself."""
        return self.space

    @property
    def prior(self) -> Prior:
        """Refused: the prior belongs to the whole."""
        raise self._refusal("a prior")

    def kernel(self, x_0: Any, t: Any) -> Kernel:
        """Refused: the kernel belongs to the whole."""
        raise self._refusal("a kernel")

    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> Kernel:
        """Refused: there is no bridge."""
        raise self._refusal("a bridge")

    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """As of the whole."""
        return _conversion(self.whole.schedule, self.space, source, target)

    def grid(self, steps: int) -> Grid:
        """As of the whole."""
        return Grid.uniform(steps)

    def _refusal(self, what: str) -> CapabilityError:
        return CapabilityError(f"Expected {what}, got {self}. Ask the whole process.")


class Transition(Law):
    """A transition law q(x_t | x_0) as one writes it: draws and the log-density of every site."""

    @abstractmethod
    def sample(self, generator: Randomness = None) -> Any:
        """Draw one state per item."""


@final
@dataclass(frozen=True)
class Known(Kernel):
    """A transition law with its score: the gradient of its log-density, or differences of it.

    Cost of the score: the density at every jump on a finite set, a backward pass elsewhere.
    """

    space: Any
    law: Transition

    def sample(self, generator: Randomness = None) -> Any:
        """Draw x_t."""
        return self.law.sample(generator)

    def site_log_prob(self, x: Any) -> Any:
        """Log-density of every site."""
        return self.law.site_log_prob(x)

    def target(self, kind: Kind, x_t: Any) -> Any:
        """The score; what is affine in it needs a kernel that says so."""
        if kind is not Kind.SCORE or self.space.factors:
            raise CapabilityError(
                f"Expected to be asked for the score on a space of one factor, got {kind} on "
                f"{self.space}. Train Score(), or let kernel= return a Kernel with this target."
            )
        if not isinstance(self.space, JumpSpace):
            return Tangent(self.space).gradient(self.law.log_prob, x_t)
        jumps = (torch.full_like(x_t, k) for k in range(self.space.num_jumps))
        there = [self.law.site_log_prob(self.space.hop(x_t, k)) for k in jumps]
        return torch.stack(there, -1) - self.law.site_log_prob(x_t)[..., None]


@final
@dataclass(frozen=True)
class Simulation(Kernel):
    """The law of x_t given x_0, by simulation: it can be drawn from, not scored."""

    process: FromGenerator
    x_0: Any
    v: Tensor

    def sample(self, generator: Randomness = None) -> Any:
        """Draw x_t."""
        return self.process.simulate(self.x_0, self.v, generator)

    def site_log_prob(self, x: Any) -> Any:
        """Refused: a simulation has no density."""
        raise CapabilityError(
            f"Expected a transition density, but {self.process} is simulated. Train with "
            f"Implicit(), which needs none, or give FromGenerator a kernel."
        )

    def target(self, kind: Kind, x_t: Any) -> Any:
        """Refused likewise."""
        return self.site_log_prob(x_t)


def _with_back(law: Generator, back: Tensor) -> Generator:
    return Generator(jumps=DenseJumps(law.rates, back))


def _bare(law: Generator) -> Generator:
    """A generator to step with, in which the rates into x are not asked for."""
    if law.jumps is None:
        return law
    return _with_back(law, torch.zeros_like(law.rates))


def _spread(part: Any, length: Tensor) -> Tensor:
    return length[(...,) + (None,) * len(part.sites)]


def _shared(t: Any) -> Any:
    """The one clock of all parts."""
    by_site = isinstance(t, Tensor) and t.ndim > 1
    if isinstance(t, Mapping) or by_site or (isinstance(t, Tick) and t.pattern is not None):
        raise CapabilityError(
            "Expected one time per item for a process whose parts run together, got one per site "
            "or factor: nothing can be given or dropped. Use SharedClock()."
        )
    return t


def _elapsed(schedule: VarianceSchedule, t: Any, s: Any) -> Any:
    step = evaluate(schedule.step, t, s, dtype=torch.float64)
    return step.at - step.to


def _length(schedule: VarianceSchedule, part: Any, t: Any, s: Any) -> Any:
    return _elapsed(schedule, part.align(t), part.align(s))


def _rate(schedule: VarianceSchedule, part: Any, t: Any) -> Any:
    return evaluate(schedule.variance, part.align(t), dtype=torch.float64).rate


def _conversion(
    schedule: VarianceSchedule, space: Any, source: Kind, target: Kind
) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
    if not space.is_real or {source, target} != {Kind.SCORE, Kind.NOISE}:
        return None

    def convert(value: Tensor, x_t: Tensor, t: Any) -> Tensor:
        v = evaluate(schedule.variance, space.align(t), dtype=value.dtype).variance
        root = torch.as_tensor(v, dtype=value.dtype, device=value.device).clamp_min(_TINY).sqrt()
        root = state.trail(root, value.ndim - root.ndim) if root.ndim else root
        return -value * root if target is Kind.NOISE else -value / root

    return convert
