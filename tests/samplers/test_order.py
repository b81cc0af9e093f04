r"""Measured orders of convergence, each within 0.25 of what the sampler declares.

Order p means an error of :math:`C N^{-p}` at N steps; the slope of log error against log N is
fitted over doublings of N. Along the probability flow the reference is the exact flow map: of
Gaussian data :math:`x_s = \alpha_s \mu + (v_s / v_t)^{1/2} (x_t - \alpha_t \mu)` with
:math:`v_t = \alpha_t^2 c + \sigma_t^2`, elsewhere a Runge-Kutta solution of order 4 of the same
velocity field at 100 steps. Grids stop at eps > 0, because a step that ends at 0 is a bridge.
Moments of Gaussian data under Euler-Maruyama follow the linear recursion of its steps exactly. On
finite sets the whole law is pushed through the one-step kernels, so the total variation has no
sampling error. There the second order of the trapezoidal rule needs
:math:`2 \mu_\rho \ge \mu_t`: no rate of a site may halve because another one jumped, or the cut
[.]_+ leaves an error of order h^2 in each step. Both sides of this condition are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.core import Kind
from reversal.samplers.leaning import Look, lean
from tests.samplers import oracles
from tests.samplers.oracles import Enumeration, seeded, slope, total_variation

EPS, WITHIN = 0.05, 0.25
DOUBLINGS = [8, 16, 32, 64]
ORDERS = [(rv.Euler(churn=0), 1), (rv.Heun(), 2)]
GAUSSIAN_ORDERS = [*ORDERS, (rv.Ancestral(eta=0), 1), (rv.Multistep(eta=0), 2)]
orders = pytest.mark.parametrize(("sampler", "order"), ORDERS, ids=str)
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(0.1), rv.Rectified(), rv.VarianceExploding(0.1, 5)]


def check_order(order: int, error: Callable[[int], float], steps: list[int]) -> None:
    """Compare the measured slope with the declared order."""
    errors = [error(count) for count in steps]
    assert abs(slope(steps, errors) - order) < WITHIN, errors


def gaussian(schedule: Any) -> rv.GaussianData:
    """Data N(mean, covariance) on R^2 with correlated entries."""
    mean = torch.tensor([0.7, -0.4], dtype=torch.float64)
    covariance = torch.tensor([[0.6, 0.3], [0.3, 0.4]], dtype=torch.float64)
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(2), schedule), mean, covariance)


def spectrum(data: rv.GaussianData, t: float) -> tuple[float, Tensor, Tensor]:
    """alpha_t, and the spectrum and axes of the covariance at time t."""
    level = data.process.schedule.signal(torch.tensor(t, dtype=torch.float64))
    values, axes = torch.linalg.eigh(data.covariance)
    return float(level.alpha), level.alpha**2 * values + level.sigma**2, axes


def flowed(data: rv.GaussianData, x: Tensor, t: float, s: float) -> Tensor:
    """The exact flow map of Gaussian data, along the axes of the covariance."""
    (alpha_t, at, axes), (alpha_s, to, _) = spectrum(data, t), spectrum(data, s)
    return alpha_s * data.mean + ((x - alpha_t * data.mean) @ axes * (to / at).sqrt()) @ axes.T


@pytest.mark.parametrize(("sampler", "order"), GAUSSIAN_ORDERS, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_flow_of_gaussian_data(sampler: Any, order: int, schedule: Any) -> None:
    """Against the closed-form flow map on [0.05, 0.95]."""
    data, start = gaussian(schedule), 0.95
    z = torch.randn(64, 2, generator=seeded(31), dtype=torch.float64)
    x_1 = z * spectrum(data, start)[1].sqrt()
    exact = flowed(data, x_1, start, EPS)

    def error(steps: int) -> float:
        grid = rv.Grid.uniform(steps, start, EPS)
        x = sampler.sample(data, 64, grid=grid, x_1=x_1, generator=seeded(0))
        return float((x - exact).norm(dim=1).mean())

    check_order(order, error, [32, 64, 128, 256])


def mixture(space: Any) -> rv.Empirical:
    """Three atoms: at t >= 0.3 a smooth mixture of heat kernels."""
    process = rv.Brownian(space)
    atoms = process.prior.sample(3, seeded(32), torch.empty((), dtype=torch.float64))
    return rv.Empirical(process, atoms, torch.tensor([0.5, 0.3, 0.2]))


def runge_kutta(denoiser: Any, x: Tensor, start: float, stop: float, steps: int) -> Tensor:
    """Order 4 in the exponential map at the start of each step, commutators included.

    Source: Munthe-Kaas (1998), the correction v - [u, v]/2 + ..., to the order that is needed.
    """
    space, h = denoiser.process.space, (stop - start) / steps

    def slope_at(y: Tensor, t: float) -> Tensor:
        return denoiser(y, torch.full((len(y),), t, dtype=torch.float64)).read(Kind.VELOCITY)

    def pulled(u: Tensor, v: Tensor) -> Tensor:
        if space.tangent_shape == space.event_shape:
            return v
        once = torch.linalg.cross(u, v)
        return v + once / 2 + torch.linalg.cross(u, once) / 12

    for k in range(steps):
        t = start + k * h
        one = h * slope_at(x, t)
        two = h * pulled(one / 2, slope_at(space.move(x, one / 2), t + h / 2))
        three = h * pulled(two / 2, slope_at(space.move(x, two / 2), t + h / 2))
        four = h * pulled(three, slope_at(space.move(x, three), t + h))
        x = space.move(x, (one + 2 * two + 2 * three + four) / 6)
    return x


@cache
def reference(space: Any) -> tuple[Any, Tensor, Tensor]:
    """A mixture, twelve prior draws, and where the flow carries them by t = 0.3."""
    denoiser = mixture(space)
    x_1 = denoiser.process.prior.sample(12, seeded(33), denoiser.like)
    return denoiser, x_1, runge_kutta(denoiser, x_1, 1.0, 0.3, 100)


@orders
@pytest.mark.parametrize("space", [rv.Torus(2), rv.SO3()], ids=str)
def test_flow_on_manifolds(sampler: Any, order: int, space: Any) -> None:
    """On the torus and on SO(3), over [0.3, 1], the mean geodesic distance to the exact flow."""
    denoiser, x_1, exact = reference(space)
    n = len(x_1)

    def error(steps: int) -> float:
        grid = rv.Grid.uniform(steps, 1.0, 0.3)
        x = sampler.sample(denoiser, n, grid=grid, x_1=x_1, generator=seeded(0))
        pairs = oracles.distance(space, x, exact)
        return float(torch.stack([pairs[i, i] for i in range(n)]).mean())

    check_order(order, error, [16, 32, 64, 128])


@pytest.mark.parametrize("churn", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_weak_order_of_euler_maruyama(churn: float, schedule: Any) -> None:
    """One step is x -> M x + m + A^(1/2) z: push the exact mean and covariance through it."""
    data, start = gaussian(schedule), 0.95
    path, frame = data.process, torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()

    def error(steps: int) -> float:
        alpha, values, axes = spectrum(data, start)
        mean, covariance = alpha * data.mean, axes @ torch.diag(values) @ axes.T
        ticks = rv.Grid.uniform(steps, start, EPS).ticks()
        for t, s in pairwise(ticks):
            law = path.increment(frame, t, s).reversal(data(frame, t).read(Kind.SCORE), churn)
            moved = frame + law.drift
            linear = (moved[1:] - moved[0]).T
            spread = torch.as_tensor(law.covariance).double().expand(2)
            mean = linear @ mean + moved[0]
            covariance = linear @ covariance @ linear.T + torch.diag(spread)
        alpha, values, axes = spectrum(data, EPS)
        gap = covariance - axes @ torch.diag(values) @ axes.T
        return float((mean - alpha * data.mean).norm() + gap.norm())

    check_order(1, error, [100, 200, 400, 800])


@pytest.mark.parametrize("churn", [0.5, 1.0, 2.0])
def test_a_step_of_euler_maruyama_has_these_moments(churn: float) -> None:
    """The recursion above is the sampler's: 100,000 draws of one step, z-tests at 1e-4."""
    data, n = gaussian(rv.Cosine()), 100_000
    t, s = rv.Grid.uniform(10, 0.9, EPS).ticks()[2:4]
    x = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    law = data.process.increment(x, t, s).reversal(data(x, t).read(Kind.SCORE), churn)
    x_s = rv.Euler(churn).step(data, x.expand(n, 2), t, s, generator=seeded(34))
    std = torch.as_tensor(law.covariance).double().sqrt().expand(2)
    z = (x_s.mean(0) - (x + law.drift)[0]) / std * n**0.5
    ratio = ((x_s.var(0) / std**2) - 1) * (n / 2) ** 0.5
    assert float(torch.cat([z, ratio]).abs().max()) < 4.5


def leaning(data: rv.GaussianData, joint: Tensor, r: Any, t: Any, s: Any, eta: float) -> Any:
    """One step of `Multistep` from rows (x_t, last clean estimate): the kernel, and d_t."""
    path, (x_t, last) = data.process, joint.split(2, -1)
    now = data(x_t, t)
    base, past = Look(t, x_t, now, now.read(Kind.CLEAN)), Look(r, x_t, None, last)
    leaned = lean(Kind.CLEAN, True, path, s, base, (past,))
    return path.ancestor(x_t, t, s, leaned, eta), base.value


def pushed(data: Any, mean: Tensor, covariance: Tensor, r: Any, t: Any, s: Any) -> Any:
    """The moments of (x_s, d_t) after a stochastic step from those of (x_t, d_r)."""
    frame = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double()
    kernel, clean = leaning(data, frame, r, t, s, 1.0)
    moved = torch.cat([kernel.mean, clean], -1)
    linear, noise = (moved[1:] - moved[0]).T, torch.zeros(4, 4, dtype=torch.float64)
    noise[:2, :2] = kernel.std**2 * torch.eye(2)
    return linear @ mean + moved[0], linear @ covariance @ linear.T + noise


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_weak_order_of_stochastic_multistep(schedule: Any) -> None:
    """The exact moments of (x_t, last estimate) of Gaussian data, through the linear recursion."""
    data, start = gaussian(schedule), 0.95

    def error(steps: int) -> float:
        alpha, values, axes = spectrum(data, start)
        ticks = rv.Grid.uniform(steps, start, EPS).ticks()
        rows = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
        first = data(rows, ticks[0]).read(Kind.CLEAN)
        slope_, base = (first[1:] - first[0]).T, first[0]
        lift = torch.cat([torch.eye(2).double(), slope_])
        mean = lift @ (alpha * data.mean) + torch.cat([torch.zeros(2).double(), base])
        covariance = lift @ axes @ torch.diag(values) @ axes.T @ lift.T
        for r, t, s in zip([ticks[0], *ticks], ticks, ticks[1:], strict=False):
            mean, covariance = pushed(data, mean, covariance, r, t, s)
        alpha, values, axes = spectrum(data, EPS)
        gap = covariance[:2, :2] - axes @ torch.diag(values) @ axes.T
        return float((mean[:2] - alpha * data.mean).norm() + gap.norm())

    check_order(2, error, [50, 100, 200, 400])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_two_steps_of_multistep_have_these_moments(eta: float) -> None:
    """The recursion above is the sampler's: 100,000 draws of a second step, z-tests at 1e-4."""
    data, n = gaussian(rv.Cosine()), 100_000
    r, t, s = rv.Grid.uniform(10, 0.9, EPS).ticks()[2:5]
    x = torch.tensor([[0.3, -1.1]], dtype=torch.float64).expand(n, 2)
    sampler = rv.Multistep(eta=eta)
    x_t = sampler.step(data, x, r, t, generator=seeded(35))
    x_s = sampler.step(data, x_t, t, s, generator=seeded(36))
    last = data(x, r).read(Kind.CLEAN)
    kernel, _ = leaning(data, torch.cat([x_t, last], -1), r, t, s, eta)
    if eta == 0:
        assert torch.allclose(x_s, kernel.mean, atol=1e-12)
        return
    z = (x_s - kernel.mean) / kernel.std
    moments = torch.cat([z.mean(0) * n**0.5, (z.var(0) - 1) * (n / 2) ** 0.5])
    assert float(moments.abs().max()) < 4.5


def test_a_step_from_elsewhere_is_ancestral() -> None:
    """History counts only where a step begins at the very time at which the last one ended."""
    data = gaussian(rv.Cosine())
    ticks = rv.Grid.uniform(10, 0.9, EPS).ticks()
    x = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    sampler = rv.Multistep(eta=0.0)
    sampler.step(data, x, ticks[1], ticks[2])
    again = sampler.step(data, x, ticks[4], ticks[5])
    assert torch.equal(again, rv.Ancestral(eta=0.0).step(data, x, ticks[4], ticks[5]))
    assert not torch.equal(
        sampler.step(data, x, ticks[5], ticks[6]),
        rv.Ancestral(eta=0.0).step(data, x, ticks[5], ticks[6]),
    )


JUMPS = [
    (rv.Ancestral(), 1),
    (rv.Euler(churn=0), 1),
    (rv.Euler(churn=1), 1),
    (rv.Euler(churn=2), 1),
    (rv.Heun(), 2),
]
CHAINS = {
    "mask 2 x 2": (rv.Mask(rv.Categorical(2, 2)), (2, 2)),
    "mask 3 x 3": (rv.Mask(rv.Categorical(3, 3)), (3, 3, 3)),
    "uniform 2 x 2": (rv.Uniform(rv.Categorical(2, 2)), (2, 2)),
    "uniform 3 x 3": (rv.Uniform(rv.Categorical(3, 3)), (3, 3, 3)),
    "uniform, constant rate": (
        rv.Uniform(rv.Categorical(3, 2), rv.ExponentialSurvival(4)),
        (3, 3),
    ),
    "mask x uniform": (
        rv.Independent(a=rv.Mask(rv.Categorical(2)), b=rv.Uniform(rv.Categorical(3))),
        (2, 3),
    ),
}


def enumerated(name: str, spread: float) -> Enumeration:
    """A law whose entries lie within exp(-spread) and exp(spread) of each other's mean.

    A jump of one site changes the rates of another by a cross ratio of probabilities, at least
    exp(-4 spread): more than a half at 0.15.
    """
    process, shape = CHAINS[name]
    u = torch.rand(shape, generator=seeded(35), dtype=torch.float64)
    table = (spread * (2 * u - 1)).exp()
    return Enumeration(rv.Enumerated(process, table / table.sum()))


def over_the_middle(chain: Enumeration, sampler: Any) -> Callable[[int], float]:
    """The error on [0.1, 0.9]; at 1 linear survival has infinite rates, at 0 the reversal has."""
    first, exact = chain.marginal(0.9), chain.marginal(0.1)

    def error(steps: int) -> float:
        grid = rv.Grid.uniform(steps, 0.9, 0.1)
        grids = {part: grid for part in chain.path.parts} if chain.path.factors else grid
        return total_variation(chain.pushed(sampler, grids, first), exact)

    return error


@pytest.mark.parametrize(("sampler", "order"), JUMPS, ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_total_variation_of_jump_samplers(sampler: Any, order: int, name: str) -> None:
    """Declared orders, in total variation, on laws where no jump halves a rate."""
    error = over_the_middle(enumerated(name, 0.15), sampler)
    check_order(order, error, DOUBLINGS[:3] if "3 x 3" in name else DOUBLINGS)


def test_dependent_sites_leave_order_one() -> None:
    """Where a jump brings a rate below half the trapezoidal rule has order 1, yet beats Euler."""
    process, shape = CHAINS["uniform 2 x 2"]
    table = torch.rand(shape, generator=seeded(35), dtype=torch.float64) ** 3 + 0.01
    chain = Enumeration(rv.Enumerated(process, table / table.sum()))
    two, one = over_the_middle(chain, rv.Heun()), over_the_middle(chain, rv.Euler())
    steps = [32, 64, 128]
    check_order(1, two, steps)
    assert all(two(count) < one(2 * count) / 2 for count in steps)


@pytest.mark.parametrize("sampler", [s for s, _ in JUMPS], ids=str)
@pytest.mark.parametrize("kind", [rv.Mask, rv.Uniform])
def test_the_last_step_keeps_order_one(sampler: Any, kind: Any) -> None:
    """From 1 to 0 on the process's own grid, bridges at both ends: the error halves at least."""
    chain = enumerated("mask 2 x 2" if kind is rv.Mask else "uniform 2 x 2", 1.0)
    errors = [
        total_variation(
            chain.pushed(sampler, chain.path.grid(steps), chain.marginal(1.0)), chain.marginal(0.0)
        )
        for steps in DOUBLINGS
    ]
    assert slope(DOUBLINGS, errors) > 1 - WITHIN, errors


def test_one_site_is_exact_for_ancestral_sampling() -> None:
    """The averaged bridge of a single site has no error, at any number of steps."""
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for kind in (rv.Mask, rv.Uniform):
        chain = Enumeration(rv.Enumerated(kind(rv.Categorical(3)), law))
        end = chain.pushed(rv.Ancestral(), chain.path.grid(3), chain.prior())
        assert total_variation(end, chain.marginal(0.0)) < 1e-12
