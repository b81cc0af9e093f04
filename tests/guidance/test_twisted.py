r"""Twisted particles: unbiased for the chain that is sampled, whatever the twist.

The law of an unguided chain is known: normal for ``GaussianData`` under ``Ancestral`` (a linear
recursion), and a product of matrices on three tokens. For any function h, with W the mean weight of
a system and h averaged by its weights,

.. math:: E[W\, \bar h] = E_{chain}[h(x_0)\, p(e | x_0)] .

Means over independent systems are compared in standard errors; a declared failure rate of 1e-4 per
figure, Bonferroni over those of a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from tests.guidance.test_guidance import (
    FINITE,
    Tabulated,
    every,
    joint,
    joint_matrix,
    plane,
    seeded,
)

FAILURE_RATE = 1e-4
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 0.7]], dtype=torch.float64)
SEEN = rv.LinearObservation(torch.tensor([[1.0, 0.5]]).double(), torch.tensor([0.9]).double(), 0.6)


def chain_law(free: rv.GaussianData, steps: int, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance at the end of the unguided chain, by its affine maps."""
    process = free.process
    mean, cov = torch.zeros(2).double(), process.prior.std**2 * torch.eye(2).double()
    basis = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    for t, s in pairwise(process.grid(steps).ticks()):
        step = process.ancestor(basis, t, s, free(basis, t), eta)
        matrix = (step.mean[1:] - step.mean[0]).mT
        mean = step.mean[0] + matrix @ mean
        cov = matrix @ cov @ matrix.mT + step.std**2 * torch.eye(2).double()
    return mean, cov


def agrees(found: Tensor, truth: Any, tests: int = 1) -> bool:
    """Whether the mean of independent draws is the truth, in standard errors."""
    error = (found.mean(0) - torch.as_tensor(truth)).abs()
    stderr = found.std(0) / len(found) ** 0.5
    return bool((error < stats.norm.isf(FAILURE_RATE / 2 / tests) * stderr).all())


@pytest.mark.parametrize(
    "evidence",
    [rv.DPS(SEEN), rv.PiGDM(SEEN, 0.3), rv.MomentMatching(SEEN)],
    ids=["dps", "pigdm", "mm"],
)
@pytest.mark.parametrize("method", [rv.TwistedSMC(), rv.TwistedSMC(1.0, 0.6), rv.TwistedSMC(0.0)])
def test_the_evidence_and_moments_of_a_normal_chain_are_unbiased(evidence, method):
    process = rv.Gaussian(rv.Euclidean(2), rv.Cosine(last_alpha=0.05))
    free, steps = rv.GaussianData(process, MEAN, COVARIANCE), 6
    guided = rv.Reconstruction(free, evidence, strength=0.8)
    run = method.sample(guided, 12, steps=steps, systems=1500, generator=seeded(0))
    mean, cov = chain_law(free, steps, method.eta)
    operator, y, std = SEEN.operator, SEEN.y, SEEN.std
    total = operator @ cov @ operator.mT + torch.diag(std**2)
    law = torch.distributions.MultivariateNormal(operator @ mean, total)
    truth = law.log_prob(y).exp()
    posterior = mean + cov @ operator.mT @ torch.linalg.solve(total, y - operator @ mean)
    weight = run.log_evidence.exp()
    assert agrees(weight, truth, 3)
    assert agrees(weight[:, None] * run.mean(lambda x: x), truth * posterior, 3)
    assert weight.std() / 1500**0.5 < 0.1 * truth
    sizes = run.effective_sizes
    assert sizes.shape == (steps + 1, 1500)
    assert bool(((sizes >= 1 - 1e-9) & (sizes <= 12 + 1e-9)).all())


@final
@dataclass(frozen=True)
class Wrong:
    """A twist that is tempered and biased at noisy states, and the truth at data."""

    evidence: Any

    def __call__(self, x_t: Any, t: Any) -> Tensor:
        clock = next(iter(t.values())) if isinstance(t, dict) else t
        log_prob = self.evidence(x_t, t)
        return torch.where(clock > 0, 0.4 * log_prob - clock, log_prob)


@pytest.mark.parametrize("name", ["mask", "uniform"])
def test_a_wrong_twist_on_tokens_costs_particles_and_no_bias(name):
    bayes, steps, systems = FINITE[name], 5, 2000
    guided = rv.Classifier(bayes.free, Wrong(Tabulated(bayes.evidence)))
    run = rv.TwistedSMC().sample(guided, 8, steps=steps, systems=systems, generator=seeded(1))
    law = chain_of_tokens(bayes, steps)
    likelihood = bayes.evidence(every(3), torch.zeros(27).double()).exp()
    weight = run.log_evidence.exp()
    place = (run.states * torch.tensor([9, 3, 1])).sum(1)
    one_hot = torch.nn.functional.one_hot(place, 27).double()
    assert agrees(weight, law @ likelihood, 28)
    assert agrees(weight[:, None] * run.mean(lambda _: one_hot), law * likelihood, 28)


def test_two_finite_factors_agree_with_plain_draws_weighed_by_the_evidence():
    bayes, n, systems = FINITE["mixed"], 20_000, 150
    guided = rv.Classifier(bayes.free, Wrong(bayes.evidence))
    run = rv.TwistedSMC().sample(guided, 8, steps=4, systems=systems, generator=seeded(1))
    plain = rv.Ancestral().sample(bayes.free, n, steps=4, generator=seeded(2))
    direct = bayes.evidence(plain, dict.fromkeys(plain, torch.zeros(n).double())).exp()
    assert same_mean(run.log_evidence.exp(), direct)


def same_mean(ours: Tensor, theirs: Tensor) -> bool:
    spread = (ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt()
    assert spread < 0.1 * theirs.mean()
    return bool((ours.mean() - theirs.mean()).abs() < stats.norm.isf(FAILURE_RATE / 2) * spread)


def chain_of_tokens(bayes: Any, steps: int) -> Tensor:
    """The law of ``Ancestral`` on the unguided oracle, over the 27 sequences."""
    process = bayes.process
    states = every(process.noisy_space.num_states)
    law = process.prior.log_prob(states).exp()
    for t, s in pairwise(process.grid(steps).ticks()):
        leap = process.ancestor(states, t, s, bayes.free(states, t)).leap
        law = law @ joint_matrix(leap.law(states), states)
    return law[(states < 3).all(1)]


def test_many_particles_follow_the_conditional_law_where_guidance_alone_does_not():
    """Six atoms; strength 3 overshoots by far, and is mended by its weights.

    In total variation: 20 systems of 400 particles, which at the end are worth 280, leave a
    distance of 0.02 to 0.03, and guidance alone one of 0.25.
    """
    bayes = plane(rv.Gaussian(rv.Euclidean(2)))
    guided = bayes.guided(3.0)
    run = rv.TwistedSMC().sample(guided, 400, steps=40, systems=20, generator=seeded(3))

    def atoms(x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.cdist(x, bayes.atoms).argmin(1), 6).double()

    def distance(law: Tensor) -> float:
        return float((law - bayes.posterior).abs().sum() / 2)

    pooled = run.log_evidence.softmax(0) @ run.mean(atoms)
    plain = rv.Ancestral().sample(guided, 2000, steps=40, generator=seeded(4))
    assert distance(atoms(plain).mean(0)) > 0.2
    assert distance(pooled) < 0.06


def test_what_is_given_stays_and_the_rest_follows_the_weights():
    """A product with a known factor: against plain draws, weighed by the evidence alone."""
    bayes, n = joint(), 20_000
    law = {k: part for k, part in bayes.process.parts.items() if k != "turn"}
    process = rv.Independent(law)
    atoms = {k: bayes.atoms[k] for k in law}
    free = rv.Empirical(process, atoms, bayes.free.log_weights.exp())
    seen = rv.LinearObservation(
        torch.tensor([[1.0, -1.0]]).double(), torch.tensor([0.8]).double(), 0.7, factor="v"
    )
    given = {"word": torch.tensor([2])}
    guided = rv.Reconstruction(free, rv.PiGDM(seen))
    run = rv.TwistedSMC().sample(guided, 6, steps=5, systems=300, given=given, generator=seeded(5))
    assert (run.states["word"] == 2).all()
    plain = rv.Ancestral().sample(free, n, steps=5, given=given, generator=seeded(6))
    assert same_mean(run.log_evidence.exp(), guided.log_likelihood(plain).exp())


def test_systems_are_resampled_apart_and_draws_follow_the_weights():
    run = rv.Particles(
        torch.arange(8.0)[:, None],
        torch.tensor(
            [[0.0, -torch.inf, 0.0, 0.0], [-torch.inf, -torch.inf, 1.0, -torch.inf]]
        ).double(),
        torch.zeros(2),
        torch.ones(1, 2),
    )
    drawn = run.draw(300, seeded(7)).view(2, 300)
    assert torch.equal(
        torch.bincount(drawn[0].long(), minlength=4), torch.tensor([100, 0, 100, 100])
    )
    assert (drawn[1] == 6).all()
    torch.testing.assert_close(run.mean(lambda x: x), torch.tensor([[5 / 3], [6.0]]))


def test_evidence_that_is_impossible_leaves_a_log_evidence_of_minus_infinity():
    bayes = plane(rv.Gaussian(rv.Euclidean(2)))
    never = rv.Classifier(bayes.free, lambda x, t: 0 * x[:, 0] + torch.where(
        (t == 0) if t.ndim else t, -torch.inf, 0.0))  # fmt: skip
    run = rv.TwistedSMC().sample(never, 5, steps=3, systems=2, generator=seeded(8))
    assert (run.log_evidence == -torch.inf).all()
    assert (run.effective_sizes[-1] == 0).all()
    assert run.draw(3, seeded(9)).isfinite().all()


PLANE = rv.GaussianData(rv.Gaussian(rv.Euclidean(2)), MEAN, COVARIANCE)
SPUN = rv.Empirical(rv.Brownian(rv.Torus(1)), torch.zeros(2, 1))
RUN = rv.TwistedSMC().sample
DPS = rv.Reconstruction(PLANE, rv.DPS(SEEN))
ROOT = rv.Reconstruction(PLANE, rv.DPS(lambda x: (x[:, 0] - 9).sqrt()))
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no evidence": (lambda: RUN(PLANE, 5), rv.CapabilityError, "Reconstruction"),
    "a stream per item": (
        lambda: RUN(DPS, 5, generator=rv.ItemNoise(range(5))),
        rv.CapabilityError,
        "manual_seed",
    ),
    "no particle": (lambda: RUN(DPS, 0), rv.SpaceError, "particles=64"),
    "minus one system": (lambda: RUN(DPS, 5, systems=-1), rv.SpaceError, "one system"),
    "a manifold": (
        lambda: RUN(rv.Classifier(SPUN, lambda x, t: x[:, 0]), 5),
        rv.CapabilityError,
        "no density to weigh",
    ),
    "a flow": (lambda: rv.TwistedSMC(eta=0.0), rv.CapabilityError, "steps with noise"),
    "a threshold above one": (lambda: rv.TwistedSMC(2.0), rv.CapabilityError, "never resamples"),
    "known values that differ": (
        lambda: RUN(DPS, 5, given=(torch.arange(10.0).view(5, 2), torch.tensor([True, False]))),
        rv.SpaceError,
        "alike for all particles",
    ),
    "a likelihood that is not a number": (
        lambda: RUN(ROOT, 5, generator=seeded(10)),
        rv.DataError,
        "NaN for particle",
    ),
}


@pytest.mark.parametrize(("make", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_weighed_is_refused_with_the_cure(make, error, said):
    with pytest.raises(error, match=said):
        make()
