r"""Multistep exponential integrators: weights, measured orders, and the published formulas.

Along the flow of a mixture of normal laws the reference is Dormand-Prince at tolerance 1e-12. First
steps are of lower order, so orders above 2 are measured on a grid whose steps grow smoothly from
the start, :math:`t_k = a + (b - a)(3 u^2 - 2 u^3)` at u = k/N.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.ode import integrate
from reversal.samplers.leaning import _moments, _Weights
from tests.samplers.oracles import seeded, slope

START, STOP, WITHIN = 0.95, 0.05, 0.25
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(0.1), rv.Rectified(), rv.VarianceExploding(0.1, 5)]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
ORDERS = [
    (rv.Multistep(1, eta=0), 1),
    (rv.Multistep(2, eta=0), 2),
    (rv.Multistep(3, eta=0), 3),
    (rv.DEIS(1), 1),
    (rv.DEIS(2), 2),
    (rv.DEIS(3), 3),
    (rv.DEIS(4), 4),
    (rv.UniPC(1), 2),
    (rv.UniPC(2), 3),
    (rv.UniPC(3), 4),
]


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def graded(steps: int, start: float = START, stop: float = STOP) -> rv.Grid:
    """Steps that grow smoothly from the start, and shrink again towards the end."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return rv.Grid(start + (stop - start) * (3 * u**2 - 2 * u**3))


def mixture(schedule: Any) -> rv.GaussianMixture:
    """Three broad components on R^2, two of them with correlated entries."""
    means = real([0.7, -0.4], [-0.8, 0.5], [0.2, 1.0])
    covariances = real(
        [[0.6, 0.3], [0.3, 0.4]], [[0.5, -0.2], [-0.2, 0.6]], [[0.7, 0.0], [0.0, 0.5]]
    )
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    return rv.GaussianMixture(process, real(2.0, 1.0, 1.0), means, covariances)


@cache
def flow(schedule: Any) -> tuple[rv.GaussianMixture, Tensor, Tensor]:
    """The mixture, 32 states at the start, and where the flow carries them by the end."""
    data, n = mixture(schedule), 32
    clock = torch.full((n,), START, dtype=torch.float64)
    x = data.process.kernel(data.sample(n, seeded(1)), clock).sample(seeded(2))
    end = torch.full_like(clock, STOP)
    return data, x, integrate(lambda y, t: data(y, t).velocity, x, clock, end, 1e-12, 1e-12).x


def errors(sampler: Any, schedule: Any, counts: list[int], grid: Any = graded) -> list[float]:
    data, x, exact = flow(schedule)

    def error(steps: int) -> float:
        got = sampler.sample(data, len(x), grid=grid(steps), x_1=x, generator=seeded(0))
        return float((got - exact).norm(dim=1).mean())

    return [error(steps) for steps in counts]


@schedules
@pytest.mark.parametrize(("sampler", "order"), ORDERS, ids=str)
def test_measured_orders(sampler, order, schedule):
    counts = [32, 64, 128] if order > 1 else [64, 128, 256]
    found = errors(sampler, schedule, counts)
    assert abs(slope(counts, found) - order) < WITHIN, found


@pytest.mark.parametrize("sampler", [rv.Multistep(3, eta=0), rv.DEIS(3), rv.UniPC(1)], ids=str)
def test_the_first_step_leaves_order_two(sampler):
    """On equal steps the first one of DDIM errs by h^2, or its correction by h^3."""
    counts = [64, 128, 256]
    found = errors(sampler, rv.Cosine(0.1), counts, lambda n: rv.Grid.uniform(n, START, STOP))
    assert slope(counts, found) > 2 - WITHIN, found


@pytest.mark.parametrize("k", [-30.0, -2.0, -1e-3, 0.0, 1e-9, 0.7, 5.0, 55.0])
def test_moments_by_integration_by_parts(k):
    """k m_i = (e^k - i I_{i-1}) / I_0, I_i the integral of e^(ku) u^i; near 0 by its series."""
    first, second, third = (float(m) for m in _moments(real(k), 3))
    if abs(k) < 1e-2:
        series = [1 / (i + 1) + k * (1 / (i + 2) - 1 / (2 * (i + 1))) for i in (1, 2, 3)]
        torch.testing.assert_close(real(first, second, third), real(*series), rtol=1e-6, atol=0)
        return
    edge = k / -math.expm1(-k)
    for i, (lower, moment) in enumerate(pairwise([1.0, first, second, third]), start=1):
        assert abs(k * moment - (edge - i * lower)) < 1e-11 * (1 + edge)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("has_end", [False, True])
@pytest.mark.parametrize("past", [1, 2, 3])
def test_polynomials_are_integrated_exactly(past, has_end, sign):
    """A polynomial of log signal-to-noise of degree the number of nodes has the mean of its own."""
    schedule = rv.Cosine()
    times = real(0.8, 0.7, 0.62, 0.5, 0.45)[-past - 2 :]
    signal = schedule.signal(times)
    lam = (signal.alpha / signal.sigma).log()
    weights = _Weights(schedule, sign, False, has_end)(*times)
    nodes = list(reversed(lam[:-2])) if not has_end else [lam[-1], *reversed(lam[:-2])]
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    density = (sign * (lam[-1] - lam[-2]) * u).exp()
    for degree in range(1, len(nodes) + 1):
        values = (lam[-2] + u * (lam[-1] - lam[-2])) ** degree
        mean = torch.trapezoid(density * values, u) / torch.trapezoid(density, u)
        base = lam[-2] ** degree
        leaned = base + sum(c * (at**degree - base) for c, at in zip(weights, nodes, strict=True))
        assert abs(float(leaned - mean)) < 1e-8


def by_hand(schedule: Any, grid: rv.Grid) -> tuple[list[float], list[float], list[float]]:
    """alpha, sigma and lambda of a grid."""
    signal = schedule.signal(grid.times)
    lam = signal.alpha.log() - signal.sigma.log()
    return signal.alpha.tolist(), signal.sigma.tolist(), lam.tolist()


def walked(sampler: Any, schedule: Any, grid: rv.Grid) -> tuple[rv.GaussianMixture, Tensor, Tensor]:
    data, x, _ = flow(schedule)
    return data, x, sampler.sample(data, len(x), grid=grid, x_1=x)


def clean_at(data: Any, grid: rv.Grid, k: int, x: Tensor) -> Tensor:
    return data(x, torch.full((len(x),), float(grid.times[k]), dtype=torch.float64)).clean


@schedules
def test_order_two_is_dpm_solver_plus_plus(schedule):
    """Lu et al. (2022), Algorithm 2, written out with r = h_(i-1) / h_i."""
    grid = rv.Grid.uniform(12, START, STOP)
    data, x, got = walked(rv.Multistep(2, eta=0), schedule, grid)
    alpha, sigma, lam = by_hand(schedule, grid)
    last = None
    for k in range(12):
        h, now = lam[k + 1] - lam[k], clean_at(data, grid, k, x)
        r = 1.0 if k == 0 else (lam[k] - lam[k - 1]) / h
        mixed = now if last is None else (1 + 1 / (2 * r)) * now - last / (2 * r)
        x = sigma[k + 1] / sigma[k] * x - alpha[k + 1] * math.expm1(-h) * mixed
        last = now
    torch.testing.assert_close(got, x, rtol=1e-10, atol=1e-10)


@schedules
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_the_published_algorithm(schedule, order):
    """Zhao et al. (2023): R_p(h) a_p B(h) = phi_p(h) with B = e^h - 1 and a_1 = 1/2 alone."""
    grid = rv.Grid.uniform(12, START, STOP)
    data, x, got = walked(rv.UniPC(order), schedule, grid)
    alpha, sigma, lam = by_hand(schedule, grid)

    def update(x: Tensor, k: int, values: list[Tensor], at: list[float]) -> Tensor:
        """From k to k + 1 with differences at other nodes ``at``, of ``values`` to the first."""
        h = lam[k + 1] - lam[k]
        step, base = -math.expm1(-h), values[0]
        r = real(*[(node - lam[k]) / h for node in at])
        phis, phi = [], math.expm1(-h) / -h - 1
        for i in range(1, len(at) + 1):
            phis.append(phi * math.factorial(i) / math.expm1(-h))
            phi = phi / -h - 1 / math.factorial(i + 1)
        table = torch.stack([r**i for i in range(len(at))]) if at else torch.zeros(0, 0)
        a = real(0.5) if len(at) == 1 else torch.linalg.solve(table.double(), real(*phis))
        lean = sum((c / rk * (v - base) for c, rk, v in zip(a, r, values[1:], strict=True)), 0 * x)
        return sigma[k + 1] / sigma[k] * x + alpha[k + 1] * step * (base + lean)

    seen: list[Tensor] = []
    last_x = x
    for k in range(12):
        now = clean_at(data, grid, k, x)
        if k:
            used = min(order, k)
            at = [lam[k], *(lam[k - 1 - j] for j in range(1, used))]
            x = update(last_x, k - 1, [seen[0], now, *seen[1:used]], at)
        seen, last_x = [now, *seen], x
        used = min(order, k + 1)
        x = update(x, k, seen[:used], [lam[k - j] for j in range(1, used)])
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


def test_the_program_of_order_three_has_order_two():
    """Half the weight on the second difference, as the authors' program has it, loses an order."""
    schedule = rv.Cosine(0.1)
    data, start, exact = flow(schedule)

    def error(steps: int, share: float) -> float:
        grid, x, seen = graded(steps), start, []
        alpha, sigma, lam = by_hand(schedule, grid)
        for k in range(steps):
            h, now = lam[k + 1] - lam[k], clean_at(data, grid, k, x)
            seen = [now, *seen][:3]
            phi_1 = -math.expm1(-h)
            phi_2, phi_3 = 1 - phi_1 / h, 0.5 - (1 - phi_1 / h) / h
            x = sigma[k + 1] / sigma[k] * x + alpha[k + 1] * phi_1 * now
            if k == 1:
                x = x + alpha[k + 1] * phi_1 / 2 * (now - seen[1]) * h / (lam[k] - lam[k - 1])
            if k > 1:
                r_0, r_1 = (lam[k] - lam[k - 1]) / h, (lam[k - 1] - lam[k - 2]) / h
                one, two = (now - seen[1]) / r_0, (seen[1] - seen[2]) / r_1
                first = one + r_0 / (r_0 + r_1) * (one - two)
                second = (one - two) / (r_0 + r_1)
                x = x + alpha[k + 1] * (phi_2 * first + share * phi_3 * second)
        return float((x - exact).norm(dim=1).mean())

    counts = [128, 256, 512]
    published = [error(steps, 1.0) for steps in counts]
    ours = [error(steps, 2.0) for steps in counts]
    assert abs(slope(counts, published) - 2) < WITHIN
    assert abs(slope(counts, ours) - 3) < WITHIN
    got = errors(rv.Multistep(3, eta=0), schedule, counts)
    torch.testing.assert_close(real(*got), real(*ours), rtol=1e-6, atol=0)


def test_deis_takes_the_integral_of_the_noise():
    """Order 2 by quadrature of the line through two noise estimates in log rho, over rho."""
    schedule, grid = rv.VariancePreserving(), rv.Grid.uniform(8, START, STOP)
    data, x, got = walked(rv.DEIS(2), schedule, grid)
    alpha, _, lam = by_hand(schedule, grid)
    last = None
    for k, (t, _) in enumerate(pairwise(grid.times.tolist())):
        clock = torch.full((len(x),), t, dtype=torch.float64)
        now = data(x, clock).noise
        rho = torch.linspace(-lam[k], -lam[k + 1], 4001, dtype=torch.float64).exp()
        share = 0 * rho if last is None else (-rho.log() - lam[k]) / (lam[k] - lam[k - 1])
        lean = float(torch.trapezoid(share, rho))
        total = now * float(rho[-1] - rho[0])
        total = total if last is None else total + lean * (now - last)
        x, last = alpha[k + 1] * (x / alpha[k] + total), now
    torch.testing.assert_close(got, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", [s for s, _ in ORDERS], ids=str)
@pytest.mark.parametrize("schedule", [*SCHEDULES, rv.Rectified()], ids=str)
def test_a_point_mass_is_hit_exactly(sampler, schedule):
    """One atom: every estimate is the atom, so any grid ends there, from t = 1 down to 0."""
    process = rv.Gaussian(rv.Euclidean(2), schedule)
    atom = real([0.7, -0.4])
    x = sampler.sample(rv.Empirical(process, atom), 5, steps=4, generator=seeded(0))
    torch.testing.assert_close(x, atom.expand(5, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [rv.Multistep(3, eta=0), rv.DEIS(4), rv.UniPC(3)], ids=str)
def test_a_step_from_elsewhere_begins_anew(sampler):
    """History counts only where a step begins at the very time at which the last one ended."""
    data, x, _ = flow(rv.Cosine(0.1))
    ticks = rv.Grid.uniform(10, 0.9, STOP).ticks()
    for t, s in ((1, 2), (2, 3)):
        sampler.step(data, x, ticks[t], ticks[s])
    fresh = rv.Ancestral(eta=0.0)
    torch.testing.assert_close(
        sampler.step(data, x, ticks[5], ticks[6]), fresh.step(data, x, ticks[5], ticks[6])
    )
    again = sampler.step(data, x, ticks[6], ticks[7])
    assert not torch.allclose(again, fresh.step(data, x, ticks[6], ticks[7]))
    few = sampler.step(data, x[:3], ticks[7], ticks[8])
    torch.testing.assert_close(few, fresh.step(data, x[:3], ticks[7], ticks[8]))


@pytest.mark.parametrize("sampler", [rv.DEIS(3), rv.UniPC(2), rv.Multistep(3, eta=0)], ids=str)
def test_times_of_their_own_give_every_row_its_own_weights(sampler):
    """Two rows with different clocks step as each does alone."""
    data, x, _ = flow(rv.VariancePreserving())
    times = real([0.9, 0.8], [0.7, 0.65], [0.6, 0.4], [0.45, 0.3])
    both, alone = x[:2], [x[:1], x[1:2]]
    for t, s in pairwise(times):
        both = sampler.step(data, both, t, s, generator=seeded(0))
    for row in range(2):
        clocks = [at[row : row + 1] for at in times]
        for t, s in pairwise(clocks):
            alone[row] = sampler.step(data, alone[row], t, s, generator=seeded(0))
    torch.testing.assert_close(torch.cat(alone), both, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: rv.Multistep(4), "order 1, 2 or 3"),
        (lambda: rv.Multistep(3), "eta=0 at order 3"),
        (lambda: rv.DEIS(0), "order 1, 2, 3 or 4"),
        (lambda: rv.UniPC(4), "order 1, 2 or 3"),
    ],
)
def test_orders_that_are_not_known_are_refused(make, match):
    with pytest.raises(rv.CapabilityError, match=match):
        make()


@pytest.mark.parametrize("sampler", [rv.DEIS(), rv.UniPC()], ids=str)
def test_a_path_without_a_bridge_is_refused(sampler):
    path = rv.Interpolant(rv.Euclidean(2), rv.Paired())
    with pytest.raises(rv.CapabilityError, match="Heun"):
        sampler.check(path)
