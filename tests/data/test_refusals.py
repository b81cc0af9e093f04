"""What a table codec refuses, before any work: expected, got, and the cure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from reversal.data import TableCodec
from reversal.datasets import penguins
from reversal.errors import DataError


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"specis": "Adelie"}, r"'specis'; did you mean 'species'\?"),
        ({"species": "adelie"}, r"'species': expected a known category, got 'adelie'.*'Adelie'"),
        ({"species": "Emperor"}, r"'species'.*choose from 'Adelie', 'Chinstrap', 'Gentoo'"),
        ({"year": 1999}, r"'year': expected a whole number from 2007 to 2009, got 1999"),
        ({"year": 2007.5}, r"'year': expected a whole number from 2007 to 2009, got 2007.5"),
        ({"year": "soon"}, r"'year': expected a whole number from 2007 to 2009, got 'soon'"),
        ({"year": None}, r"'year': expected a whole number from 2007 to 2009, got None"),
        ({"flat": 2}, r"'flat': expected always 1, got 2"),
        ({"flag": "maybe"}, r"'flag': expected true or false, got 'maybe'"),
    ],
)
def test_a_condition_that_no_row_can_meet_is_refused(conditions, message):
    codec = TableCodec.infer(penguins().assign(flat=1, flag=penguins()["year"] > 2007))
    with pytest.raises(DataError, match=message):
        codec.where(conditions)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"x": [1.0, np.inf, 2.0]}), r"'x': .*finite.*inf in row 1.*Replace"),
        (pd.DataFrame({"x": [1.0, 2.0, -1.8e308 / 1.01]}), r"'x': .*finite.*in row 2.*Replace"),
        (pd.DataFrame({"x": [1, "a", 2]}, dtype=object), r"'x'.*1 \(int\).*'a' \(str\).*astype"),
        (pd.DataFrame({"x": [{"a": 1}, {}]}), r"'x': expected numbers, text.*Convert it"),
        (pd.DataFrame({"x": [1j, 2j]}), r"'x': .*complex128.*drop it"),
        (pd.DataFrame({"x": pd.period_range("2020-01", periods=3, freq="M")}), r"'x'.*dates.*drop"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"]), r"'x' more than once. Rename"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["1", 1]), r"'1' more than once. Rename"),
        (pd.DataFrame({"x": []}), r"at least two rows, got no row.*Hand over more rows"),
        (pd.DataFrame({"x": [1]}), r"at least two rows, got one row.*Hand over more rows"),
        (pd.DataFrame(index=[0, 1]), r"columns, got none. Select at least one"),
        (pd.DataFrame({"x": [1, 1], "y": [None, None]}), r"a column that varies, got 2.*hand over"),
        ([[1, 2]], r"pandas.DataFrame.*got list"),
        (pl.LazyFrame({"x": [1, 2]}), r"got LazyFrame.*collect\(\)"),
        (pa.table([[1, 2], [3, 4]], names=["x", "x"]), r"'x' more than once. Rename"),
    ],
)
def test_a_table_from_which_nothing_can_be_learned_is_refused(frame, message):
    with pytest.raises(DataError, match=message):
        TableCodec.infer(frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="sex"), r"none named 'sex'. Add"),
        (lambda f: f.rename(columns={"sex": "gender"}), r"'gender' as well"),
        (lambda f: f.assign(species="Emperor"), r"'species': .*'Emperor' in row 0"),
        (lambda f: f.assign(year="long ago"), r"'year': expected numbers"),
        (
            lambda f: f.assign(year=2007.5),
            r"'year': expected a whole number.*, got 2007.5 in row 0",
        ),
        (lambda f: f.assign(body_mass_g=np.inf), r"'body_mass_g': expected finite"),
    ],
)
def test_a_frame_that_does_not_fit_the_codec_is_refused(change, message):
    codec = TableCodec.infer(penguins())
    with pytest.raises(DataError, match=message):
        codec.encode(change(penguins()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"numeric": s["numeric"]}, r"category \(B, 4\) and numeric \(B, 4\), got"),
        (lambda s: s | {"numeric": s["numeric"][:, :3]}, r"numeric \(344, 3\)"),
        (lambda s: s | {"numeric": s["numeric"] * np.nan}, r"got NaN"),
        (lambda s: s | {"category": s["category"] + 2}, r"'.*': expected codes below"),
    ],
)
def test_a_state_of_another_space_is_refused(change, message):
    codec = TableCodec.infer(penguins())
    with pytest.raises(DataError, match=message):
        codec.decode(change(codec.encode(penguins())[0]))


def test_a_configuration_of_a_newer_version_or_an_unknown_type_is_refused():
    config = TableCodec.infer(penguins()).to_config()
    with pytest.raises(DataError, match=r"version 2, got 3. Install"):
        TableCodec.from_config(config | {"version": 3})
    columns = [{**config["columns"][0], "type": "categories"}]
    with pytest.raises(DataError, match=r"'species'.*'categories'; did you mean 'category'"):
        TableCodec.from_config(config | {"columns": columns})
