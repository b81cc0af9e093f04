r"""What the sampler tests share: atoms on a product, their exact laws, and exact one-step laws.

An empirical law :math:`\sum_i w_i \delta_{a_i}` has an exact denoiser, so a sampler must return the
atoms with their weights; under evidence the weights are restricted and renormalized, and a dropped
site is left out of the comparison. On finite sets the law of one step is computed, not drawn: every
random choice of a sampler there is a ``Leap``, so a script in place of its draws reads off

.. math:: K(x, y) = \prod_{\text{sites}} \text{Leap.law}(y), \qquad
   K(x, y) = \sum_z K_1(x, z) K_2(x, z; y) \quad \text{for two stages},

from the very code that samples. Tests reject at ``RATE`` = 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.core import Leap
from reversal.spaces import rotations

RATE = 1e-4
CHOICES = torch.tensor(
    [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 1],
        [1, 1, 0, 1, 0],
        [1, 2, 2, 1, 2],
        [2, 0, 2, 2, 1],
        [2, 2, 1, 2, 2],
    ]
)
WEIGHTS = torch.tensor([0.26, 0.22, 0.18, 0.14, 0.11, 0.09], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@final
@dataclass(frozen=True)
class Atoms:
    """Weighted atoms under a process, and the exact answers about them."""

    process: Any
    states: dict[str, Tensor]
    weights: Tensor

    @cached_property
    def denoiser(self) -> rv.Empirical:
        return rv.Empirical(self.process, self.states, self.weights)

    @cached_property
    def codes(self) -> Tensor:
        """Every atom as one code per site of the product, ``(N, S)``."""
        return self.read(self.states)[0]

    def read(self, x: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The nearest atom's value at every site, ``(B, S)``, and the distances to it."""
        codes, far = [], {}
        for name, own in self.states.items():
            part = self.process.space.parts[name]
            far[name], nearest = distance(part, x[name], own).min(1)
            apart = distance(part, own, own).reshape(len(own), len(own), -1)
            first = (apart < 1e-6).double().argmax(1)
            codes.append(first.gather(0, nearest.reshape(len(nearest), -1)))
        return torch.cat(codes, 1), far

    def frequencies(self, x: Mapping[str, Tensor], counted: Tensor) -> tuple[Tensor, int]:
        """How often each atom occurs, the first of those alike on the counted sites; and misses."""
        hit = self._alike(self.read(x)[0], counted)
        found = hit.any(1)
        counts = hit.double().argmax(1)[found].bincount(minlength=len(self.weights))
        return counts, int((~found).sum())

    def law(self, counted: Tensor, known: Tensor, row: int) -> Tensor:
        """The exact law of ``frequencies`` given the known sites of atom ``row``."""
        fits = self._alike(self.codes[row : row + 1], known)[0]
        mass = torch.where(fits, self.weights, 0.0)
        first = self._alike(self.codes, counted).double().argmax(1)
        return torch.zeros_like(mass).scatter_add(0, first, mass / mass.sum())

    def draw(self, n: int, t: float, seed: int) -> dict[str, Tensor]:
        """Exact states at time t."""
        generator = seeded(seed)
        picked = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        x_0 = {name: own[picked] for name, own in self.states.items()}
        clock = torch.full((n,), t, dtype=torch.float64)
        return self.process.kernel(x_0, clock).sample(generator)

    def only(self, *names: str) -> Atoms:
        """The marginal law of some of the factors."""
        process = rv.Independent({name: self.process.factors[name] for name in names})
        return Atoms(process, {name: self.states[name] for name in names}, self.weights)

    def sites(self, wanted: Mapping[str, Any]) -> Tensor:
        """A mask over all sites of the product: ``{"factor": True | mask}``."""
        parts = self.process.space.parts
        masks = [
            torch.as_tensor(wanted.get(name, False)).expand(part.sites).reshape(-1)
            for name, part in parts.items()
        ]
        return torch.cat(masks)

    def _alike(self, codes: Tensor, counted: Tensor) -> Tensor:
        return ((codes[:, None] == self.codes) | ~counted).all(-1)


def distance(space: Any, x: Tensor, atoms: Tensor) -> Tensor:
    """Site by site, ``(B, N, *sites)``: 0 or 1 between codes, absolute value, arc, angle."""
    if not space.is_real:
        return (x[:, None] != atoms).double()
    if isinstance(space, rv.SO3):
        return rotations.angle(x[:, None].mT @ atoms)
    gap = x[:, None] - atoms
    if isinstance(space, rv.Torus):
        gap = torch.remainder(gap + torch.pi, 2 * torch.pi) - torch.pi
    return gap.abs()


def five_factors(dtype: torch.dtype = torch.float64) -> Atoms:
    """Six atoms on R^2 x Categorical(5) x Categorical(4) x Torus x SO(3); every value is shared."""
    process = rv.Independent(
        plane=rv.Gaussian(rv.Euclidean(2)),
        token=rv.Uniform(rv.Categorical(5)),
        label=rv.Mask(rv.Categorical(4)),
        angle=rv.Brownian(rv.Torus(1)),
        pose=rv.Brownian(rv.SO3()),
    )
    turns = torch.tensor([[0.4, -0.3, 0.2], [0.0, 2.2, 0.5], [-1.9, 0.3, -1.2]])
    values = {
        "plane": torch.tensor([[1.0, 0.5], [-1.0, 0.5], [1.0, -1.2]]),
        "token": torch.tensor([0, 2, 4]),
        "label": torch.tensor([0, 1, 3]),
        "angle": torch.tensor([[-2.9], [-0.8], [1.6]]),
        "pose": rotations.exp(turns.double()),
    }
    typed = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
    states = {name: v[CHOICES[:, k]] for k, (name, v) in enumerate(typed.items())}
    return Atoms(process, states, WEIGHTS)


def many_sites() -> Atoms:
    """Five atoms on packed columns x a masked word x two angles: factors with parts to ask for."""
    process = rv.Independent(
        columns=rv.Uniform(rv.Categorical((2, 4, 3))),
        word=rv.Mask(rv.Categorical(3, 2)),
        turns=rv.Brownian(rv.Torus(2)),
    )
    states = {
        "columns": torch.tensor([[0, 0, 1], [0, 3, 1], [1, 0, 2], [1, 3, 1], [0, 0, 2]]),
        "word": torch.tensor([[0, 1], [0, 2], [2, 1], [1, 1], [0, 1]]),
        "turns": torch.tensor([[0.5, -2], [0.5, 1.0], [-1.5, -2], [2.5, 1.0], [2.5, -2]]).double(),
    }
    return Atoms(process, states, torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]).double())


def p_value(counts: Tensor, law: Tensor) -> float:
    """Pearson's chi-square over the cells of positive probability; 0 if another cell is hit."""
    inside = law > 0
    if int(counts[~inside].sum()):
        return 0.0
    expected = law[inside] / law[inside].sum() * counts.sum()
    if inside.sum() < 2:
        return 1.0
    return float(stats.chisquare(counts[inside].numpy(), expected.numpy()).pvalue)


def skewed(law: Tensor, share: float = 0.1) -> Tensor:
    """A law wrong by ``share``: the likeliest half of the mass raised, the other lowered."""
    order = law.argsort(descending=True)
    raised = torch.zeros_like(law, dtype=torch.bool)
    raised[order] = law[order].cumsum(0) <= law.sum() / 2 + 1e-12
    raised[order[0]] = True
    return torch.where(raised, law * (1 + share), law * (1 - share))


@final
@dataclass
class Script:
    """Stands in for the draws of ``Leap``: records every law, and returns what was scripted."""

    outcomes: list[Tensor]
    laws: list[Tensor] = field(default_factory=list)

    def play(self, leap: Leap, x: Tensor, generator: Any = None) -> Tensor:
        """Record the law of this draw; the next outcome, or the state itself."""
        self.laws.append(leap.law(x))
        return self.outcomes.pop(0) if self.outcomes else x


@final
@dataclass(frozen=True)
class Enumeration:
    """Every noisy state of a small finite path, and exact laws over them."""

    denoiser: Any

    @cached_property
    def path(self) -> Any:
        return self.denoiser.process

    @cached_property
    def states(self) -> Tensor:
        """All noisy states, one code per site in the order of the factors, ``(X, S)``."""
        parts = list(state.leaves(self.path.noisy_space.parts))
        ranges = [range(part.num_states) for part in parts for _ in sites(part)]
        return torch.tensor(list(product(*ranges)))

    def tree(self, codes: Tensor) -> Any:
        """Codes ``(B, S)`` as a state of the path."""
        parts = self.path.space.parts
        widths = [len(sites(part)) for part in state.leaves(parts)]
        columns = iter(codes.split(widths, 1))
        return state.map(lambda part: next(columns).reshape(-1, *part.sites), parts)

    def marginal(self, t: float) -> Tensor:
        """q_t over the states, from the atoms of the denoiser."""
        oracle = getattr(self.denoiser, "oracle", self.denoiser)
        count, weights = len(self.states), oracle.log_weights.exp()
        x, clock = self.tree(self.states), torch.full((count,), t, dtype=torch.float64)

        def chance(k: int) -> Tensor:
            atom = state.map(lambda a: a[k : k + 1].expand(count, *a.shape[1:]), oracle.atoms)
            return weights[k] * self.path.kernel(atom, clock).log_prob(x).exp()

        return torch.stack([chance(k) for k in range(len(weights))]).sum(0)

    def prior(self) -> Tensor:
        """The prior over the states."""
        return self.path.prior.log_prob(self.tree(self.states)).exp()

    def matrix(self, sampler: Any, t: Any, s: Any) -> Tensor:
        """K(x, y), ``(X, X)``, of one step from t to s."""
        count = len(self.states)
        first = self._laws(sampler, self.states, t, s, [])
        if len(first) == len(self._parts):
            return self._joint(first)
        start = self.states.repeat_interleave(count, 0)
        node = self.states.repeat(count, 1)
        outcomes = list(state.leaves(self.tree(node)))
        second = self._laws(sampler, start, t, s, outcomes)[len(self._parts) :]
        stages = self._joint(second).view(count, count, count)
        return (self._joint(first[: len(self._parts)])[:, :, None] * stages).sum(1)

    def pushed(self, sampler: Any, grid: Any, law: Tensor) -> Tensor:
        """The law at the end of the grid, pushed step by step."""
        for t, s in pairwise(ticks(grid)):
            law = law @ self.matrix(sampler, t, s)
        return law

    @property
    def _parts(self) -> list[Any]:
        return list(state.leaves(self.path.parts))

    def _laws(
        self, sampler: Any, codes: Tensor, t: Any, s: Any, outcomes: list[Tensor]
    ) -> list[Tensor]:
        script = Script(list(outcomes))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Leap, "sample", lambda leap, x, *rest: script.play(leap, x))
            sampler.step(self.denoiser, self.tree(codes), t, s)
        return script.laws

    def _joint(self, laws: list[Tensor]) -> Tensor:
        """The product over factors and sites of ``(B, *sites, N)``, at every state: ``(B, X)``."""
        flat = [law.reshape(len(law), -1, law.shape[-1]) for law in laws]
        columns = [one for law in flat for one in law.unbind(1)]
        result = torch.ones(len(columns[0]), len(self.states), dtype=torch.float64)
        for law, codes in zip(columns, self.states.T, strict=True):
            result = result * law.double()[:, codes]
        return result


def sites(space: Any) -> range:
    """The sites of a space, counted."""
    return range(torch.Size(space.sites).numel())


def ticks(grid: Any) -> list[Any]:
    """The times of a grid, one by one; per factor where the factors have grids of their own."""
    if not isinstance(grid, Mapping):
        return list(grid.ticks())
    columns = {name: own.ticks() for name, own in grid.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of the absolute differences."""
    return float((p - q).abs().sum() / 2)


def noncentrality(law: Tensor, exact: Tensor, n: int) -> float:
    """What a bias adds to Pearson's statistic of n draws: n sum (p - q)^2 / q."""
    inside = exact > 0
    return float(n * ((law - exact)[inside] ** 2 / exact[inside]).sum())


def slope(steps: list[int], errors: list[float]) -> float:
    """The order of convergence: minus the slope of log error against log steps."""
    x, y = torch.tensor(steps).double().log(), torch.tensor(errors).double().log()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
