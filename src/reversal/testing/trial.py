r"""What an identity is tried on: a weighted atom mixture under a process, at one time.

.. math:: q_t(x) = \sum_i w_i\, q(x | x^{(i)}), \qquad x \sim q_t .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Capability
from reversal.denoisers import Empirical
from reversal.testing.stencils import Around, Moves, repeated

WEIGHTS = (0.5, 0.3, 0.2)
_TIMES = (0.15, 0.4, 0.65, 0.9)
_ITEMS = 4
_REACH = 0.01


@final
@dataclass(frozen=True)
class Trial:
    """A process, three weighted atoms and a time t; s = t/2 is where a step would go.

    Args:
        process: the path under test.
        t: a time with 0 < t < 1.
        s: a time with 0 < s < t.
        seed: of every draw.
    """

    process: Any
    t: float
    s: float
    seed: int = 0
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> list[str]:
        """The factors; one empty name for a plain process."""
        return list(self.process.factors) if self.process.factors else [""]

    @cached_property
    def generator(self) -> torch.Generator:
        """The source of this trial's draws."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def atoms(self) -> Any:
        """Three states."""
        return draw_states(self.process.space, len(WEIGHTS), self.generator)

    @cached_property
    def oracle(self) -> Empirical:
        """The exact denoiser of the atoms."""
        return Empirical(self.process, self.atoms, torch.tensor(WEIGHTS, dtype=torch.float64))

    @cached_property
    def x_0(self) -> Any:
        """Some of the atoms, one per item."""
        rows = torch.arange(_ITEMS) % len(WEIGHTS)
        return state.map(lambda part: part[rows], self.atoms)

    @cached_property
    def x(self) -> Any:
        """Draws of x_t, one per item."""
        return self.process.kernel(self.x_0, self.clock(self.x_0)).sample(self.generator)

    def clock(self, x: Any, t: float | None = None) -> Tensor:
        """The time as ``(B,)``."""
        return torch.full((state.batch_size(x),), self.t if t is None else t, dtype=torch.float64)

    def log_q(self, x: Any, t: float | None = None) -> Tensor:
        """log q_t(x), ``(B,)``, summed over the atoms by hand."""
        return torch.logsumexp(self.log_joint(x, t), 1)

    def log_joint(self, x: Any, t: float | None = None) -> Tensor:
        """log w_i q(x | x^(i)), ``(B, 3)``."""
        wide, atoms = paired(x, self.atoms)
        logs = self.process.kernel(atoms, self.clock(wide, t)).log_prob(wide)
        return logs.view(-1, len(WEIGHTS)) + torch.tensor(WEIGHTS, dtype=torch.float64).log()

    def estimate(self, x: Any) -> Any:
        """The oracle's estimate."""
        return self.oracle(x, self.clock(x))

    def moves(self, name: str) -> Moves:
        """The points around x along factor ``name``, at the scale of the kernel's own spread."""
        return self._once(("moves", name), lambda: self.moves_around(self.x, name))

    def moves_around(self, x: Any, name: str) -> Moves:
        """The same around other states."""
        return Moves.around(self.process.space, x, name, self.reach(name))

    def neighbors(self, name: str) -> Around:
        """The neighbors of x along a finite factor."""
        noisy = self.process.noisy_space
        return self._once(("neighbors", name), lambda: Around.of(noisy, self.x, name))

    def log_q_at(self, points: Moves | Around) -> Tensor:
        """log q_t at such points, shaped as they are."""
        return self._once(("log_q", id(points)), lambda: points.scalar(self.log_q(points.points)))

    def score(self, x: Any) -> Any:
        """The oracle's score; computed once for the same object."""
        return self._once(("score", id(x)), lambda: self.estimate(x).score)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def reach(self, name: str) -> float:
        """A step for differences: a share of 1 / rms(score), or of the states' size if smaller."""
        kernel = self.process.kernel(self.x_0, self.clock(self.x_0))
        score, x = state.take(kernel.score(self.x), name), state.take(self.x, name)
        size = max(1.0, float(x.square().mean().sqrt()))
        return _REACH * min(size, 1 / float(score.square().mean().sqrt().clamp_min(1e-9)))


def trials(process: Any, seed: int = 0) -> list[Trial]:
    """Trials at four times; on the path's own grid if it has no generator between grid times."""
    times = [(t / 2, t) for t in _TIMES]
    if Capability.GENERATOR not in process.provides:
        inner = process.grid(5).times.flip(0).tolist()[1:]
        times = [(s, t) for s, t in pairwise(inner) if t < 1]
    return [Trial(process, t, s, seed + row) for row, (s, t) in enumerate(times)]


def draw_states(space: Any, n: int, generator: torch.Generator) -> Any:
    """Draw n states of a space, spread over it: walks of unit variance, or uniform codes."""
    shown = torch.empty((), dtype=torch.float64)

    def one(part: Any) -> Tensor:
        if part.is_real:
            v = noise.normal((n, *part.tangent_shape), shown, generator)
            return part.move(part.example(n, shown), v)
        high = torch.tensor(part.cardinalities or part.num_values)
        return noise.integers(high, (n, *part.sites), shown, generator)

    return state.map(one, space.parts)


def paired(x: Any, atoms: Any) -> tuple[Any, Any]:
    """Every state with every atom, as one batch."""
    count = state.batch_size(atoms)
    wide = state.map(lambda part: part.repeat_interleave(count, 0), x)
    return wide, repeated(atoms, state.batch_size(x))
