r"""Samplers return the oracle's law: atoms by their weights, factors in agreement.

On R^2 x Categorical(5) x Categorical(4) x Torus x SO(3) the exact denoiser of six weighted atoms is
sampled from the prior and from an exact x_1; atom counts pass Pearson's test at failure rate 1e-4,
which weights 10 % off fail. The number of steps is one at which the law pushed forward through the
sampler, computed exactly on small chains, adds less than the test can resolve: with its bias as a
noncentrality the failure rate stays below 1e-3. The predicted residual has two parts: at the last
step each factor is drawn from its own posterior, so factors disagree with probability
:math:`E[1 - \sum_i \prod_f p_f(a_i^f | x_t)]` (exact, from the oracle's weights), and independent
jumps within a step leave the mass that the pushed-forward chain of the two finite factors has off
the atoms. Real factors end at their closed-form clean estimate, whose distance from an atom is that
of one last step from an exact state, times 2 (1 + c^2) for the spread of frozen steps at churn c.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import state
from tests.samplers import oracles
from tests.samplers.oracles import RATE, Atoms, Enumeration, seeded, ticks

FULL, FAST = 20_000, 8_000
STEPS = {
    rv.Ancestral(): 100,
    rv.Euler(churn=0): 100,
    rv.Euler(churn=0.5): 100,
    rv.Euler(churn=1): 120,
    rv.Euler(churn=2): 240,
    rv.Heun(): 40,
    rv.Multistep(): 100,
}
samplers = pytest.mark.parametrize("sampler", STEPS, ids=str)
starts = pytest.mark.parametrize("exact", [True, False], ids=["exact x_1", "prior"])


def fewer(sampler: Any) -> int:
    """The steps for ``FAST`` draws, whose test resolves sqrt(FULL / FAST) times less."""
    return round(STEPS[sampler] * (FAST / FULL) ** 0.5)


@cache
def five() -> Atoms:
    return oracles.five_factors()


@cache
def chain(name: str) -> Enumeration:
    """Small chains: the two finite factors of the product, and two sites of one kind."""
    if name == "pair":
        return Enumeration(five().only("token", "label").denoiser)
    table = torch.tensor([[0.10, 0.15, 0.05], [0.05, 0.15, 0.10], [0.12, 0.08, 0.20]]).double()
    kind = {"mask": rv.Mask, "uniform": rv.Uniform}[name]
    return Enumeration(rv.Enumerated(kind(rv.Categorical(3, 2)), table))


@cache
def pushed(name: str, sampler: Any, steps: int) -> Tensor:
    small = chain(name)
    return small.pushed(sampler, small.path.grid(steps), small.marginal(1.0))


def every(atoms: Atoms) -> tuple[Tensor, Tensor]:
    """All sites counted, none known."""
    counted = torch.ones(atoms.codes.shape[1], dtype=torch.bool)
    return counted, ~counted


def last_step(atoms: Atoms, sampler: Any, steps: int, n: int) -> tuple[Any, float]:
    """One last step from exact states; and the predicted probability that factors disagree."""
    t, s = ticks(atoms.process.grid(steps))[-2:]
    generator = seeded(40)
    picked = torch.multinomial(atoms.weights, n, replacement=True, generator=generator)
    x_0 = {name: own[picked] for name, own in atoms.states.items()}
    clock = {name: torch.full((n,), float(t[name])).double() for name in x_0}
    x_t = atoms.process.kernel(x_0, clock).sample(generator)
    posterior = atoms.denoiser.weights(x_t, t)
    same = (atoms.codes[:, None] == atoms.codes).double()
    agree = torch.einsum("bi,ijs->bjs", posterior, same).prod(-1).sum(-1)
    x_s = sampler.step(atoms.denoiser, x_t, t, s, generator=generator)
    return x_s, float((1 - agree).clamp_min(0).mean())


def check_law(atoms: Atoms, x: dict[str, Tensor], miss: float) -> None:
    """Frequencies by chi-square with its power, and agreement up to the predicted residual."""
    counted, known = every(atoms)
    counts, misses = atoms.frequencies(x, counted)
    law = atoms.law(counted, known, 0)
    assert oracles.p_value(counts, law) > RATE
    assert oracles.p_value(counts, oracles.skewed(law)) < RATE
    assert misses <= stats.binom.isf(RATE, len(next(iter(x.values()))), miss)


def check_distance(atoms: Atoms, sampler: Any, x: Any, x_last: Any) -> None:
    """The 99 % quantile of the distances to the nearest atom, against one exact last step."""
    slack = 2 * (1 + getattr(sampler, "churn", 0.0) ** 2)
    far, predicted = atoms.read(x)[1], atoms.read(x_last)[1]
    for name in ("plane", "angle", "pose"):
        assert far[name].quantile(0.99) <= slack * predicted[name].quantile(0.99) + 1e-9, name


def check_product(sampler: Any, exact: bool, n: int, steps: int) -> None:
    atoms = five()
    x_1 = atoms.draw(n, 1.0, seed=11) if exact else None
    x = sampler.sample(atoms.denoiser, n, steps=steps, x_1=x_1, generator=seeded(12))
    x_last, miss = last_step(atoms, sampler, steps, n)
    off = chain("pair").marginal(0.0) == 0
    check_law(atoms, x, miss + float(pushed("pair", sampler, steps)[off].sum()))
    check_distance(atoms, sampler, x, x_last)


def test_atoms_share_a_value_in_every_factor() -> None:
    """Six different atoms, two or three values per site: no factor alone tells the atom."""
    codes = five().codes
    assert len(codes.unique(dim=0)) == 6
    assert all(len(column.unique()) in (2, 3) for column in codes.T)
    assert len(codes[:, :2].unique(dim=0)) == 3


def test_power_of_the_test() -> None:
    """At both sizes a law that is 10 % off escapes with probability below 1e-3."""
    critical = stats.chi2.isf(RATE, 5)
    law = five().law(*every(five()), 0)
    for n in (FAST, FULL):
        off = oracles.noncentrality(law, oracles.skewed(law), n)
        assert stats.ncx2.cdf(critical, 5, off) < 1e-3


@samplers
@pytest.mark.parametrize("name", ["pair", "mask", "uniform"])
def test_bias_is_below_the_resolution(sampler: Any, name: str) -> None:
    """The exact pushed-forward law moves the failure rate from 1e-4 to less than 1e-3."""
    exact = chain(name).marginal(0.0)
    freedom = int((exact > 0).sum()) - 1
    for n, steps in ((FULL, STEPS[sampler]), (FAST, fewer(sampler))):
        law = torch.where(exact > 0, pushed(name, sampler, steps), 0.0)
        bias = oracles.noncentrality(law / law.sum(), exact, n)
        assert stats.ncx2.sf(stats.chi2.isf(RATE, freedom), freedom, bias) < 1e-3


@samplers
@pytest.mark.parametrize("name", ["pair", "mask", "uniform"])
def test_draws_follow_the_pushed_forward_law(sampler: Any, name: str) -> None:
    """At six steps every sampler is biased, by the law that enumeration of its steps predicts."""
    small, n = chain(name), FULL
    grid = small.path.grid(6)
    law = small.pushed(sampler, grid, small.prior())
    x = sampler.sample(small.denoiser, n, grid=grid, generator=seeded(13))
    columns = torch.cat([part.reshape(n, -1) for part in state.leaves(x)], 1)
    hit = (columns[:, None] == small.states).all(-1)
    counts, rare = hit.sum(0), law * n < 5
    pooled = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([law[~rare], law[rare].sum()[None]])
    assert oracles.p_value(pooled, expected) > RATE
    exact = torch.cat([small.marginal(0.0)[~rare], small.marginal(0.0)[rare].sum()[None]])
    assert oracles.p_value(pooled, exact) < RATE or isinstance(sampler, rv.Heun)


@pytest.mark.parametrize(
    ("sampler", "exact"),
    [
        (rv.Ancestral(), False),
        (rv.Euler(churn=0), False),
        (rv.Euler(churn=1), True),
        (rv.Heun(), True),
        (rv.Multistep(), False),
    ],
    ids=str,
)
def test_product(sampler: Any, exact: bool) -> None:
    """The fast version: 8,000 draws."""
    check_product(sampler, exact, FAST, fewer(sampler))


@pytest.mark.slow
@samplers
@starts
def test_product_in_full(sampler: Any, exact: bool) -> None:
    """Every sampler, 20,000 draws, from the prior and from an exact x_1."""
    check_product(sampler, exact, FULL, STEPS[sampler])


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_real_factors_with_less_noise(eta: float) -> None:
    """Ancestral sampling with eta < 1 on R^2 x Torus x SO(3), where the bridge's noise scales."""
    atoms, sampler = five().only("plane", "angle", "pose"), rv.Ancestral(eta)
    x = sampler.sample(atoms.denoiser, FAST, steps=40, generator=seeded(14))
    x_last, miss = last_step(atoms, sampler, 40, FAST)
    check_law(atoms, x, miss)
    check_distance(atoms, sampler, x, x_last)
