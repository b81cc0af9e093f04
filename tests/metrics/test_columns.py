"""Tables of any library and type are read alike, and what cannot be compared is said."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from reversal.errors import DataError
from reversal.metrics import Rows, aligned
from reversal.metrics.columns import Discrete, Numeric

FRAME = pd.DataFrame(
    {
        "number": [1.5, np.nan, 3.0, 1.5],
        "count": [1, 2, 2, 4],
        "word": ["b", None, "a", "b"],
        "flag": [True, False, True, True],
        "code": pd.Categorical([3, 1, 3, 3], categories=[3, 1, 2]),
        "day": pd.to_datetime(["2024-02-29", None, "2023-01-01", "2024-02-29"]),
        "same": [7] * 4,
        "none": [None] * 4,
    }
)


def test_numbers_are_float64_and_all_else_codes_with_gaps_marked():
    (rows,) = aligned(FRAME)
    assert rows.schema.left_out == {"same": "one value", "none": "all missing"}
    kinds = {column.name: type(column) for column in rows.schema.columns}
    discrete = {"word", "flag", "code"}
    assert kinds == {n: Discrete if n in discrete else Numeric for n in list(FRAME)[:6]}
    np.testing.assert_array_equal(rows["number"], [1.5, np.nan, 3.0, 1.5])
    np.testing.assert_array_equal(rows["word"], [1, -1, 0, 1])
    np.testing.assert_array_equal(rows["code"], [1, 0, 1, 1])
    np.testing.assert_array_equal(rows.missing("day"), [False, True, False, False])
    day = rows.schema.columns[rows.schema.place("day")]
    assert day.label(rows["day"][0]).startswith("2024-02-29")


def test_the_library_and_the_order_of_columns_do_not_matter():
    arrow = pa.Table.from_pandas(FRAME.drop(columns="none"), preserve_index=False)
    frames = [FRAME.drop(columns="none"), pl.from_arrow(arrow)[:, ::-1], arrow]
    first, *others = aligned(*frames)
    for rows in others:
        for mine, yours in zip(first.values, rows.values, strict=True):
            np.testing.assert_array_equal(mine, yours)
    assert aligned(*others)[0] is others[0]


def test_a_vocabulary_is_that_of_all_tables():
    first, second = aligned(pd.DataFrame({"k": ["b", "c"]}), pd.DataFrame({"k": ["a", "c"]}))
    np.testing.assert_array_equal(first["k"], [1, 2])
    np.testing.assert_array_equal(second["k"], [0, 2])


def test_dates_count_in_one_unit_and_words_that_look_like_numbers_stay_words():
    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 3)]
    first = pa.table({"day": pa.array(days), "zip": ["01", "2"]})
    second = pa.table({"day": pa.array(days).cast(pa.timestamp("ns")), "zip": [2, 7]})
    one, two = aligned(first, second)
    np.testing.assert_array_equal(one["day"], two["day"])
    np.testing.assert_array_equal(two["zip"], [1, 2])


def test_identifiers_are_left_out():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "key": [f"k{n}" for n in random.permutation(50)],
            "row": random.permutation(50) + 1000,
            "real": random.normal(size=50),
            "wide": random.permutation(10_000)[:50],
        }
    )
    (rows,) = aligned(frame, leave_out={"wide": "not wanted"})
    assert [column.name for column in rows.schema.columns] == ["real"]
    assert "own" in rows.schema.left_out["key"]
    assert "numbers the rows" in rows.schema.left_out["row"]
    assert rows.schema.left_out["wide"] == "not wanted"


def test_a_gap_in_every_row_of_one_table_has_any_type():
    first, second = aligned(FRAME, FRAME.assign(word=None, number=None))
    assert second.missing("word").all()
    assert second.missing("number").all()
    assert len(first) == len(second) == 4


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (FRAME.drop(columns="word"), "without 'word'"),
        (FRAME.assign(more=1), "with 'more' besides"),
        (FRAME.assign(count=list("abcd")), "one type in all tables"),
        (FRAME.assign(day=[1, 2, 3, 4]), "one type in all tables"),
        (FRAME.assign(flag=list("abcd")), "one type in all tables"),
    ],
)
def test_tables_that_do_not_agree_are_refused(other, said):
    with pytest.raises(DataError, match=said):
        aligned(FRAME, other)


def test_an_unknown_column_is_named_with_the_reason():
    (rows,) = aligned(FRAME)
    with pytest.raises(DataError, match="one value"):
        rows["same"]
    with pytest.raises(DataError, match="Choose from"):
        rows["nothing"]
    with pytest.raises(DataError, match="once for all"):
        aligned(rows, FRAME)


def test_rows_are_taken_and_drawn_without_replacement():
    (rows,) = aligned(pd.DataFrame({"x": np.arange(100.0) ** 2}))
    drawn = rows.draw(40, seed=1)
    assert isinstance(drawn, Rows)
    assert len(drawn) == len(set(drawn["x"])) == 40
    assert rows.draw(100) is rows
    assert len(rows.take(slice(3, 8))) == 5
    assert len(rows.take(rows["x"] > 50)) == int((rows["x"] > 50).sum())


def test_empty_tables_are_read():
    first, empty = aligned(FRAME, FRAME.head(0))
    assert (len(first), len(empty)) == (4, 0)
    assert all(len(part) == 0 for part in empty.values)
