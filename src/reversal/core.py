r"""The theory in one file: spaces, paths, processes, estimates, denoisers, objectives, samplers.

A noising Markov process has a generator L. To reverse it one needs the generalized score of its
marginals q_t: :math:`\nabla \log q_t` on a manifold, the log-ratios :math:`\log q_t(y)/q_t(x)` on a
finite set. By Fisher's identity it is a posterior expectation of a known conditional quantity,

.. math:: \nabla \log q_t(x) = E[\nabla \log q(x_t | x_0) \mid x_t = x], \qquad
   \frac{q_t(y)}{q_t(x)} = E\Big[\frac{q(y | x_0)}{q(x | x_0)} \,\Big|\, x_t = x\Big],

so that learning to reverse is learning to denoise, in every space. Time t runs from 0 (data) to 1
(noise); s < t is where a step goes. ``B`` is the batch, ``E`` the event shape, ``sites`` what is
noised as one, ``N`` the number of noisy states. Source: Benton et al. (2024), arXiv 2211.03595.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from enum import StrEnum
from functools import partial
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from reversal import state
from reversal.estimates import Estimate, JointEstimate, Kind
from reversal.generators import DenseJumps, Generator, Jumps, Leap
from reversal.grids import Time
from reversal.noise import Randomness, over
from reversal.questions import ask, check_counts, check_finite
from reversal.space import JumpSpace, Space
from reversal.state import State, Tree

__all__ = [
    "Capability", "DenseJumps", "Denoiser", "Estimate", "Generator", "JointEstimate", "JumpSpace",
    "Jumps", "Kernel", "Kind", "Law", "Leap", "Objective", "Path", "Process", "Sampler", "Space",
]  # fmt: skip


class Capability(StrEnum):
    """What a path provides and a sampler or objective may need."""

    GENERATOR = "a generator"
    VELOCITY = "a velocity"
    BRIDGE = "a bridge"
    PRIOR = "a prior"
    ENDPOINTS = "a kernel given both endpoints"
    MIXING = "noise to mix its flow with"


class Law(ABC):
    """A law of states with a density, site by site."""

    @abstractmethod
    def site_log_prob(self, x: Any) -> Any:
        """Log-density of every site, ``(B, *sites)``, in nats."""

    @final
    def log_prob(self, x: Any) -> Tensor:
        """Log-density, ``(B,)``, in nats: the sum over the sites."""
        return state.total(state.map(state.sum_sites, self.site_log_prob(x)))


class Kernel(Law):
    """q(x_t | x_0) at one t, or any other conditional law that independent sites follow."""

    @abstractmethod
    def sample(self, generator: Randomness = None) -> Any:
        """Draw one state per item."""

    @abstractmethod
    def target(self, kind: Kind, x_t: Any) -> Any:
        """The conditional quantity whose posterior expectation ``kind`` is."""

    @final
    def score(self, x_t: Any) -> Any:
        """Gradient of the log-density, or its log-ratios log q(y) - log q(x_t)."""
        return self.target(Kind.SCORE, x_t)


class Prior(Law):
    """The law that reversal starts from."""

    @abstractmethod
    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Any:
        """Draw n states; ``like`` shows the device and the real dtype."""


class Path(ABC):
    """Whatever can be trained: x_t given its endpoints, and the quantity to regress on."""

    space: Any
    provides: frozenset[Capability]
    factors: Mapping[str, Any] | None = None
    is_coupled = False

    @property
    @abstractmethod
    def noisy_space(self) -> Any:
        """Where x_t lives."""

    @property
    @abstractmethod
    def prior(self) -> Prior:
        """The law at t = 1."""

    @abstractmethod
    def kernel(self, x_0: Any, t: Any) -> Kernel:
        """q(x_t | x_0)."""

    @abstractmethod
    def conversion(
        self, source: Kind, target: Kind
    ) -> Callable[[Tensor, Tensor, Any], Tensor] | None:
        """The rule (value, x_t, t) -> value of this pair in the directed table, if there is one."""

    @abstractmethod
    def ancestor(self, x_t: Any, t: Any, s: Any, estimate: Any, eta: float = 1.0) -> Kernel:
        """The bridge q(x_s | x_t, x_0) with the estimate in place of x_0."""

    @abstractmethod
    def grid(self, steps: int) -> Any:
        """The path's own spacing of its steps: one ``Grid``, or one per factor."""

    @final
    @property
    def parts(self) -> Any:
        """The factors of a product by name; the path itself elsewhere."""
        return self.factors or self


class Process(Path):
    """A path that is Markov: it has transitions, a generator, a bridge and a reversal."""

    @abstractmethod
    def transition(self, x_s: Any, s: Any, t: Any) -> Kernel:
        """q(x_t | x_s), s < t."""

    @abstractmethod
    def bridge(self, x_0: Any, x_t: Any, s: Any, t: Any) -> Kernel:
        """q(x_s | x_t, x_0), s < t."""

    @abstractmethod
    def elapsed(self, s: Any, t: Any) -> Any:
        """Operational time over [s, t]; for a Gaussian the increments of log alpha and variance."""

    @abstractmethod
    def forward(self, x: Any, t: Any) -> Any:
        """The generator at (x, t), per unit of t; a dict of them on a product."""

    @abstractmethod
    def increment(self, x: Any, t: Any, s: Any) -> Any:
        """The forward generator frozen at x and integrated over the step from t down to s."""

    @final
    def reverse(self, x: Any, t: Any, score: Any, churn: float = 1.0) -> Any:
        """The generator of the reversal K_c at (x, t), per unit of t; ``score`` is a tree."""
        return state.map(partial(_reversed, churn), self.forward(x, t), score)

    @final
    def corrector(self, x: Any, t: Any, score: Any) -> Any:
        """L_t + K_1,t: reversible with respect to q_t, in its own pseudo-time."""
        return state.map(Generator.corrector, self.forward(x, t), score)


class Denoiser(nn.Module, ABC):
    """An estimate of the reversal of a path; guidance is a denoiser of a denoiser."""

    process: Any
    clocks: Any

    @abstractmethod
    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Return an ``Estimate``, or a ``JointEstimate`` on a product."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor that shows the device and the real dtype this denoiser works in."""


class Objective(ABC):
    """A loss per item, never reduced."""

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses, ``(B,)``."""


class Sampler(ABC):
    """A way to walk from t = 1 to t = 0; a subclass supplies one step and what it needs."""

    own_steps: int | None = None  # how many a sampler takes that chooses its steps inside them

    @abstractmethod
    def check(self, path: Path) -> None:
        """Raise ``CapabilityError`` if the path lacks what a step needs."""

    @abstractmethod
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
        """Move every site from t to s, s < t."""

    @final
    def step(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Time,
        s: Time,
        cond: Any = None,
        stop: Tree = None,
        generator: Randomness = None,
    ) -> Any:
        """Move from t to s and hold the stopped sites: ``stop`` is ``sites`` or ``(B, *sites)``."""
        x_s = self.advance(denoiser, x_t, t, s, cond, stop, over(generator, t, s))
        if stop is None:
            return x_s
        parts = denoiser.process.space.parts
        return state.map(_held, parts, state.complete(stop, parts), x_t, x_s)

    @final
    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        n: int,
        steps: int = 100,
        given: Any = None,
        cond: Any = None,
        generator: Randomness = None,
        grid: Any = None,
        x_1: State | None = None,
        dropped: Any = None,
        on_step: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Draw n states.

        Args:
            denoiser: what reverses; the question must lie inside its clock law.
            n: the number of items; 0 is legal.
            steps: the number of steps of the default grid.
            given: known values, see ``questions.ask``; bit-identical in the result.
            cond: handed to the denoiser.
            generator: a ``torch.Generator``, an ``ItemNoise`` or a ``BrownianPath``.
            grid: a ``Grid``, or one per factor; the clock law's own if None.
            x_1: the states to start from; prior draws if None.
            dropped: the sites to marginalize out; their values in the result mean nothing.
            on_step: called with (step number, state) after every step.

        Raises:
            CapabilityError: before the first step, if the path lacks what this sampler needs.
            ClockError: if the question lies outside the clock law.
            SpaceError: if given values or ``x_1`` do not fit the space.
            ConvergenceError: after the last step, if a real state is not finite.
        """
        path, like = denoiser.process, denoiser.like
        state.map(self.check, path.parts)
        check_counts(n, steps)
        if x_1 is not None:
            path.noisy_space.check(x_1, "x_1", n)
        question = ask(path.space, n, given, dropped, like)
        denoiser.clocks.refuse(path.space, question)
        if grid is None:
            grid = denoiser.clocks.grid(path, self.own_steps or steps)
        ticks = question.ticks(path.space, grid)
        first = path.prior.sample(n, generator, like) if x_1 is None or dropped is not None else x_1
        x, walk = question.start(path.space, first, x_1), copy(self)
        for k, (t, s) in enumerate(pairwise(ticks)):
            x = walk.step(denoiser, x, t, s, cond, question.stop, generator)
            if on_step is not None:
                on_step(k, x)
        return check_finite(x, self)


def _reversed(churn: float, law: Generator, score: Tensor) -> Generator:
    return law.reversal(score, churn)


def _held(space: Space, stop: Tensor | None, old: Tensor, new: Tensor) -> Tensor:
    return state.hold(stop, old, new, len(space.sites))
