"""Whole numbers of few values: codes of a lattice, and ranges of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import reversal as rv
from reversal.data import Schema, TableCodec
from reversal.data.rows import TableSource
from reversal.errors import DataError


def rooms(n: int = 400) -> pd.DataFrame:
    """Flags, counts by one and by five, years as float, and numbers of many values."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "flag": rng.integers(0, 2, n).astype("int8"),
            "rooms": rng.binomial(6, 0.4, n) - 2,
            "fives": 5 * rng.integers(1, 8, n),
            "year": 2000.0 + rng.integers(0, 5, n),
            "area": rng.integers(20, 300, n),
        }
    )
    return frame.mask(rng.random(frame.shape) < [0, 0.1, 0, 0.1, 0])


def test_numbers_are_levels_where_each_has_its_evidence():
    kinds = {c.name: c.kind for c in TableCodec.infer(rooms()).columns}
    assert kinds == dict.fromkeys(["flag", "rooms", "fives", "year"], "levels") | {
        "area": "integer"
    }
    few = TableCodec.infer(rooms(60)).columns
    assert {c.name: c.kind for c in few}["rooms"] == "integer"


def test_levels_come_back_in_the_type_they_had():
    table = rooms()
    codec = TableCodec.infer(table)
    state, present = codec.encode(table)
    again = codec.decode(state, missing={name: ~mask for name, mask in present.items()})
    pd.testing.assert_frame_equal(again, table)
    pd.testing.assert_frame_equal(
        TableCodec.from_config(codec.to_config()).decode(state), codec.decode(state)
    )


def test_a_code_is_the_place_on_the_lattice():
    codec = TableCodec.infer(rooms())
    fives = codec.column("fives")
    assert fives.labels == (5, 10, 15, 20, 25, 30, 35)
    codes = fives.encode(fives.decode(np.arange(7)))
    assert codes.tolist() == list(range(7))
    assert fives.place(12.5) == 1.5


@pytest.mark.parametrize(
    ("condition", "query"),
    [
        (rv.between(11, 24.9), "11 <= fives <= 24.9"),
        (rv.between(None, 20), "fives <= 20"),
        (rv.one_of(5, "35"), "fives in (5, 35)"),
        (rv.none_of(5), "fives != 5"),
    ],
)
def test_ranges_may_end_between_levels(condition, query):
    table = rooms()
    source = TableSource(TableCodec.infer(table))
    assert source.holds(table, {"fives": condition}).tolist() == table.eval(query).tolist()
    (restriction,) = source.restrictions({"fives": condition})
    members = [label for label, is_in in zip(range(5, 36, 5), restriction.members, strict=True)
               if is_in]  # fmt: skip
    assert members == sorted(table.query(query)["fives"].unique())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fives": 12}, r"'fives': expected a whole number from 5 to 35 by 5, got 12"),
        ({"fives": rv.between(11, 14)}, r"a range that holds a whole number from 5 to 35 by 5"),
        ({"flag": rv.between("low", "top")}, r"'flag': expected a number, got 'low'"),
    ],
)
def test_what_was_never_seen_is_refused(asked, message):
    source = TableSource(TableCodec.infer(rooms()))
    with pytest.raises(DataError, match=message):
        source.restrictions(asked) or source.given(asked, 1)


def test_a_row_beyond_the_levels_is_refused_by_its_number():
    codec = TableCodec.infer(rooms())
    with pytest.raises(DataError, match=r"'rooms'.*got 9.*in row 3.*type: integer"):
        codec.encode(rooms().assign(rooms=[0, 1, 2, 9] + [0] * 396))


def test_the_schema_says_levels_and_takes_another_word():
    table = rooms()
    text = TableCodec.infer(table).space_yaml()
    assert "type: levels" in text
    again = TableCodec.infer(table, Schema.parse(text))
    assert [c.kind for c in again.columns] == [c.kind for c in TableCodec.infer(table).columns]
    other = Schema.parse("version: 1\ncolumns: {rooms: integer, area: levels}")
    kinds = {c.name: c.kind for c in TableCodec.infer(table, other).columns}
    assert kinds["rooms"] == "integer" and kinds["area"] == "levels"
    huge = table.assign(area=1_000_003 * table["area"])
    wide = huge.assign(area=huge["area"] + (table.index % 7))
    with pytest.raises(DataError, match=r"'area': expected at most 1,024 levels.*type: integer"):
        TableCodec.infer(wide, Schema.parse("version: 1\ncolumns: {area: levels}"))
