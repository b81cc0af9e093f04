"""space.yaml: what is inferred is written, what is written obeyed, what does not fit named."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import yaml

from reversal.data import Schema, TableCodec, write_schema
from reversal.data.opening import opened
from reversal.datasets import penguins
from reversal.errors import DataError, SpaceError
from reversal.spaces import Categorical, Euclidean, Product


def rng(seed=0):
    return np.random.default_rng(seed)


def all_types(n=300):
    draw = rng()
    return pd.DataFrame(
        {
            "real": draw.normal(size=n),
            "cents": draw.gamma(2, 20, n).round(2),
            "spiked": np.where(draw.random(n) < 0.5, 0.0, draw.lognormal(size=n)),
            "count": draw.poisson(30, n),
            "word": draw.choice(["no", "yes", "1", "null", "2020-01-01", "a: b", "é\n#x"], n),
            "order": pd.Categorical(
                draw.choice(["lo", "hi"], n), ["lo", "mid", "hi"], ordered=True
            ),
            "numbered": pd.Categorical(draw.choice([3, 1, 2], n)),
            "flag": draw.random(n) < 0.5,
            "day": [dt.date(2020, 1, 1) + dt.timedelta(int(k)) for k in draw.integers(0, 90, n)],
            "at": pd.Timestamp("2020", tz="Europe/Berlin")
            + pd.to_timedelta(draw.integers(0, 9999, n), "s"),
            "time": [dt.time(int(k)) for k in draw.integers(0, 24, n)],
            "length": pd.to_timedelta(draw.integers(-99, 99, n), "min"),
            "id": [f"u{k}" for k in range(n)],
            "same": "x",
            "never": np.nan,
            "no: 1, {a}": draw.normal(size=n).round(1),
            "12": draw.normal(size=n).round(1),
        }
    )


def declared(**columns):
    return Schema.parse(yaml.safe_dump({"version": 1, "columns": columns}))


def test_the_schema_of_a_table_gives_its_codec_back():
    frame = all_types()
    codec = TableCodec.infer(frame)
    text = codec.space_yaml()
    again = TableCodec.infer(frame, Schema.parse(text))
    assert again.space_yaml() == text.replace("300 texts, all different", "declared")
    for ours, theirs in zip(codec.columns, again.columns, strict=True):
        assert ours == theirs or ours.kind == "identifier"
    tree = yaml.safe_load(text)
    assert list(tree["columns"]) == list(frame.columns)
    assert {what["type"] for what in tree["columns"].values()} == {
        *("real", "integer", "category", "ordered category", "boolean", "date", "datetime"),
        *("time", "duration", "identifier", "constant"),
    }
    assert tree["columns"]["spiked"]["spikes"] == [0.0]
    assert tree["columns"]["order"]["categories"] == ["lo", "mid", "hi"]


def test_the_text_explains_each_column_in_a_comment_and_holds_no_knots():
    text = TableCodec.infer(penguins()).space_yaml()
    assert "# 32.1 to 59.6 by 0.1; 0.6 % missing" in text
    assert text.startswith("# What each column is.")
    assert len(text) < 2000


def test_columns_that_are_left_out_are_inferred():
    codec = TableCodec.infer(penguins(), declared(year="category"))
    kinds = {column.name: column.kind for column in codec.columns}
    assert kinds["year"] == "category" and kinds["species"] == "category"
    assert codec.shapes.cardinalities == (3, 3, 2, 3)


def test_types_change_and_the_dtype_stays():
    frame = penguins()
    schema = declared(
        year="ordered category",
        flipper_length_mm={"type": "real"},
        bill_depth_mm={"type": "real", "decimals": None},
        island="drop",
    )
    codec = TableCodec.infer(frame, schema)
    state, observed = codec.encode(frame)
    back = codec.decode(state, missing={name: ~mask for name, mask in observed.items()})
    kept = frame.drop(columns="island")
    pd.testing.assert_frame_equal(back, kept, rtol=1e-6)
    pd.testing.assert_series_equal(back["year"], frame["year"])
    free = codec.decode({name: part[:50].flip(0) * 1 for name, part in state.items()})
    assert free.dtypes.equals(kept.dtypes)
    column = next(column for column in codec.columns if column.name == "year")
    assert column.is_ordered and column.labels == (2007, 2008, 2009)
    assert TableCodec.from_config(codec.to_config()) == codec


@pytest.mark.parametrize(
    "library", [pd.DataFrame, pl.DataFrame, lambda f: pl.DataFrame(f).to_arrow()]
)
def test_a_dropped_column_may_be_there_or_not_and_never_comes_back(library):
    columns = {"a": [0.5, 1.25, 9.0, 3.5], "b": [1, 2, 3, 3], "c": ["u", "v", "u", "v"]}
    frame = library(columns)
    codec = TableCodec.infer(frame, declared(b="drop"))
    without = library({name: values for name, values in columns.items() if name != "b"})
    for given in (frame, without):
        state = codec.encode(given)[0]
        back = codec.decode(state, like=given)
        assert type(back) is type(frame)
        assert list(getattr(back, "column_names", getattr(back, "columns", None))) == ["a", "c"]


def test_bounds_widen_what_is_drawn():
    frame = pd.DataFrame(
        {
            "r": rng().normal(size=200),
            "k": rng().integers(0, 9, 200) * 5,
            "d": pd.date_range("2020-01-01", periods=200),
        }
    )
    schema = declared(
        r={"type": "real", "least": -10, "greatest": 12},
        k={"type": "integer", "least": -7, "greatest": 52},
        d={"type": "datetime", "greatest": "2021-01-01"},
    )
    codec = TableCodec.infer(frame, schema)
    far = codec.decode({"numeric": torch.tensor([[-90.0] * 3, [90.0] * 3])})
    assert far["r"].tolist() == [-10, 12]
    assert far["k"].tolist() == [-5, 50]
    assert far["d"].tolist() == [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")]
    back = codec.decode(codec.encode(frame)[0])
    pd.testing.assert_frame_equal(back[["k", "d"]], frame[["k", "d"]])


def test_spikes_are_declared_and_denied():
    numbers = np.where(rng().random(900) < 0.004, 7.0, rng(1).normal(size=900))
    frame = pd.DataFrame({"x": numbers})
    assert TableCodec.infer(frame).columns[0].spikes == ()
    codec = TableCodec.infer(frame, declared(x={"type": "real", "spikes": [7, 99]}))
    assert codec.columns[0].spikes == (7.0,)
    zeros = pd.DataFrame({"x": np.where(rng(2).random(900) < 0.4, 0.0, numbers)})
    assert TableCodec.infer(zeros).columns[0].spikes == (0.0,)
    assert (
        TableCodec.infer(zeros, declared(x={"type": "real", "spikes": []})).columns[0].spikes == ()
    )


def test_text_becomes_what_it_says_and_comes_back_as_text():
    frame = pd.DataFrame(
        {"n": ["10", "7", "12", None], "d": ["2020-01-03", "2020-01-01", None, "2020-01-02"]}
    )
    codec = TableCodec.infer(frame, declared(n="integer", d="date"))
    state, observed = codec.encode(frame)
    back = codec.decode(state, missing={name: ~mask for name, mask in observed.items()})
    pd.testing.assert_frame_equal(back, frame)


MISFITS = [
    ({"species": "real"}, r"'species': expected numbers \(real\), got 'Adelie' in row 0"),
    ({"species": "integer"}, r"'species': expected numbers \(integer\), got 'Adelie' in row 0"),
    ({"species": "date"}, r"'species': expected dates as ISO 8601.*'Adelie' in row 0"),
    (
        {"species": "duration"},
        r"'species': expected durations, got large_string|'species': expected durations",
    ),
    ({"species": "boolean"}, r"'species': expected true or false"),
    ({"species": "constant"}, r"'species': expected one value everywhere, got 'Adelie' and"),
    ({"bill_length_mm": "integer"}, r"'bill_length_mm': expected whole numbers, got 39.1 in row 0"),
    (
        {"bill_length_mm": "identifier"},
        r"'bill_length_mm': expected an identifier of text or whole",
    ),
    ({"year": "boolean"}, r"'year': expected true or false, or 1 or 0, got 2007"),
    ({"year": "datetime"}, r"'year': expected datetimes, got int64"),
    (
        {"year": {"type": "integer", "greatest": 2008}},
        r"'year': expected numbers to 2008, got 2009 in row 100.*Widen",
    ),
    (
        {"bill_length_mm": {"type": "real", "decimals": 1, "spikes": [39.1]}},
        r"'bill_length_mm': expected spikes of numbers that are not rounded, got both fields",
    ),
    (
        {"bill_length_mm": {"type": "real", "decimals": 0}},
        r"at most 0 decimals, got 39.1 in row 0.*decimals: null",
    ),
    (
        {"species": {"type": "category", "categories": ["Adelie", "Gentoo"]}},
        r"'species': expected one of the declared categories, got 'Chinstrap' in row 276.*Add it",
    ),
    (
        {"species": {"type": "category", "categories": [True, False]}},
        r"'species': expected distinct categories.*'yes', 'no'.*quotes",
    ),
    (
        {"year": {"type": "category", "categories": ["2007", "2008", "2009"]}},
        r"'year': expected distinct categories of int64, got '2007'",
    ),
    (
        {"species": {"type": "category", "categories": ["Adelie", "Adelie"]}},
        r"'species': expected distinct categories",
    ),
    ({"specis": "category"}, r"'specis', which space.yaml declares.*did you mean 'species'"),
]


@pytest.mark.parametrize(("columns", "message"), MISFITS)
def test_a_schema_that_does_not_fit_the_data_is_refused_by_column_row_and_cure(columns, message):
    with pytest.raises(DataError, match=message):
        TableCodec.infer(penguins(), declared(**columns))


def test_moments_beyond_declared_bounds_are_refused_by_row():
    frame = pd.DataFrame({"d": pd.date_range("2020-01-01", periods=40)})
    with pytest.raises(
        DataError, match=r"'d': expected moments within 2020-01-31, got 2020-02-01 in row 31"
    ):
        TableCodec.infer(frame, declared(d={"type": "datetime", "greatest": "2020-01-31"}))
    with pytest.raises(DataError, match=r"'d': expected a datetime, got 'soon'. Mend `least`"):
        TableCodec.infer(frame, declared(d={"type": "datetime", "least": "soon"}))


MALFORMED = [
    ("columns: {a: real}", r"`version: 1`.*got None"),
    ("version: 2\ncolumns: {a: real}", r"`version: 1`.*got 2.*reversal schema"),
    ("version: 1\ncolums: {a: real}", r"got 'colums'; did you mean 'columns'"),
    ("version: 1\ncolumns: [a, b]", r"names and what they are in `columns`.*got list"),
    ("version: 1", r"`columns` of space.yaml, got NoneType"),
    ("", r"got NoneType"),
    ("version: 1\ncolumns: {a: [}", r"Expected YAML.*line 2"),
    ("version: 1\ncolumns:\n  a: real\n  a: integer", r"'a' again.*line 3"),
    ("version: 1\ncolumns: {a: rael}", r"Column 'a'.*known type, got 'rael'; did you mean 'real'"),
    ("version: 1\ncolumns: {a: {least: 3}}", r"Column 'a'.*expected a type, got"),
    ("version: 1\ncolumns: {a: 3}", r"Column 'a'.*expected a type, got 3"),
    (
        "version: 1\ncolumns: {a: {type: real, lest: 3}}",
        r"Column 'a'.*field of type 'real', got 'lest'; did you mean 'least'",
    ),
    (
        "version: 1\ncolumns: {a: {type: real, least: low}}",
        r"Column 'a'.*number.* in `least`, got 'low'.*Mend",
    ),
    (
        "version: 1\ncolumns: {a: {type: real, decimals: 12}}",
        r"'a'.*less than or equal to 9 in `decimals`",
    ),
    (
        "version: 1\ncolumns: {a: {type: integer, least: 1.5}}",
        r"'a'.*integer.* in `least`, got 1.5",
    ),
    ("version: 1\ncolumns: {a: {type: real, least: .nan}}", r"'a'.*finite number in `least`"),
    (
        "version: 1\ncolumns: {a: {type: category, categories: []}}",
        r"'a'.*at least one entry in `categories`, got none",
    ),
    (
        "version: 1\ncolumns: {a: {type: boolean, categories: [x]}}",
        r"'a'.*of type 'boolean', got 'categories'",
    ),
    (
        "version: 1\ncolumns: {a: {type: real, least: 3, greatest: 2}}",
        r"Column 'a'.*expected least <= greatest, got 3 and 2. Mend one",
    ),
    (
        f"version: 1\ncolumns: {{a: {{type: integer, least: {10**400}, greatest: 2}}}}",
        r"Column 'a'.*expected least <= greatest, got 10+\.\.\.0+ and 2. Mend one",
    ),
    (
        f"version: 1\ncolumns: {{a: {list(range(2000))}}}",
        r"Column 'a'.*expected a type, got \[0, 1, 2, 3, 4, 5, \.\.\.\]. Write",
    ),
    ("!!python/object/apply:os.getcwd []", r"Expected YAML"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_text_that_is_no_schema_is_refused_by_column_field_and_cure(text, message):
    with pytest.raises(DataError, match=message):
        Schema.parse(text)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"Expected a schema at .*reversal schema FILE"):
        Schema.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: 1\ncolumns: {\xff: real}")
    with pytest.raises(DataError, match="Expected a schema at"):
        Schema.read(tmp_path / "latin.yaml")
    with pytest.raises(DataError, match="Expected to write"):
        write_schema("", tmp_path / "no" / "space.yaml")


def test_many_categories_are_not_listed_and_are_found_again():
    words = [f"w{k}" for k in range(3000)] * 2
    frame = pd.DataFrame({"w": words})
    codec = TableCodec.infer(frame)
    text = codec.space_yaml()
    assert "categories as in the data" in text and len(text) < 1000
    assert TableCodec.infer(frame, Schema.parse(text)) == codec


def test_a_source_opens_with_a_schema_its_path_or_a_codec(tmp_path):
    frame = penguins()
    write_schema(
        TableCodec.infer(frame, declared(year="category")).space_yaml(), tmp_path / "s.yaml"
    )
    schema = Schema.read(tmp_path / "s.yaml")
    codec = TableCodec.infer(frame, schema)
    for given in (schema, tmp_path / "s.yaml", str(tmp_path / "s.yaml"), codec):
        source, process = opened(frame, given)
        assert source.codec == codec
        assert process.space.parts["numeric"].event_shape == (4,)
        assert source.space_yaml() == codec.space_yaml()
    with pytest.raises(SpaceError, match="Expected a space for arrays, got"):
        opened(np.zeros((4, 2)), schema)


def test_arrays_describe_the_product_that_they_live_in():
    space = Product(image=Euclidean(1, 4, 4), label=Categorical(10))
    source, _ = opened({"image": rng().normal(size=(5, 1, 4, 4)), "label": np.arange(5)}, space)
    tree = yaml.safe_load(source.space_yaml())
    assert tree["factors"] == {
        "image": {"space": "Euclidean(1, 4, 4)", "event_shape": [1, 4, 4]},
        "label": {"space": "Categorical(10)", "event_shape": []},
    }
