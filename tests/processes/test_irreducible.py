"""Chains whose states do not lead to one another are refused, and what is looked at is known."""

from __future__ import annotations

import time

import pytest
import torch

import reversal as rv
from reversal.core import DenseJumps
from reversal.operators import Local
from reversal.processes.irreducible import require_irreducible

APART = r"irreducible chain, but no path leads from state {} to state {}:"


def refused(space, rates, one, other):
    with pytest.raises(rv.CapabilityError, match=APART.format(one, other)):
        require_irreducible(Local(space, rates))


def table(rates):
    return rv.Generator(jumps=DenseJumps(rates))


def steps(x, size, ends):
    """One up, around or up to the last state."""
    to = (x + 1).clamp(max=size - 1) if ends else (x + 1) % size
    return table(torch.zeros(len(x), size).scatter(1, to[:, None], 1.0))


def test_a_ring_passes_and_a_line_does_not():
    """900 states with one rate each; the pair is the last state and the first."""
    require_irreducible(Local(rv.Categorical(900), lambda x: steps(x, 900, False)))
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

    require_irreducible(Local(space, lambda x: rates(x, True)))
    with pytest.raises(rv.CapabilityError, match=r"{'letter': 0, 'bits': \[0, 0\]}"):
        require_irreducible(Local(space, lambda x: rates(x, False)))


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
        require_irreducible(Local(space, rates))


def test_larger_spaces_are_not_looked_at():
    """Not one call of the generator, and no time; real factors neither."""

    def generator(x):
        raise AssertionError("called")

    begun = time.monotonic()
    for space in (
        rv.Categorical(27, 256),
        rv.Categorical(1001),
        rv.Product(a=rv.Euclidean(1), b=rv.Categorical(2)),
        rv.Counts(64),
    ):
        require_irreducible(Local(space, generator))
    assert time.monotonic() - begun < 1
