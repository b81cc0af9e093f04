r"""The odd kinds train and sample: a path that is no Markov process, and a chain in discrete time.

An interpolant between paired ends with :math:`x_1 = A x_0 + b` has a flow that carries x_1 back to
:math:`A^{-1}(x_1 - b)`, on straight lines. A chain's reversal by ancestral sampling is enumerated:
one step of one site is Bayes' rule, so a single site returns its law exactly, and the law of many
is what the averaged bridges :math:`\prod_d \sum_k p(k | x_t) q(x_s^d | x_t^d, k)` push forward.
"""

from __future__ import annotations

from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

import reversal as rv
from tests.samplers import oracles
from tests.samplers.oracles import RATE, Enumeration, seeded, total_variation

A = torch.tensor([[1.2, 0.4], [-0.3, 0.9]], dtype=torch.float64)
SHIFT = torch.tensor([0.5, -1.0], dtype=torch.float64)
PLANE = rv.Interpolant(rv.Euclidean(2), rv.Paired())


def line(t: Tensor) -> Tensor:
    """x_t = (I + t (A - I)) x_0 + t b, as one matrix per time."""
    return torch.eye(2).double() + t[:, None, None] * (A - torch.eye(2).double())


@final
class ExactLine(nn.Module):
    """The velocity (A - I) x_0 + b at x_0 = (I + t (A - I))^-1 (x_t - t b)."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        x_0 = torch.linalg.solve(line(t), (x_t - t[:, None] * SHIFT)[..., None])
        return ((A - torch.eye(2).double()) @ x_0).squeeze(-1) + SHIFT


@final
class Small(nn.Module):
    """A perceptron of x_t and t, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 2)).double()

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        at = t.double()[:, None]
        return self.layers(torch.cat([x_t, at, at * x_t], 1))


def trained(denoiser: Any, draw: Any, rounds: int, rate: float) -> list[float]:
    """Adam with a rate that falls to zero; the losses."""
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    losses, generator = [], seeded(51)
    for _ in range(rounds):
        x_0, x_1 = draw(generator)
        loss = rv.Regression()(denoiser, x_0, x_1=x_1, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("sampler", [rv.Euler(churn=0), rv.Heun()], ids=str)
def test_exact_velocity_carries_x_1_back(sampler: Any) -> None:
    """Lines that do not cross are straight: any number of steps is exact, one included."""
    denoiser = rv.NetworkDenoiser(Double(ExactLine()), PLANE, rv.Velocity())
    x_0 = torch.randn(50, 2, generator=seeded(52), dtype=torch.float64)
    x_1 = x_0 @ A.T + SHIFT
    for steps in (1, 7):
        x = sampler.sample(denoiser, 50, steps=steps, x_1=x_1, generator=seeded(0))
        assert torch.allclose(x, x_0, atol=1e-12)


@final
class Double(nn.Module):
    """Shows float64 to the sampler, and hands its calls on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.shown = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False)

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.network(x_t, t, cond)


def test_an_interpolant_trains_and_samples(global_seed: None) -> None:
    """Regression with x_1= learns the lines: new ends come back to within 0.1 of unit data."""
    denoiser = rv.NetworkDenoiser(Small(), PLANE, rv.Velocity())

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x_0 = torch.randn(256, 2, generator=generator, dtype=torch.float64)
        return x_0, x_0 @ A.T + SHIFT

    losses = trained(denoiser, draw, 600, 1e-2)
    assert losses[-1] < 0.02 * losses[0]
    x_0, x_1 = draw(seeded(53))
    for sampler in (rv.Euler(churn=0), rv.Heun()):
        x = sampler.sample(denoiser, 256, steps=20, x_1=x_1, generator=seeded(0))
        assert float((x - x_0).norm(dim=1).mean()) < 0.1


def test_an_interpolant_needs_its_other_ends() -> None:
    """Neither training nor sampling without x_1."""
    denoiser = rv.NetworkDenoiser(Double(ExactLine()), PLANE, rv.Velocity())
    with pytest.raises(rv.SpaceError, match="x_1="):
        rv.Regression()(denoiser, torch.zeros(3, 2).double(), generator=seeded(0))
    with pytest.raises(rv.CapabilityError, match="x_1="):
        rv.Euler(churn=0).sample(denoiser, 3, steps=2, generator=seeded(0))


def mixing(kind: str, steps: int, size: int = 3) -> list[Tensor]:
    """Kernels (1 - b_k) I + b_k P with b_k = 1 / (T - k + 1); P uniform or into the last state."""
    target = torch.full((size, size), 1 / size, dtype=torch.float64)
    if kind == "absorbing":
        target = torch.eye(size, dtype=torch.float64)[-1].expand(size, size)
    shares = [1 / (steps - k + 1) for k in range(1, steps + 1)]
    return [(1 - b) * torch.eye(size, dtype=torch.float64) + b * target for b in shares]


def table(kind: str, sites: int) -> Tensor:
    """A law of dependent sites; under absorption the last state holds no data."""
    law = torch.rand((3,) * sites, generator=seeded(54), dtype=torch.float64) + 0.2
    if kind == "absorbing":
        for axis in range(sites):
            law.select(axis, 2).zero_()
    return law / law.sum()


kinds = pytest.mark.parametrize("kind", ["uniform", "absorbing"])


@kinds
@pytest.mark.parametrize("steps", [3, 8])
def test_a_chain_of_one_site_is_exact(kind: str, steps: int) -> None:
    """Ancestral sampling returns the law, at all T steps and at fewer."""
    path = rv.Chain(rv.Categorical(3), mixing(kind, steps))
    small = Enumeration(rv.Enumerated(path, table(kind, 1)))
    for count in (steps, 2):
        end = small.pushed(rv.Ancestral(), path.grid(count), small.marginal(1.0))
        assert total_variation(end, small.marginal(0.0)) < 1e-10


@kinds
def test_a_chain_of_two_sites_follows_its_reverse_chain(kind: str) -> None:
    """The law pushed through the sampler's steps is Bayes' rule written out; draws agree."""
    steps, kernels = 5, mixing(kind, 5)
    path = rv.Chain(rv.Categorical(3, 2), kernels)
    small, law = Enumeration(rv.Enumerated(path, table(kind, 2))), table(kind, 2)
    pushed = small.pushed(rv.Ancestral(), path.grid(steps), small.prior())
    assert total_variation(pushed, written_out(kernels, law, small.prior().view(3, 3))) < 1e-10
    n = 20_000
    x = rv.Ancestral().sample(small.denoiser, n, steps=steps, generator=seeded(55))
    counts = (x[:, 0] * 3 + x[:, 1]).bincount(minlength=9)
    assert oracles.p_value(counts, torch.where(pushed > 1e-12, pushed, 0.0)) > RATE


def written_out(kernels: list[Tensor], law: Tensor, last: Tensor) -> Tensor:
    """Bayes' rule, state by state: the product over sites of averaged bridges."""
    upto = [torch.eye(3, dtype=torch.float64)]
    for kernel in kernels:
        upto.append(upto[-1] @ kernel)
    for k in range(len(kernels), 0, -1):
        now, before, step = upto[k], upto[k - 1], kernels[k - 1]
        moved = torch.zeros_like(last)
        for a in range(3):
            for b in range(3):
                joint = law * now[:, a, None] * now[None, :, b]
                if float(joint.sum()) == 0:
                    continue
                joint = joint / joint.sum()
                sides = []
                for marginal, end in ((joint.sum(1), a), (joint.sum(0), b)):
                    bridge = before * step[:, end] / now[:, end, None].clamp_min(1e-300)
                    sides.append(marginal @ bridge)
                moved += last[a, b] * torch.outer(sides[0], sides[1])
        last = moved
    return last.flatten()


@final
class Table(nn.Module):
    """One logit per time, noisy pair, site and value: it can hold any posterior of two sites."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.logits = nn.Parameter(torch.zeros(steps + 1, 3, 3, 2, 3, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.logits[(t * self.steps).round().long(), x_t[:, 0], x_t[:, 1]]


@kinds
def test_a_chain_trains_to_its_posterior(kind: str) -> None:
    """On SharedClock(OnGrid(T)) the learned posterior nears the exact one, weighted by visits."""
    steps, law = 4, table(kind, 2)
    path = rv.Chain(rv.Categorical(3, 2), mixing(kind, steps))
    clocks = rv.SharedClock(rv.OnGrid(steps))
    denoiser = rv.NetworkDenoiser(Table(steps), path, rv.Posterior(), clocks)
    exact = Enumeration(rv.Enumerated(path, law))

    def draw(generator: torch.Generator) -> tuple[Tensor, None]:
        code = torch.multinomial(law.flatten(), 1024, replacement=True, generator=generator)
        return torch.stack([code // 3, code % 3], 1), None

    def gap() -> float:
        total = 0.0
        for k in range(1, steps + 1):
            t = torch.full((9,), k / steps, dtype=torch.float64)
            visits = exact.marginal(k / steps)
            ours = denoiser(exact.states, t).posterior.softmax(-1)
            theirs = exact.denoiser(exact.states, t).posterior.softmax(-1)
            far = torch.where(visits[:, None] > 0, (ours - theirs).abs().sum(-1) / 2, 0.0)
            total += float(visits @ far.mean(1)) / steps
        return total

    with torch.no_grad():
        before = gap()
    trained(denoiser, draw, 300, 0.1)
    with torch.no_grad():
        assert gap() < 0.03 < before
    n = 20_000
    x = rv.Ancestral().sample(denoiser, n, steps=steps, generator=seeded(56))
    found = (x[:, 0] * 3 + x[:, 1]).bincount(minlength=9).double() / n
    wanted = exact.pushed(rv.Ancestral(), path.grid(steps), exact.prior())
    assert total_variation(found, wanted) < 0.05


SHORT = rv.Chain(rv.Categorical(3), mixing("uniform", 3))
REFUSED = {
    "Ancestral on an interpolant": (rv.Ancestral(), PLANE, "Euler"),
    "Euler(churn=1) on an interpolant": (rv.Euler(churn=1), PLANE, "churn=0"),
    "Euler on a chain": (rv.Euler(), SHORT, "Ancestral"),
    "Heun on a chain": (rv.Heun(), SHORT, "Ancestral"),
    "eta on tokens": (rv.Ancestral(eta=0.5), rv.Mask(rv.Categorical(3)), "Ancestral"),
    "eta on a product with tokens": (
        rv.Ancestral(eta=0.0),
        rv.Independent(a=rv.Gaussian(rv.Euclidean(1)), b=rv.Uniform(rv.Categorical(3))),
        "Ancestral",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_first_step_with_the_cure(name: str) -> None:
    """A sampler that needs what the path lacks never calls the network."""
    sampler, path, cure = REFUSED[name]

    def never(x_t: Any, t: Any, cond: Any = None) -> Any:
        raise AssertionError("the network was called")

    denoiser = rv.NetworkDenoiser(never, path)
    x_1 = torch.zeros(2, 2) if path is PLANE else None
    with pytest.raises(rv.CapabilityError, match=cure):
        sampler.sample(denoiser, 2, steps=2, x_1=x_1, generator=seeded(0))


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_eta_and_churn_outside_their_ranges(wrong: float) -> None:
    """Refused when the sampler is made."""
    with pytest.raises(rv.CapabilityError, match="DDIM"):
        rv.Ancestral(eta=wrong)
    if wrong < 0:
        with pytest.raises(rv.CapabilityError, match="ODE"):
            rv.Euler(churn=wrong)


def test_a_flow_beside_jumps_needs_no_generator_of_its_own():
    """Euler at churn 0 on an interpolant and a chain: the interpolant has no increment."""
    path = rv.Independent(
        place=rv.Interpolant(rv.Euclidean(2), rv.Paired()), word=rv.Uniform(rv.Categorical(3))
    )
    denoiser = rv.NetworkDenoiser(
        lambda x, t, cond: {"place": 0 * x["place"], "word": torch.zeros(len(x["word"]), 3)}, path
    )
    x_1 = {"place": torch.ones(4, 2), "word": torch.zeros(4, dtype=torch.int64)}
    source = torch.Generator().manual_seed(0)
    x = rv.Euler(churn=0).sample(denoiser, 4, steps=5, x_1=x_1, generator=source)
    assert torch.equal(x["place"], x_1["place"])
