"""The conformance suite: it passes every case, and it fails every deliberate mistake.

Each statistical test inside rejects a correct object with probability 1e-4; seeds are those of the
suite's defaults.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import reversal as rv
from reversal.core import Kernel
from reversal.testing import (
    check_process,
    check_sampler,
    check_space,
    require_frequencies,
    require_mean,
    require_uniform,
)
from tests import cases


@pytest.mark.parametrize("space", cases.SPACES, ids=repr)
def test_every_space_conforms(space):
    check_space(space)


@pytest.mark.parametrize("process", [*cases.PROCESSES, *cases.PATHS], ids=repr)
def test_every_process_conforms(process):
    check_process(process)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 200])
@pytest.mark.parametrize("process", [*cases.PROCESSES, *cases.PATHS], ids=repr)
def test_every_process_conforms_at_other_states(process, seed):
    check_process(process, seed=seed)


COUPLES = [
    (rv.Gaussian(rv.Euclidean(2)), cases.SAMPLERS),
    (rv.Gaussian(rv.Euclidean(2), rv.Rectified()), cases.SAMPLERS),
    (rv.Mask(rv.Categorical(3, 4)), cases.SAMPLERS),
    (rv.Uniform(rv.Categorical((2, 3, 5)), rv.ExponentialSurvival()), cases.SAMPLERS),
    (rv.Brownian(rv.Torus(2)), cases.SAMPLERS),
    (rv.Brownian(rv.SO3(2)), cases.SAMPLERS),
    (cases.chain(), [rv.Ancestral()]),
    (cases.mixed(), [rv.Euler(), rv.Ancestral(), rv.Heun(), rv.Multistep(), rv.UniPC(), rv.DEIS()]),
]


@pytest.mark.parametrize(
    ("process", "sampler"),
    [(process, sampler) for process, samplers in COUPLES for sampler in samplers],
    ids=repr,
)
def test_every_sampler_conforms(process, sampler):
    check_sampler(sampler, process, n=1000, steps=50)


@pytest.mark.parametrize("sampler", [rv.Euler(), rv.Heun()], ids=repr)
def test_a_sampler_that_needs_a_generator_refuses_a_chain(sampler):
    with pytest.raises(rv.CapabilityError):
        check_sampler(sampler, cases.chain())


class Altered(Kernel):
    """A kernel with some of its answers replaced."""

    def __init__(self, kernel: Kernel, **changes: Any) -> None:
        self.kernel, self.changes = kernel, changes

    def sample(self, generator: Any = None) -> Any:
        return self.changes.get("sample", self.kernel.sample)(generator)

    def site_log_prob(self, x: Any) -> Any:
        return self.changes.get("site_log_prob", self.kernel.site_log_prob)(x)

    def target(self, kind: Any, x_t: Any) -> Any:
        return self.changes.get("target", self.kernel.target)(kind, x_t)


def with_kernel(process: Any, method: str, change: Any) -> Any:
    """The process with ``method`` returning a kernel altered by ``change(kernel) -> dict``."""
    original = getattr(process, method)
    setattr(process, method, lambda *a: Altered(kernel := original(*a), **change(kernel)))
    return process


def with_generator(process: Any, change: Any) -> Any:
    """The process with its forward generator changed."""
    original = process.forward
    process.forward = lambda x, t: change(original(x, t))
    return process


def flipped(kernel: Kernel) -> dict[str, Any]:
    return {"target": lambda kind, x: -kernel.target(kind, x)}


def wider(kernel: Any) -> dict[str, Any]:
    """Draws with a standard deviation 10 % too large, at the right mean."""
    return {"sample": lambda g: kernel.mean + 1.1 * (kernel.sample(g) - kernel.mean)}


def narrower_density(kernel: Any) -> dict[str, Any]:
    return {"site_log_prob": lambda x: type(kernel)(kernel.mean, 0.9 * kernel.std).site_log_prob(x)}


def lighter(kernel: Kernel) -> dict[str, Any]:
    return {"site_log_prob": lambda x: kernel.site_log_prob(x) - 1e-6}


def doubled_rates(law: Any) -> Any:
    return rv.Generator(jumps=replace(law.jumps, rate=2 * law.jumps.rate))


def doubled_covariance(law: Any) -> Any:
    return rv.Generator(law.drift, 2 * law.covariance, lift=law.lift)


def flipped_drift(law: Any) -> Any:
    return rv.Generator(-law.drift, law.covariance, lift=law.lift)


def wrong_conversion(process: Any) -> Any:
    original = process.conversion

    def conversion(source: Any, target: Any) -> Any:
        rule = original(source, target)
        if (source, target) != (rv.Kind.NOISE, rv.Kind.CLEAN) or rule is None:
            return rule
        return lambda value, x_t, t: rule(value, x_t, t) + 1e-6

    process.conversion = conversion
    return process


def forged_conversion(process: Any) -> Any:
    original = process.conversion

    def conversion(source: Any, target: Any) -> Any:
        if target is rv.Kind.SCORE and source is rv.Kind.POSTERIOR:
            return lambda value, x_t, t: original(source, target)(value, x_t, t).mul(2)
        return original(source, target)

    process.conversion = conversion
    return process


def wrong_elapsed(process: Any) -> Any:
    original = process.elapsed
    process.elapsed = lambda s, t: original(s, t) ** 2
    return process


def wrong_increment(process: Any) -> Any:
    original = process.forward
    process.increment = lambda x, t, s: original(x, t)
    return process


def gaussian() -> Any:
    return rv.Gaussian(rv.Euclidean(2))


def uniform() -> Any:
    return rv.Uniform(rv.Categorical((2, 3)))


def torus() -> Any:
    return rv.Brownian(rv.Torus(2))


MISTAKES = [
    (lambda: with_kernel(gaussian(), "kernel", flipped), "score = gradient"),
    (lambda: with_kernel(torus(), "kernel", flipped), "score = gradient"),
    (lambda: with_kernel(uniform(), "kernel", flipped), "score = log-ratio"),
    (lambda: with_kernel(gaussian(), "kernel", lighter), "total mass|Bayes|Chapman"),
    (lambda: with_kernel(uniform(), "kernel", lighter), "total mass"),
    (lambda: with_kernel(gaussian(), "transition", narrower_density), "Bayes|Chapman"),
    (lambda: with_kernel(gaussian(), "bridge", narrower_density), "Bayes|bridge score"),
    (lambda: with_kernel(gaussian(), "bridge", wider), "bridge.*standard errors|bridge.*off"),
    (lambda: with_generator(gaussian(), doubled_covariance), "forward equation"),
    (lambda: with_generator(gaussian(), flipped_drift), "forward equation"),
    (lambda: with_generator(torus(), doubled_covariance), "forward equation"),
    (lambda: with_generator(uniform(), doubled_rates), "forward equation"),
    (lambda: with_generator(rv.Mask(rv.Categorical(3)), doubled_rates), "forward equation"),
    (lambda: wrong_conversion(gaussian()), "clean = E|conversion"),
    (lambda: forged_conversion(uniform()), "Fisher"),
    (lambda: wrong_elapsed(torus()), "elapsed"),
    (lambda: wrong_elapsed(uniform()), "elapsed"),
    (lambda: wrong_increment(torus()), "increment"),
    (lambda: rv.Uniform(rv.Categorical(5), rv.ExponentialSurvival(1.0)), "prior"),
    (lambda: torus_of_short_time(), "prior"),
]


def torus_of_short_time() -> Any:
    return rv.Brownian(rv.Torus(2), rv.QuadraticVariance(2.0))


@pytest.mark.parametrize(("make", "sentence"), MISTAKES)
def test_a_mistake_is_found_and_named(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_process(make())


def test_a_mistake_in_one_factor_of_a_product_is_found():
    wrong = with_generator(rv.Brownian(rv.Torus(1)), doubled_covariance)
    with pytest.raises(AssertionError, match="forward equation"):
        check_process(rv.Independent(word=uniform(), angle=wrong))


class Drifting(rv.core.Sampler):
    """Ancestral sampling that pushes every state a little: a wrong sampler."""

    def check(self, path):
        rv.Ancestral().check(path)

    def advance(self, denoiser, x_t, t, s, cond, stop, generator):
        x = rv.Ancestral().advance(denoiser, x_t, t, s, cond, stop, generator)
        return x + 0.3 * (float(s) > 0)


class Forgetful(rv.core.Sampler):
    """Ancestral sampling that draws from a generator of its own: it does not repeat."""

    def __init__(self):
        self.own = torch.Generator().manual_seed(0)

    def check(self, path):
        rv.Ancestral().check(path)

    def advance(self, denoiser, x_t, t, s, cond, stop, generator):
        return rv.Ancestral().advance(denoiser, x_t, t, s, cond, stop, self.own)


@pytest.mark.parametrize(
    ("make", "sentence"), [(Drifting, "frequencies"), (Forgetful, "equal generators")]
)
def test_a_wrong_sampler_is_found(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_sampler(make(), gaussian(), n=1000, steps=50)


class Leaky(rv.core.Space):
    """The unit interval, whose walks leave it."""

    event_shape = sites = tangent_shape = ()

    def contains(self, x):
        return (x >= 0) & (x <= 1)

    def example(self, n, like):
        return like.new_full((n,), 0.5)

    def move(self, x, v):
        return x + v


def test_a_wrong_space_is_found():
    with pytest.raises((AssertionError, rv.SpaceError)):
        check_space(Leaky())


def test_frequencies_off_by_five_percent_are_rejected_and_true_ones_kept():
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    draws = torch.multinomial(law, 20_000, True, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draws, minlength=3)
    require_frequencies(counts, law, of="draws")
    with pytest.raises(AssertionError, match="frequencies off"):
        require_frequencies(counts, torch.tensor([0.475, 0.315, 0.21]), of="draws")
    with pytest.raises(AssertionError, match="probability zero"):
        require_frequencies(counts, torch.tensor([0.7, 0.3, 0.0]), of="draws")


def test_a_rare_cell_of_frequencies_is_pooled_and_still_seen():
    law = torch.tensor([1 - 1e-4, 5e-5, 5e-5])
    require_frequencies(torch.tensor([3999, 1, 0]), law, of="draws")
    with pytest.raises(AssertionError, match="frequencies off"):
        require_frequencies(torch.tensor([99_900, 100, 0]), law, of="draws")


def test_distributions_and_means_are_told_apart():
    u = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    require_uniform(u, of="u")
    require_mean(u, 0.5, of="u")
    with pytest.raises(AssertionError, match="Kolmogorov"):
        require_uniform(u**1.15, of="u")
    with pytest.raises(AssertionError, match="standard errors"):
        require_mean(u, 0.53, of="u")
