"""Chains whose states do not lead to one another are refused, and what is looked at is known."""

from __future__ import annotations

import time

import pytest
import torch

import reversal as rv
from reversal.core import DenseJumps, Prior
from reversal.operators import Local
from reversal.processes.irreducible import require_irreducible

APART = r"irreducible chain, but no path leads from state {} to state {}:"


class Around(Prior):
    """Standard normal real factors, uniform codes; at most ``most`` draws are allowed."""

    def __init__(self, space, most=4096):
        self.space, self.most = space, most

    def sample(self, n, generator=None, like=None):
        assert n <= self.most
        named = self.space.factors or {"": self.space}
        drawn = {name: self._one(part, n, generator) for name, part in named.items()}
        return drawn if self.space.factors else drawn[""]

    def _one(self, part, n, generator):
        if part.is_real:
            return torch.randn((n, *part.event_shape), generator=generator)
        high = getattr(part, "num_states", 3)
        return torch.randint(high, (n, *part.event_shape), generator=generator)

    def site_log_prob(self, x):
        raise AssertionError("asked for")


def looked_at(space, generator):
    require_irreducible(Local(space, generator), Around(space))


def refused(space, rates, one, other):
    with pytest.raises(rv.CapabilityError, match=APART.format(one, other)):
        looked_at(space, rates)


def table(rates):
    return rv.Generator(jumps=DenseJumps(rates))


def steps(x, size, ends):
    """One up, around or up to the last state."""
    to = (x + 1).clamp(max=size - 1) if ends else (x + 1) % size
    return table(torch.zeros(len(x), size).scatter(1, to[:, None], 1.0))


def test_a_ring_passes_and_a_line_does_not():
    """900 states with one rate each; the pair is the last state and the first."""
    looked_at(rv.Categorical(900), lambda x: steps(x, 900, False))
    refused(rv.Categorical(900), lambda x: steps(x, 900, True), 899, 0)


def test_sites_are_looked_at_jointly():
    """Either bit flips while the other is 0: (1, 1) is never reached, though every bit is."""

    def rates(x):
        return table((x.flip(1) == 0).double()[..., None].expand(-1, 2, 2))

    refused(rv.Categorical(2, 2), rates, r"\[0, 0\]", r"\[1, 1\]")


def test_factors_are_looked_at_jointly():
    """A ring of letters that turns while the bits do not agree, and the same without that."""
    space = rv.Product(letter=rv.Categorical(3), bits=rv.Categorical((2, 4)))

    def rates(x, free):
        moves = free | (x["bits"][:, 0] > 0)
        letter = steps(x["letter"], 3, False).rates * moves[:, None]
        return {"letter": table(letter), "bits": table(torch.ones(len(letter), 2, 4) * free)}

    looked_at(space, lambda x: rates(x, True))
    with pytest.raises(rv.CapabilityError, match=r"{'letter': 0, 'bits': \[0, 0\]}"):
        looked_at(space, lambda x: rates(x, False))


def counts(x, down, up):
    return table(torch.stack((down.double() * x, up.double()), -1))


def test_counts_that_fall_apart_are_refused_and_those_that_die_out_are_not():
    """{0, ..., 7} and {8, ...} that never mix; immigration; pure death and birth; a stop at 30."""
    space = rv.Counts()
    refused(space, lambda x: counts(x, x != 8, x != 7), 0, 8)
    for rates in (
        lambda x: counts(x, x >= 0, x >= 0),
        lambda x: counts(x, x >= 0, x < 0),
        lambda x: counts(x, x < 0, x >= 0),
        lambda x: counts(x, x >= 0, x < 30),
    ):
        looked_at(space, rates)


def test_what_takes_too_many_numbers_is_not_looked_at():
    """Not one call of the generator, no draw of the prior, and no time."""

    def generator(x):
        raise AssertionError("called")

    begun = time.monotonic()
    for space in (
        rv.Categorical(27, 1000),
        rv.Counts(64),
        rv.Euclidean(1, 128, 128),
        rv.Product(a=rv.Euclidean(1), b=rv.Categorical(27, 1000)),
    ):
        require_irreducible(Local(space, generator), Around(space, 0))
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("stuck", [0.0, 1.0])
def test_a_large_chain_is_asked_for_a_way_out_of_what_the_prior_draws(stuck):
    """40 bits that flip where they are not all alike, or always: 2^40 states, and a 7 % chance."""
    space = rv.Categorical(2, 40)

    def rates(x):
        is_first = x[:, :3].sum(1) == 0
        rate = torch.where(is_first, 1 - stuck, 1.0)
        return table(rate[:, None, None].expand(-1, 40, 2))

    if stuck:
        with pytest.raises(rv.CapabilityError, match=r"no rate leads .* begins with \[0, 0, 0, "):
            looked_at(space, rates)
    else:
        looked_at(space, rates)


def switching(gate):
    """A place that diffuses, and a label 0, 1, 2 that goes around while the gate is open."""

    def generator(x):
        place, label = x["place"], x["label"]
        turn = steps(label, 3, False).rates * gate(place[:, 0], label)[:, None]
        return {
            "place": rv.Generator(-place, torch.ones_like(place)),
            "label": table(turn),
        }

    return rv.Product(place=rv.Euclidean(1), label=rv.Categorical(3)), generator


def test_jumps_beside_a_diffusion_are_looked_at_where_the_prior_is():
    """Each label may leave on another side, in the outer 2 % of the prior; or 2 never does."""
    looked_at(*switching(lambda place, label: (place > 2.0) == (label == 1)))
    looked_at(*switching(lambda place, label: place.abs() > 2.3))
    closed = switching(lambda place, label: (label < 2) & (place > 0))
    with pytest.raises(rv.CapabilityError, match=r"'label': 2} to state .* at whatever draw"):
        looked_at(*closed)


def test_counts_beside_a_diffusion_are_looked_at():
    """As counts alone: parts that never mix are refused, a pure death process is not."""
    space = rv.Product(place=rv.Euclidean(1), number=rv.Counts())

    def beside(down, up):
        def generator(x):
            n, place = x["number"], x["place"]
            opened = (place[:, 0] > 0).double()
            return {
                "place": rv.Generator(covariance=torch.ones_like(place)),
                "number": table(counts(n, down(n), up(n)).rates * opened[:, None]),
            }

        return generator

    looked_at(space, beside(lambda n: n >= 0, lambda n: n >= 0))
    looked_at(space, beside(lambda n: n >= 0, lambda n: n < 0))
    with pytest.raises(rv.CapabilityError, match=r"'number': 0} to state {'number': 8}"):
        looked_at(space, beside(lambda n: n != 8, lambda n: n != 7))


def test_a_real_site_that_never_moves_is_refused():
    """The second entry rests; it drifts by the first; it diffuses alone; the mean is pulled."""
    space, half = rv.Euclidean(2), torch.tensor([1.0, 0.0])
    with pytest.raises(rv.CapabilityError, match=r"site \[1\] of Euclidean\(2\) neither drifts"):
        looked_at(space, lambda x: rv.Generator(-x * half, half.expand_as(x)))
    looked_at(space, lambda x: rv.Generator(x.flip(1), half.expand_as(x)))
    looked_at(space, lambda x: rv.Generator(covariance=1.0))
    looked_at(space, lambda x: rv.Generator(x * half, 1 - half.expand_as(x)))
    turns = rv.Generator(covariance=torch.diag(torch.tensor([1.0, 0.0, 1.0])), lift=1)
    looked_at(rv.SO3(), lambda x: rv.Generator(covariance=turns.covariance.expand(len(x), 3, 3)))


def test_a_process_without_noise_is_refused():
    """A flow; with jumps beside it, it is a piecewise deterministic process, and passes."""
    with pytest.raises(rv.CapabilityError, match="one without noise"):
        looked_at(rv.Euclidean(2), lambda x: rv.Generator(-x, torch.zeros_like(x)))
    space = rv.Product(place=rv.Torus(1), way=rv.Categorical(2))

    def zigzag(x):
        speed = (2.0 * x["way"] - 1)[:, None]
        return {"place": rv.Generator(speed), "way": steps(x["way"], 2, False)}

    looked_at(space, zigzag)


def test_the_process_itself_refuses():
    """`FromGenerator` looks with its own prior."""
    space, rest = rv.Euclidean(2), torch.tensor([1.0, 0.0])
    with pytest.raises(rv.CapabilityError, match="keeps the value it starts from"):
        rv.FromGenerator(
            space, lambda x: rv.Generator(-x * rest, rest.expand_as(x)), rv.Gaussian(space).prior
        )
