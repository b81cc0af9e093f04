"""Uniform noise under Euler: the law comes right at order 1, while the paths keep a distance."""

from __future__ import annotations

from itertools import pairwise

import torch

import reversal as rv
from reversal.core import Leap
from reversal.samplers.euler import needs_bridge

K = 5
STATES = torch.arange(K)
LAW = torch.tensor([0.02, 0.5, 0.08, 0.3, 0.1], dtype=torch.float64)


def divergences(steps):
    """Total variation of the law at 0, and KL(exact paths, Euler's paths), by enumeration."""
    process = rv.Uniform(rv.Categorical(K), rv.LinearSurvival())
    oracle, law, paths = rv.Enumerated(process, LAW), torch.full((K,), 1 / K).double(), 0.0
    for t, s in pairwise(process.grid(steps).ticks()):
        estimate = oracle(STATES, t)
        exact = process.ancestor(STATES, t, s, estimate).leap.law(STATES).double()
        rates = process.increment(STATES, t, s).reversal(estimate.score).rates
        bridged = needs_bridge(process, t, s, starts=True)
        ours = exact if bridged else Leap.of_rates(rates).law(STATES).double()
        q_t = (1 - t.time) * LAW + t.time / K
        paths += float((q_t[:, None] * exact * (exact / ours).log()).sum())
        law = law @ ours
    return float((law - LAW).abs().sum() / 2), paths


def floor(steps):
    r"""The same KL of resampling alone: step k from t = 1 jumps too often.

    The exact reversal jumps with probability (K - 1) / K / (k + 1), Euler's rates give
    1 - exp(-(K - 1) / (K k)).
    """
    k = torch.arange(1, steps, dtype=torch.float64)
    exact, ours = (K - 1) / K / (k + 1), -torch.expm1(-(K - 1) / (K * k))
    stay = (1 - exact) * ((1 - exact) / (1 - ours)).log()
    return float((exact * (exact / ours).log() + stay).sum())


def test_the_law_is_of_order_one_and_the_paths_keep_a_distance():
    """Early steps resample what is noise anyway, at the wrong rate: no state shows it."""
    laws, paths = zip(*[divergences(steps) for steps in (40, 80, 160)], strict=True)
    assert 1.8 < laws[0] / laws[1] < 2.2
    assert 1.8 < laws[1] / laws[2] < 2.2
    assert laws[2] < 2e-3
    assert abs(paths[2] / floor(160) - 1) < 0.01
    assert abs(floor(160) / floor(10_000) - 1) < 1e-3
    assert floor(160) > 0.06
