r"""Weighted losses are those that were published, whatever the network outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal.training import recipe

SPACE = rv.Euclidean(2)
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.Karras(5.0, 3.0), rv.SubVariancePreserving()]
KINDS = [rv.Clean(), rv.Noise(), rv.Velocity(), rv.Score(), rv.Preconditioned(0.7)]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 64) -> Tensor:
    return torch.randn((n, 2), generator=seeded(0), dtype=torch.float64)


def guess(x_t: Tensor, t: Tensor) -> Tensor:
    """A clean estimate that is wrong on purpose."""
    return torch.sin(x_t) + t[:, None].double() * x_t.flip(1) / 3


@dataclass(frozen=True)
class Speaking:
    """A network that says the guess in the terms of a parametrization."""

    path: Any
    how: Any

    def __call__(self, fed: Tensor, t: Tensor, cond: Any) -> Tensor:
        if not isinstance(self.how, rv.Preconditioned):
            clean = guess(fed, t)
            if self.how.kind is rv.Kind.CLEAN:
                return clean
            return self.path.conversion(rv.Kind.CLEAN, self.how.kind)(clean, fed, t)
        signal, s = self.path.signal(t, torch.float64), self.how.scale
        size = (signal.alpha**2 * s**2 + signal.sigma**2).sqrt()
        x_t = fed * size
        skip, out = signal.alpha * s**2 / size**2, signal.sigma * s / size
        return (guess(x_t, t) - skip * x_t) / out


def losses(schedule: Any, how: Any, weighting: Any) -> Tensor:
    path = rv.Gaussian(SPACE, schedule)
    denoiser = rv.NetworkDenoiser(Speaking(path, how), path, how)
    return rv.Regression(weighting=weighting)(denoiser, data(), generator=seeded(1))


def drawn(schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The times, signals and noisy states that the losses saw."""
    path = rv.Gaussian(SPACE, schedule)
    generator = seeded(1)
    t = rv.LowDiscrepancy().sample(64, data(), generator)
    return t, path.signal(t, torch.float64), path.kernel(data(), t).sample(generator)


PUBLISHED = {
    "Ho": (rv.Simple(), lambda a, s, g2: (a / s) ** 2),
    "likelihood": (rv.LikelihoodWeighting(), lambda a, s, g2: g2 / (2 * s**2) * (a / s) ** 2),
    "EDM": (
        rv.KarrasWeighting(0.5),
        lambda a, s, g2: ((s / a) ** 2 + 0.25) / (0.5 * s / a) ** 2,
    ),
    "min-SNR": (rv.MinSNR(5.0), lambda a, s, g2: torch.minimum((a / s) ** 2, 0 * a + 5)),
    "sigmoid": (
        rv.SigmoidWeighting(1.5),
        lambda a, s, g2: g2 / (2 * s**2) * (a / s) ** 2 / (1 + (a / s) ** 2 * torch.e**-1.5),
    ),
}


@schedules
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("how", KINDS, ids=lambda h: type(h).__name__)
def test_a_weighted_loss_is_the_published_weight_on_the_clean_error(schedule, name, how):
    weighting, weight = PUBLISHED[name]
    t, signal, x_t = drawn(schedule)
    clean = (guess(x_t, t) - data()) ** 2
    expected = (weight(signal.alpha, signal.sigma, signal.diffusion) * clean).sum(1)
    torch.testing.assert_close(losses(schedule, how, weighting), expected, rtol=1e-6, atol=1e-9)


@schedules
def test_the_likelihood_weighting_is_the_rate_of_the_bound(schedule):
    """Phi of the conditional reversal against the learned one, from the generator."""
    path = rv.Gaussian(SPACE, schedule)
    t, _, x_t = drawn(schedule)
    score = path.conversion(rv.Kind.CLEAN, rv.Kind.SCORE)(guess(x_t, t), x_t, t)
    rate = path.forward(x_t, t).gap(score, path.kernel(data(), t).score(x_t)).sum(1)
    got = losses(schedule, rv.Noise(), rv.LikelihoodWeighting())
    torch.testing.assert_close(got, rate, rtol=1e-7, atol=1e-10)


def test_a_learned_weighting_is_at_rest_at_the_log_of_the_loss(global_seed: None):
    """The derivative of L exp(-u) + u in u vanishes at u = log L, and nowhere else."""
    weighting = rv.LearnedWeighting(rv.MinSNR()).double()
    signal = rv.Gaussian(SPACE).signal(torch.full((50,), 0.4).double(), torch.float64)
    error = data(50) ** 2
    size = rv.MinSNR().weigh(error, signal).mean()
    for shift, slope in ((0.0, 0.0), (0.5, 1 - torch.e**-0.5)):
        weighting.zero_grad()
        with torch.no_grad():
            weighting.outer.bias.fill_(float(size.log()) + shift)
        weighting.weigh(error, signal).mean().backward()
        assert float(weighting.outer.bias.grad) == pytest.approx(float(slope), abs=1e-9)


@schedules
def test_log_normal_times_have_a_log_normal_noise_level(schedule):
    """Failure rate 1e-4; the draws are stratified, so the test only gains."""
    law = rv.LogNormalTimes(schedule, mean=-0.5, std=0.6)
    t = law.sample(5000, data(1), seeded(3))
    level = -schedule.log_ratio(t)
    assert stats.kstest(level, stats.norm(-0.5, 0.6).cdf).pvalue > 1e-4
    assert recipe.clocks_from_config(recipe.clocks_to_config(law)) == law
    single = law.sample(7, torch.zeros(1), seeded(3))
    assert single.dtype == torch.float32
    assert bool(((single > 0) & (single < 1)).all())


def test_a_product_weighs_the_factors_that_are_named():
    path = rv.Independent(a=rv.Gaussian(SPACE), b=rv.Mask(rv.Categorical(3)))

    class Zero(torch.nn.Module):
        def forward(self, x: Any, t: Any, cond: Any = None) -> Any:
            return {"a": 0 * x["a"], "b": torch.zeros(len(x["b"]), 3, dtype=torch.float64)}

    denoiser = rv.NetworkDenoiser(Zero(), path, {"a": rv.Noise()})
    x_0 = {"a": data(), "b": torch.zeros(64, dtype=torch.int64)}

    def loss(**weighting: Any) -> Tensor:
        return rv.Regression(weighting=weighting)(denoiser, x_0, generator=seeded(2))

    torch.testing.assert_close(loss(), loss(a=rv.Simple()))
    assert not torch.allclose(loss(), loss(a=rv.MinSNR(0.1)))
    with pytest.raises(rv.SpaceError, match="weighting"):
        loss(c=rv.Simple())
    with pytest.raises(rv.CapabilityError, match="Gaussian noise to weigh"):
        loss(b=rv.Simple())


@pytest.mark.parametrize("clocks", [rv.SiteClocks(0.6, 0.5), rv.FactorClocks(0.4, 0.4)], ids=str)
@pytest.mark.parametrize("schedule", [rv.Rectified(), rv.VarianceExploding()], ids=str)
def test_a_weight_that_is_infinite_at_a_stopped_site_leaves_the_gradient_finite(schedule, clocks):
    """At t = 0 and 1 exactly; the gradient is that of the loss by central differences."""
    path = rv.Gaussian(SPACE, schedule)
    weights = [rv.LikelihoodWeighting(), rv.KarrasWeighting(), rv.MinSNR(), rv.SigmoidWeighting()]
    for weighting in weights:
        for how in KINDS:
            scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
            denoiser = rv.NetworkDenoiser(lambda x, t, cond, by=scale: by * x, path, how, clocks)
            loss = rv.Regression(weighting=weighting)(denoiser, data(), generator=seeded(1)).sum()
            loss.backward()
            h = 1e-6
            with torch.no_grad():
                ends = []
                for sign in (1, -1):
                    scale += sign * h
                    objective = rv.Regression(weighting=weighting)
                    ends.append(float(objective(denoiser, data(), generator=seeded(1)).sum()))
                    scale -= sign * h
            slope = (ends[0] - ends[1]) / (2 * h)
            assert float(scale.grad) == pytest.approx(slope, rel=1e-5, abs=1e-6 * abs(ends[0]))
