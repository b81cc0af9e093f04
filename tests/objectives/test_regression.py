r"""Regression: its minimizer is the posterior expectation, whatever the network outputs.

For each parametrization with divergence D the gradient in the output o of

.. math:: E[D(\text{target}(x_0, x_t), o) \mid x_t] = \sum_i w_i(x_t) D(\text{target}_i, o)

vanishes at the oracle's output, state by state, and the loss grows away from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

PAIRS = rv.Categorical(3, 2)
SCHEDULES = (rv.VariancePreserving(), rv.Cosine(), rv.Rectified(), rv.VarianceExploding())
KINDS = (
    rv.Clean(),
    rv.Noise(),
    rv.Velocity(),
    rv.Score(),
    rv.Preconditioned(),
    rv.Preconditioned(2),
)
CASES = [
    *((rv.Gaussian(rv.Euclidean(2), schedule), how) for schedule in SCHEDULES for how in KINDS),
    *((rv.Uniform(PAIRS), how) for how in (rv.Posterior(), rv.Cavity(), rv.Score())),
    *(
        (rv.Uniform(PAIRS, rv.ExponentialSurvival(3)), how)
        for how in (rv.Posterior(), rv.Cavity(), rv.Score())
    ),
    *((rv.Mask(PAIRS), how) for how in (rv.Posterior(), rv.Cavity(), rv.Score())),
    *((rv.Brownian(rv.Torus(2)), how) for how in (rv.Noise(), rv.Score(), rv.Velocity())),
    *((rv.Brownian(rv.SO3(2)), how) for how in (rv.Noise(), rv.Score(), rv.Velocity())),
]
cases = pytest.mark.parametrize(("path", "how"), CASES, ids=lambda part: repr(part)[:60])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def law_of(path: Any) -> tuple[Tensor, Tensor]:
    """Atoms of unequal weights: every state of a finite space, six states of a real one."""
    if not path.space.is_real:
        atoms = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    elif isinstance(path.space, rv.Euclidean):
        atoms = torch.randn((6, 2), generator=seeded(1), dtype=torch.float64)
    else:
        atoms = path.prior.sample(6, seeded(1), real())
    weights = torch.rand(len(atoms), generator=seeded(2), dtype=torch.float64) + 0.1
    return atoms, weights / weights.sum()


@dataclass(frozen=True)
class Exact:
    """A network that outputs the oracle's value in the terms of ``how``, plus ``size`` x a wave."""

    oracle: Any
    how: Any
    size: float = 0.0

    def __call__(self, fed: Any, t: Tensor, cond: Any) -> Tensor:
        path, scale = self.oracle.process, 1.0
        if isinstance(self.how, rv.Preconditioned):
            scale = self.inward(path.space.align(t))
        x_t = fed / scale if path.space.is_real else fed
        value = self.value(x_t, t)
        wave = torch.sin(3 * torch.arange(value[0].numel()) + 1).to(value).view(value.shape[1:])
        damped = (t * (1 - t)).to(value).view(-1, *[1] * (value.ndim - 1))
        return value + self.size * damped * wave

    def value(self, x_t: Tensor, t: Tensor) -> Tensor:
        estimate = self.oracle(x_t, t)
        if isinstance(self.how, rv.Cavity):
            return self.cavity(x_t, t)
        if not isinstance(self.how, rv.Preconditioned):
            return estimate.read(self.how.kind)
        at = self.oracle.process.space.align(t)
        signal, scale = self.oracle.process.schedule.signal(at), self.how.scale
        skip = signal.alpha * scale**2 * self.inward(at) ** 2
        return (estimate.clean - skip * x_t) / (signal.sigma * scale * self.inward(at))

    def inward(self, at: Tensor) -> Tensor:
        signal = self.oracle.process.schedule.signal(at)
        return (signal.alpha**2 * self.how.scale**2 + signal.sigma**2).rsqrt()

    def cavity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """p(x_0^d | x_t without site d): the posterior of a site that is dropped."""
        columns = []
        for d in range(2):
            clock = t[:, None].repeat(1, 2)
            clock[:, d] = 1.0
            columns.append(self.oracle(x_t, clock).posterior[:, d])
        return torch.stack(columns, 1)


def exact(path: Any, how: Any, size: float = 0.0) -> rv.NetworkDenoiser:
    return rv.NetworkDenoiser(Exact(rv.Empirical(path, *law_of(path)), how, size), path, how)


def noisy(path: Any, n: int) -> tuple[Tensor, Tensor]:
    atoms, weights = law_of(path)
    rows = torch.multinomial(weights, n, replacement=True, generator=seeded(3))
    t = torch.linspace(0.15, 0.9, n, dtype=torch.float64)
    return path.kernel(atoms[rows], t).sample(seeded(4)), t


def expected_loss(denoiser: Any, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """E[loss of the output | x_t], ``(B,)``."""
    path, oracle = denoiser.process, denoiser.network.oracle
    weights = oracle.weights(x_t, t)
    row, atom = (weights > 0).nonzero(as_tuple=True)
    kernel = path.kernel(oracle.atoms[atom], t[row])
    loss = denoiser.parametrization.loss(path, kernel, output[row], x_t[row], t[row])
    return torch.zeros(len(t)).double().index_add(0, row, weights[row, atom] * loss.sum(1))


@cases
def test_gradient_of_the_expected_loss_vanishes_at_the_posterior_expectation(path, how):
    denoiser = exact(path, how)
    x_t, t = noisy(path, 24)
    output = denoiser.outputs(x_t, t).clone().requires_grad_()
    at_best = expected_loss(denoiser, output, x_t, t)
    gradient = torch.autograd.grad(at_best.sum(), output)[0]
    assert gradient.abs().max() < 1e-9
    kick = torch.randn(output.shape, generator=seeded(5), dtype=torch.float64) / 3
    away = expected_loss(denoiser, output + kick, x_t, t)
    assert (away > at_best - 1e-12).all()
    assert away.mean() > at_best.mean() + 1e-3


@cases
def test_every_kind_of_the_oracle_gives_the_oracle_back(path, how):
    denoiser = exact(path, how)
    x_t, t = noisy(path, 24)
    found, expected = denoiser(x_t, t), denoiser.network.oracle(x_t, t)
    kinds = [rv.Kind.SCORE] if path.space.is_real else [rv.Kind.POSTERIOR, rv.Kind.SCORE]
    if path.conversion(rv.Kind.SCORE, rv.Kind.CLEAN):
        kinds.append(rv.Kind.CLEAN)
    for kind in kinds:
        ours, theirs = found.read(kind), expected.read(kind)
        if kind is rv.Kind.SCORE and not path.space.is_real:
            rated = path.forward(x_t, t).jumps.into > 0
            ours, theirs = ours[rated], theirs[rated]
        torch.testing.assert_close(ours.exp(), theirs.exp(), atol=1e-9, rtol=1e-9)


@cases
def test_regression_is_least_at_the_exact_network(path, how):
    """Common random numbers: the odd part of the loss is zero, the even part is positive."""
    atoms, weights = law_of(path)
    rows = torch.multinomial(weights, 4000, replacement=True, generator=seeded(6))
    losses = [
        rv.Regression()(exact(path, how, size), atoms[rows], generator=seeded(7))
        for size in (-1.0, 0.0, 1.0)
    ]
    odd, even = losses[2] - losses[0], losses[2] + losses[0] - 2 * losses[1]
    assert odd.mean().abs() < 4.5 * odd.std() / len(odd) ** 0.5
    assert even.mean() > 4.5 * even.std() / len(even) ** 0.5


def test_a_foreign_epsilon_network_with_integer_steps_is_wrapped_in_three_lines():
    """Its table of 1000 cumulative signal levels is the schedule's at t = k / 999."""
    mean, covariance = real(0.5, -0.3), real([1.0, 0.6], [0.6, 0.8])
    process = rv.Gaussian(rv.Euclidean(2))
    oracle = rv.GaussianData(process, mean, covariance)
    signals = process.schedule.signal(torch.linspace(0, 1, 1000, dtype=torch.float64)).alpha ** 2

    def foreign(x: Tensor, k: Tensor, cond: Any) -> Tensor:
        assert torch.equal(k, k.round())
        level = signals[k.long()][:, None, None]
        inverse = torch.linalg.inv(level * covariance + (1 - level) * torch.eye(2).double())
        centered = x - level[..., 0].sqrt() * mean
        return (1 - level[..., 0]).sqrt() * (inverse @ centered[..., None]).squeeze(-1)

    denoiser = rv.NetworkDenoiser(foreign, process, rv.Noise(), time=lambda t: (999 * t).round())
    x_t, t = torch.randn((5, 2), generator=seeded(8)).double(), real(1, 250, 500, 750, 999) / 999
    torch.testing.assert_close(denoiser(x_t, t).score, oracle(x_t, t).score, atol=1e-9, rtol=1e-9)


def wide(clock: Tensor, x: Tensor) -> Tensor:
    """A clock per item or site, as one per site."""
    return clock if clock.ndim == x.ndim else clock[:, None].expand(x.shape)


@dataclass
class Recorder:
    """A network of fixed outputs, ``touch`` added where a clock stands at 0 or 1."""

    touch: float = 0.0
    seen: list[Any] = field(default_factory=list)

    def __call__(self, x_t: Any, t: Any, cond: Any) -> Any:
        self.seen.append((x_t, t, cond))
        clocks = t if isinstance(t, dict) else {"v": t, "token": t}
        at = {name: wide(clock, x_t[name]) for name, clock in clocks.items()}
        stopped = {name: ((clock == 0) | (clock == 1)).double() for name, clock in at.items()}
        waves = 0.3 * torch.sin(torch.arange(3)).double().expand(len(x_t["token"]), 3)
        token = waves + self.touch * stopped["token"][:, None] * torch.arange(3)
        return {"v": 0.1 + self.touch * stopped["v"] + torch.tanh(x_t["v"]), "token": token}


PRODUCT = rv.Independent(v=rv.Gaussian(rv.Euclidean(2)), token=rv.Uniform(rv.Categorical(3)))
HOW = {"v": rv.Noise(), "token": rv.Posterior()}
X_0 = {
    "v": torch.randn((50, 2), generator=seeded(9), dtype=torch.float64),
    "token": torch.arange(50) % 3,
}


def loss(
    recorder: Recorder, clocks: Any, x_0: Any = X_0, weights: Any = None, **more: Any
) -> Tensor:
    denoiser = rv.NetworkDenoiser(recorder, PRODUCT, HOW, clocks)
    return rv.Regression(weights)(denoiser, x_0, generator=seeded(10), **more)


def test_loss_of_a_product_is_the_sum_of_the_squared_noise_error_and_the_cross_entropy():
    recorder = Recorder()
    found = loss(recorder, rv.SharedClock())
    x_t, t, _ = recorder.seen[0]
    signal = rv.VariancePreserving().signal(t[:, None])
    epsilon = (x_t["v"] - signal.alpha * X_0["v"]) / signal.sigma
    squares = ((0.1 + torch.tanh(x_t["v"]) - epsilon) ** 2).sum(1)
    logits = (0.3 * torch.sin(torch.arange(3)).double()).log_softmax(0)
    torch.testing.assert_close(found, squares - logits[X_0["token"]], atol=1e-9, rtol=1e-9)
    parts = [loss(Recorder(), rv.SharedClock(), weights={name: 0.0}) for name in PRODUCT.factors]
    torch.testing.assert_close(sum(parts), found, atol=1e-12, rtol=1e-12)
    tripled = loss(Recorder(), rv.SharedClock(), weights={"v": 3.0})
    torch.testing.assert_close(tripled, found + 2 * parts[1], atol=1e-9, rtol=1e-12)


LAWS = [
    rv.SiteClocks(known=0.9, dropped=0.5),
    rv.SiteClocks(known=0.9, dropped=0.5, common=False),
    rv.FactorClocks(known=0.4, dropped=0.3),
    rv.MixedClocks([(rv.SiteClocks(), 1.0), (rv.FactorClocks(), 2.0)]),
]


@pytest.mark.parametrize("clocks", LAWS, ids=lambda law: repr(law)[:40])
def test_known_and_dropped_sites_carry_no_loss_and_known_ones_hold_their_value(clocks):
    plain, touched = Recorder(), Recorder(touch=5.0)
    assert torch.equal(loss(plain, clocks), loss(touched, clocks))
    x_t, t, _ = plain.seen[0]
    for name in ("v", "token"):
        clock = wide(t[name], x_t[name])
        assert (clock == 0).any()
        assert (clock == 1).any()
        assert torch.equal(x_t[name][clock == 0], X_0[name][clock == 0])
        other = {key: part.roll(1, 0) for key, part in X_0.items()}
        second = Recorder()
        loss(second, clocks, other)
        assert torch.equal(second.seen[0][0][name][clock == 1], x_t[name][clock == 1])


def test_a_known_rotation_is_shown_to_the_network_bit_for_bit():
    process, seen = rv.Brownian(rv.SO3(2)), []

    def network(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append((x_t, t))
        return torch.zeros(len(x_t), 2, 3, dtype=torch.float64)

    x_0 = process.prior.sample(50, seeded(11), real())
    denoiser = rv.NetworkDenoiser(network, process, rv.Noise(), rv.SiteClocks(known=1.0))
    rv.Regression()(denoiser, x_0, generator=seeded(12))
    x_t, t = seen[0]
    assert (t == 0).any()
    assert torch.equal(x_t[t == 0], x_0[t == 0])
    assert not torch.equal(x_t[t > 0], x_0[t > 0])


def test_a_missing_entry_is_a_dropped_site_without_a_loss():
    """The loss and what the network is fed do not depend on the value that stands in a gap."""
    v = torch.arange(100).view(50, 2) % 3 > 0
    observed = {"v": v, "token": torch.arange(50) % 2 == 0}
    other = {
        "v": torch.where(v, X_0["v"], X_0["v"] + 7),
        "token": torch.where(observed["token"], X_0["token"], (X_0["token"] + 1) % 3),
    }
    first, second = Recorder(), Recorder(touch=2.0)
    losses = [
        loss(recorder, rv.SiteClocks(), x_0, observed=observed)
        for recorder, x_0 in ((first, X_0), (second, other))
    ]
    assert torch.equal(*losses)
    (x, t, _), (x_other, _, _) = first.seen[0], second.seen[0]
    for name in ("v", "token"):
        assert torch.equal(x[name], x_other[name])
        assert (t[name][~observed[name]] == 1).all()


def test_the_condition_reaches_the_network():
    recorder, cond = Recorder(), object()
    loss(recorder, rv.SharedClock(), cond=cond)
    assert recorder.seen[0][2] is cond


def test_refusals_say_what_was_expected_and_the_cure():
    gaps = {"v": torch.zeros(50, 2, dtype=torch.bool), "token": None}
    with pytest.raises(rv.ClockError, match=r"missing entries.*SiteClocks"):
        loss(Recorder(), rv.SharedClock(), observed=gaps)
    with pytest.raises(rv.CapabilityError, match=r"coupling to take x_1.*Interpolant"):
        loss(Recorder(), rv.SharedClock(), x_1=X_0)
    with pytest.raises(rv.CapabilityError, match=r"NetworkDenoiser to train.*Wrap your network"):
        rv.Regression()(rv.Empirical(PRODUCT, X_0), X_0)
    with pytest.raises(rv.CapabilityError, match=r"Expected a parametrization"):
        rv.NetworkDenoiser(Recorder(), PRODUCT, {"token": rv.Clean()})
