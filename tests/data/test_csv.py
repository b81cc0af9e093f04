"""CSV files: no gap is lost, no number is changed, and another mark between cells is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reversal.data import TableCodec, read, write
from reversal.errors import DataError


@pytest.mark.parametrize("values", [[1.5, None, 3.0, None], ["a", None, None, "b"], [1, 2, None]])
def test_the_gaps_of_a_single_column_are_kept(tmp_path, values):
    path = tmp_path / "one.csv"
    write(pd.DataFrame({"x": values}), path)
    back = read(path)["x"]
    assert back.isna().tolist() == [value is None for value in values]
    assert back.dropna().tolist() == [value for value in values if value is not None]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_empty_lines_above_the_name_of_a_single_column_are_no_gaps(tmp_path, end):
    path = tmp_path / "one.csv"
    path.write_bytes(end.join(["", "", "x", "1", "", "3", ""]).encode())
    np.testing.assert_array_equal(read(path)["x"], [1, np.nan, 3])


def test_empty_lines_are_no_rows_where_there_are_more_columns(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("x,y\n1,2\n3,4\n\n\n")
    assert len(read(path)) == 2


@pytest.mark.parametrize("digits", ["9223372036854775809", "18446744073709551615"])
def test_whole_numbers_that_would_be_rounded_are_refused(tmp_path, digits):
    path = tmp_path / "large.csv"
    path.write_text(f"key,x\n1,0.5\n{digits},1.5\n")
    with pytest.raises(DataError, match=f"Column 'key'.*got {digits} in row 1"):
        read(path)


def test_large_numbers_that_are_held_exactly_are_read(tmp_path):
    path = tmp_path / "large.csv"
    exact = 2**63
    path.write_text(f"key,mass,x\n{2**63 - 1},1e30,{exact}\n1,2e30,1\n3,,{exact}\n")
    frame = read(path)
    assert frame["key"].tolist() == [2**63 - 1, 1, 3]
    assert frame["x"].tolist() == [exact, 1, exact]
    assert frame["mass"].tolist()[:2] == [1e30, 2e30]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_decimal_commas_do_not_hide_another_mark(tmp_path, mark):
    path = tmp_path / "other.csv"
    path.write_text(f"a{mark}b\n1,5{mark}2,5\n3,5{mark}4,5\n")
    with pytest.raises(DataError, match="Save it with commas in the place of"):
        read(path)


@pytest.mark.parametrize("values", [[0, 7], [1.0, 0.5], [-1, 1]])
def test_a_boolean_is_no_other_number(values):
    codec = TableCodec.infer(pd.DataFrame({"flag": [True, False, True]}))
    with pytest.raises(DataError, match="'flag': expected true or false, or 1 or 0, got"):
        codec.encode(pd.DataFrame({"flag": values}))
    state, present = codec.encode(pd.DataFrame({"flag": [1.0, 0.0, np.nan]}))
    assert state["category"].ravel().tolist() == [1, 0, 0]
    assert present["category"].ravel().tolist() == [True, True, False]
