r"""Rules on the clean estimate: their equations, what they leave alone, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from tests import cases


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle(schedule: Any = None) -> rv.Empirical:
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    return rv.Empirical(process, real([0.9, -0.4], [-0.6, 0.2], [0.1, 0.95]))


SAMPLERS = [s for s in cases.SAMPLERS if not isinstance(s, rv.Euler)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("schedule", cases.SIGNALS, ids=repr)
def test_a_rule_that_changes_nothing_changes_no_sample(sampler, schedule):
    """Data inside the bounds: an estimate is a mean of data, so clipping does not touch it."""
    plain = oracle(schedule)
    for rule in (rv.Clip(), rv.DynamicThreshold(), lambda x: x):
        x, expected = (
            sampler.sample(d, 6, 8, generator=seeded(1)) for d in (rv.Adjusted(plain, rule), plain)
        )
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


def test_samples_end_within_the_bounds():
    """Around a clipped estimate the last step ends inside, where the data do not."""
    for sampler in (rv.Ancestral(eta=0), rv.Heun(), rv.Multistep(), rv.UniPC()):
        x = sampler.sample(rv.Adjusted(oracle(), rv.Clip(-0.5, 0.3)), 50, 10, generator=seeded(2))
        assert float(x.min()) >= -0.5 and float(x.max()) <= 0.3
        assert float(x.min()) == -0.5 or float(x.max()) == pytest.approx(0.3)


def test_dynamic_thresholding_is_the_published_rule():
    """Item by item: s = max(quantile of |x|, 1), clip to [-s, s], divide by s."""
    x = torch.randn(5, 3, 4, 4, generator=seeded(3)) * real(0.1, 0.5, 1, 3, 10).float().view(
        5, 1, 1, 1
    )
    got = rv.DynamicThreshold(0.9)(x)
    for item, result in zip(x, got, strict=True):
        s = max(float(torch.quantile(item.abs().flatten(), 0.9)), 1.0)
        torch.testing.assert_close(result, item.clamp(-s, s) / s)
    assert got.dtype == torch.float32 and float(got.abs().max()) <= 1
    doubled = rv.DynamicThreshold(0.9, 2.0)(2 * x)
    torch.testing.assert_close(doubled, 2 * got)
    assert rv.DynamicThreshold()(x[:0]).shape == (0, 3, 4, 4)


def test_the_other_kinds_follow_from_the_adjusted_estimate():
    """Noise and clean still make up x_t."""
    inner, x_t, t = oracle(), real([0.3, 2.0], [-1.0, 0.4]), real(0.3, 0.6)
    estimate = rv.Adjusted(inner, rv.Clip(-0.2, 0.2))(x_t, t)
    signal = inner.process.schedule.signal(t[:, None])
    torch.testing.assert_close(signal.alpha * estimate.clean + signal.sigma * estimate.noise, x_t)
    assert not torch.allclose(estimate.noise, inner(x_t, t).noise)


def test_factors_have_rules_of_their_own():
    process = cases.mixed()
    atoms = process.space.example(2, torch.empty(()))
    inner = rv.Empirical(process, atoms)
    adjusted = rv.Adjusted(inner, {"place": lambda x: 0 * x + 0.25})
    x = process.prior.sample(3, seeded(4), inner.like)
    t = torch.full((3,), 0.5)
    assert bool((adjusted(x, t)["place"].clean == 0.25).all())
    torch.testing.assert_close(adjusted(x, t)["pose"].score, inner(x, t)["pose"].score)


def test_what_has_no_clean_estimate_is_refused():
    process = cases.mixed()
    inner = rv.Empirical(process, process.space.example(1, torch.empty(())))
    for rule in (rv.Clip(), {"nowhere": rv.Clip()}):
        with pytest.raises(rv.CapabilityError, match="Name the factors"):
            rv.Adjusted(inner, rule)
    with pytest.raises(rv.CapabilityError, match="clean one"):
        rv.Adjusted(inner, {"pose": rv.Clip()})
    for make in (lambda: rv.Clip(1, -1), lambda: rv.DynamicThreshold(0.0)):
        with pytest.raises(rv.SpaceError, match="Expected"):
            make()
