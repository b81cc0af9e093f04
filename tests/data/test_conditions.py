"""Conditions on the columns of a table: which cells they stand for, and what they refuse."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reversal as rv
from reversal.data.conditions import Between, Equal, Every, Not, condition_of
from reversal.data.rows import TableSource
from reversal.data.scales import scale_of
from reversal.data.table import TableCodec
from reversal.errors import DataError

N = 600


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 91, N),
            "even": 2 * rng.integers(0, 50, N),
            "price": rng.gamma(2, 20, N).round(2),
            "weight": rng.normal(size=N),
            "job": rng.choice(["cook", "smith", "clerk"], N),
            "smoker": rng.random(N) < 0.3,
            "always": 7,
        }
    )


CODEC = TableCodec.infer(frame())
SOURCE = TableSource(CODEC)


def resolved(name, condition):
    return scale_of(CODEC.column(name)).resolve(condition_of(name, condition))


# What a condition stands for


@given(st.integers(17, 90), st.integers(17, 90))
def test_a_range_of_whole_numbers_is_the_cells_of_its_members(first, second):
    low, high = sorted((first, second))
    allowed = resolved("age", rv.between(low, high))
    ages = np.arange(17, 91)
    assert (allowed.contains(ages - 17.0) == ((ages >= low) & (ages <= high))).all()
    strict = resolved("age", Between(low - 1, high + 1, True, True))
    assert strict == allowed


def test_a_range_between_members_holds_those_within():
    evens = np.arange(0, 100, 2)
    allowed = resolved("even", rv.between(3, 9.5))
    assert evens[allowed.contains(evens / 2)].tolist() == [4, 6, 8]
    assert resolved("even", Between(4, 8, True, True)).ends == ((3, 3),)


def test_a_range_that_reaches_what_was_seen_goes_on():
    """Draws beyond the last number are written as the last number: they belong to its cell."""
    assert resolved("age", rv.between(65, 200)).ends == ((48, math.inf),)
    assert resolved("age", rv.between(None, 17)).ends == ((-math.inf, 0),)
    assert resolved("weight", rv.between(-100, None)).is_everything


def test_sets_and_their_complements():
    assert resolved("age", rv.one_of(20, 21, 30)).ends == ((3, 4), (13, 13))
    assert resolved("age", rv.none_of(20)).ends == ((-math.inf, 2), (4, math.inf))
    assert resolved("job", rv.none_of("cook")).members == (True, False, True)
    assert resolved("smoker", rv.one_of(True, "false")).is_everything
    assert resolved("smoker", Not(Equal(True))).members == (True, False)
    both = Every((rv.between(20, 30), rv.none_of(25)))
    assert resolved("age", both).ends == ((3, 7), (9, 13))


def test_strictly_below_a_real_number_is_below_it_in_float32():
    ((_, high),) = resolved("weight", Between(None, 0.5, excludes_high=True)).ends
    assert np.float32(high) < np.float32(0.5)
    assert high > 0.5 - 1e-6


def test_a_restriction_has_the_probability_of_its_cells_under_the_marginal():
    """Of N(0, 1) in the latent scale, an interval has the share of the rows that it holds."""
    data = frame()
    for name, low, high in (("age", 30, 49), ("price", 10.0, 55.5), ("weight", -0.3, 1.1)):
        (found,) = SOURCE.restrictions({name: rv.between(low, high)})
        a, b = found.ends[0]
        prob = float(torch.special.ndtr(b) - torch.special.ndtr(a))
        assert prob == pytest.approx(data[name].between(low, high).mean(), abs=0.01)


def test_what_holds_in_every_row_restricts_nothing():
    sure = {
        "weight": rv.between(-50, 50),
        "always": rv.between(0, 9),
        "smoker": rv.one_of(True, False),
    }
    assert SOURCE.restrictions(sure) == ()
    assert SOURCE.given(sure, 5) == {}


# What is drawn meets the condition


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("age", rv.between(65, 80)),
        ("age", rv.none_of(*range(30, 60))),
        ("even", rv.one_of(0, 98)),
        ("price", rv.between(10.01, 10.05)),
        ("weight", rv.between(0.25, 0.250001)),
        ("weight", Every((rv.between(-1, 1), Not(rv.between(-0.5, 0.5))))),
    ],
)
def test_entries_are_moved_into_the_set_and_those_inside_stay(name, condition):
    column = CODEC.column(name)
    scale = scale_of(column)
    allowed = scale.resolve(condition)
    array = pa.array([*frame()[name].tolist(), None])
    moved = scale.within(allowed, array)
    digits = 6 if column.lattice else 15
    positions, before = (column.encode(each)[:-1].round(digits) for each in (moved, array))
    assert allowed.contains(positions).all()
    inside = allowed.contains(before)
    assert (positions[inside] == before[inside]).all()
    assert moved[-1].as_py() is None
    assert moved.type == array.type


def test_whole_numbers_beyond_int64_are_asked_for():
    data = pd.DataFrame({"big": np.arange(60, dtype=np.uint64) + np.uint64(2**63)})
    source = TableSource(TableCodec.infer(data))
    column = source.codec.column("big")
    allowed = scale_of(column).resolve(rv.one_of(2**63 + 2, 2**63 + 7))
    assert allowed.ends == ((2, 2), (7, 7))
    moved = scale_of(column).within(allowed, pa.array(data["big"]))
    assert set(moved.to_pylist()) == {2**63 + 2, 2**63 + 7}
    assert source.given({"big": 2**63 + 5}, 1)["numeric"][1].all()


# Columns of other types


def typed():
    rng = np.random.default_rng(1)
    days = pd.Timestamp("1970-01-01") + pd.to_timedelta(rng.integers(0, 3000, N), unit="D")
    levels = ["low", "middle", "high"]
    return pd.DataFrame(
        {
            "born": days,
            "seen": pd.Series(days + pd.to_timedelta(rng.integers(0, 86_400, N), unit="s"))
            .dt.tz_localize("UTC"),
            "level": pd.Categorical(rng.choice(levels, N), levels, ordered=True),
            "gain": np.where(rng.random(N) < 0.6, 0.0, np.exp(rng.normal(size=N))),
            "key": [f"k{1000 + j}" for j in range(N)],
        }
    )  # fmt: skip


TYPED = TableCodec.infer(typed())


@pytest.mark.parametrize(
    ("name", "condition", "holds"),
    [
        (
            "born",
            rv.between("1972-03-01", "1972-03-31"),
            lambda d: (d.born >= "1972-03-01") & (d.born <= "1972-03-31"),
        ),
        (
            "born",
            Between(pd.Timestamp("1975-01-01"), None, excludes_low=True),
            lambda d: d.born > "1975-01-01",
        ),
        (
            "seen",
            rv.between("1971-01-01T00:00:00Z", "1971-12-31T23:59:59Z"),
            lambda d: (d.seen >= "1971-01-01T00:00:00Z") & (d.seen <= "1971-12-31T23:59:59Z"),
        ),
        ("level", rv.between("middle", None), lambda d: d.level >= "middle"),
        ("level", Between(None, "high", excludes_high=True), lambda d: d.level < "high"),
        ("gain", rv.none_of(0), lambda d: d.gain != 0),
        ("gain", rv.one_of(0), lambda d: d.gain == 0),
        ("gain", Between(0, None, excludes_low=True), lambda d: d.gain > 0),
        ("gain", rv.between(None, 0.5), lambda d: d.gain <= 0.5),
    ],
)
def test_moments_orders_and_spikes_have_ranges(name, condition, holds):
    """The set has the share of the rows that it holds under the marginal, and moves others in."""
    source, data = TableSource(TYPED), typed()
    share = holds(data).mean()
    (found,) = source.restrictions({name: condition})
    if name == "level":
        assert share == data["level"].cat.codes.map(lambda code: found.members[code].item()).mean()
        return
    normal = torch.special.ndtr(found.ends)
    assert float((normal[:, 1] - normal[:, 0]).sum()) == pytest.approx(share, abs=0.01)
    assert holds(source.write_given(data, {name: condition})).all()
    assert source.write_given(data, {name: condition}).dtypes.equals(data.dtypes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"born": rv.between("2001-01-01", None)}, "a range with values from 1970-01-18"),
        ({"born": rv.between("soon", None)}, "got 'soon'"),
        ({"born": rv.between("1973-01-01", "1972-01-01")}, "No value of the column"),
        ({"level": rv.between("high", "low")}, "some value meets, got none"),
        ({"level": rv.between("hihg", None)}, "did you mean 'high'"),
        ({"gain": rv.one_of(0.123, 0.456)}, "of probability zero"),
        ({"key": rv.one_of("k1001")}, "a column with a law, got identifier"),
    ],
)
def test_of_other_types_what_no_value_meets_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        TableSource(TYPED).restrictions(given)


# Refusals


REFUSED = [
    (
        "age",
        rv.between(100, 120),
        r"'age': expected a range with values from 17 to 90, got '100..1",
    ),
    ("age", rv.between(None, 3), "got '..3'. Nothing was learned beyond"),
    ("even", rv.between(3, 3), "a range with values, got '3..3'. No value of the column"),
    ("age", rv.between("30", "20"), "a range with values, got '30..20'. No value of the column"),
    ("even", rv.one_of(4, 5), "expected a multiple of 2, got 5"),
    ("age", rv.one_of(20, 300), "expected a number from 17 to 90, got 300"),
    ("age", rv.between("old", None), "expected a number from 17 to 90, got 'old'"),
    ("age", Every((rv.between(70, None), rv.between(None, 20))), "some value meets, got none"),
    ("age", Not(rv.between(17, 90)), "some value meets, got none"),
    ("weight", rv.one_of(0.1, 0.2), "of probability zero. Ask for a range"),
    ("job", rv.one_of("cook", "smiht"), "did you mean 'smith'"),
    ("job", rv.between("cook", "smith"), "ordered column for a range, got category"),
    ("job", rv.none_of("cook", "smith", "clerk"), "some value meets, got none"),
    ("always", rv.between(8, None), "some value meets, got none"),
    ("always", rv.between("a", "b"), "expected always 7, got 'a..b'"),
]


@pytest.mark.parametrize(("name", "condition", "said"), REFUSED)
def test_what_no_value_meets_is_refused(name, condition, said):
    with pytest.raises(DataError, match=said):
        SOURCE.restrictions({name: condition})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rv.between(), "Expected a bound"),
        (lambda: rv.between(3, 2), "an empty range. Swap them"),
        (lambda: rv.between(3, "a"), "two bounds of one kind"),
        (lambda: rv.one_of(), "an empty set"),
        (lambda: rv.none_of(), "an empty set"),
        (lambda: rv.one_of(["a", "b"]), r"one_of\(\*values\)"),
        (lambda: SOURCE.restrictions({"job": ["cook"]}), "Write rv.one_of"),
        (lambda: SOURCE.restrictions({"age": (65, 80)}), "Write rv.one_of"),
        (lambda: SOURCE.restrictions({"agee": rv.between(1, 2)}), "did you mean 'age'"),
    ],
)
def test_what_is_no_condition_is_refused(make, said):
    with pytest.raises(DataError, match=said):
        make()
