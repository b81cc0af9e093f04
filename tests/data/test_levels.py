"""Whole numbers of few values: codes of a lattice, and ranges of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml

import reversal as rv
from reversal.data import Schema, TableCodec
from reversal.data.columns import Levels, column_from_config
from reversal.data.conditions import Between
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
        (Between(10, 25, excludes_low=True, excludes_high=True), "10 < fives < 25"),
        (Between(10, 25, excludes_low=True), "10 < fives <= 25"),
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
        ({"fives": rv.between(11, 14)}, r"'fives': expected conditions that some value meets"),
        (
            {"flag": rv.between("low", "top")},
            r"'flag': expected a whole number from 0 to 1, got 'low'",
        ),
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


@pytest.mark.parametrize("dtype", ["uint8", "Int16", "UInt8", "float32"])
def test_other_types_of_number_are_read(dtype):
    table = rooms().fillna(0)
    codec = TableCodec.infer(table)
    assert codec.column("rooms").labels[0] < 0
    rows = table.assign(rooms=table["rooms"].clip(lower=0)).astype({"rooms": dtype})
    codes = codec.column("rooms").encode(codec.column("rooms").parse(0))
    first = rows.assign(rooms=rows["rooms"].where(rows.index > 0))
    state, present = codec.encode(first)
    place = [each.name for each in codec.category].index("rooms")
    assert not bool(present["category"][0, place])
    assert int(state["category"][:, place].min()) == 0 < int(codes[0])


def test_a_gap_among_the_numbers_is_no_level():
    table = rooms().assign(odd=np.where(np.arange(400) % 3, 1, 31) + np.arange(400) % 2)
    assert {c.name: c.kind for c in TableCodec.infer(table).columns}["odd"] == "integer"


def test_large_levels_and_true_are_asked_for_as_they_are():
    big = pd.Series([0, 2**64 - 1] * 30, dtype="uint64")
    codec = TableCodec.infer(pd.DataFrame({"big": big, "flag": [0, 1, 1] * 20}))
    given = codec.where({"big": 2**64 - 1, "flag": True})
    assert given["category"][0].tolist() == [[1, 1]]
    source = TableSource(codec)
    for endless in (float("inf"), 10**400):
        assert source.restrictions({"big": rv.between(0, endless)}) == ()
        with pytest.raises(DataError, match="expected conditions that some value meets"):
            source.restrictions({"flag": rv.between(endless, None)})
    area = TableSource(TableCodec.infer(rooms()))
    (found,) = area.restrictions({"area": rv.between(100, 10**400)})
    assert found.ends[0, 1] == float("inf")


def test_rows_beyond_what_was_seen_meet_no_range_that_ends_there():
    table = pd.DataFrame({"r": np.linspace(0, 10, 101), "k": np.arange(100, 201)})
    source = TableSource(TableCodec.infer(table, Schema.parse("version: 1\ncolumns: {k: integer}")))
    beyond = pd.DataFrame({"r": [12.0, 10.0], "k": [900, 200]})
    assert source.holds(beyond, {"r": rv.between(9, 10)}).tolist() == [False, True]
    assert source.holds(beyond, {"k": 200}).tolist() == [False, True]
    assert source.holds(beyond, {"k": rv.between(150, None)}).tolist() == [True, True]


def test_what_every_level_meets_is_no_restriction():
    source = TableSource(TableCodec.infer(rooms()))
    assert source.restrictions({"fives": rv.none_of(99, 7.5)}) == ()
    assert source.holds(rooms(), {"fives": rv.none_of(99)}).all()


def stars(n=400, dtype="int64"):
    """Ratings from 1 to 10 of which nobody gave 7 nor 1, and coins."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "stars": rng.choice([2, 3, 4, 5, 6, 8, 9, 10], n),
            "coin": rng.choice([1, 2, 5, 10], n),
            "flag": rng.random(n) < 0.5,
        }
    ).astype({"stars": dtype})


def declared(**columns):
    return Schema.parse(yaml.safe_dump({"version": 1, "columns": columns}))


TEN = {"type": "levels", "values": [10, *range(1, 10)]}


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "Int16"])
def test_declared_levels_are_those_that_can_be_whatever_was_seen(dtype):
    table = stars(dtype=dtype)
    codec = TableCodec.infer(table, declared(stars=TEN, coin="levels"))
    column = codec.column("stars")
    assert column.labels == tuple(range(1, 11)) and column.unseen == (0, 6)
    assert column.detail == "10: 1 to 10; never seen: 1, 7"
    assert codec.column("coin").labels == tuple(range(1, 11))
    state, _ = codec.encode(table)
    pd.testing.assert_frame_equal(codec.decode(state), table)
    every = codec.decode({"category": torch.tensor([[k, 0, 0] for k in range(10)])})
    assert every["stars"].tolist() == list(range(1, 11)) and every["stars"].dtype == dtype
    again = TableCodec.infer(table, Schema.parse(codec.space_yaml()))
    assert again == codec == TableCodec.from_config(json.loads(json.dumps(codec.to_config())))


def test_levels_need_not_be_equally_spaced():
    wanted = {"type": "levels", "values": [50, 20, 10, 5, 2, 1]}
    column = TableCodec.infer(stars(), declared(coin=wanted)).column("coin")
    assert column.labels == (1, 2, 5, 10, 20, 50)
    assert column.members == "one of 1, 2, 5, 10, 20, 50"
    assert [column.place(x) for x in (0, 1, 3.5, 5, "10", 49, 51)] == [-0.5, 0, 1.5, 2, 3, 4.5, 5.5]
    assert column.encode(pa.array([5, None, 1, 50])).tolist() == [2, -1, 0, 5]


def test_the_levels_of_an_older_run_are_those_of_its_lattice():
    lattice = {"low": 5, "step": 5, "last": 3, "decimals": 0}
    config = {"type": "levels", "name": "fives", "missing": 0.1, "lattice": lattice}
    assert column_from_config(config) == Levels("fives", 0.1, (5, 10, 15, 20))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (7, "7"),
        ("7", "7"),
        (rv.between(6.5, 7.5), "7"),
        (rv.one_of(7, 1), "1 or 7"),
        (rv.none_of(*range(2, 7), 8, 9, 10), "1 or 7"),
    ],
)
def test_evidence_that_no_row_showed_is_refused(asked, shown):
    source = TableSource(TableCodec.infer(stars(), declared(stars=TEN)))
    said = f"'stars': expected a value that was seen, got {shown}, which is declared only"
    with pytest.raises(DataError, match=said):
        source.given({"stars": asked}, 1)
        source.restrictions({"stars": asked})


@pytest.mark.parametrize("asked", [8, rv.between(7, 8), rv.none_of(7), rv.between(None, 7)])
def test_evidence_that_a_row_showed_is_taken(asked):
    source = TableSource(TableCodec.infer(stars(), declared(stars=TEN)))
    assert source.given({"stars": asked}, 1) or source.restrictions({"stars": asked})


def test_a_category_that_no_row_had_is_no_evidence_either():
    table = stars().assign(size=pd.Categorical(["S", "L"] * 200, ["S", "M", "L"], ordered=True))
    source = TableSource(TableCodec.infer(table.assign(flag=True), declared(flag="boolean")))
    assert source.codec.column("size").detail == "3: S < M < L; never seen: M"
    for asked in ({"size": "M"}, {"flag": False}, {"size": rv.between("M", "M")}):
        with pytest.raises(DataError, match=r"a value that was seen, got .*declared only"):
            source.given(asked, 1)
            source.restrictions(asked)
    assert len(source.restrictions({"size": rv.between("S", "M")})) == 1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"values": [1, 2, 3]}, "whole number from 1 to 3, got 8 in row 0 .*Add it to `values`"),
        ({"values": [1, 300, *range(2, 11)]}, "levels that uint8 holds, got 300.*Take it out"),
        ({"values": [1, 1]}, "distinct whole numbers in `values`, got 1 twice. Delete one.$"),
        ({"values": [*range(999), 1.5]}, "integer in `values`, got 1.5. Mend the value"),
        ({"values": 7}, "list in `values`, got 7. Mend the value"),
        ({"values": []}, "at least one entry in `values`, got none. List them"),
        ({"values": list(range(2000))}, "at most 1,024 `values`, got 2,000. Say `type: integer`.$"),
        (
            {"values": [-1, 2**63]},
            f"of 64 bits in `values`, got {2**63}. Take it out.$",
        ),
        (
            {"values": [1, 2**70]},
            f"of 64 bits in `values`, got {2**70}. Take it out.$",
        ),
        ({"values": [1, 10**4000]}, r"64 bits in `values`, got 10+\.\.\.0+. Take it out.$"),
        ({"values": [-(2**64), 2**70]}, f"got -{2**64} and {2**70}. Take"),
        ({"least": 1}, "a field of type 'levels', got 'least'; choose from 'type', 'values'"),
    ],
)
def test_levels_that_do_not_fit_are_refused(what, said):
    table = stars(dtype="uint8")
    table.loc[0, "stars"] = 8
    with pytest.raises(DataError, match=said):
        TableCodec.infer(table, declared(stars={"type": "levels", **what}))


def test_declared_levels_need_no_entry_that_varies():
    table = stars().assign(hour=np.where(np.arange(400) % 2, 5, np.nan), none=np.nan)
    hours = {"type": "levels", "values": list(range(24))}
    codec = TableCodec.infer(table, declared(hour=hours, none=hours))
    assert len(codec.column("hour").unseen) == 23 and len(codec.column("none").unseen) == 24
    assert codec.encode(table)[1]["category"].float().mean(0)[-2:].tolist() == [0.5, 0]
