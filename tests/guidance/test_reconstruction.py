r"""Evidence on clean data, with a model that never saw any: exact where the posterior is normal.

With x_0 given x_t normal of covariance V, :math:`p_t(y | x_t) = N(y; A \hat x_0, S^2 + A V A^T)`,
and guidance at strength 1 is the denoiser of the conditional law, which is normal again.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from tests.guidance.test_guidance import REAL, assert_same_reversal, seeded

MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor(
    [[1.0, 0.6, -0.2], [0.6, 0.8, 0.1], [-0.2, 0.1, 0.5]], dtype=torch.float64
)
OPERATOR = torch.tensor([[1.0, 0.5, 0.0], [-0.3, 0.2, 1.0]], dtype=torch.float64)
SEEN = torch.tensor([0.9, -0.4], dtype=torch.float64)
NOISE = torch.tensor([0.3, 0.5], dtype=torch.float64)
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.Rectified(), rv.VarianceExploding()]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def conditional(
    free: rv.GaussianData, operator: Tensor, y: Tensor, noise: Tensor
) -> tuple[rv.GaussianData, float]:
    """The law given the observation by the textbook, and log p(y)."""
    m, c = free.mean, free.covariance
    total = operator @ c @ operator.mT + torch.diag(noise**2)
    gain = torch.linalg.solve(total, operator @ c).mT
    left = c - gain @ operator @ c
    log_y = torch.distributions.MultivariateNormal(operator @ m, total).log_prob(y)
    given = rv.GaussianData(free.process, m + gain @ (y - operator @ m), (left + left.mT) / 2)
    return given, float(log_y)


def normal(schedule: Any, covariance: Tensor = COVARIANCE) -> rv.GaussianData:
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(3), schedule), MEAN, covariance)


def noised(free: Any, n: int = 40) -> tuple[Tensor, Tensor]:
    t = torch.linspace(0.02, 0.98, n, dtype=torch.float64)
    x_0 = torch.randn((n, 3), generator=seeded(1), dtype=torch.float64)
    return free.process.kernel(x_0, t).sample(seeded(2)), t


OBSERVED = {
    "matrix": rv.LinearObservation(OPERATOR, SEEN, NOISE),
    "callable": rv.LinearObservation(lambda x: x @ OPERATOR.mT, SEEN, NOISE),
}
observed = pytest.mark.parametrize("seen", OBSERVED.values(), ids=OBSERVED)


@schedules
@observed
def test_moment_matching_is_exact_on_normal_data_and_knows_its_evidence(schedule, seen):
    """In every kind; and log p_t(y | x) = log q_t(x | y) + log p(y) - log q_t(x)."""
    free = normal(schedule)
    given, log_y = conditional(free, OPERATOR, SEEN, NOISE)
    x_t, t = noised(free)
    for how in (rv.Clean(), rv.Noise(), rv.Velocity(), rv.Score()):
        inner = rv.NetworkDenoiser(
            lambda x, t, cond, how=how: free(x, t).read(how.kind), free.process, how
        )
        look = rv.Reconstruction(inner, rv.MomentMatching(seen)).look(x_t, t)
        assert look.guided.kind is how.kind
        expected = given(x_t, t).clean
        torch.testing.assert_close(look.guided.clean, expected, atol=1e-9, rtol=1e-9)
        exact = given.log_prob(x_t, t) + log_y - free.log_prob(x_t, t)
        torch.testing.assert_close(look.log_evidence, exact, atol=1e-8, rtol=1e-8)


@schedules
@observed
def test_pseudoinverse_guidance_is_exact_on_normal_data_of_its_variance(schedule, seen):
    """One number for an isotropic covariance, one per entry for a diagonal one."""
    for variance in (torch.tensor(0.7), torch.tensor([0.7, 1.3, 0.2])):
        spread = variance.double().expand(3)
        free = normal(schedule, torch.diag(spread))
        given, log_y = conditional(free, OPERATOR, SEEN, NOISE)
        x_t, t = noised(free)
        look = rv.Reconstruction(free, rv.PiGDM(seen, variance.double())).look(x_t, t)
        torch.testing.assert_close(look.guided.score, given(x_t, t).score, atol=1e-9, rtol=1e-8)
        exact = given.log_prob(x_t, t) + log_y - free.log_prob(x_t, t)
        torch.testing.assert_close(look.log_evidence, exact, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", [rv.MomentMatching, rv.PiGDM])
def test_known_sites_stand_still_and_the_others_are_guided_exactly(kind):
    """A clock per site: two entries run at times of their own, the third is known."""
    diagonal = kind is rv.PiGDM
    spread = torch.tensor([0.7, 1.3, 0.2], dtype=torch.float64)
    free = normal(rv.Cosine(), torch.diag(spread) if diagonal else COVARIANCE)
    seen = OBSERVED["matrix"]
    evidence = rv.PiGDM(seen, spread) if diagonal else rv.MomentMatching(seen)
    given, _ = conditional(free, OPERATOR, SEEN, NOISE)
    t = torch.tensor([[0.3, 0.6, 0.0], [0.8, 0.2, 0.0]], dtype=torch.float64)
    x_t = torch.randn((2, 3), generator=seeded(7), dtype=torch.float64)
    ours, exact = rv.Reconstruction(free, evidence)(x_t, t), given(x_t, t)
    torch.testing.assert_close(ours.clean[:, :2], exact.clean[:, :2], atol=1e-9, rtol=1e-9)


def test_two_observations_together_are_the_sum_and_exact_where_they_do_not_share_an_entry():
    spread = torch.tensor([0.7, 1.3, 0.2], dtype=torch.float64)
    free = normal(rv.Cosine(), torch.diag(spread))
    rows = torch.tensor([[2.0, 0.5, 0.0], [0.0, 0.0, 1.5]], dtype=torch.float64)
    pieces = [
        rv.LinearObservation(rows[k : k + 1], SEEN[k : k + 1], NOISE[k : k + 1]) for k in (0, 1)
    ]
    given, log_y = conditional(free, rows, SEEN, NOISE)
    x_t, t = noised(free)
    both = rv.Together(rv.MomentMatching(pieces[0]), rv.PiGDM(pieces[1], spread))
    look = rv.Reconstruction(free, both).look(x_t, t)
    torch.testing.assert_close(look.guided.clean, given(x_t, t).clean, atol=1e-9, rtol=1e-9)
    exact = given.log_prob(x_t, t) + log_y - free.log_prob(x_t, t)
    torch.testing.assert_close(look.log_evidence, exact, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_dps_pulls_too_hard_by_one_plus_the_variance_it_leaves_out(time):
    """On N(0, 1), preserving noise: the factor is 1 + sigma_t^2 / s^2, at every x and y."""
    process, s = rv.Gaussian(rv.Euclidean(1), rv.Cosine()), 0.3
    one = torch.ones(1, 1, dtype=torch.float64)
    free = rv.GaussianData(process, one[0] - 1, one)
    seen = rv.LinearObservation(one, torch.tensor([0.8], dtype=torch.float64), s)
    x_t = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    t = torch.full((7,), time, dtype=torch.float64)
    base = free(x_t, t).score
    dps, exact = (
        rv.Reconstruction(free, evidence)(x_t, t).score - base
        for evidence in (rv.DPS(seen), rv.PiGDM(seen))
    )
    variance = process.schedule.signal(t[:1]).sigma ** 2
    torch.testing.assert_close(dps, exact * (1 + variance / s**2), atol=1e-10, rtol=1e-9)


def test_strength_scales_the_pull_and_zero_leaves_the_denoiser_alone():
    free, seen = normal(rv.Cosine()), OBSERVED["matrix"]
    x_t, t = noised(free)
    base = free(x_t, t).score
    pulls = {
        w: rv.Reconstruction(free, rv.DPS(seen), w)(x_t, t).score - base for w in (0.0, 1.0, 2.5)
    }
    assert (pulls[0.0] == 0).all()
    torch.testing.assert_close(pulls[2.5], 2.5 * pulls[1.0], atol=1e-9, rtol=1e-9)


def mixture(schedule: Any = None) -> rv.GaussianMixture:
    means = torch.randn((4, 3), generator=seeded(8), dtype=torch.float64)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    variances = torch.tensor([0.05, 0.2, 0.1, 0.3], dtype=torch.float64)
    return rv.GaussianMixture(rv.Gaussian(rv.Euclidean(3), schedule), weights, means, variances)


ANY = {
    "dps": rv.DPS(OBSERVED["matrix"]),
    "dps_with_a_function": rv.DPS(lambda x: -(x.square().sum(-1) - 1).abs()),
    "pigdm": rv.PiGDM(OBSERVED["matrix"]),
    "moment_matching": rv.MomentMatching(OBSERVED["matrix"]),
    "one_iteration": rv.MomentMatching(OBSERVED["matrix"], 1),
}


@pytest.mark.parametrize("evidence", ANY.values(), ids=ANY)
def test_an_item_is_guided_alike_in_any_batch(evidence):
    """Known failure elsewhere: an error's norm over the batch makes guidance shrink with it."""
    guided = rv.Reconstruction(mixture(), evidence)
    x_t, t = noised(guided)
    whole = guided(x_t, t).clean
    for row in range(0, len(t), 3):
        alone = guided(x_t[row : row + 1], t[row : row + 1]).clean
        torch.testing.assert_close(alone, whole[row : row + 1], atol=1e-10, rtol=1e-10)
    noise = [rv.ItemNoise(range(k, k + 5)) for k in (0, 2)]
    first, second = (rv.Ancestral().sample(guided, 5, steps=6, generator=g) for g in noise)
    torch.testing.assert_close(first[2:], second[:3], atol=1e-9, rtol=1e-9)


def test_rows_of_y_belong_to_items_that_follow_one_another():
    free, rows = mixture(), torch.stack([SEEN, -SEEN, SEEN + 1])
    x_t, t = noised(free, 12)
    for kind in (rv.DPS, rv.PiGDM, rv.MomentMatching):
        whole = rv.Reconstruction(free, kind(rv.LinearObservation(OPERATOR, rows, NOISE)))
        found = whole(x_t, t).clean
        for k, y in enumerate(rows):
            one = rv.Reconstruction(free, kind(rv.LinearObservation(OPERATOR, y, NOISE)))
            part = slice(4 * k, 4 * k + 4)
            torch.testing.assert_close(
                found[part], one(x_t[part], t[part]).clean, atol=1e-10, rtol=1e-10
            )


BOTH = rv.Independent(
    v=rv.Gaussian(rv.Euclidean(2)),
    label=rv.Mask(rv.Categorical(3)),
    turn=rv.Brownian(rv.Torus(1)),
    word=rv.Uniform(rv.Categorical(4)),
)


def joint() -> rv.Empirical:
    atoms = {
        "v": torch.randn((9, 2), generator=seeded(9), dtype=torch.float64),
        "label": torch.arange(9) % 3,
        "turn": torch.rand((9, 1), generator=seeded(10), dtype=torch.float64),
        "word": torch.arange(9) % 4,
    }
    return rv.Empirical(BOTH, atoms, torch.arange(1.0, 10.0).double())


@pytest.mark.parametrize("shared", [True, False], ids=["one_clock", "a_clock_per_factor"])
def test_evidence_on_one_finite_site_is_exact_and_reaches_every_factor(shared):
    """log sum_k p(k | x_t) l_k is the evidence itself, whatever else the model has in it."""
    free, table = joint(), torch.tensor([0.1, 0.7, 0.4], dtype=torch.float64)
    weights = free.log_weights.exp() * table[free.atoms["label"]]
    given = rv.Empirical(BOTH, free.atoms, weights)
    guided = rv.Reconstruction(free, rv.DPS(lambda x_0: (x_0["label"] @ table.to(x_0["v"])).log()))
    t = torch.linspace(0.1, 0.9, 18, dtype=torch.float64)
    clock = t if shared else {"v": t, "label": t.flip(0), "turn": t.roll(5), "word": t.roll(9)}
    rows = torch.arange(18) % 9
    x_t = BOTH.kernel({k: a[rows] for k, a in free.atoms.items()}, clock).sample(seeded(11))
    assert_same_reversal(guided(x_t, clock), given(x_t, clock), BOTH, x_t, clock)
    at = guided.log_likelihood({k: a[:4] for k, a in free.atoms.items()})
    torch.testing.assert_close(at, table[free.atoms["label"][:4]].log().to(at))


@pytest.mark.parametrize("kind", [rv.DPS, rv.PiGDM, rv.MomentMatching])
def test_one_real_factor_of_a_product_is_seen_and_samples_hold_what_is_given(kind):
    free = joint()
    seen = rv.LinearObservation(
        torch.tensor([[1.0, 0.0]]).double(), torch.tensor([1.2]).double(), 0.5, factor="v"
    )
    guided = rv.Reconstruction(free, kind(seen))
    given = {"word": torch.arange(12) % 4}
    drawn = rv.Ancestral().sample(guided, 12, steps=15, given=given, generator=seeded(12))
    BOTH.space.check(drawn)
    assert torch.equal(drawn["word"], given["word"])
    plain = rv.Ancestral().sample(free, 12, steps=15, given=given, generator=seeded(12))
    error = [(x["v"][:, 0] - 1.2).square().mean() for x in (drawn, plain)]
    assert error[0] < error[1]


def test_a_linear_likelihood_on_a_finite_space_is_the_classifier(global_seed):
    """Known from tests of the classifier: sequences, whose first token is seen."""
    tokens = rv.Uniform(rv.Categorical(3, 2))
    law = torch.tensor([[0.2, 0.1, 0.05], [0.05, 0.2, 0.1], [0.1, 0.05, 0.15]]).double()
    table = torch.tensor([0.2, 0.9, 0.3]).double()
    free = rv.Enumerated(tokens, law)
    given = rv.Enumerated(tokens, law * table[:, None] / (law * table[:, None]).sum())
    guided = rv.Reconstruction(free, rv.DPS(lambda p: (p[:, 0] @ table.to(p)).log()))
    x_t = torch.randint(3, (20, 2), generator=seeded(13))
    t = torch.linspace(0.1, 0.9, 20, dtype=torch.float64)
    assert_same_reversal(guided(x_t, t), given(x_t, t), tokens, x_t, t)


def test_float32_and_images_and_an_empty_batch_are_guided():
    process = rv.Gaussian(rv.Euclidean(1, 2, 2), rv.Cosine())
    atoms = torch.randn((5, 1, 2, 2), generator=seeded(14))
    free = rv.Empirical(process, atoms)
    seen = rv.LinearObservation(lambda x: x.mean(-1).flatten(1), torch.tensor([0.3, -0.2]), 0.2)
    for kind in (rv.DPS, rv.PiGDM, rv.MomentMatching):
        guided = rv.Reconstruction(free, kind(seen))
        for n in (0, 3):
            x = rv.Euler(churn=0).sample(guided, n, steps=5, generator=seeded(15))
            assert x.shape == (n, 1, 2, 2)
            assert x.dtype == torch.float32
            assert x.isfinite().all()


PLANE = REAL["Rectified"].free
SQUARE = rv.LinearObservation(torch.eye(2).double(), torch.zeros(2).double(), 0.1)
PAIR = rv.Interpolant(rv.Euclidean(2), rv.Paired())
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "y with gaps": (
        lambda: rv.LinearObservation(torch.eye(2), torch.tensor([0.0, torch.nan]), 0.1),
        rv.SpaceError,
        "Leave out what was not seen",
    ),
    "no noise": (
        lambda: rv.LinearObservation(torch.eye(2), torch.zeros(2), 0.0),
        rv.SpaceError,
        "given=",
    ),
    "an operator of another height": (
        lambda: rv.LinearObservation(torch.eye(3), torch.zeros(2), 0.1),
        rv.SpaceError,
        "one row per number",
    ),
    "an operator of another width": (
        lambda: rv.Reconstruction(normal(None), rv.DPS(SQUARE)),
        rv.SpaceError,
        r"shape \(2, 3\)",
    ),
    "an operator that is not linear": (
        lambda: rv.Reconstruction(
            PLANE, rv.PiGDM(rv.LinearObservation(lambda x: x**2, torch.zeros(2).double(), 0.1))
        ),
        rv.CapabilityError,
        "not linear|Expected a linear operator",
    ),
    "an operator with a constant": (
        lambda: rv.Reconstruction(
            PLANE, rv.PiGDM(rv.LinearObservation(lambda x: x + 1, torch.zeros(2).double(), 0.1))
        ),
        rv.CapabilityError,
        "Take a constant off y",
    ),
    "a factor that is not there": (
        lambda: rv.Reconstruction(joint(), rv.PiGDM(SQUARE)),
        rv.SpaceError,
        "factor= as one of",
    ),
    "a factor of a plain space": (
        lambda: rv.Reconstruction(
            PLANE, rv.PiGDM(rv.LinearObservation(torch.eye(2), torch.zeros(2), 0.1, factor="v"))
        ),
        rv.SpaceError,
        "no factor=",
    ),
    "an angle": (
        lambda: rv.Reconstruction(
            joint(),
            rv.PiGDM(rv.LinearObservation(torch.eye(1), torch.zeros(1), 0.1, factor="turn")),
        ),
        rv.CapabilityError,
        "Expected Gaussian noise on what PiGDM sees",
    ),
    "a path without a score": (
        lambda: rv.Reconstruction(
            rv.NetworkDenoiser(lambda x, t, cond: x, PAIR, rv.Velocity()), rv.DPS(SQUARE)
        ),
        rv.CapabilityError,
        "path with a score",
    ),
    "a likelihood without a wrapping": (
        lambda: rv.Reconstruction(PLANE, SQUARE),
        rv.CapabilityError,
        "Wrap it",
    ),
    "a function for an observation": (
        lambda: rv.MomentMatching(lambda x: x.sum(-1)),
        rv.CapabilityError,
        r"DPS\(log_likelihood\)",
    ),
    "nothing together": (lambda: rv.Together(), rv.CapabilityError, "at least one"),
    "no iteration": (lambda: rv.MomentMatching(SQUARE, 0), rv.CapabilityError, "iterations >= 1"),
    "a variance of zero": (lambda: rv.PiGDM(SQUARE, 0.0), rv.SpaceError, "numbers > 0"),
    "a likelihood that is one number": (
        lambda: rv.Reconstruction(PLANE, rv.DPS(lambda x: x.sum()))(*noised_plane()),
        rv.SpaceError,
        "one number per item",
    ),
    "a likelihood that detaches": (
        lambda: rv.Reconstruction(PLANE, rv.DPS(lambda x: x.detach().sum(-1)))(*noised_plane()),
        rv.CapabilityError,
        "detaches",
    ),
    "rows of y that do not divide": (
        lambda: rv.Reconstruction(
            PLANE, rv.DPS(rv.LinearObservation(torch.eye(2), torch.zeros(3, 2), 0.1))
        )(*noised_plane()),
        rv.SpaceError,
        "or a multiple",
    ),
}


def noised_plane() -> tuple[Tensor, Tensor]:
    return torch.zeros(4, 2).double(), torch.full((4,), 0.5).double()


@pytest.mark.parametrize(("make", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_evidence_that_does_not_fit_is_refused_with_the_cure(make, error, said):
    with pytest.raises(error, match=said):
        make()
