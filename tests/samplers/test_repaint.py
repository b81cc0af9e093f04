r"""RePaint: known sites hold bit for bit, and the rest comes nearer to the truth with every repeat.

On normal data the chain is linear, so that the mean and the slope of an unknown entry on a known
one are compared with the conditional law's.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.core import Denoiser

MEAN = torch.tensor([0.2, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
FIRST = torch.tensor([True, False])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(covariance: Tensor = COVARIANCE) -> rv.GaussianData:
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(2)), MEAN, covariance)


def known(n: int) -> Tensor:
    """Half of the items know 1.2, half know -0.8."""
    first = torch.where(torch.arange(n) % 2 == 0, 1.2, -0.8).double()
    return torch.stack([first, torch.zeros(n).double()], 1)


def drawn(free: Any, n: int, **arguments: Any) -> Tensor:
    steps = arguments.pop("steps", 25)
    sampler = rv.RePaint((known(n), FIRST), **arguments)
    x = sampler.sample(free, n, steps=steps, generator=seeded(1))
    assert torch.equal(x[:, 0], known(n)[:, 0])
    return x[:, 1]


def slope(x: Tensor) -> float:
    """How much the mean of the unknown entry moves per unit of the known one."""
    return float((x[::2].mean() - x[1::2].mean()) / 2)


def test_repeats_bring_the_unknown_entry_to_its_conditional_law():
    """The slope 0.8 and the variance 0.36; 4,000 draws a side put 4 errors of the slope at 0.03."""
    once, often = (drawn(gaussian(), 8000, repeats=r) for r in (1, 12))
    assert abs(slope(once) - 0.8) > 0.1
    assert abs(slope(often) - 0.8) < abs(slope(once) - 0.8) / 3
    variance = float(often[::2].var())
    assert abs(variance - 0.36) < 0.08


@pytest.mark.parametrize("jump", [1, 4])
def test_independent_entries_are_left_alone(jump):
    """Nothing to agree on: the unknown entry follows its own law, N(-0.3, 1)."""
    x = drawn(gaussian(torch.eye(2).double()), 6000, repeats=2, jump=jump, steps=100 // jump)
    assert abs(float(x.mean()) + 0.3) < 4 / math.sqrt(6000) + 0.01
    assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / 6000) + 0.02
    assert abs(slope(x)) < 4 / math.sqrt(6000)


class Counted(Denoiser):
    """A denoiser that counts its calls."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process, self.clocks, self.calls = inner, inner.process, inner.clocks, 0

    @property
    def like(self) -> Tensor:
        return self.inner.like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        self.calls += 1
        return self.inner(x_t, t, cond)


def test_it_costs_what_it_says():
    counted = Counted(gaussian())
    drawn(counted, 4, repeats=3, jump=5, steps=7)
    assert counted.calls == 3 * 5 * 7


def test_a_model_of_one_clock_can_be_repainted_and_not_be_given_anything():
    network = rv.NetworkDenoiser(
        lambda x, t, cond: 0.5 * x, rv.Gaussian(rv.Euclidean(2)), rv.Clean()
    )
    values = (known(6).float(), FIRST)
    with pytest.raises(rv.ClockError, match="SharedClock never trained"):
        rv.Ancestral().sample(network, 6, given=values)
    x = rv.RePaint(values, repeats=2).sample(network, 6, steps=5, generator=seeded(2))
    assert torch.equal(x[:, 0], values[0][:, 0])
    assert x.dtype == torch.float32


PRODUCT = rv.Independent(
    v=rv.Gaussian(rv.Euclidean(2), rv.Cosine()),
    word=rv.Mask(rv.Categorical(4, 3)),
    tone=rv.Uniform(rv.Categorical(3)),
    turn=rv.Brownian(rv.Torus(1)),
)


def joint() -> rv.Empirical:
    atoms = {
        "v": torch.randn((8, 2), generator=seeded(3), dtype=torch.float64),
        "word": torch.randint(4, (8, 3), generator=seeded(4)),
        "tone": torch.arange(8) % 3,
        "turn": torch.rand((8, 1), generator=seeded(5), dtype=torch.float64),
    }
    return rv.Empirical(PRODUCT, atoms)


@pytest.mark.parametrize("sampler", [rv.Ancestral(), rv.Euler(), rv.Heun()], ids=repr)
@pytest.mark.parametrize("jump", [1, 3])
def test_known_sites_of_any_factor_hold_and_stay_beside_what_is_given(sampler, jump):
    free, n = joint(), 10
    mask = torch.tensor([True, False, True])
    words = free.atoms["word"][torch.arange(n) % 8]
    given = {"tone": torch.arange(n) % 3}
    repaint = rv.RePaint(
        {"word": (words, mask), "turn": torch.tensor([0.5]).double()}, 3, jump, sampler
    )
    x = repaint.sample(free, n, steps=4, given=given, generator=seeded(6))
    PRODUCT.space.check(x)
    assert torch.equal(x["word"][:, mask], words[:, mask])
    assert (x["turn"] == 0.5).all()
    assert torch.equal(x["tone"], given["tone"])


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no repeat": (lambda: rv.RePaint(None, 0), rv.CapabilityError, "repeats >= 1"),
    "half a jump": (lambda: rv.RePaint(None, 1, 0.5), rv.CapabilityError, "jump >= 1"),
    "a sampler of itself": (
        lambda: rv.RePaint(None, sampler=rv.RePaint(None)),
        rv.CapabilityError,
        "that walks",
    ),
    "a path without transitions": (
        lambda: rv.RePaint(None, sampler=rv.Euler(churn=0)).sample(
            rv.NetworkDenoiser(
                lambda x, t, cond: x,
                rv.Interpolant(rv.Euclidean(2), rv.Paired()),
                rv.Velocity(),
            ),
            2,
        ),
        rv.CapabilityError,
        "pass given=",
    ),
    "values of another shape": (
        lambda: rv.RePaint((torch.zeros(3, 5), FIRST)).sample(gaussian(), 3, generator=seeded(7)),
        rv.SpaceError,
        "one row per sample",
    ),
}


@pytest.mark.parametrize(("make", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_repainted_is_refused_with_the_cure(make, error, said):
    with pytest.raises(error, match=said):
        make()
