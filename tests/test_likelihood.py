r"""The bound is tight: with the exact denoiser, ELBO + prior gap = log p(x_0), state by state.

.. math:: \log p(x_0) = E\big[\log q_1(x_1) - \log q(x_1 | x_0)\big]
   - \int_\epsilon^1 E[\Phi_t \mid x_0] dt + E[\log p(x_0 | x_\epsilon)] .

Here on finite sets, where expectations are sums over every noisy state; ``test_likelihood_real``
holds the others. The time integral is Gauss-Legendre; the integrand is the library's own
``process.forward(x, t).gap(score, conditional score)``, which ``elbo`` averages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.clocks import spread

TOKENS, PACKED = rv.Categorical(3, 3), rv.Categorical((2, 3, 4))
MIXED = rv.Independent(
    pair=rv.Mask(rv.Categorical(3, 2)),
    last=rv.Uniform(rv.Categorical(3), rv.ExponentialSurvival(1)),
)
FINITE = {
    "mask": (rv.Mask(TOKENS), (3, 3, 3)),
    "uniform": (rv.Uniform(TOKENS), (3, 3, 3)),
    "uniform_exponential": (rv.Uniform(TOKENS, rv.ExponentialSurvival(1)), (3, 3, 3)),
    "mixed_product": (MIXED, (3, 3, 3)),
    "mask_packed": (rv.Mask(PACKED), (2, 3, 4)),
    "uniform_packed": (rv.Uniform(PACKED), (2, 3, 4)),
}
QUESTIONS = ["rkr", "rrd", "krd", "kkr"]
cases = pytest.mark.parametrize("name", FINITE)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(*shape: int) -> Tensor:
    weights = torch.rand(shape, generator=seeded(11), dtype=torch.float64) ** 2 + 0.02
    return weights / weights.sum()


def legendre(nodes: int, low: float = 0.0, high: float = 1.0) -> list[tuple[float, float]]:
    x, w = np.polynomial.legendre.leggauss(nodes)
    half = (high - low) / 2
    return [(low + half * (1 + a), half * b) for a, b in zip(x.tolist(), w.tolist(), strict=True)]


@final
@dataclass(frozen=True)
class Asked:
    """One letter per site, in the order of the factors: r running, k known, d dropped."""

    process: Any
    letters: str

    def masks(self, letter: str) -> Any:
        """Where the letter stands: a mask over the sites, or a dict of them."""
        flags, parts = (
            torch.tensor([own == letter for own in self.letters]),
            self.process.space.parts,
        )
        widths = [math.prod(part.sites) for part in state.leaves(parts)]
        columns = iter(flags.split(widths))
        return state.map(lambda part: next(columns).reshape(part.sites), parts)

    def clock(self, t: Tensor) -> Any:
        """``(B,)`` where every site runs; else t, 0 at known and 1 at dropped sites."""
        if set(self.letters) == {"r"}:
            return t
        return state.map(
            lambda part, k, d: torch.where(k, 0.0, torch.where(d, 1.0, spread(part, t))),
            self.process.space.parts,
            self.masks("k"),
            self.masks("d"),
        )

    def total(self, values: Any, letters: str) -> Tensor:
        """Sum values ``(B, *sites)`` over the sites with these letters."""
        masks = [self.masks(letter) for letter in letters]
        kept = state.map(
            lambda v, *m: state.sum_sites(torch.where(torch.stack(m).any(0), v, 0.0)),
            values,
            *masks,
        )
        return state.total(kept)

    def log_prob(self, law: Tensor) -> Tensor:
        """log p(running | known) of every state, the dropped sites summed out."""
        return self._summed(law, "d") - self._summed(law, "rd")

    def log_known(self, law: Tensor) -> Tensor:
        """log p(known) of every state."""
        return self._summed(law, "rd")

    def _summed(self, law: Tensor, letters: str) -> Tensor:
        axes = [axis for axis, own in enumerate(self.letters) if own in letters]
        return (law.sum(axes, keepdim=True) if axes else law).expand(law.shape).log().flatten()


def every_state(space: Any) -> Any:
    """All states of a finite space, the mask included where there is one."""
    parts = list(state.leaves(space.parts))
    widths = [math.prod(part.sites) for part in parts]
    sizes = [p.num_states for p, width in zip(parts, widths, strict=True) for _ in range(width)]
    codes = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    columns = iter(codes.split(widths, dim=1))
    states = state.map(lambda part: next(columns).reshape(-1, *part.sites), space.parts)
    legal = state.map(lambda part, x: part.contains(x), space.parts, states)
    inside = torch.stack(list(state.leaves(legal))).all(0)
    return state.map(lambda x: x[inside], states)


@final
class Enumeration:
    """Every pair of a state x_0 and a noisy state x_t, the clean one varying slowest."""

    def __init__(self, denoiser: Any, asked: Asked) -> None:
        self.denoiser, self.process, self.asked = denoiser, denoiser.process, asked
        self.noisy = every_state(self.process.noisy_space)
        self.n, self.m = state.batch_size(denoiser.states), state.batch_size(self.noisy)
        self.x_0 = state.map(lambda x: x.repeat_interleave(self.m, 0), denoiser.states)
        self.x_t = self.repeated(self.noisy)

    def repeated(self, tree: Any) -> Any:
        return state.map(lambda x: x.repeat(self.n, *[1] * (x.ndim - 1)), tree)

    def kernel(self, t: float) -> Any:
        return self.process.kernel(self.x_0, self.clock(t, self.n * self.m))

    def log_prob(self, t: float) -> Tensor:
        """log q(x_t | x_0) of every pair; a dropped site holds an independent prior draw."""
        fresh = self.repeated(self.process.prior.site_log_prob(self.noisy))
        kept = self.asked.total(self.kernel(t).site_log_prob(self.x_t), "rk")
        return kept + self.asked.total(fresh, "d")

    def clock(self, t: float, batch: int) -> Any:
        return self.asked.clock(torch.full((batch,), t, dtype=torch.float64))

    def divergence(self, t: float) -> Tensor:
        """E[Phi_t | x_0] for every x_0."""
        score = self.repeated(self.denoiser(self.noisy, self.clock(t, self.m)).score)
        forward = self.process.forward(self.x_t, self.clock(t, self.n * self.m))
        target = self.kernel(t).score(self.x_t)
        gaps = state.map(lambda law, s, r: law.gap(s, r), forward, score, target)
        prob, rate = self.log_prob(t).exp(), self.asked.total(gaps, "r")
        return torch.where(prob > 0, prob * rate, 0.0).view(self.n, self.m).sum(1)

    def prior_terms(self, law: Tensor) -> tuple[Tensor, Tensor]:
        """E[log q_1 - log q(x_1 | x_0) | x_0] and the prior gap E[log q_1 - log prior | x_0]."""
        logs = self.log_prob(1.0).view(self.n, self.m)
        log_q = (logs + law.flatten().log()[:, None]).logsumexp(0)
        log_q = log_q - self.asked.log_known(law)[:, None]
        prior = self.asked.total(self.process.prior.site_log_prob(self.noisy), "rd")
        possible = (logs > -torch.inf) & (prior > -torch.inf)
        tight = torch.where(logs > -torch.inf, logs.exp() * (log_q - logs), 0.0)
        gap = torch.where(possible, logs.exp() * (log_q - prior), 0.0)
        return tight.sum(1), gap.sum(1)

    def bound(self, law: Tensor, nodes: int = 40) -> Tensor:
        """ELBO plus prior gap of every x_0; t = u^2."""
        rate = sum(2 * u * w * self.divergence(u * u) for u, w in legendre(nodes))
        return self.prior_terms(law)[0] - rate


@cases
def test_bound_plus_prior_gap_is_the_log_probability_of_every_sequence(name):
    process, shape = FINITE[name]
    law, asked = table(*shape), Asked(process, "rrr")
    bound = Enumeration(rv.Enumerated(process, law), asked).bound(law)
    torch.testing.assert_close(bound, asked.log_prob(law), atol=1e-5, rtol=0)


@pytest.mark.parametrize("letters", QUESTIONS)
@pytest.mark.parametrize("name", ["mask", "uniform_exponential", "mixed_product"])
def test_bound_of_a_part_given_a_part_is_tight(name, letters):
    process, shape = FINITE[name]
    law, asked = table(*shape), Asked(process, letters)
    bound = Enumeration(rv.Enumerated(process, law), asked).bound(law)
    torch.testing.assert_close(bound, asked.log_prob(law), atol=1e-5, rtol=0)


def elbo_errors(name: str, letters: str, copies: int) -> tuple[Tensor, Tensor, Tensor]:
    """ELBO + prior gap - log p of every state, its standard error, and p; 256 x ``copies`` draws.

    Rare early corruptions give the draws a heavy tail (their third moment diverges under t = u^2),
    so that it takes some 10^4 of them until four standard errors mean what they say.
    """
    process, shape = FINITE[name]
    law, asked = table(*shape), Asked(process, letters)
    denoiser = rv.Enumerated(process, law)
    x = state.map(lambda part: part.repeat(copies, *[1] * (part.ndim - 1)), denoiser.states)
    given = asked.masks("k") if "k" in letters else None
    observed = state.map(lambda mask: ~mask, asked.masks("d")) if "d" in letters else None
    result = rv.elbo(denoiser, x, given, observed, num_samples=256, generator=seeded(1))
    value = result.value.view(copies, -1).mean(0)
    stderr = (result.stderr.view(copies, -1) ** 2).mean(0).sqrt() / copies**0.5
    gap = Enumeration(denoiser, asked).prior_terms(law)[1]
    return value + gap - asked.log_prob(law), stderr, law.flatten()


@pytest.mark.parametrize(
    "name",
    [
        *("mask", "uniform", "mixed_product"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("uniform_exponential", "mask_packed", "uniform_packed")
        ),
    ],
)
def test_elbo_plus_prior_gap_is_within_four_standard_errors_of_every_sequence(name):
    error, stderr, law = elbo_errors(name, "rrr", copies=64)
    assert (error.abs() < 4 * stderr).all()
    assert (law * error).sum().abs() < 4 * (law * stderr).norm() < 0.1


@pytest.mark.parametrize("letters", ["rkr", "rrd", "krd"])
@pytest.mark.parametrize("name", ["mask", "uniform", "mixed_product"])
def test_elbo_of_a_part_given_a_part_is_within_four_standard_errors(name, letters):
    error, stderr, law = elbo_errors(name, letters, copies=16)
    assert (law * error).sum().abs() < 4 * (law * stderr).norm() < 0.1
    assert error.mean().abs() < 4 * stderr.norm() / len(law) < 0.1


def test_a_missing_entry_does_not_change_the_bound():
    process, law = rv.Uniform(TOKENS), table(3, 3, 3)
    denoiser, observed = rv.Enumerated(process, law), torch.tensor([True, True, False])
    x = denoiser.states[::3]
    values = [
        rv.elbo(denoiser, part, observed=observed, num_samples=4, generator=seeded(3)).value
        for part in (x, torch.where(observed, x, (x + 1) % 3))
    ]
    assert torch.equal(*values)


def absorbing_chain(steps: int) -> rv.Chain:
    """Masking at equal hazard: after k of T steps a token is hidden with probability k/T."""
    kernels = []
    for k in range(1, steps + 1):
        hidden = 1 / (steps - k + 1)
        kernel = torch.eye(4, dtype=torch.float64) * (1 - hidden)
        kernel[:, 3] += hidden
        kernels.append(kernel)
    return rv.Chain(rv.Categorical(4, 3), kernels)


def discrete_bound(process: Any, denoiser: Any, law: Tensor, steps: int) -> float:
    r"""Minus the bound in T steps, :math:`\sum_k E\, KL(q(x_s | x_t, x_0) \| p(x_s | x_t))`."""
    x_0, noisy = every_state(TOKENS), every_state(rv.Categorical(4, 3))
    ends, x_t = x_0.repeat_interleave(len(noisy), 0), noisy.repeat(len(x_0), 1)
    total = torch.zeros(())
    for k in range(1, steps + 1):
        clocks = [torch.full((len(ends),), j / steps, dtype=torch.float64) for j in (k - 1, k)]
        s, t = clocks
        prob = process.kernel(ends, t).log_prob(x_t).exp()
        target = process.bridge(ends, x_t, s, t).leap.law(x_t)
        model = process.ancestor(x_t, t, s, denoiser(x_t, t)).leap.law(x_t)
        ratio = torch.where(target > 0, target * (target.log() - model.log()), 0.0)
        cost = torch.where(prob > 0, prob * ratio.sum((1, 2)), 0.0).view(len(x_0), len(noisy))
        total = total + (law.flatten() * cost.sum(1)).sum()
    return float(total)


def chain_bound(law: Tensor, steps: int) -> float:
    chain = absorbing_chain(steps)
    padded = torch.nn.functional.pad(law, (0, 1, 0, 1, 0, 1))
    return discrete_bound(chain, rv.Enumerated(chain, padded), law, steps)


def test_discrete_time_mask_bound_decreases_to_the_entropy():
    law = table(3, 3, 3)
    entropy = -(law * law.log()).sum().item()
    margins = [
        -(m * m.log()).sum().item() for m in (law.sum((1, 2)), law.sum((0, 2)), law.sum((0, 1)))
    ]
    bounds = {steps: chain_bound(law, steps) for steps in (1, 4, 16, 64)}
    assert bounds[1] == pytest.approx(sum(margins), abs=1e-9)
    assert bounds[1] > bounds[4] > bounds[16] > bounds[64] > entropy
    excess = [steps * (bounds[steps] - entropy) for steps in (16, 64)]
    assert excess[1] == pytest.approx(excess[0], rel=0.05)


@pytest.mark.parametrize("steps", [1, 4])
def test_mask_at_grid_times_is_the_absorbing_chain(steps):
    law, mask = table(3, 3, 3), rv.Mask(TOKENS)
    bound = discrete_bound(mask, rv.Enumerated(mask, law), law, steps)
    assert bound == pytest.approx(chain_bound(law, steps), abs=1e-6)


def test_elbo_refuses_a_chain_and_a_question_outside_the_clock_law():
    law = table(3, 3, 3)
    chain = absorbing_chain(4)
    padded = torch.nn.functional.pad(law, (0, 1, 0, 1, 0, 1))
    with pytest.raises(rv.CapabilityError, match=r"generator .* Use a Markov"):
        rv.elbo(rv.Enumerated(chain, padded), torch.zeros(1, 3, dtype=torch.int64))
    shared = rv.NetworkDenoiser(lambda x, t, cond: x, rv.Mask(TOKENS))
    with pytest.raises(rv.ClockError, match=r"SharedClock .* SiteClocks"):
        rv.elbo(shared, torch.zeros(1, 3, dtype=torch.int64), torch.tensor([True, False, False]))
    with pytest.raises(rv.SpaceError, match="item 0 does not"):
        rv.elbo(rv.Enumerated(rv.Mask(TOKENS), law), torch.full((1, 3), 3))
