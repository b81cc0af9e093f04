r"""Clock laws: what they draw, what they refuse, and what a stopped site does to network and loss.

With D sites and a share of known ones that is uniform on (0, 1) with probability a, else 0,
``SiteClocks`` draws j known sites with probability :math:`(1 - a) 1[j = 0] + a / (D + 1)`.
``FactorClocks`` first spares one of F factors, so that each is known with probability
:math:`a (1 - 1/F)`. Counts pass Pearson's test and times that of Kolmogorov and Smirnov at 1e-4.
"""

from __future__ import annotations

from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import reversal as rv
from reversal import state
from tests.samplers import oracles
from tests.samplers.oracles import RATE, seeded

N = 20_000
SINGLE = torch.empty(())
PROCESS = rv.Independent(
    plane=rv.Gaussian(rv.Euclidean(2)),
    columns=rv.Uniform(rv.Categorical((2, 4, 3))),
    word=rv.Mask(rv.Categorical(3, 2)),
    pose=rv.Brownian(rv.SO3()),
)
WIDTHS = {"plane": (2,), "columns": (3, 4), "word": (2, 3), "pose": (3,)}
HOW = {"plane": rv.Noise(), "word": rv.Cavity(), "pose": rv.Noise()}


def data(n: int, seed: int = 61) -> dict[str, Tensor]:
    """Legal states."""
    generator = seeded(seed)
    return {
        "plane": torch.randn(n, 2, generator=generator),
        "columns": (torch.rand(n, 3, generator=generator) * torch.tensor([2, 4, 3])).long(),
        "word": torch.randint(3, (n, 2), generator=generator),
        "pose": PROCESS.factors["pose"].prior.sample(n, generator, SINGLE),
    }


@final
class Recorder(nn.Module):
    """Keeps what it is fed, and answers with outputs of its own that can be differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any]] = []
        self.outputs: dict[str, Tensor] = {}

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        self.seen.append((x_t, t))
        n, generator = state.batch_size(x_t), seeded(62)
        self.outputs = {
            name: torch.randn(n, *shape, generator=generator).requires_grad_()
            for name, shape in WIDTHS.items()
        }
        return self.outputs


def asked(clocks: Any) -> rv.NetworkDenoiser:
    return rv.NetworkDenoiser(Recorder(), PROCESS, HOW, clocks)


def pearson(hits: Tensor, probability: float) -> bool:
    """Whether the number of hits fits its binomial law."""
    count = int(hits.sum())
    return stats.binomtest(count, hits.numel(), probability).pvalue > RATE


def test_low_discrepancy_times_are_uniform_and_stratified() -> None:
    """Each time is uniform; n of them fill n equal cells, in random order."""
    law, generator = rv.LowDiscrepancy(), seeded(63)
    batches = torch.stack([law.sample(8, SINGLE, generator) for _ in range(2500)]).double()
    for column in (0, 7):
        assert stats.kstest(batches[:, column].numpy(), "uniform").pvalue > RATE
    assert bool(((batches * 8).floor().sort(1).values == torch.arange(8)).all())
    cells = (batches[:, 0] * 8).long().bincount(minlength=8)
    assert oracles.p_value(cells, torch.full((8,), 1 / 8).double()) > RATE


def test_grid_times_are_alike() -> None:
    """k/T for k = 1 .. T."""
    t = rv.OnGrid(5).sample(N, SINGLE, rv.ItemNoise(torch.arange(N)))
    counts = (t * 5).round().long().bincount(minlength=6)
    assert int(counts[0]) == 0
    assert oracles.p_value(counts[1:], torch.full((5,), 0.2).double()) > RATE


def test_factor_clocks_follow_their_law() -> None:
    """Known and dropped with the stated probabilities, independent uniform times, one runs."""
    clock = rv.FactorClocks(known=0.3, dropped=0.2).sample(PROCESS.space, N, SINGLE, seeded(64))
    times = torch.stack(list(clock.time.values()), 1)
    running = torch.stack([mask.reshape(N, -1)[:, 0] for mask in clock.running.values()], 1)
    assert bool(running.any(1).all())
    assert torch.equal(running, (times > 0) & (times < 1))
    for column in range(4):
        assert pearson(times[:, column] == 0, 0.3 * 3 / 4)
        assert pearson(times[:, column] == 1, 0.2 * 3 / 4)
        inside = times[:, column][running[:, column]].double().numpy()
        assert stats.kstest(inside, "uniform").pvalue > RATE
    both = times[running[:, 0] & running[:, 1]].double()
    assert stats.spearmanr(both[:, 0].numpy(), both[:, 1].numpy()).pvalue > RATE
    for name, mask in clock.running.items():
        assert mask.shape == (N, *PROCESS.space.parts[name].sites)


@pytest.mark.parametrize("common", [True, False])
def test_site_clocks_follow_their_law(common: bool) -> None:
    """The number of known sites, the dropped among the others, one running time per item."""
    law = rv.SiteClocks(known=0.6, dropped=0.3, common=common)
    clock = law.sample(PROCESS.space, N, SINGLE, seeded(65))
    times = torch.cat([part.reshape(N, -1) for part in clock.time.values()], 1)
    running = torch.cat([part.reshape(N, -1) for part in clock.running.values()], 1)
    sites = times.shape[1]
    wanted = torch.full((sites + 1,), 0.6 / (sites + 1), dtype=torch.float64)
    wanted[0] += 0.4
    assert oracles.p_value((times == 0).sum(1).bincount(minlength=sites + 1), wanted) > RATE
    free = (times != 0)[:, 0]
    assert pearson((times[:, 0] == 1)[free], 0.15)
    for column in (0, sites - 1):
        inside = times[:, column][running[:, column]].double().numpy()
        assert stats.kstest(inside, "uniform").pvalue > RATE
    ends = times[running[:, 0] & running[:, -1]][:, [0, -1]].double()
    assert bool((ends[:, 0] == ends[:, 1]).all()) is common
    if not common:
        assert stats.spearmanr(ends[:, 0].numpy(), ends[:, 1].numpy()).pvalue > RATE


def test_mixed_clocks_follow_their_weights() -> None:
    """Each item takes one law whole: here all sites run, or whole factors stop."""
    law = rv.MixedClocks([(rv.SharedClock(), 3), (rv.FactorClocks(known=0.5, dropped=0.0), 1)])
    clock = law.sample(PROCESS.space, N, SINGLE, seeded(66))
    first = torch.stack([part.reshape(N, -1)[:, 0] for part in clock.time.values()], 1)
    assert pearson((first == first[:, :1]).all(1), 0.75)
    assert pearson(first[:, 0] == 0, 0.25 * 0.5 * 3 / 4)


TOKEN = {"word": torch.tensor([0, 1])}
PART = {"columns": (torch.tensor([1, 3, 2]), torch.tensor([True, False, False]))}
REFUSED = {
    "shared, given": (rv.SharedClock(), {"given": TOKEN}, "SiteClocks"),
    "shared, dropped": (rv.SharedClock(), {"dropped": {"word": True}}, "SiteClocks"),
    "factors, part given": (rv.FactorClocks(), {"given": PART}, "SiteClocks"),
    "factors, part dropped": (
        rv.FactorClocks(),
        {"dropped": {"word": torch.tensor([True, False])}},
        "SiteClocks",
    ),
    "factors, known=0": (rv.FactorClocks(known=0), {"given": TOKEN}, "known > 0"),
    "sites, known=0": (rv.SiteClocks(known=0), {"given": TOKEN}, "known > 0"),
    "sites, dropped=0": (rv.SiteClocks(dropped=0), {"dropped": {"word": True}}, "dropped > 0"),
    "mixed": (
        rv.MixedClocks([(rv.SharedClock(), 1), (rv.FactorClocks(), 1)]),
        {"given": PART},
        "SiteClocks",
    ),
    "known and dropped at once": (
        rv.SiteClocks(),
        {"given": TOKEN, "dropped": {"word": True}},
        "one of the two",
    ),
}
ALLOWED = {
    "factors, whole given": (rv.FactorClocks(), {"given": TOKEN}),
    "sites, part given": (rv.SiteClocks(), {"given": PART}),
    "sites, given and dropped": (rv.SiteClocks(), {"given": PART, "dropped": {"word": True}}),
    "mixed, one law knows": (
        rv.MixedClocks([(rv.SharedClock(), 1), (rv.SiteClocks(), 1)]),
        {"given": PART},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_question_outside_the_law_is_refused(name: str) -> None:
    """ClockError with the cure, before the network is called."""
    clocks, question, cure = REFUSED[name]
    denoiser = asked(clocks)
    with pytest.raises(rv.ClockError, match=cure):
        rv.Ancestral().sample(denoiser, 4, steps=2, generator=seeded(0), **question)
    assert denoiser.network.seen == []


@pytest.mark.parametrize("name", ALLOWED)
def test_a_question_inside_the_law_reaches_the_network(name: str) -> None:
    """It is fed the known values at clock 0 in every call, and dropped sites at clock 1."""
    clocks, question = ALLOWED[name]
    denoiser = asked(clocks)
    with torch.no_grad():
        rv.Ancestral().sample(denoiser, 4, steps=3, generator=seeded(0), **question)
    assert len(denoiser.network.seen) == 3
    for fed, shown in denoiser.network.seen:
        if "columns" in question["given"]:
            assert bool((shown["columns"][:, 0] == 0).all() & (fed["columns"][:, 0] == 1).all())
            assert bool((shown["columns"][:, 1] > 0).all())
        else:
            assert bool((shown["word"] == 0).all() & (fed["word"] == torch.tensor([0, 1])).all())
        if "dropped" in question:
            assert bool((shown["word"] == 1).all())


def test_training_shows_known_sites_unchanged_and_dropped_ones_as_prior_draws() -> None:
    """Bit for bit at clock 0; at clock 1 the prior's law, whatever the data; no loss at either."""
    n = 4000
    x_0 = {**data(n), "plane": torch.full((n, 2), 7.0), "columns": torch.zeros(n, 3).long()}
    denoiser = asked(rv.SiteClocks(known=0.6, dropped=0.6))
    loss = rv.Regression()(denoiser, x_0, generator=seeded(67))
    fed, shown = denoiser.network.seen[0]
    gradients = torch.autograd.grad(loss.sum(), list(denoiser.network.outputs.values()))
    for (name, clock), gradient in zip(shown.items(), gradients, strict=True):
        known, lost = clock == 0, clock == 1
        assert torch.equal(fed[name][known], x_0[name][known])
        moved = gradient.reshape(*clock.shape, -1).abs().sum(-1) > 0
        assert not bool(moved[known | lost].any())
        assert bool(moved[~(known | lost)].double().mean() > 0.3)
    plane = fed["plane"][shown["plane"] == 1].double()
    std = PROCESS.factors["plane"].prior.std
    assert stats.kstest((plane / std).numpy(), "norm").pvalue > RATE
    last = fed["columns"][:, 1][shown["columns"][:, 1] == 1]
    assert oracles.p_value(last.bincount(minlength=4), torch.full((4,), 0.25).double()) > RATE
    assert bool((fed["word"][shown["word"] == 1] == 3).all())


def test_a_missing_entry_carries_no_loss_and_its_value_is_never_seen() -> None:
    """Losses and gradients are the same bits whatever stands in a gap, whose output has none."""
    n = 64
    present = state.map(
        lambda part: torch.rand(n, *part.sites, generator=seeded(68)) < 0.6, PROCESS.space.parts
    )
    x_0, other = data(n), data(n, seed=69)
    filled = state.map(
        lambda lift, mask, a, b: torch.where(state.trail(mask, lift), a, b),
        PROCESS.space.lift,
        present,
        x_0,
        other,
    )

    def run(x: Any) -> tuple[Tensor, tuple[Tensor, ...], Any]:
        denoiser = asked(rv.SiteClocks())
        loss = rv.Regression()(denoiser, x, observed=present, generator=seeded(70))
        gradients = torch.autograd.grad(loss.sum(), list(denoiser.network.outputs.values()))
        return loss.detach(), gradients, denoiser.network.seen[0]

    (loss, gradients, (fed, shown)), (again, others, (fed_again, _)) = run(x_0), run(filled)
    assert torch.equal(loss, again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert all(torch.equal(fed[name], fed_again[name]) for name in fed)
    for (name, mask), gradient in zip(present.items(), gradients, strict=True):
        assert bool((shown[name][~mask] == 1).all())
        assert float(gradient.reshape(*mask.shape, -1)[~mask].abs().sum()) == 0


def test_gaps_need_a_law_with_one_clock_per_site() -> None:
    """SharedClock shows no gap, FactorClocks whole factors alone; complete data pass."""
    x_0, denoiser = data(8), asked(rv.SharedClock())
    gap = {"word": torch.tensor([True, False])}
    with pytest.raises(rv.ClockError, match="SiteClocks"):
        rv.Regression()(denoiser, x_0, observed=gap, generator=seeded(71))
    denoiser = asked(rv.FactorClocks())
    with pytest.raises(rv.ClockError, match="whole factors"):
        rv.Regression()(denoiser, x_0, observed=gap, generator=seeded(71))
    whole = {"word": (torch.arange(8) % 2 == 0)[:, None].expand(8, 2)}
    assert rv.Regression()(denoiser, x_0, observed=whole, generator=seeded(71)).shape == (8,)
    assert bool((denoiser.network.seen[-1][1]["word"][1::2] == 1).all())
    with pytest.raises(rv.SpaceError, match="among"):
        rv.Regression()(denoiser, x_0, observed={"wrod": whole["word"]}, generator=seeded(71))
    full, denoiser = {"word": torch.tensor([True, True])}, asked(rv.SharedClock())
    assert rv.Regression()(denoiser, x_0, observed=full, generator=seeded(71)).shape == (8,)
