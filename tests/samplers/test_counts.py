"""Ordered counts: Poisson numbers of jumps, their law and their error."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scipy import stats

import reversal as rv
from reversal import noise
from reversal.core import Leap
from reversal.noise import BatchShare
from reversal.testing.statistics import require_frequencies
from tests.example import example

STATES = torch.arange(60)
DATA = 40


def one_jump(rates):
    """Transition matrix of one jump at most."""
    leap, here = Leap.of_rates(rates), torch.arange(len(rates))
    moved = leap.prob[:, None] * rates / rates.sum(1, keepdim=True)
    law = torch.diag(1 - leap.prob)
    law[here[1:], here[:-1]] = moved[1:, 0]
    law[here[:-1], here[1:]] = moved[:-1, 1]
    return law


def many_jumps(rates):
    """Transition matrix of Poisson numbers up and down, stopped at 0."""
    size = len(rates)
    k = torch.arange(size)
    down, up = (torch.distributions.Poisson(r[:, None]).log_prob(k).exp() for r in rates.T)
    to = (k[:, None, None] + k - k[:, None]).clamp_min(0)
    law = torch.zeros(size, 2 * size, dtype=torch.float64)
    law.scatter_add_(1, to.flatten(1), (down[:, :, None] * up[:, None]).flatten(1))
    return law[:, :size]


@pytest.fixture(scope="module")
def errors():
    """Total variation from the data after some steps, by the exact score: law in, law out."""
    module = example("birth_death")
    process, n = module.process(), torch.arange(DATA)
    law = sum(
        w * torch.distributions.Poisson(torch.tensor(m).double()).log_prob(n).exp()
        for w, m in ((0.6, 2.0), (0.4, 12.0))
    )
    oracle = rv.Empirical(process, n, law)

    def error(step, steps):
        q = process.prior.site_log_prob(STATES).exp()
        for t, s in pairwise(rv.Grid.uniform(steps).ticks()):
            q = q @ step(process.increment(STATES, t, s).reversal(oracle(STATES, t).score).rates)
        return float((q[:DATA] - law).abs().sum() / 2 + q[DATA:].sum() / 2)

    return lambda step: [error(step, steps) for steps in (10, 20, 40)]


def test_poisson_numbers_of_jumps_are_of_order_one_and_beat_one_jump(errors):
    """Immigration and death reversed by the exact score: at 10 steps a fraction of the error."""
    ours, single = errors(many_jumps), errors(one_jump)
    assert 1.7 < ours[0] / ours[1] < 2.3
    assert 1.7 < ours[1] / ours[2] < 2.3
    assert ours[0] < single[0] / 3
    assert all(mine < theirs for mine, theirs in zip(ours, single, strict=True))


@pytest.mark.parametrize("x", [0, 1, 6])
def test_jumps_follow_that_law(x):
    """20,000 jumps from a count, at rates with which several happen, and it stops at 0."""
    rates = torch.tensor([[2.0, 1.3]], dtype=torch.float64)
    rates = rates * torch.tensor([x > 0, True])
    law = many_jumps(rates.expand(30, 2))[x]
    drawn = rv.Counts().jump(
        torch.full((20_000,), x), rates.expand(20_000, 2), torch.Generator().manual_seed(x)
    )
    require_frequencies(torch.bincount(drawn, minlength=30), law / law.sum(), of=f"from {x}")


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.7, 25.0, 4000.0])
def test_poisson_numbers_of_one_stream_per_item(rate):
    """By inversion: the law, and the same numbers in any batch."""
    rates = torch.full((4000,), rate)
    whole = noise.poisson(rates, rv.ItemNoise(range(4000)))
    assert torch.equal(noise.poisson(rates[7:19], rv.ItemNoise(range(7, 19))), whole[7:19])
    edges = torch.as_tensor(stats.poisson(rate).ppf([0.1, 0.3, 0.5, 0.7, 0.9])).long().unique()
    cells = torch.bucketize(whole, edges)
    below = torch.as_tensor(stats.poisson(rate).cdf(edges.numpy()))
    chances = torch.cat((below, torch.ones(1, dtype=torch.float64))).diff(prepend=torch.zeros(1))
    require_frequencies(torch.bincount(cells, minlength=len(chances)), chances, of=f"rate {rate}")


def test_poisson_numbers_of_a_share_are_rows_of_the_whole():
    rates = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)) * 5
    seeded = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    parts = [noise.poisson(rates[a:b], BatchShare(seeded(), 9, a, b)) for a, b in ((0, 4), (4, 9))]
    assert torch.equal(torch.cat(parts), noise.poisson(rates, BatchShare(seeded(), 9, 0, 9)))
    assert noise.poisson(rates[:0], rv.ItemNoise([])).shape == (0, 2)
    assert int(noise.poisson(0 * rates, seeded()).max()) == 0
