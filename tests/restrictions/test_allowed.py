"""Sets of numbers and codes obey the laws of sets."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reversal.restrictions import Codes, Intervals

ENDS = st.one_of(st.integers(-6, 6).map(float), st.sampled_from([-math.inf, math.inf]))
PAIRS = st.lists(st.tuples(ENDS, ENDS), max_size=4)
WHOLE = np.arange(-8.0, 9.0)
STEPS = st.sampled_from([0.0, 1.0])


def members(intervals, at=WHOLE):
    return intervals.contains(at) if intervals.ends else np.zeros(len(at), bool)


@given(PAIRS, PAIRS)
def test_union_and_intersection_of_whole_numbers_are_those_of_their_members(first, second):
    a, b = Intervals.of(first, 1.0), Intervals.of(second, 1.0)
    assert (members(a.join(b)) == (members(a) | members(b))).all()
    assert (members(a.meet(b)) == (members(a) & members(b))).all()
    assert (members(a.rest()) == ~members(a)).all()
    assert a.rest().rest() == a


@given(PAIRS, PAIRS)
def test_real_sets_obey_the_same_laws_off_their_ends(first, second):
    a, b = Intervals.of(first), Intervals.of(second)
    between = WHOLE[:-1] + 0.5
    assert (members(a.join(b), between) == members(a, between) | members(b, between)).all()
    assert (members(a.meet(b), between) == members(a, between) & members(b, between)).all()
    assert (members(a.rest(), between) == ~members(a, between)).all()


@given(PAIRS, STEPS)
def test_intervals_are_sorted_and_apart(pairs, step):
    found = Intervals.of(pairs, step).ends
    assert all(low <= high for low, high in found)
    assert all(a[1] + step < b[0] for a, b in itertools.pairwise(found))


@given(PAIRS.filter(lambda pairs: Intervals.of(pairs).ends), st.floats(-9, 9))
def test_the_nearest_member_is_a_member_and_none_is_nearer(pairs, number):
    allowed = Intervals.of(pairs)
    at = np.array([number])
    found = allowed.nearest(at)
    fine = np.linspace(-9, 9, 181)
    inside = fine[members(allowed, fine)]
    assert members(allowed, found).all()
    assert members(allowed, at)[0] <= (found == at)[0]
    if len(inside):
        assert abs(found - at)[0] <= abs(inside - number).min() + 1e-12


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_codes_obey_the_laws_of_sets(pairs):
    a, b = (Codes(tuple(column)) for column in zip(*pairs, strict=True))
    assert a.join(b).rest() == a.rest().meet(b.rest())
    assert a.rest().rest() == a
    assert a.meet(a.rest()).is_empty
    assert a.join(a.rest()).is_everything


def test_what_is_empty_null_or_everything_says_so():
    assert Intervals.of([(2, 1)]).is_empty
    assert Intervals.of([]).rest().is_everything
    (_, below), (above, _) = Intervals.of([(1, 1)]).rest().ends
    assert np.float32(below) < 1 < np.float32(above)
    assert above - below < 2e-7
    assert Intervals.of([(1, 1)]).rest().rest() == Intervals.of([(1, 1)])
    assert Intervals.of([(1, 1)], 1.0).rest().ends == ((-math.inf, 0), (2, math.inf))


def test_a_map_keeps_infinite_ends():
    found = Intervals.of([(-math.inf, 1.0), (2.0, math.inf)]).mapped(lambda x: 10 * x)
    assert found.ends == ((-math.inf, 10.0), (20.0, math.inf))
    assert Intervals.of([(1, 1), (3, 4)], 1.0).widened(0.5).ends == ((0.5, 1.5), (2.5, 4.5))


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_touching_intervals_are_one(step):
    assert Intervals.of([(3, 5), (0, 3 - step)], step).ends == ((0, 5),)
