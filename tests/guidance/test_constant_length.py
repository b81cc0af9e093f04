r"""The published step of DPS, and walks that end in what is no number."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from tests.guidance.test_reconstruction import NOISE, OPERATOR, SEEN, joint, mixture, seeded

OBSERVATION = rv.LinearObservation(OPERATOR, SEEN, NOISE)


def published(free: Any, x: Tensor, grid: rv.Grid, zeta: float, generator: Any) -> Tensor:
    """Algorithm 1 in the authors' letters: DDPM's step, then the gradient of the norm."""
    for t, s in pairwise(grid.ticks()):
        x = x.detach().requires_grad_()
        estimate = free(x, t)
        norm = (SEEN - estimate.clean @ OPERATOR.mT).square().sum(1).sqrt().sum()
        slope = torch.autograd.grad(norm, x)[0]
        with torch.no_grad():
            x = free.process.ancestor(x, t, s, estimate).sample(generator) - zeta * slope
    return x.detach()


def test_it_is_the_published_algorithm():
    free = mixture()
    grid = free.process.grid(12)
    x_1 = free.process.prior.sample(6, seeded(1), free.like)
    ours = rv.ConstantDPS(OBSERVATION, 0.3).sample(free, 6, x_1=x_1, grid=grid, generator=seeded(2))
    theirs = published(free, x_1, grid, 0.3, seeded(2))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_it_comes_closer_to_what_was_seen_and_each_item_by_itself():
    """The residual shrinks; batches of other items change no bit that matters."""
    free = mixture()
    noise = [rv.ItemNoise(range(k, k + 40)) for k in (0, 0, 2)]
    sampler = rv.ConstantDPS(OBSERVATION, 0.2)
    drawn, plain, other = (
        walk.sample(free, 40, steps=40, generator=g)
        for walk, g in zip((sampler, rv.Ancestral(), sampler), noise, strict=True)
    )
    missed = [(SEEN - x @ OPERATOR.mT).norm(dim=1).mean() for x in (drawn, plain)]
    assert missed[0] < missed[1] / 2
    torch.testing.assert_close(drawn[2:], other[:38], rtol=1e-9, atol=1e-9)


def test_one_factor_is_seen_the_others_run_on_and_what_is_given_stands():
    free = joint()
    seen = rv.LinearObservation(
        torch.tensor([[1.0, 0.0]]).double(), torch.tensor([1.2]).double(), 0.5, factor="v"
    )
    given = {"word": torch.arange(8) % 4}
    for inner in (rv.Ancestral(), rv.Heun()):
        walk = rv.ConstantDPS(seen, 0.1, inner)
        drawn = walk.sample(free, 8, steps=10, given=given, generator=seeded(3))
        free.process.space.check(drawn)
        assert torch.equal(drawn["word"], given["word"])


def test_what_it_cannot_use_is_refused():
    for wrong in ((lambda x: x.sum(1), 1.0), (OBSERVATION, 0.0), (OBSERVATION, float("nan"))):
        with pytest.raises(rv.CapabilityError, match="length > 0"):
            rv.ConstantDPS(*wrong)
    with pytest.raises(rv.CapabilityError, match="a sampler that walks"):
        rv.ConstantDPS(OBSERVATION, 1.0, None)
    plane = rv.GaussianData(rv.Gaussian(rv.Euclidean(2)), torch.zeros(2), torch.eye(2))
    with pytest.raises(rv.SpaceError, match=r"shape \(2, 2\)"):
        rv.ConstantDPS(OBSERVATION).sample(plane, 2, steps=3, generator=seeded(0))


WALKS = [
    rv.Euler(), rv.Euler(churn=0), rv.Ancestral(), rv.Heun(), rv.Multistep(), rv.UniPC(), rv.DEIS(),
    rv.PredictorCorrector(), rv.Langevin(),
]  # fmt: skip


@pytest.mark.parametrize("sampler", WALKS, ids=repr)
def test_states_that_are_no_numbers_are_an_error_with_a_cure(sampler):
    """One item of three is lost half way: it is counted and named."""

    def network(x: Tensor, t: Any, cond: Any) -> Tensor:
        lost = torch.arange(len(x))[:, None] == 1
        return torch.where(lost & (t[:, None] < 0.5), torch.nan, x)

    free = rv.NetworkDenoiser(network, rv.Gaussian(rv.Euclidean(2)), rv.Noise())
    with pytest.raises(rv.ConvergenceError, match="1 of 3 items are not, the first of them item 1"):
        sampler.sample(free, 3, steps=8, generator=seeded(0))


def test_a_likelihood_that_is_too_sharp_says_so():
    """DPS with almost no noise blows up: it used to return NaN without a word."""
    seen = rv.LinearObservation(OPERATOR, SEEN, 1e-6)
    guided = rv.Reconstruction(mixture(), rv.DPS(seen))
    with pytest.raises(rv.ConvergenceError, match="less strength or more noise"):
        rv.Euler().sample(guided, 4, steps=50, generator=seeded(0))
