"""Numbers stay numbers: no NaN at the ends of time, in any size of alphabet; dtypes and layouts.

Scaled quantities are finite for every t in [0, 1]: the noise on real spaces, and rates times
exponentials of log-ratios on finite sets away from where a rate is infinite by definition.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

import reversal as rv
from reversal import state
from reversal.testing.trial import draw_states
from tests import cases

TIMES = [0.0, 1e-9, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 2.0**-24, 1.0]
SIZES = [2, 27, 256, 50257]
ITEMS = 3
SMALL = [
    *(rv.Gaussian(rv.Euclidean(2), at) for at in cases.SIGNALS),
    *(rv.Brownian(space) for space in (rv.Torus(2), rv.SO3(), rv.SO3(2))),
    *(family(rv.Categorical((2, 3, 5)), at) for family, at in cases.JUMPS),
    cases.mixed(),
]
LARGE = [family(rv.Categorical(size, 2), at) for family, at in cases.JUMPS for size in SIZES]
SAMPLERS = [
    rv.Euler(),
    rv.Euler(churn=0.0),
    rv.Euler(churn=2.0),
    rv.Ancestral(),
    rv.Heun(),
    rv.Multistep(),
    rv.UniPC(),
    rv.DEIS(),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cast(x: Any, dtype: torch.dtype) -> Any:
    return state.map(lambda part: part.to(dtype) if part.is_floating_point() else part, x)


def atoms_of(process: Any, dtype: torch.dtype = torch.float32) -> Any:
    return cast(draw_states(process.space, ITEMS, seeded()), dtype)


def clock(t: float, dtype: torch.dtype = torch.float32, n: int = ITEMS) -> torch.Tensor:
    return torch.full((n,), t, dtype=dtype)


def noised(process: Any, t: float, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Any]:
    atoms = atoms_of(process, dtype)
    x = process.kernel(atoms, clock(t, dtype)).sample(seeded(1))
    return rv.Empirical(process, atoms, torch.ones(ITEMS, dtype=dtype)), atoms, x


def require_numbers(tree: Any, what: str, finite: bool = True) -> None:
    for part in state.leaves(tree):
        if part is not None:
            assert not part.isnan().any(), f"{what} has NaN"
            assert not finite or not part.is_floating_point() or part.isfinite().all(), what


@pytest.mark.parametrize("process", [*SMALL, *LARGE], ids=repr)
def test_samples_posteriors_and_scaled_scores_are_numbers_at_every_time(process):
    for t in TIMES:
        oracle, _, x = noised(process, t)
        require_numbers(x, f"the sample at {t}")
        assert process.noisy_space.contains(x).all()
        estimate = oracle(x, clock(t))
        laws = process.forward(x, clock(t))
        for name in process.factors or [""]:
            path = state.take(process.parts, name)
            own, law = state.take(estimate, name), state.take(laws, name)
            if path.space.is_real:
                require_numbers(own.noise, f"the noise at {t}")
                require_numbers(law.covariance, f"the covariance at {t}")
            else:
                require_numbers(own.posterior, f"the posterior at {t}", finite=False)
                require_numbers(own.posterior.exp(), f"the posterior at {t}")
                require_numbers(law.total, f"the rate at {t}")
                if 0 < t < 1:
                    require_numbers(law.reversal(own.score).rates, f"reversed rates at {t}")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("process", [*SMALL, *LARGE], ids=repr)
def test_steps_between_all_times_are_numbers(process, sampler):
    for s, t in [*pairwise(TIMES), (0.0, 1.0), (1e-9, 1 - 2.0**-24)]:
        oracle, _, x = noised(process, t)
        y = sampler.step(oracle, x, clock(t), clock(s), generator=seeded(2))
        require_numbers(y, f"a step from {t} to {s}")
        assert process.noisy_space.contains(y).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("process", SMALL, ids=repr)
def test_the_dtype_of_the_input_is_the_dtype_of_the_output(process, dtype):
    oracle, atoms, x = noised(process, 0.5, dtype)
    t, s = clock(0.5, dtype), clock(0.25, dtype)
    estimate = oracle(x, t)
    outputs = [
        x,
        estimate.score,
        process.transition(x, s, t.clamp(max=0.75)).sample(seeded()),
        process.bridge(atoms, x, s, t).sample(seeded()),
        process.prior.sample(2, seeded(), oracle.like),
        *(law.drift for law in state.leaves(process.reverse(x, t, estimate.score))),
        *(sampler.step(oracle, x, t, s, generator=seeded()) for sampler in SAMPLERS),
    ]
    for output in outputs:
        for part in state.leaves(output):
            if part is not None and part.is_floating_point():
                assert part.dtype == dtype


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("process", SMALL, ids=repr)
def test_a_batch_of_none_or_one_passes_everywhere(process, n):
    oracle, atoms, x = noised(process, 0.5)
    whole = oracle(x, clock(0.5)).score
    few = state.map(lambda part: part[:n], x)
    some = state.map(lambda part: part[:n], atoms)
    t, s = clock(0.5, n=n), clock(0.25, n=n)
    score = oracle(few, t).score
    for part, other in zip(state.leaves(score), state.leaves(whole), strict=True):
        torch.testing.assert_close(part, other[:n])
    assert process.kernel(some, t).log_prob(few).shape == (n,)
    assert state.batch_size(process.bridge(some, few, s, t).sample(seeded())) == n
    for sampler in SAMPLERS:
        assert state.batch_size(sampler.step(oracle, few, t, s, generator=seeded())) == n


def strided(x: Any) -> Any:
    """The same numbers in another layout: every second row of a larger, transposed array."""

    def one(part: torch.Tensor) -> torch.Tensor:
        wide = torch.stack([part, torch.zeros_like(part)], -1).transpose(0, -1).contiguous()
        return wide.transpose(0, -1)[..., 0]

    return state.map(one, x)


@pytest.mark.parametrize("process", SMALL, ids=repr)
def test_layout_does_not_matter(process):
    oracle, atoms, x = noised(process, 0.5, torch.float64)
    t, s = clock(0.5, torch.float64), clock(0.25, torch.float64)
    assert any(not part.is_contiguous() for part in state.leaves(strided(x))) or ITEMS == 1
    pairs = [
        (oracle(x, t).score, oracle(strided(x), t).score),
        (
            process.kernel(atoms, t).log_prob(x),
            process.kernel(strided(atoms), t).log_prob(strided(x)),
        ),
        *(
            (
                sampler.step(oracle, x, t, s, generator=seeded()),
                sampler.step(oracle, strided(x), t, s, generator=seeded()),
            )
            for sampler in SAMPLERS
        ),
    ]
    for got, expected in pairs:
        for part, other in zip(state.leaves(got), state.leaves(expected), strict=True):
            torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-12)


def by_site(process: Any, t: torch.Tensor) -> Any:
    return state.map(
        lambda part: t[(...,) + (None,) * len(part.sites)].expand(len(t), *part.sites),
        process.space.parts,
    )


@pytest.mark.parametrize("process", SMALL, ids=repr)
def test_a_clock_per_site_that_is_shared_equals_a_shared_clock(process):
    oracle, atoms, x = noised(process, 0.5, torch.float64)
    t, s = clock(0.5, torch.float64), clock(0.25, torch.float64)
    t_site, s_site = by_site(process, t), by_site(process, s)
    score = oracle(x, t).score
    pairs = [
        (score, oracle(x, t_site).score),
        (process.kernel(atoms, t).log_prob(x), process.kernel(atoms, t_site).log_prob(x)),
        (
            process.transition(x, s, t).log_prob(x),
            process.transition(x, s_site, t_site).log_prob(x),
        ),
        (
            process.bridge(atoms, x, s, t).sample(seeded()),
            process.bridge(atoms, x, s_site, t_site).sample(seeded()),
        ),
        *(
            (
                sampler.step(oracle, x, t, s, generator=seeded()),
                sampler.step(oracle, x, t_site, s_site, generator=seeded()),
            )
            for sampler in SAMPLERS
        ),
    ]
    for got, expected in pairs:
        for part, other in zip(state.leaves(got), state.leaves(expected), strict=True):
            torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", SMALL, ids=repr)
def test_ticks_give_the_numbers_of_tensors_of_times(process):
    oracle, atoms, x = noised(process, 0.5, torch.float64)
    tick, later = rv.Grid.uniform(4).ticks()[2:4]
    t, s = clock(0.5, torch.float64), clock(0.25, torch.float64)
    law, law_t = (process.reverse(x, at, oracle(x, at).score) for at in (tick, t))
    pairs = [
        (oracle(x, tick).score, oracle(x, t).score),
        (process.kernel(atoms, tick).log_prob(x), process.kernel(atoms, t).log_prob(x)),
        (process.elapsed(later, tick), process.elapsed(s, t)),
        *(
            (one.drift, other.drift)
            for one, other in zip(state.leaves(law), state.leaves(law_t), strict=True)
            if one.drift is not None
        ),
        *(
            (one.rates, other.rates)
            for one, other in zip(state.leaves(law), state.leaves(law_t), strict=True)
            if one.drift is None
        ),
    ]
    for got, expected in pairs:
        for part, other in zip(numbers(got), numbers(expected), strict=True):
            torch.testing.assert_close(
                torch.as_tensor(part, dtype=torch.float64).expand_as(other), other,
                rtol=1e-12, atol=1e-12,
            )  # fmt: skip


def numbers(tree: Any) -> list[Any]:
    """The numbers of a tree, tuples opened."""
    return [
        leaf
        for part in state.leaves(tree)
        for leaf in (part if isinstance(part, tuple) else (part,))
    ]
