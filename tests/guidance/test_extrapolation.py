r"""Guidances that extrapolate share one algebra, and a condition is dropped item by item."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal.core import Objective

FAILURE_RATE = 1e-4
PLANE = rv.Gaussian(rv.Euclidean(2), rv.Cosine())
TOKENS = rv.Mask(rv.Categorical(4, 2))
BOTH = rv.Independent(place=PLANE, word=rv.Uniform(rv.Categorical(3)))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(process: Any, seed: int) -> rv.Empirical:
    atoms = process.prior.sample(6, seeded(seed), torch.empty((), dtype=torch.float64))
    if process is TOKENS:
        atoms = torch.randint(4, (6, 2), generator=seeded(seed))
    return rv.Empirical(process, atoms, torch.arange(1.0, 7.0).double())


def noised(process: Any, n: int = 30) -> tuple[Any, Tensor]:
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    atoms = law(process, 5).atoms
    rows = torch.arange(n) % 6
    chosen = {k: v[rows] for k, v in atoms.items()} if isinstance(atoms, dict) else atoms[rows]
    return process.kernel(chosen, t).sample(seeded(6)), t


def parts(estimate: Any) -> list[Any]:
    return list(estimate.values()) if isinstance(estimate, rv.JointEstimate) else [estimate]


def assert_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(parts(ours), parts(theirs), strict=True):
        torch.testing.assert_close(a.score, b.score, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("process", [PLANE, TOKENS, BOTH], ids=["plane", "tokens", "both"])
def test_autoguidance_is_the_weak_model_at_0_the_strong_at_1_and_linear_between(process):
    strong, weak = law(process, 1), law(process, 2)
    x_t, t = noised(process)
    for strength, exact in ((0.0, weak), (1.0, strong)):
        assert_equal(rv.Autoguidance(strong, weak, strength)(x_t, t), exact(x_t, t))
    ends = [parts(each(x_t, t)) for each in (weak, strong)]
    guided = parts(rv.Autoguidance(strong, weak, 2.5)(x_t, t))
    for start, end, mixed in zip(*ends, guided, strict=True):
        expected = start.score + 2.5 * (end.score - start.score)
        seen = torch.isfinite(expected)
        assert seen.any()
        torch.testing.assert_close(mixed.score[seen], expected[seen], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("process", [PLANE, TOKENS, BOTH], ids=["plane", "tokens", "both"])
def test_an_interval_guides_within_its_times_alone(process):
    plain, other = law(process, 1), law(process, 2)
    guided = rv.Autoguidance(plain, other, 3.0)
    limited = rv.GuidanceInterval(guided, plain, 0.3, 0.6)
    x_t, t = noised(process)
    inside = (t > 0.3) & (t <= 0.6)
    everywhere, nowhere, found = (each(x_t, t) for each in (guided, plain, limited))
    assert 0 < inside.sum() < len(t)
    for a, b, c in zip(parts(everywhere), parts(nowhere), parts(found), strict=True):
        expected = torch.where(
            inside[(...,) + (None,) * (c.score.ndim - 1)], a.score, b.score.to(a.score)
        )
        torch.testing.assert_close(c.score, expected, atol=1e-8, rtol=1e-8)
    for tick in rv.Grid.uniform(10).ticks()[1:-1]:
        exact = guided if 0.3 < tick.time <= 0.6 else plain
        assert_equal(limited(x_t, tick), exact(x_t, tick))


def test_a_product_with_a_clock_per_factor_is_guided_where_each_clock_lies_inside():
    plain, other = law(BOTH, 1), law(BOTH, 2)
    guided = rv.Autoguidance(plain, other, 3.0)
    limited = rv.GuidanceInterval(guided, plain, 0.3, 0.6)
    x_t, _ = noised(BOTH)
    late, middle = rv.Grid.uniform(10).ticks()[1], rv.Grid.uniform(10).ticks()[5]
    clock = {"place": late, "word": middle}
    found, free, tilted = (each(x_t, clock) for each in (limited, plain, guided))
    assert torch.equal(found["place"].score, free["place"].score)
    assert torch.equal(found["word"].score, tilted["word"].score)


@final
@dataclass
class Recorder(Objective):
    """An objective that shows what condition it was handed."""

    seen: list[Any] = field(default_factory=list)

    def __call__(self, denoiser, x_0, cond=None, observed=None, x_1=None, generator=None) -> Tensor:
        self.seen.append(cond)
        return torch.zeros(len(x_0))


def dropped(cond: Any, n: int = 20_000, **arguments: Any) -> Any:
    recorder = Recorder()
    objective = rv.ConditionDropout(recorder, **arguments)
    objective(law(PLANE, 1), torch.zeros(n, 2), cond, generator=seeded(3))
    return recorder.seen[0]


def share_is(lost: Tensor, prob: float) -> bool:
    return stats.binomtest(int(lost.sum()), len(lost), prob).pvalue > FAILURE_RATE


def test_a_condition_is_replaced_by_null_with_the_stated_probability_and_else_untouched():
    labels = torch.arange(20_000) % 7
    found = dropped(labels, prob=0.2, null=7)
    lost = found == 7
    assert share_is(lost, 0.2)
    assert torch.equal(found[~lost], labels[~lost])
    assert share_is(lost[labels == 3], 0.2)


def test_the_parts_of_a_condition_are_lost_together_or_apart():
    cond = {"kind": torch.ones(20_000, dtype=torch.int64), "size": torch.ones(20_000, 3)}
    null = {"kind": 9, "size": torch.tensor([-1.0, -2.0, -3.0])}
    whole = dropped(cond, prob=0.3, null=null)
    lost = whole["kind"] == 9
    assert torch.equal(lost, (whole["size"] == null["size"]).all(1))
    assert share_is(lost, 0.3)
    apart = dropped(cond, prob=0.3, null=null, apart=True)
    first, second = apart["kind"] == 9, (apart["size"] == null["size"]).all(1)
    assert share_is(first, 0.3)
    assert share_is(second, 0.3)
    assert share_is(first & second, 0.09)


def test_nothing_is_lost_at_probability_0_and_everything_at_1():
    labels = torch.arange(50)
    assert torch.equal(dropped(labels, 50, prob=0.0, null=-1), labels)
    assert (dropped(labels, 50, prob=1.0, null=-1) == -1).all()
    assert dropped(labels[:0], 0, prob=0.5, null=-1).shape == (0,)


def test_a_network_trained_with_dropout_knows_both_laws(global_seed):
    """The best constant estimate per condition is the mean of its class; of none, the whole mean.

    Adam at rate 0.05 on 400 batches of 512 brings a table of three numbers to within 0.1 of them.
    """
    process = rv.Gaussian(rv.Euclidean(1), rv.Cosine())
    table = torch.nn.Embedding(3, 1)
    network = torch.nn.Module()
    network.table = table
    network.forward = lambda x_t, t, cond: network.table(cond) + 0 * x_t
    denoiser = rv.NetworkDenoiser(network, process, rv.Clean())
    objective = rv.ConditionDropout(rv.Regression(), 0.3, null=2)
    optimizer, rng = torch.optim.Adam(table.parameters(), 0.05), seeded(0)
    for _ in range(400):
        label = (torch.rand(512, generator=rng) < 0.25).long()
        x_0 = torch.where(label == 1, 3.0, -1.0)[:, None]
        loss = objective(denoiser, x_0, label, generator=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = torch.tensor([-1.0, 3.0, 0.0])
    torch.testing.assert_close(table.weight.detach()[:, 0], expected, atol=0.1, rtol=0)
    x_t, label = torch.zeros(4, 1), torch.tensor([0, 0, 1, 1])
    guided = rv.ClassifierFree(denoiser, 2.0, null=2)(x_t, torch.full((4,), 0.5), label).clean
    exact = 2 * table.weight[label] - table.weight[2]
    torch.testing.assert_close(guided, exact, atol=1e-5, rtol=1e-5)


OTHER = rv.Gaussian(rv.Euclidean(2), rv.Rectified())
Make = Callable[[], object]
REFUSED: dict[str, tuple[Make, type[Exception], str]] = {
    "another process": (
        lambda: rv.Autoguidance(law(PLANE, 1), law(OTHER, 1), 2.0),
        rv.CapabilityError,
        "under the strong one's process",
    ),
    "another clock law": (
        lambda: rv.Autoguidance(
            law(PLANE, 1), rv.NetworkDenoiser(lambda x, t, cond: x, PLANE), 2.0
        ),
        rv.CapabilityError,
        "strong one's clocks=",
    ),
    "a strength that is no number": (
        lambda: rv.Autoguidance(law(PLANE, 1), law(PLANE, 2), math.nan),
        rv.CapabilityError,
        "strength >= 0",
    ),
    "an interval upside down": (
        lambda: rv.GuidanceInterval(law(PLANE, 1), law(PLANE, 1), 0.6, 0.3),
        rv.ClockError,
        "low < high",
    ),
    "an interval of two processes": (
        lambda: rv.GuidanceInterval(law(PLANE, 1), law(OTHER, 1), 0.3, 0.6),
        rv.CapabilityError,
        "denoiser that is guided",
    ),
    "no condition": (lambda: dropped(None, 5, null=0), rv.CapabilityError, "Pass cond="),
    "too few conditions": (
        lambda: dropped(torch.zeros(4), 5, null=0),
        rv.CapabilityError,
        "each of 5 items",
    ),
    "no probability": (lambda: dropped(torch.zeros(5), 5, prob=1.5, null=0), rv.CapabilityError,
                       "probability of dropout"),
    "a null of reals for codes": (
        lambda: dropped(torch.zeros(5, dtype=torch.int64), 5, null=0.5),
        rv.SpaceError,
        "one code more",
    ),
    "a null that does not fit": (
        lambda: dropped(torch.zeros(5, 3), 5, null=torch.zeros(2)),
        rv.SpaceError,
        "a number or one row",
    ),
    "a null for other parts": (
        lambda: dropped({"a": torch.zeros(5)}, 5, null={"b": 0.0}),
        rv.SpaceError,
        "each part",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_guided_is_refused_with_the_cure(make, error, said):
    with pytest.raises(error, match=said):
        make()
