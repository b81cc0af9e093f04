"""Bad input gets a sentence before any work starts, and what is legal at the edges is finite."""

from __future__ import annotations

import pytest
import torch

import reversal as rv


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> rv.GaussianData:
    process = rv.Gaussian(rv.Euclidean(2), rv.Cosine())
    return rv.GaussianData(process, torch.zeros(2), torch.eye(2))


def tokens(process: rv.core.Process) -> rv.Empirical:
    law = torch.tensor([0.7, 0.2, 0.1])
    return rv.Empirical(process, torch.arange(3), law)


PAIR = rv.Independent(a=rv.Gaussian(rv.Euclidean(2)), b=rv.Mask(rv.Categorical(3)))
STATE = {"a": torch.zeros(5, 2), "b": torch.zeros(5, dtype=torch.int64)}


def both() -> rv.Empirical:
    return rv.Empirical(PAIR, STATE)


def wide(x_t, t, cond):
    return torch.zeros(len(x_t), 4)


MIXTURE = rv.MixedClocks
REFUSED = {
    "time as a number": (
        lambda: gaussian().process.kernel(torch.zeros(3, 2), 0.5),
        rv.ClockError,
        "torch.full",
    ),
    "time beyond noise": (
        lambda: gaussian().process.kernel(torch.zeros(3, 2), torch.full((3,), 1.5)),
        rv.ClockError,
        r"within \[0, 1\]",
    ),
    "sites of another shape": (
        lambda: gaussian().process.kernel(torch.zeros(3, 2), torch.zeros(3, 5)),
        rv.ClockError,
        "one per site",
    ),
    "start of another size": (
        lambda: rv.Heun().sample(gaussian(), 5, x_1=torch.zeros(3, 2)),
        rv.SpaceError,
        "5 items, got 3",
    ),
    "factors of unequal size": (
        lambda: rv.Empirical(PAIR, {**STATE, "b": STATE["b"][:3]}),
        rv.SpaceError,
        "as many items",
    ),
    "a factor left out": (
        lambda: PAIR.kernel({"a": STATE["a"]}, torch.full((5,), 0.5)),
        rv.SpaceError,
        "without `b`",
    ),
    "evidence that is text": (
        lambda: rv.Euler().sample(both(), 2, given={"b": "cat"}),
        rv.SpaceError,
        "as numbers",
    ),
    "half a step": (lambda: rv.Euler().sample(gaussian(), 2, steps=2.5), rv.ClockError, "integer"),
    "half an item": (lambda: rv.Euler().sample(gaussian(), 2.5), rv.SpaceError, "integer"),
    "a grid for one factor": (
        lambda: rv.Euler().sample(both(), 2, grid={"a": rv.Grid.uniform(3)}),
        rv.ClockError,
        "per factor",
    ),
    "a bound without last step": (
        lambda: rv.elbo(gaussian(), torch.zeros(3, 2), last_time=0.0),
        rv.ClockError,
        "last time",
    ),
    "a bound without draws": (
        lambda: rv.elbo(gaussian(), torch.zeros(3, 2), num_samples=0),
        rv.ClockError,
        "num_samples",
    ),
    "output too wide": (
        lambda: rv.NetworkDenoiser(wide, rv.Mask(rv.Categorical(3)))(
            torch.zeros(5, dtype=torch.int64), torch.full((5,), 0.5)
        ),
        rv.SpaceError,
        "without the mask",
    ),
    "noise where no signal is left": (
        lambda: rv.Ancestral().sample(
            rv.NetworkDenoiser(
                lambda x, t, c: x, rv.Gaussian(rv.Euclidean(2), rv.Rectified()), rv.Noise()
            ),
            3,
            generator=seeded(),
        ),
        rv.CapabilityError,
        "Velocity",
    ),
    "a mask that something survives": (
        lambda: rv.Mask(rv.Categorical(3), rv.ExponentialSurvival()),
        rv.ClockError,
        "CosineSurvival",
    ),
    "a schedule of another kind": (
        lambda: rv.Gaussian(rv.Euclidean(2), rv.LinearSurvival()),
        rv.ClockError,
        "signal schedule",
    ),
    "a negative schedule": (lambda: rv.VariancePreserving(-1, -2), rv.ClockError, "positive"),
    "a space without a name": (lambda: rv.Product(rv.SO3()), rv.SpaceError, "named"),
    "a path without a name": (
        lambda: rv.Independent(rv.Brownian(rv.SO3())),
        rv.SpaceError,
        "named",
    ),
    "a coupling as text": (
        lambda: rv.Interpolant(rv.Euclidean(2), "paired"),
        rv.SpaceError,
        "coupling",
    ),
    "a chain of reals": (
        lambda: rv.Chain(rv.Euclidean(2), [torch.eye(2)]),
        rv.SpaceError,
        "Categorical",
    ),
    "an empty mixture": (lambda: MIXTURE([]), rv.ClockError, "pairs"),
    "shares above one": (
        lambda: rv.FactorClocks(known=2.0, dropped=-1.0),
        rv.ClockError,
        "probabilities",
    ),
    "negative guidance": (lambda: rv.ClassifierFree(gaussian(), -1.0), rv.CapabilityError, ">= 0"),
    "an indefinite covariance": (
        lambda: rv.GaussianData(gaussian().process, torch.zeros(2), -torch.eye(2)),
        rv.SpaceError,
        "positive definite",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_a_sentence(name):
    call, kind, said = REFUSED[name]
    with pytest.raises(kind, match=said):
        call()


def test_an_estimate_is_immutable():
    estimate = gaussian()(torch.zeros(2, 2), torch.full((2,), 0.5))
    with pytest.raises(AttributeError, match="no change"):
        estimate.value = torch.ones(2, 2)


def test_a_bound_takes_a_float32_network(global_seed):
    network = torch.nn.Linear(3, 2)
    denoiser = rv.NetworkDenoiser(
        lambda x, t, c: network(torch.cat([x, t[:, None]], 1)),
        rv.Gaussian(rv.Euclidean(2)),
        rv.Velocity(),
    )
    bound = rv.elbo(denoiser, torch.zeros(3, 2), num_samples=4, generator=seeded())
    assert torch.isfinite(bound.value).all()


@pytest.mark.parametrize("space", [rv.Torus(1), rv.SO3()], ids=str)
def test_a_long_step_towards_the_data_is_finite_in_float32(space):
    process = rv.Brownian(space)
    atoms = process.prior.sample(3, seeded(1))
    denoiser = rv.Empirical(process, atoms)
    x = process.prior.sample(2000, seeded(2))
    t = torch.rand(2000, generator=seeded(3)) * 0.9 + 0.1
    x_s = rv.Ancestral().step(denoiser, x, t, t * 1e-4, generator=seeded(4))
    assert torch.isfinite(x_s).all()


@pytest.mark.parametrize("sampler", [rv.Euler(), rv.Ancestral()], ids=str)
@pytest.mark.parametrize("kind", [rv.Mask, rv.Uniform])
def test_ratios_on_packed_sites_stay_within_their_own_values(kind, sampler):
    process = kind(rv.Categorical((2, 4)))
    size = process.noisy_space.num_states
    denoiser = rv.NetworkDenoiser(lambda x, t, c: torch.zeros(*x.shape, size), process, rv.Score())
    x = sampler.sample(denoiser, 500, steps=5, generator=seeded())
    assert x.amax(0).tolist() == [1, 3]


@pytest.mark.parametrize("kind", [rv.Mask, rv.Uniform])
def test_guided_posterior_of_full_strength_is_the_posterior_at_the_noise_in_float32(kind):
    process = kind(rv.Categorical(4))
    inner = tokens(process)
    guided = rv.ClassifierFree(inner, 1.0)
    x, t = process.prior.sample(8, seeded()), torch.ones(8)
    assert inner(x, t).value.dtype == torch.float32
    torch.testing.assert_close(
        guided(x, t).posterior.exp().float(), inner(x, t).posterior.exp(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_never_nan_where_a_value_is_ruled_out(strength):
    process = rv.Mask(rv.Categorical(4))
    guided = rv.ClassifierFree(tokens(process), strength)
    x = torch.full((200,), process.mask_index)
    score = guided(x, torch.full((200,), 0.5)).score
    assert not score.isnan().any()
    drawn = rv.Euler().sample(guided, 200, steps=5, generator=seeded())
    assert (drawn < 3).all()


def test_a_product_of_interpolants_takes_both_endpoints():
    space = rv.Euclidean(2)
    process = rv.Independent(
        a=rv.Interpolant(space, rv.Paired()), b=rv.Interpolant(space, rv.Paired())
    )
    x_0 = {"a": torch.zeros(4, 2), "b": torch.ones(4, 2)}
    x_1 = {"a": torch.ones(4, 2), "b": 3 * torch.ones(4, 2)}
    denoiser = rv.NetworkDenoiser(lambda x, t, c: {"a": x_1["a"], "b": 2 * x_1["a"]}, process)
    loss = rv.Regression()(denoiser, x_0, x_1=x_1, generator=seeded())
    assert (loss == 0).all()


def test_a_partial_stop_holds_the_factors_it_names():
    x = PAIR.prior.sample(5, seeded())
    t, s = torch.full((5,), 0.9), torch.full((5,), 0.4)
    x_s = rv.Euler().step(both(), x, t, s, stop={"a": torch.tensor(True)}, generator=seeded(1))
    assert torch.equal(x_s["a"], x["a"])
