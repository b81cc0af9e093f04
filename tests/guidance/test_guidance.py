r"""Guidance of strength 1 by a correct classifier is conditioning; else it is a chain of its own.

The classifier is exact: with atoms i of weight w_i and evidence probability l_i,

.. math:: p_t(e | x) = \frac{\sum_i w_i l_i\, q(x | x^{(i)})}{\sum_i w_i\, q(x | x^{(i)})},

so that strength 1 is the oracle with weights :math:`w_i l_i`. At strength 3 samples on tokens
follow the Euler chain of the guided rates, enumerated here with dense matrices by formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.core import Denoiser, Leap

FAILURE_RATE = 1e-4
TOKENS = rv.Categorical(3, 3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


@final
@dataclass(frozen=True)
class Evidence:
    """The exact log p_t(e | x_t), differentiable in real factors."""

    process: Any
    atoms: Any
    weights: Tensor
    likelihood: Tensor

    def __call__(self, x_t: Any, t: Any) -> Tensor:
        n, count = state.batch_size(x_t), len(self.weights)
        x, clock = (
            state.map(lambda part: part.repeat_interleave(count, 0), tree) for tree in (x_t, t)
        )
        atoms = state.map(lambda part: part.repeat(n, *[1] * (part.ndim - 1)), self.atoms)
        logs = self.process.kernel(atoms, clock).log_prob(x).double().view(n, count)
        logs = logs + self.weights.log()
        return (logs + self.likelihood.log()).logsumexp(1) - logs.logsumexp(1)


@final
class Bayes:
    """A law of atoms, its oracle, that of the law given the evidence, and the exact classifier."""

    def __init__(self, process: Any, atoms: Any, weights: Tensor, likelihood: Tensor) -> None:
        self.process, self.posterior = process, weights * likelihood / (weights @ likelihood)
        self.atoms, self.free = atoms, rv.Empirical(process, atoms, weights)
        self.given = rv.Empirical(process, atoms, self.posterior)
        self.evidence = Evidence(process, atoms, weights, likelihood)

    def guided(self, strength: float = 1.0) -> rv.Classifier:
        return rv.Classifier(self.free, self.evidence, strength)


@final
class Switch(Denoiser):
    """A conditional denoiser: ``cond`` chooses the oracle."""

    def __init__(self, bayes: Bayes) -> None:
        super().__init__()
        self.bayes, self.process, self.clocks = bayes, bayes.process, bayes.free.clocks

    @property
    def like(self) -> Tensor:
        return self.bayes.free.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        return (self.bayes.given if cond == "evidence" else self.bayes.free)(x_t, t)


@final
@dataclass(frozen=True)
class Tabulated:
    """Evidence on tokens at a common time: looked up in a table of all noisy states."""

    evidence: Evidence

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        size = self.evidence.process.noisy_space.num_states
        table = self.evidence(every(size), t[:1].expand(size**3))
        return table[(x_t * torch.tensor([size**2, size, 1])).sum(1)]


def plane(process: Any) -> Bayes:
    """Six atoms around the circle of radius 1.5."""
    angles = torch.arange(6, dtype=torch.float64) * math.pi / 3 + 0.2
    atoms = 1.5 * torch.stack([angles.cos(), angles.sin()], 1)
    return Bayes(process, atoms, rand(6, seed=1) + 0.2, rand(6, seed=2) * 0.9 + 0.05)


def manifold(space: Any) -> Bayes:
    process = rv.Brownian(space)
    atoms = process.prior.sample(5, seeded(3), torch.empty((), dtype=torch.float64))
    return Bayes(process, atoms, rand(5, seed=1) + 0.2, rand(5, seed=2))


def tokens(process: Any) -> Bayes:
    """A law and a classifier on all 27 sequences; the classifier is sharp."""
    codes = torch.cartesian_prod(*[torch.arange(3)] * 3)
    if process.factors:
        codes = {"pair": codes[:, :2], "last": codes[:, 2]}
    law = rand(27, seed=4) ** 2 + 0.02
    return Bayes(process, codes, law / law.sum(), 0.02 + 0.98 * rand(27, seed=5) ** 2)


def joint() -> Bayes:
    process = rv.Independent(
        v=rv.Gaussian(rv.Euclidean(2)),
        pair=rv.Uniform(rv.Categorical(3, 2)),
        word=rv.Mask(rv.Categorical(4)),
        turn=rv.Brownian(rv.Torus(1)),
    )
    atoms = {
        "v": torch.randn((8, 2), generator=seeded(6), dtype=torch.float64),
        "pair": torch.randint(3, (8, 2), generator=seeded(7)),
        "word": torch.arange(8) % 4,
        "turn": 2 * rand(8, 1, seed=8) - 1,
    }
    return Bayes(process, atoms, rand(8, seed=9) + 0.2, rand(8, seed=10))


REAL = {
    **{
        type(schedule).__name__: plane(rv.Gaussian(rv.Euclidean(2), schedule))
        for schedule in (
            rv.VariancePreserving(),
            rv.Cosine(),
            rv.Rectified(),
            rv.VarianceExploding(),
        )
    },
    "torus": manifold(rv.Torus(2)),
    "rotations": manifold(rv.SO3()),
}
FINITE = {
    "mask": tokens(rv.Mask(TOKENS)),
    "uniform": tokens(rv.Uniform(TOKENS)),
    "uniform_exponential": tokens(rv.Uniform(TOKENS, rv.ExponentialSurvival(3))),
    "mixed": tokens(
        rv.Independent(pair=rv.Mask(rv.Categorical(3, 2)), last=rv.Uniform(rv.Categorical(3)))
    ),
}
real_laws = pytest.mark.parametrize("bayes", REAL.values(), ids=REAL)
finite_laws = pytest.mark.parametrize("bayes", FINITE.values(), ids=FINITE)


def noised(bayes: Bayes, n: int = 40) -> tuple[Any, Tensor]:
    """States drawn from the noised law, at times across (0, 1)."""
    rows = torch.arange(n) % len(bayes.posterior)
    t = torch.linspace(0.1, 0.95, n, dtype=torch.float64)
    return bayes.process.kernel(state.map(lambda a: a[rows], bayes.atoms), t).sample(seeded(11)), t


def kinds_of(process: Any) -> list[Any]:
    hows = (rv.Clean(), rv.Noise(), rv.Velocity(), rv.Score())
    return [h for h in hows if h.kind == "score" or process.conversion(h.kind, rv.Kind.SCORE)]


def assert_same_reversal(ours: Any, theirs: Any, process: Any, x_t: Any, t: Any) -> None:
    """Equal scores on real factors, equal ratios on the pairs with a rate on finite ones."""
    for path, a, b, law in zip(
        state.leaves(process.parts),
        state.leaves(ours.score),
        state.leaves(theirs.score),
        state.leaves(process.forward(x_t, t)),
        strict=True,
    ):
        if path.space.is_real:
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
        else:
            rated = law.jumps.into > 0
            assert rated.any()
            torch.testing.assert_close(a[rated].exp(), b[rated].exp(), atol=1e-9, rtol=1e-9)


@real_laws
def test_strength_one_of_a_correct_classifier_is_the_conditional_in_every_kind(bayes):
    x_t, t = noised(bayes)
    expected = bayes.given(x_t, t)
    for how in kinds_of(bayes.process):
        inner = rv.NetworkDenoiser(
            lambda x, t, cond, how=how: bayes.free(x, t).read(how.kind), bayes.process, how
        )
        guided = rv.Classifier(inner, bayes.evidence)(x_t, t)
        assert guided.kind is how.kind
        for kind in (other.kind for other in kinds_of(bayes.process)):
            torch.testing.assert_close(guided.read(kind), expected.read(kind), atol=1e-9, rtol=1e-9)


@finite_laws
def test_strength_one_of_a_correct_classifier_is_the_conditional_on_tokens(bayes):
    x_t, t = noised(bayes, 81)
    assert_same_reversal(bayes.guided()(x_t, t), bayes.given(x_t, t), bayes.process, x_t, t)


@pytest.mark.parametrize("shared", [True, False], ids=["one_clock", "a_clock_per_factor"])
def test_strength_one_of_a_correct_classifier_is_the_conditional_on_a_product(shared):
    bayes = joint()
    t = torch.linspace(0.1, 0.95, 40, dtype=torch.float64)
    clock = t if shared else {"v": t, "pair": t.flip(0), "word": t.roll(7), "turn": t.roll(20)}
    rows = torch.arange(40) % 8
    atoms = state.map(lambda a: a[rows], bayes.atoms)
    x_t = bayes.process.kernel(atoms, clock).sample(seeded(11))
    guided, expected = bayes.guided()(x_t, clock), bayes.given(x_t, clock)
    assert_same_reversal(guided, expected, bayes.process, x_t, clock)


@pytest.mark.parametrize("bayes", [*REAL.values(), *FINITE.values(), joint()])
def test_classifier_free_is_null_at_0_conditional_at_1_and_the_classifier_at_3(bayes):
    x_t, t = noised(bayes)
    switch = Switch(bayes)
    for strength, exact in ((0.0, bayes.free), (1.0, bayes.given), (3.0, bayes.guided(3.0))):
        guided = rv.ClassifierFree(switch, strength)(x_t, t, "evidence")
        assert_same_reversal(guided, exact(x_t, t), bayes.process, x_t, t)


def p_value(counts: Tensor, probabilities: Tensor) -> float:
    assert (counts[probabilities == 0] == 0).all()
    kept = probabilities > 0
    expected = probabilities[kept] / probabilities[kept].sum() * counts.sum()
    return float(stats.chisquare(counts[kept].numpy(), expected.numpy()).pvalue)


@pytest.mark.parametrize(
    "sampler", [rv.Euler(), rv.Euler(churn=0), rv.Ancestral(), rv.Heun()], ids=repr
)
def test_samples_guided_at_strength_one_follow_the_conditional_law_in_the_plane(sampler):
    bayes = REAL["VariancePreserving"]
    x = sampler.sample(bayes.guided(), 4000, steps=80, generator=seeded(12))
    distance, nearest = torch.cdist(x, bayes.atoms).min(1)
    assert distance.max() < 0.2
    assert p_value(torch.bincount(nearest, minlength=6), bayes.posterior) > FAILURE_RATE
    free = bayes.free.log_weights.exp()
    assert p_value(torch.bincount(nearest, minlength=6), free) < FAILURE_RATE


def every(size: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(size)] * 3)


def joint_matrix(law: Tensor, states: Tensor) -> Tensor:
    """The transition matrix of sites that move independently, from their laws ``(M, 3, N)``."""
    return torch.stack([law[:, d, states[:, d]] for d in range(3)]).prod(0)


def pushed_law(denoiser: Any, steps: int) -> Tensor:
    """The law of ``Euler().sample``, by the library's own one-step laws, over 27 sequences."""
    process = denoiser.process
    states = every(process.noisy_space.num_states)
    law = process.prior.log_prob(states).exp()
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for t, s in pairwise(times):
        a, b = t.expand(len(states)), s.expand(len(states))
        estimate = denoiser(states, a)
        if s == 0 or t == 1:
            leap = process.ancestor(states, a, b, estimate).leap
        else:
            rates = process.increment(states, a, b).reversal(estimate.score).rates
            leap = Leap.of_rates(rates)
        law = law @ joint_matrix(leap.law(states), states)
    return law[(states < 3).all(1)]


@pytest.mark.parametrize("name", ["mask", "uniform"])
def test_guided_euler_at_many_steps_ends_at_the_conditional_law(name):
    bayes = FINITE[name]
    errors = [
        0.5 * (pushed_law(bayes.guided(), steps) - bayes.posterior).abs().sum()
        for steps in (75, 300)
    ]
    assert errors[1] < 0.005
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert 0.5 * (bayes.posterior - bayes.free.log_weights.exp()).abs().sum() > 0.2


@final
class DenseChain:
    """The guided Euler chain on three tokens, from the formulas alone: alpha_t = 1 - t."""

    def __init__(self, bayes: Bayes, is_mask: bool, strength: float) -> None:
        size = 4 if is_mask else 3
        fresh = [0.0, 0.0, 0.0, 1.0] if is_mask else [1 / 3] * 3
        self.states, self.fresh = every(size), torch.tensor(fresh, dtype=torch.float64)
        self.codes, self.strength = every(3), strength
        self.law, self.likelihood = bayes.evidence.weights, bayes.evidence.likelihood

    def kernel(self, alpha: float) -> Tensor:
        """q(y | k) of one site, rows k."""
        eye = torch.eye(len(self.fresh), dtype=torch.float64)
        return alpha * eye + (1 - alpha) * self.fresh

    def ratios(self, t: float) -> Tensor:
        """Guided q_t(y)/q_t(x) for each state, site and new value, ``(M, 3, N)``."""
        table = self.kernel(max(1 - t, 2.0**-24))
        q = torch.stack([table[self.codes[:, d]][:, self.states[:, d]] for d in range(3)]).prod(0)
        marginal = self.law @ q
        tilted = marginal * ((self.law * self.likelihood) @ q / marginal) ** self.strength
        size = len(self.fresh)
        place = torch.tensor([size**2, size, 1])
        home = (self.states * place).sum(1)
        moved = home[:, None, None] + place[:, None] * (
            torch.arange(size) - self.states[:, :, None]
        )
        return tilted[moved] / tilted[home][:, None, None]

    def euler(self, t: float, s: float) -> Tensor:
        """At most one jump per site, at rates R(y -> x) q_t(y)/q_t(x) frozen at t."""
        own = self.states[..., None]
        into = (t - s) / (1 - t) * self.fresh[self.states]
        rates = (into[..., None] * self.ratios(t)).scatter(-1, own, 0.0)
        total = rates.sum(-1, keepdim=True)
        law = -torch.expm1(-total) * rates / total.clamp_min(1e-300)
        return law.scatter(-1, own, torch.exp(-total))

    def bridge(self, t: float, s: float) -> Tensor:
        """sum_k m_k q(x_s | x_t, k), with the posterior m that the guided ratios stand for."""
        alpha, early = max(1 - t, 2.0**-24), 1 - s
        ratios = self.ratios(t)
        excess = ratios - (1 - alpha) * self.fresh * ratios.sum(-1, keepdim=True)
        likelihood = self.kernel(alpha).T[self.states]
        values = torch.arange(len(self.fresh)) < 3
        posterior = torch.where(values, excess.clamp_min(0) * likelihood, 0.0)
        posterior = posterior / posterior.sum(-1, keepdim=True)
        weights = torch.where(likelihood > 0, posterior / likelihood, 0.0)
        return (weights @ self.kernel(early)) * self.kernel(alpha / early).T[self.states]

    def run(self, steps: int) -> Tensor:
        """The law over the 27 sequences after ``steps`` equal steps."""
        law = self.fresh[self.states].prod(1)
        for k in range(steps):
            t, s = 1 - k / steps, 1 - (k + 1) / steps
            site = self.bridge(t, s) if k in (0, steps - 1) else self.euler(t, s)
            law = law @ joint_matrix(site, self.states)
        return law[(self.states < 3).all(1)]


@pytest.mark.parametrize("name", ["mask", "uniform"])
def test_samples_at_strength_three_follow_the_enumerated_guided_chain(name):
    """And the chain is far from p(x) p(e | x)^3, which nobody samples by guidance."""
    bayes, n, steps = FINITE[name], 20_000, 24
    chain = DenseChain(bayes, name == "mask", 3.0)
    law = chain.run(steps)
    torch.testing.assert_close(pushed_law(bayes.guided(3.0), steps), law, atol=1e-8, rtol=0)
    grid = rv.Grid.uniform(steps)
    tabulated = rv.Classifier(bayes.free, Tabulated(bayes.evidence), 3.0)
    for guided in (tabulated, rv.ClassifierFree(Switch(bayes), 3.0)):
        x = rv.Euler().sample(guided, n, grid=grid, cond="evidence", generator=seeded(13))
        counts = torch.bincount((x * torch.tensor([9, 3, 1])).sum(1), minlength=27)
        assert p_value(counts, law) > FAILURE_RATE
    tilted = bayes.evidence.weights * bayes.evidence.likelihood**3
    tilted = tilted / tilted.sum()
    assert 0.5 * (law - tilted).abs().sum() > 0.05
    assert 0.5 * (chain.run(600) - tilted).abs().sum() > 0.05
    assert p_value(counts, tilted) < FAILURE_RATE


@pytest.mark.parametrize(
    "sampler", [rv.Euler(), rv.Euler(churn=1.5), rv.Ancestral(), rv.Heun()], ids=repr
)
@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_guidance_meets_every_sampler_and_holds_what_is_given(sampler, strength):
    bayes, n = joint(), 40
    word = torch.arange(n) % 4
    switch = rv.ClassifierFree(Switch(bayes), strength)
    for guided in (bayes.guided(strength), switch):
        for given in (None, {"word": word}):
            x = sampler.sample(
                guided, n, steps=8, given=given, cond="evidence", generator=seeded(14)
            )
            bayes.process.space.check(x)
            assert given is None or torch.equal(x["word"], word)
            assert all(torch.isfinite(part).all() for part in x.values())
