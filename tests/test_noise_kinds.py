r"""The bounds of ``examples/theory_noise_kinds.py`` on the steps of masks and of uniform noise.

The divergence of paths with frozen flip rates is found by brute force, over all words: from the
rates of the reversal beside those at the start of the step, and from chains of exact transitions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.example import example

KINDS = example("theory_noise_kinds")
SPAN = KINDS.SPAN


def words(d: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2)] * d).view(-1, d)


def some_law(d: int, seed: int, sharp: float = 1.0) -> Tensor:
    """A positive table of 2^d probabilities."""
    source = torch.Generator().manual_seed(seed)
    return (
        (sharp * torch.randn([2] * d, generator=source, dtype=torch.float64)).flatten().softmax(0)
    )


def flips(d: int) -> Tensor:
    """The generator of uniform noise per unit of t: each bit flips at rate SPAN / 2."""
    apart = (words(d)[:, None] != words(d)).sum(-1)
    return SPAN / 2 * ((apart == 1).double() - d * torch.eye(2**d, dtype=torch.float64))


def ratios(q: Tensor, d: int) -> Tensor:
    """q(x^i) / q(x), (2^d, d)."""
    neighbor = torch.arange(2**d)[:, None] ^ (1 << torch.arange(d - 1, -1, -1))
    return q[neighbor] / q[:, None]


def by_rates(p: Tensor, d: int, steps: int) -> float:
    """The mean of rate^ - rate + rate log(rate / rate^) along the reversal, by quadrature."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(48))
    total, move = 0.0, flips(d)
    for k in range(1, steps + 1):
        held = ratios(p @ torch.matrix_exp(k / steps * move), d)
        for node, weight in zip(nodes, weights, strict=True):
            s = (k - 1 + (node + 1) / 2) / steps
            q = p @ torch.matrix_exp(s * move)
            joint = q[:, None] * torch.matrix_exp((k / steps - s) * move)
            now = ratios(q, d)[:, None]
            gap = (held - now + now * (now / held).log()).sum(-1)
            total += float(weight) / 2 / steps * SPAN / 2 * float((joint * gap).sum())
    return total


def by_chains(p: Tensor, d: int, steps: int, inside: int) -> float:
    """The divergence of the states at so many times inside each step, by exact transitions."""
    move, x = flips(d), words(d)
    neighbor = torch.arange(2**d)[:, None] ^ (1 << torch.arange(d - 1, -1, -1))
    h, total = 1 / (steps * inside), 0.0
    for k in range(1, steps + 1):
        q_t = p @ torch.matrix_exp(k / steps * move)
        held = SPAN / 2 * ratios(q_t, d)
        for start in range(len(x)):
            frozen = torch.zeros_like(move)
            frozen.scatter_(1, neighbor, held[start].expand(len(x), d))
            model = torch.matrix_exp(h * (frozen - torch.diag(frozen.sum(1))))
            mass = torch.zeros(len(x), dtype=torch.float64)
            mass[start] = q_t[start]
            for j in range(inside):
                late, soon = (p @ torch.matrix_exp((k / steps - m * h) * move) for m in (j, j + 1))
                true = torch.matrix_exp(h * move).T * soon / late[:, None]
                total += float((mass[:, None] * true * (true / model).log()).sum())
                mass = mass @ true
    return total


@pytest.mark.parametrize(("d", "steps"), [(1, 1), (2, 3), (3, 2)])
def test_the_sum_is_the_divergence_of_paths(d, steps):
    """Riemann's sum of F, quadrature over all pairs of words, and chains, extrapolated."""
    p = some_law(d, seed=d)
    law = KINDS.enumerated(p.view([2] * d), words(d))
    found = KINDS.frozen(law, steps)
    assert found == pytest.approx(by_rates(p, d, steps), rel=1e-9)
    if d < 3:
        few, many = (by_chains(p, d, steps, inside) for inside in (32, 64))
        assert few < many < found
        assert 2 * many - few == pytest.approx(found, rel=2e-3)


def test_flip_ratios_are_martingales_of_the_reversal():
    """E[r_i(x_s) | x_t] = r_i(x_t)."""
    d, p, move = 3, some_law(3, 0), flips(3)
    s, t = 0.1, 0.25
    q_s, q_t = (p @ torch.matrix_exp(time * move) for time in (s, t))
    back = torch.matrix_exp((t - s) * move).T * q_s / q_t[:, None]
    torch.testing.assert_close(back @ ratios(q_s, d), ratios(q_t, d), rtol=1e-12, atol=1e-12)


def laws_of(d: int) -> dict[str, Tensor]:
    one = torch.zeros(2**d, dtype=torch.float64)
    one[0] = 1.0
    both = one.clone()
    both[-1] = 1.0
    even = (words(d).sum(1) % 2 == 0).double()
    tables = {"a point": one, "copies": both, "parity": even}
    tables |= {f"random {k}": some_law(d, k, sharp=1.0 + 3 * k) for k in range(4)}
    return {name: table / table.sum() for name, table in tables.items()}


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_no_law_exceeds_the_bounds(d):
    """Uniform noise: d times an integral of log coth; masks: d log 2 / N; and their lemmas."""
    for name, table in laws_of(d).items():
        law = KINDS.enumerated(table.view([2] * d), words(d))
        for steps in (1, 2, 7, 40):
            kept = KINDS.ancestral(law, steps)
            assert -1e-9 < kept < KINDS.frozen(law, steps) + 1e-9, name
            assert KINDS.frozen(law, steps) <= KINDS.bound(d, steps), name
            assert -1e-12 < KINDS.masks(law, steps) <= d * math.log(2) / steps + 1e-12, name
        before = math.inf
        for t in (0.01, 0.05, 0.2, 0.6, 1.0):
            mass, _, log_r = law.at(t)
            assert float(log_r.max()) <= -math.log(math.tanh(SPAN * t / 2)) + 1e-9, name
            rate = law.mean(mass, log_r.exp() * log_r)
            assert -1e-12 <= rate <= before, name
            before = rate
        left = d * math.log(2) - law.entropy(1.0)
        assert left <= d * math.log1p(math.exp(-SPAN)) + 1e-12, name


def test_the_bound_is_met_within_a_factor_of_two_by_a_point_and_grows_as_d_log_d():
    """One law for every d: what is known for certain, and forgotten site by site."""
    point = laws_of(1)["a point"]
    law = KINDS.enumerated(point, words(1))
    for steps in (10, 100):
        assert 1 < KINDS.bound(1, steps) / KINDS.frozen(law, steps) < 2
    for steps in (100, 1000):
        short = SPAN / 2 / steps
        assert KINDS.bound(3, steps) == pytest.approx(3 * short * (1 - math.log(short)), rel=1e-3)
