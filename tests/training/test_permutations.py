"""Permutations that are computed: bijections, and as random as stored ones."""

import math

import pytest
import torch

from reversal.training import permutations
from reversal.training.batches import Batches
from reversal.training.permutations import Feistel, permutation

FAILURE = 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4097, 65_537])
def test_each_number_stands_at_one_place(size):
    found = Feistel.draw(size, torch.Generator().manual_seed(size))[:]
    assert torch.equal(found.sort().values, torch.arange(size))


def test_a_slice_is_a_part_of_the_whole():
    drawn = Feistel.draw(1000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[100:900], drawn[:][100:900])
    places = torch.tensor([999, 0, 500])
    assert torch.equal(drawn[places], drawn[:][places])


def test_large_sizes_stay_in_range_and_without_repeats():
    size = 10**12 + 39
    found = Feistel.draw(size, torch.Generator().manual_seed(0))[10**11 : 10**11 + 10_000]
    assert bool(((found >= 0) & (found < size)).all())
    assert len(found.unique()) == len(found)


def test_all_places_are_equally_likely():
    """Chi-square of what stands at a place, over keys; and of the rise to the next place."""
    size, draws = 13, 2_600
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack([Feistel.draw(size, generator)[:] for _ in range(draws)])
    for values in (rows[:, 0], rows[:, 7], (rows[:, 5] - rows[:, 4]) % size):
        counts = torch.bincount(values, minlength=size).double()
        counts = counts[counts > 0]
        expected = draws / len(counts)
        statistic = float(((counts - expected) ** 2 / expected).sum())
        tail = torch.special.gammaincc(
            torch.tensor((len(counts) - 1) / 2.0, dtype=torch.float64),
            torch.tensor(statistic / 2, dtype=torch.float64),
        )
        assert len(counts) >= size - 1
        assert float(tail) > FAILURE / 3


def test_neighbors_are_uncorrelated():
    """The serial correlation of n random ranks is -1/n, with a standard error of n^(-1/2)."""
    size = 100_003
    found = Feistel.draw(size, torch.Generator().manual_seed(2))[:].double()
    z = (found - found.mean()) / found.std(correction=0)
    for lag in (1, 2, 256, 1024):
        assert abs(float((z[lag:] * z[:-lag]).mean())) * math.sqrt(size) < 4.5


def test_batches_are_the_same_thing_beyond_the_stored_sizes(monkeypatch):
    """Every item is seen once in each turn, and a batch is a function of the step."""
    monkeypatch.setattr(permutations, "MOST_STORED", 10)
    first, second = (Batches(103, 10, torch.Generator().manual_seed(5)) for _ in range(2))
    seen = torch.cat([first.at(step) for step in range(103)])
    for turn in seen.split(103):
        assert torch.equal(turn.sort().values, torch.arange(103))
    assert torch.equal(second.at(57), first.at(57))


def test_small_ones_are_stored():
    generator, again = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(permutation(50, generator), torch.randperm(50, generator=again))
