r"""Restricted sites have the truncated joint law, against exact denoisers.

For N(m, C), a finite table and both at once the truncated law is known in closed form or by
quadrature; what is drawn is held against it at a declared failure rate, and the probability of the
sets, which the weights estimate, against the exact one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal.restrictions import (
    Context,
    InCodes,
    InIntervals,
    Site,
    SiteFlow,
    restricted,
)
from reversal.restrictions.restriction import between_quantiles, log_mass
from reversal.restrictions.sequential import effective_size, probability, resampled
from tests.general_location import GeneralLocation

RATE = 1e-4
CASES = 12
Z = float(stats.norm.isf(RATE / CASES / 2))
INF = math.inf
MEAN = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.1], [0.3, 0.1, 1.0]], dtype=torch.float64)
GAUSSIAN = rv.GaussianData(rv.Gaussian(rv.Euclidean(3), rv.Rectified()), MEAN, COVARIANCE)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def intervals(place: int, *ends: tuple[float, float], steps: int = 16, factor: str = "") -> Any:
    return InIntervals(Site(factor, (place,)), torch.tensor(ends, dtype=torch.float64), steps)


def codes(place: int, *members: bool, factor: str = "") -> Any:
    return InCodes(Site(factor, (place,)), torch.tensor(members))


def close(found: float, truth: float, spread: float, n: float, slack: float = 0.0) -> bool:
    """Whether a mean of n draws is within the declared error of its expectation."""
    return abs(found - truth) < Z * spread / math.sqrt(n) + slack


# The flow of one site


def exact_probability(ends: tuple[float, float], known: float) -> float:
    """P(x_0 in an interval | x_1 = known) under N(m, C)."""
    law = stats.norm(0.2 + 0.8 * (known + 0.1), math.sqrt(1 - 0.64))
    return float(law.cdf(ends[1]) - law.cdf(ends[0]))


def flow_error(steps: int) -> float:
    known = (torch.tensor([0.0, 1.0, 0.0]), torch.tensor([False, True, False]))
    context = Context.of(GAUSSIAN, 1, known, seeded(0))
    found = intervals(0, (0.5, 1.4), steps=steps).log_prob(context).exp()
    return float(found[0]) - exact_probability((0.5, 1.4), 1.0)


def test_the_probability_of_an_interval_converges_with_order_two_in_the_steps_of_the_flow():
    errors = [abs(flow_error(steps)) for steps in (80, 160, 320)]
    slopes = np.diff(np.log(errors)) / -math.log(2)
    assert abs(flow_error(20)) < 1e-3
    assert (abs(slopes - 2) < 0.2).all(), slopes


@pytest.mark.parametrize(
    "schedule",
    [rv.Cosine(), rv.VariancePreserving(), rv.VarianceExploding(), rv.Rectified()],
    ids=lambda schedule: type(schedule).__name__,
)
def test_the_flow_is_increasing_and_its_ways_are_inverse(schedule):
    denoiser = rv.GaussianData(rv.Gaussian(rv.Euclidean(3), schedule), MEAN, COVARIANCE)
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    context = Context.of(denoiser, 61, None, seeded(0))

    def look(t: float, x_t: Tensor) -> Any:
        return InIntervals(Site("", (2,)), torch.zeros(1, 2))._look(context, t, x_t)

    flow = SiteFlow(denoiser.process, 48)
    z = flow.to_noise(look, x)
    assert (z.diff() > 0).all()
    torch.testing.assert_close(flow.to_data(look, z), x, atol=2e-4, rtol=0)
    torch.testing.assert_close(z, x - 0.3, atol=2e-2, rtol=0)  # up to the prior's mismatch


def test_the_mass_between_two_quantiles_is_accurate_in_both_tails():
    low = torch.tensor([-40.0, -12.0, -1.0, 0.5, 12.0, 30.0, -INF, -INF], dtype=torch.float64)
    high = torch.tensor([-39.0, -11.0, 1.0, 0.6, 12.1, INF, INF, -30.0], dtype=torch.float64)
    law = stats.norm
    truth = [
        law.logcdf(-39) + math.log1p(-math.exp(law.logcdf(-40) - law.logcdf(-39))),
        math.log(law.cdf(-11) - law.cdf(-12)),
        math.log(law.cdf(1) - law.cdf(-1)),
        math.log(law.cdf(0.6) - law.cdf(0.5)),
        math.log(law.sf(12) - law.sf(12.1)),
        law.logsf(30),
        0.0,
        law.logcdf(-30),
    ]
    found = log_mass(low, high)
    torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-9, atol=0)
    assert log_mass(high, low)[0] == -INF
    u = torch.tensor(0.5, dtype=torch.float64)
    middle = between_quantiles(low, high, u.expand(8))
    assert ((low <= middle) & (middle <= high)).all()
    normal = slice(1, None)  # at -40 the probability itself is below the least float64
    below = log_mass(low, middle)[normal]
    torch.testing.assert_close(below, found[normal] - math.log(2), rtol=0, atol=1e-9)


# Draws from the truncated law


BOX = [(0.5, 1.5), (-INF, 0.4)]


def truncated_moments() -> tuple[float, np.ndarray, np.ndarray]:
    """P(box), and mean and covariance of (x_0, x_1, x_2) in it, by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    a = 0.5 + (nodes + 1) / 2
    b = -8 + (nodes + 1) / 2 * 8.4
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1)
    area = np.outer(weights * 0.5, weights * 4.2)
    part = COVARIANCE.numpy()[:2, :2]
    density = stats.multivariate_normal(MEAN.numpy()[:2], part).pdf(grid) * area
    prob = density.sum()
    gain = np.linalg.solve(part, COVARIANCE.numpy()[:2, 2])
    third = 0.3 + (grid - MEAN.numpy()[:2]) @ gain
    left = 1 - COVARIANCE.numpy()[2, :2] @ gain
    points = np.concatenate([grid, third[..., None]], -1).reshape(-1, 3)
    mass = density.ravel() / prob
    mean = mass @ points
    covariance = (points - mean).T @ ((points - mean) * mass[:, None])
    covariance[2, 2] += left
    return prob, mean, covariance


def test_restricted_rows_have_the_moments_of_the_truncated_normal_law():
    n = 6000
    prob, mean, covariance = truncated_moments()
    asked = [intervals(0, BOX[0]), intervals(1, BOX[1])]
    context, evidence = restricted(GAUSSIAN, n, asked, None, seeded(1))
    x = context.values[""]
    drawn = rv.Heun().sample(GAUSSIAN, n, steps=24, given=context.given, generator=seeded(2))
    assert ((x[:, 0] >= 0.5) & (x[:, 0] <= 1.5) & (x[:, 1] <= 0.4)).all()
    assert torch.equal(drawn[:, :2], x[:, :2])
    assert abs(evidence.prob - prob) < Z * evidence.stderr + 2e-4
    spread = np.sqrt(np.diag(covariance))
    worth = min(evidence.effective_size, n)
    assert worth > 0.9 * n
    for k in range(3):
        assert close(float(drawn[:, k].mean()), mean[k], spread[k], worth / 2, 2e-3)
        fourth = float(((drawn[:, k] - drawn[:, k].mean()) ** 2).var()) ** 0.5
        assert close(float(drawn[:, k].var()), covariance[k, k], fourth, worth / 2, 2e-3)
    product = (drawn[:, 0] - mean[0]) * (drawn[:, 1] - mean[1])
    assert close(float(product.mean()), covariance[0, 1], float(product.std()), worth / 2, 2e-3)


def test_one_restricted_site_has_the_truncated_law_itself():
    """Kolmogorov's distance of draws given a known site and a union of two intervals."""
    n = 4000
    known = (torch.tensor([0.0, 1.0, 0.0]), torch.tensor([False, True, False]))
    ends = [(-1.0, 0.2), (1.5, INF)]
    context, evidence = restricted(GAUSSIAN, n, [intervals(0, *ends, steps=32)], known, seeded(3))
    truth = [exact_probability(pair, 1.0) for pair in ends]
    assert evidence.prob == pytest.approx(sum(truth), abs=1e-4)
    assert evidence.stderr < 1e-12
    assert evidence.effective_size == pytest.approx(n)

    def cdf(x: np.ndarray) -> np.ndarray:
        law = stats.norm(0.2 + 0.88, 0.6)
        inside = sum(law.cdf(np.clip(x, a, b)) - law.cdf(a) for a, b in ends)
        return inside / sum(truth)

    assert stats.kstest(context.values[""][:, 0].numpy(), cdf).pvalue > RATE


TABLE = torch.rand((2, 3, 4), generator=seeded(11), dtype=torch.float64) ** 2 + 0.02
TABLE = TABLE / TABLE.sum()
ENUMERATED = rv.Enumerated(rv.Mask(rv.Categorical((2, 3, 4))), TABLE)


def test_restricted_codes_have_the_exact_conditional_table():
    n = 20_000
    asked = [codes(1, True, False, True), codes(2, False, True, True, True)]
    known = (torch.tensor([1, 0, 0]), torch.tensor([True, False, False]))
    context, evidence = restricted(ENUMERATED, n, asked, known, seeded(4))
    part = TABLE[1][[0, 2]][:, 1:]
    assert evidence.prob == pytest.approx(
        float(part.sum() / TABLE[1].sum()), abs=Z * evidence.stderr
    )
    x = context.values[""]
    assert (x[:, 0] == 1).all()
    counts = torch.zeros(3, 4)
    counts.index_put_((x[:, 1], x[:, 2]), torch.ones(n), accumulate=True)
    assert counts[1].sum() == counts[:, 0].sum() == 0
    expected = n * part / part.sum()
    found = counts[[0, 2]][:, 1:].double()
    # Draws are worth at least half of n, so that twice the statistic's scale is conservative.
    statistic = float(((found - expected) ** 2 / expected).sum()) / 2
    assert stats.chi2.sf(statistic, 5) > RATE


def test_one_restricted_code_is_drawn_and_weighed_exactly():
    members = torch.tensor([False, True, True, False])
    law = TABLE.sum((0, 1))
    found = probability(ENUMERATED, [InCodes(Site("", (2,)), members)])
    assert found.prob == pytest.approx(float(law[members].sum()), abs=1e-9)
    assert found.num_draws == 1


LOCATION = GeneralLocation(
    torch.tensor([[0.15, 0.05, 0.2], [0.1, 0.3, 0.2]], dtype=torch.float64),
    torch.tensor(
        [[[-1.0, 0.0], [0.0, 1.0], [0.5, -0.5]], [[1.0, 0.5], [-0.5, 0.0], [0.0, 0.0]]],
        dtype=torch.float64,
    ),
    torch.tensor([[0.5, 0.2], [0.2, 0.6]], dtype=torch.float64),
)


def location_truth(low: float, high: float, given: int) -> tuple[np.ndarray, float]:
    """P(second code | x_0 in [low, high], first code) and the probability of the interval."""
    prior = LOCATION.log_probs.exp().view(2, 3)[given].numpy()
    means = torch.stack([law.mean for law in LOCATION.within]).view(2, 3, 2)[given, :, 0].numpy()
    law = stats.norm(means, math.sqrt(0.5))
    joint = prior / prior.sum() * (law.cdf(high) - law.cdf(low))
    return joint / joint.sum(), float(joint.sum())


def test_numbers_and_codes_restrict_each_other():
    """A range of a number, given one code, with a set of the other: shares and a mean."""
    n, low, high = 2500, 0.3, 1.2
    asked = [
        intervals(0, (low, high), factor="numeric"),
        codes(1, True, False, True, factor="category"),
    ]
    known = {"category": (torch.tensor([1, 0]), torch.tensor([True, False]))}
    context, evidence = restricted(LOCATION, n, asked, known, seeded(5))
    law, prob = location_truth(low, high, 1)
    kept = law[[0, 2]]
    assert abs(evidence.prob - prob * kept.sum()) < Z * evidence.stderr + 1e-3
    second = context.values["category"][:, 1]
    share = float((second == 0).double().mean())
    truth = kept[0] / kept.sum()
    worth = min(n, evidence.effective_size) / 2
    assert close(share, truth, math.sqrt(truth * (1 - truth)), worth, 2e-3)
    assert (
        (context.values["numeric"][:, 0] >= low) & (context.values["numeric"][:, 0] <= high)
    ).all()


def test_an_interval_of_atoms_is_their_restriction():
    """Finite data on a product: what is drawn are atoms in the interval, as often as they weigh."""
    n = 3000
    place = torch.tensor([[-1.5], [-0.5], [0.4], [1.0], [1.6]], dtype=torch.float64)
    label = torch.tensor([0, 1, 0, 1, 1])
    weights = torch.tensor([0.1, 0.3, 0.15, 0.25, 0.2], dtype=torch.float64)
    process = rv.Independent(
        place=rv.Gaussian(rv.Euclidean(1), rv.Rectified()), label=rv.Mask(rv.Categorical(2))
    )
    denoiser = rv.Empirical(process, {"place": place, "label": label}, weights)
    asked = [intervals(0, (-1.1, 1.35), factor="place")]
    context, evidence = restricted(denoiser, n, asked, {"label": torch.tensor(1)}, seeded(6))
    assert evidence.prob == pytest.approx(0.55 / 0.75, abs=5e-3)
    distance = (context.values["place"] - place.T).abs()
    assert distance.amin(1).max() < 0.05
    share = float((distance.argmin(1) == 1).double().mean())
    truth = 0.3 / 0.55
    assert close(share, truth, math.sqrt(truth * (1 - truth)), n, 3e-3)


# Weights


def test_the_weights_estimate_the_probability_without_bias():
    """Over 40 runs of 60 draws the mean is within its error of the exact probability."""
    asked = [intervals(0, BOX[0]), intervals(1, BOX[1])]
    runs = [probability(GAUSSIAN, asked, None, 60, seeded(seed)) for seed in range(40)]
    values = np.array([run.prob for run in runs])
    assert abs(values.mean() - truncated_moments()[0]) < Z * values.std() / 40**0.5 + 2e-4
    claimed = np.mean([run.stderr**2 for run in runs]) ** 0.5
    assert 0.55 < claimed / values.std() < 1.8  # 40 runs tell it to 11 %: four deviations


def test_systematic_resampling_keeps_every_row_within_one_of_its_share():
    weights = torch.rand(50, generator=seeded(7), dtype=torch.float64)
    counts = torch.bincount(resampled(weights.log(), 400, seeded(8)), minlength=50)
    share = 400 * weights / weights.sum()
    assert ((counts >= share.floor()) & (counts <= share.ceil())).all()
    equal = resampled(torch.zeros(30, dtype=torch.float64), 30, seeded(9))
    assert sorted(equal.tolist()) == list(range(30))


def test_the_effective_size_counts_equal_weights():
    weights = torch.tensor([2.0, 2.0, 2.0, 0.0], dtype=torch.float64).log()
    assert effective_size(weights) == pytest.approx(3)
    assert effective_size(torch.full((4,), -INF, dtype=torch.float64)) == 0


def test_items_of_which_the_same_is_known_share_one_look():
    values = torch.tensor([[1.0, 2.0, 0.0], [1.0, 3.0, 9.0], [1.0, 2.0, 5.0]], dtype=torch.float64)
    known = torch.tensor([True, True, False])
    context = Context.of(GAUSSIAN, 3, (values, known), seeded(0))
    one, index = context.distinct()
    assert len(one) == 2
    assert torch.equal(one.values[""][index][:, :2], values[:, :2])
    assert len(Context.of(GAUSSIAN, 5, None, seeded(0)).distinct()[0]) == 1


def test_chunks_do_not_change_what_is_drawn():
    asked = [intervals(0, BOX[0]), intervals(1, BOX[1])]
    whole, small = (
        restricted(GAUSSIAN, 50, asked, None, seeded(1), largest_call=size)[0].values[""][:, :2]
        for size in (4096, 7)
    )
    torch.testing.assert_close(whole, small, rtol=0, atol=1e-12)


# Refusals


def test_what_cannot_be_asked_is_refused():
    asked = [intervals(0, (30.0, 40.0)), intervals(1, (-40.0, -30.0))]
    with pytest.raises(rv.DataError, match="can hold together"):
        restricted(GAUSSIAN, 10, asked, None, seeded(0))
    torus = rv.Empirical(rv.Brownian(rv.Torus(1)), torch.zeros(1, 1))
    with pytest.raises(rv.CapabilityError, match="Gaussian noise on a site"):
        restricted(torus, 5, [intervals(0, (0.0, 1.0))], None, seeded(0))
    shared = rv.NetworkDenoiser(lambda x, t, cond: x, rv.Gaussian(rv.Euclidean(3)))
    with pytest.raises(rv.ClockError, match="SharedClock"):
        restricted(shared, 5, [intervals(0, (0.0, 1.0))], None, seeded(0))


def test_no_rows_are_legal():
    context, _ = restricted(GAUSSIAN, 0, [intervals(0, (0.0, 1.0))], None, seeded(0))
    assert len(context) == 0
