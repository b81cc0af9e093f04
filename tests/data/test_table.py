"""The table codec: a frame that is encoded and decoded comes back as it was."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from reversal.data import TableCodec
from reversal.datasets import penguins


def rng(seed=0):
    return np.random.default_rng(seed)


def gapped(codec, frame):
    """Encode and decode a frame with its gaps written back."""
    state, observed = codec.encode(frame)
    return codec.decode(state, missing={name: ~mask for name, mask in observed.items()})


def numpy_frame(n=200):
    """One column of each NumPy-backed pandas dtype, with gaps where the dtype can hold them."""
    draw = rng()
    gaps = draw.random(n) < 0.1
    words = draw.choice(["red", "green", "blue", ""], n)
    return pd.DataFrame(
        {
            "int8": draw.integers(-100, 100, n).astype(np.int8),
            "int64": draw.integers(-(2**40), 2**40, n) // 2**24 * 2**24,
            "uint64": draw.integers(0, 50, n).astype(np.uint64) + np.uint64(2**63),
            "identifier": 10**18 + draw.integers(0, 1000, n),
            "float64 of whole numbers": np.where(gaps, np.nan, draw.integers(0, 90, n)),
            "float64 of cents": np.where(gaps, np.nan, draw.gamma(2, 20, n).round(2)),
            "float32 of tenths": draw.normal(size=n).round(1).astype(np.float32),
            "float16 of halves": (draw.integers(-9, 9, n) / 2).astype(np.float16),
            "bool": draw.random(n) < 0.3,
            "object of booleans": np.where(gaps, None, draw.random(n) < 0.3),
            "object of text": np.where(gaps, None, words),
            "object of whole numbers": np.where(gaps, None, draw.integers(0, 9, n).astype(object)),
            "str": pd.Series(np.where(gaps, None, words), dtype="str"),
            "constant": 7,
            "all missing": np.nan,
        }
    )


def extension_frame(n=200):
    """One column of each pandas extension dtype, with gaps."""
    draw = rng(1)
    numbers = pd.Series(np.where(draw.random(n) < 0.1, np.nan, draw.integers(0, 40, n)))
    words = pd.Series(draw.choice(["red", "green", None], n))
    levels = ["never", "low", "high"]
    tags = pa.dictionary(pa.int8(), pa.string())
    return pd.DataFrame(
        {
            "Int16": numbers.astype("Int16"),
            "Float32": (numbers / 4).astype("Float32"),
            "boolean": (numbers > 20).astype("boolean").mask(numbers.isna()),
            "string[python]": words.astype("string[python]"),
            "string[pyarrow]": words.astype("string[pyarrow]"),
            "category": words.astype("category"),
            "ordered": pd.Categorical(draw.choice(["low", "high"], n), levels, ordered=True),
            "category of numbers": pd.Categorical(draw.choice([3, 1, 2], n), [3, 1, 2]),
            "category of booleans": pd.Categorical(draw.choice([True, False], n)),
            "one category of three": pd.Categorical(["low"] * n, levels),
            "int32[pyarrow]": numbers.astype("Int32").astype("int32[pyarrow]"),
            "string of Arrow": words.astype(pd.ArrowDtype(pa.string())),
            "dictionary of Arrow": words.astype(pd.ArrowDtype(tags)),
        }
    )


def polars_frame(n=200):
    """One column of each polars dtype, with gaps."""
    draw = rng(2)
    words = [None if word == "" else str(word) for word in draw.choice(["red", "green", ""], n)]
    numbers = [None if number > 35 else int(number) for number in draw.integers(0, 40, n)]
    cents = pl.Series(draw.integers(0, 10**4, n).tolist()) / 100
    return pl.DataFrame(
        {
            "String": words,
            "Categorical": pl.Series(words, dtype=pl.Categorical),
            "Enum": pl.Series(words, dtype=pl.Enum(["green", "never", "red"])),
            "UInt8": pl.Series(numbers, dtype=pl.UInt8),
            "Float32": pl.Series(numbers, dtype=pl.Float32) / 8,
            "Decimal": cents.cast(pl.Decimal(10, 2)),
            "Boolean": [None if number is None else number > 20 for number in numbers],
            "Null": [None] * n,
        }
    )


def arrow_frame(n=200):
    """One column of each Arrow type that has a column type, with gaps, in two chunks."""
    table = polars_frame(n).drop("Enum").to_arrow()
    schema = table.schema.remove_metadata()
    schema = schema.set(0, pa.field("String", pa.string()))
    schema = schema.set(1, pa.field("Categorical", pa.dictionary(pa.int16(), pa.string())))
    half = n // 2
    parts = [table.slice(0, half).cast(schema), table.slice(half).cast(schema)]
    return pa.concat_tables(parts)


def assert_same(result, frame):
    """Assert that two frames agree in library, dtypes, order, index and every entry."""
    assert type(result) is type(frame)
    if isinstance(frame, pd.DataFrame):
        pd.testing.assert_frame_equal(result, frame, check_exact=True)
    elif isinstance(frame, pl.DataFrame):
        assert result.schema == frame.schema
        assert result.equals(frame, null_equal=True)
    else:
        assert result.schema == frame.schema
        assert result.to_pylist() == frame.to_pylist()


FRAMES = {
    "penguins": penguins,
    "penguins in polars": lambda: pl.from_pandas(penguins()),
    "penguins in Arrow": lambda: pa.Table.from_pandas(penguins()).replace_schema_metadata(),
    "numpy": numpy_frame,
    "extension": extension_frame,
    "polars": polars_frame,
    "arrow": arrow_frame,
    "labels of numbers": lambda: pd.DataFrame(rng(3).integers(0, 9, (60, 3))),
    "labels of two levels": lambda: pd.DataFrame(
        rng(3).integers(0, 9, (60, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])
    ),
    "named index": lambda: penguins().rename_axis("row"),
    "index of integers": lambda: penguins().set_index(pd.Index(range(344), dtype="int64")),
    "index of text": lambda: penguins().set_index(pd.Index([str(i) for i in range(344)])),
}


@pytest.mark.parametrize("name", FRAMES)
def test_decoding_the_code_of_a_frame_gives_it_back_exactly(name):
    frame = FRAMES[name]()
    assert_same(gapped(TableCodec.infer(frame), frame), frame)


@pytest.mark.parametrize("name", FRAMES)
def test_a_codec_rebuilt_from_json_is_the_same_codec(name):
    frame = FRAMES[name]()
    codec = TableCodec.infer(frame)
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    assert rebuilt == codec
    state, observed = codec.encode(frame)
    again, seen = rebuilt.encode(frame)
    assert all(torch.equal(state[part], again[part]) for part in state)
    assert all(torch.equal(observed[part], seen[part]) for part in observed)
    assert_same(gapped(rebuilt, frame), frame)


def test_the_configuration_of_the_first_version_is_read():
    """It had no spikes, heavy tails, moments or dropped columns."""
    frame = numpy_frame()
    codec = TableCodec.infer(frame)
    config = codec.to_config()
    older = [
        {key: value for key, value in column.items() if key not in ("peaks", "heavy", "storage")}
        for column in config["columns"]
    ]
    first = {"version": 1, "form": config["form"], "columns": older}
    rebuilt = TableCodec.from_config(json.loads(json.dumps(first)))
    state, observed = codec.encode(frame)
    assert torch.equal(rebuilt.encode(frame)[0]["numeric"], state["numeric"])
    missing = {name: ~mask for name, mask in observed.items()}
    assert_same(rebuilt.decode(state, missing=missing), frame)


def test_a_state_has_the_dtypes_shapes_and_codes_that_a_space_needs():
    frame = penguins()
    codec = TableCodec.infer(frame)
    state, observed = codec.encode(frame)
    assert codec.shapes == (4, (3, 3, 2, 3))
    assert (state["numeric"].dtype, state["category"].dtype) == (torch.float32, torch.int64)
    assert (state["numeric"].shape, state["category"].shape) == ((344, 4), (344, 4))
    gaps = sum(int((~mask).sum()) for mask in observed.values())
    assert gaps == frame.isna().sum().sum() == 19
    for part in state:
        assert observed[part].dtype == torch.bool
        assert (state[part][~observed[part]] == 0).all()
    species = frame["species"].map({"Adelie": 0, "Chinstrap": 1, "Gentoo": 2})
    assert (state["category"][:, 0].numpy() == species).all()


def test_a_factor_that_would_be_empty_is_left_out():
    numbers, words = pd.DataFrame({"x": [1.5, 2.5, 9.0]}), pd.DataFrame({"w": ["a", "b", "a"]})
    assert list(TableCodec.infer(numbers).encode(numbers)[0]) == ["numeric"]
    assert list(TableCodec.infer(words).encode(words)[0]) == ["category"]
    assert_same(gapped(TableCodec.infer(words), words), words)


def test_missing_entries_are_written_only_where_they_are_asked_for():
    frame = penguins()
    codec = TableCodec.infer(frame)
    state, _ = codec.encode(frame)
    assert codec.decode(state).notna().all(axis=None)
    mask = torch.zeros(344, 4, dtype=torch.bool)
    mask[7, 2] = True
    assert codec.decode(state, missing={"numeric": mask}).isna().sum().sum() == 1


def test_dithering_comes_from_the_generator_or_from_the_number_of_rows():
    frame = penguins()
    codec = TableCodec.infer(frame)
    default, again = (codec.encode(frame)[0]["numeric"] for _ in range(2))
    assert torch.equal(default, again)
    seeded = [
        codec.encode(frame, torch.Generator().manual_seed(s))[0]["numeric"] for s in (1, 1, 2)
    ]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    for state in seeded:
        whole = codec.decode({**codec.encode(frame)[0], "numeric": state})
        pd.testing.assert_series_equal(whole["year"], frame["year"])


def test_many_categories_are_coded_without_a_dense_table():
    words = [f"word {k:06d}" for k in range(120_000)]
    order = np.append(rng(10).permutation(len(words)), 0)
    frame = pd.DataFrame({"w": np.array(words, dtype=object)[order]})
    codec = TableCodec.infer(frame)
    state, _ = codec.encode(frame)
    assert codec.shapes.cardinalities == (120_000,)
    assert (state["category"][:, 0].numpy() == order).all()
    assert_same(codec.decode(state), frame)


def test_conditions_stand_where_rows_of_that_value_do():
    frame = penguins()
    codec = TableCodec.infer(frame)
    given = codec.where({"species": "Gentoo", "year": "2008", "bill_length_mm": 50})
    assert given["numeric"][1].tolist() == [[True, False, False, False]]
    assert given["category"][1].tolist() == [[True, False, False, True]]
    row = codec.decode({name: values for name, (values, _) in given.items()})
    assert row.loc[0, ["species", "year", "bill_length_mm"]].tolist() == ["Gentoo", 2008, 50.0]


def test_conditions_on_booleans_numbered_categories_and_constants_are_read():
    frame = extension_frame().assign(one=1)
    codec = TableCodec.infer(frame)
    given = codec.where({"boolean": "TRUE", "category of numbers": "1", "one": 1})
    row = codec.decode({name: values for name, (values, _) in given.items()})
    assert row.loc[0, ["boolean", "category of numbers", "one"]].tolist() == [True, 1, 1]
    assert int(given["category"][1].sum()) == 2


def test_nan_none_and_null_are_all_missing():
    frame = pl.DataFrame({"x": [1.5, float("nan"), None, 2.25], "w": ["a", None, "b", "a"]})
    codec = TableCodec.infer(frame)
    observed = codec.encode(frame)[1]
    assert observed["numeric"][:, 0].tolist() == [True, False, False, True]
    assert observed["category"][:, 0].tolist() == [True, False, True, True]
    assert [column.missing for column in codec.columns] == [0.5, 0.25]
    assert_same(gapped(codec, frame), frame.with_columns(pl.col("x").fill_nan(None)))


def test_columns_may_come_in_any_order_and_extra_gaps_are_only_gaps():
    frame = penguins()
    codec = TableCodec.infer(frame)
    shuffled = frame[list(reversed(frame.columns))].assign(species=None)
    state, observed = codec.encode(shuffled)
    assert not observed["category"][:, 0].any()
    assert torch.equal(state["numeric"], codec.encode(frame)[0]["numeric"])


def test_a_frame_to_be_like_lends_library_order_dtypes_and_index():
    frame = penguins()
    codec = TableCodec.infer(frame)
    state, observed = codec.encode(frame)
    missing = {name: ~mask for name, mask in observed.items()}
    other = pl.from_pandas(frame).select(reversed(frame.columns))
    assert_same(codec.decode(state, like=other, missing=missing), other)
    dated = frame.set_index(pd.date_range("2020-01-01", periods=344))
    assert_same(codec.decode(state, like=dated, missing=missing), dated)
    assert codec.decode(state, like=dated.head(9)).index.equals(pd.RangeIndex(344))


def test_a_column_that_is_all_gaps_comes_back_filled_in_the_type_that_was_fitted():
    frame = penguins()
    codec = TableCodec.infer(frame)
    state, observed = codec.encode(frame)
    missing = {name: ~mask for name, mask in observed.items()}
    gaps = frame.assign(sex=np.nan, body_mass_g=None)
    assert_same(codec.decode(state, like=gaps, missing=missing), frame)
    result = codec.decode(state, like=pl.from_pandas(gaps), missing=missing)
    wanted = pl.from_pandas(frame)
    assert_same(result.with_columns(pl.col("sex").cast(pl.String)).cast(wanted.schema), wanted)
    ours = TableCodec.infer(wanted)
    pandas = ours.decode(ours.encode(wanted)[0], like=gaps, missing=missing)
    pd.testing.assert_frame_equal(pandas, frame, check_dtype=False, check_categorical=False)


def test_the_schema_is_described_in_aligned_lines():
    lines = TableCodec.infer(penguins()).describe().splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert cells[0] == "column type detail missing"
    assert cells[1] == "species category 3: Adelie, Chinstrap, Gentoo 0.0 %"
    assert cells[3] == "bill_length_mm real 32.1 to 59.6 by 0.1 0.6 %"
    assert cells[6] == "body_mass_g integer 2700 to 6300 by 25 0.6 %"
    assert lines[0].index("type") == lines[1].index("category") == lines[6].index("integer")
