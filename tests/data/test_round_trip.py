"""decode(encode(x)) = x over random tables of every library, dtype, gap pattern and length.

Ranges are such that float32 tells neighbors apart; beyond, numbers come back nearly.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reversal.data import TableCodec

N = st.integers(2, 60)
WHOLE = st.integers(-1000, 1000)
CENTS = st.integers(-5000, 5000).map(lambda k: k / 100)
WORDS = st.sampled_from(["a", "b", "", "é", "no", "1", "null"])
DAYS = st.integers(-9000, 9000).map(lambda k: dt.date(2000, 1, 1) + dt.timedelta(k))
SECONDS = st.integers(0, 20_000).map(lambda k: dt.datetime(1990, 1, 1) + dt.timedelta(seconds=k))
TIMES = st.integers(0, 20_000).map(lambda k: dt.time(k // 3600, k // 60 % 60, k % 60))
LENGTHS = st.integers(-(10**4), 10**4).map(lambda k: dt.timedelta(seconds=k))
ARROW = {
    "int64": (WHOLE, pa.int64()),
    "int16": (WHOLE, pa.int16()),
    "uint32": (st.integers(2**32 - 10**4, 2**32 - 1), pa.uint32()),
    "float64": (CENTS, pa.float64()),
    "float32": (st.integers(-500, 500).map(lambda k: k / 8), pa.float32()),
    "decimal": (CENTS.map(lambda x: f"{x:.2f}"), pa.decimal128(12, 2)),
    "bool": (st.booleans(), pa.bool_()),
    "string": (WORDS, pa.string()),
    "large_string": (WORDS, pa.large_string()),
    "dictionary": (WORDS, pa.dictionary(pa.int16(), pa.string())),
    "date32": (DAYS, pa.date32()),
    "timestamp": (SECONDS, pa.timestamp("us")),
    "zoned": (SECONDS, pa.timestamp("ns", "America/New_York")),
    "time": (TIMES, pa.time64("us")),
    "duration": (LENGTHS, pa.duration("ms")),
}


@st.composite
def tables(draw, kinds=tuple(ARROW)):
    """Draw an Arrow table with gaps; a whole number column keeps it from being all constant."""
    n = draw(N)
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5, unique=True))
    columns = {"first": pa.array([k % 2 for k in range(n)])}
    for name in chosen:
        values, kind = ARROW[name]
        entries = draw(st.lists(st.none() | values, min_size=n, max_size=n))
        columns[name] = made(entries, kind)
    return pa.table(columns)


def made(entries, kind):
    if pa.types.is_decimal(kind):
        return pa.array(entries, pa.string()).cast(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(entries, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(entries, kind)


def gapped(frame):
    codec = TableCodec.infer(frame)
    state, observed = codec.encode(frame)
    back = codec.decode(state, missing={name: ~mask for name, mask in observed.items()})
    return codec, back


def with_constant_gaps(frame, codec):
    """Return a frame in which constants are filled as a decoded one has them."""
    return [column.name for column in codec.columns if column.kind in ("constant", "identifier")]


@settings(max_examples=40)
@given(tables())
def test_an_arrow_table_comes_back(table):
    codec, back = gapped(table)
    assert back.schema == table.schema
    skipped = with_constant_gaps(table, codec)
    assert back.drop_columns(skipped).to_pylist() == table.drop_columns(skipped).to_pylist()


@settings(max_examples=40)
@given(tables(), st.sampled_from(["numpy", "arrow", "nullable"]), st.booleans())
def test_a_pandas_frame_comes_back(table, backend, has_dates_as_index):
    mapper = {"arrow": pd.ArrowDtype, "nullable": NULLABLE.get}.get(backend)
    frame = table.to_pandas(types_mapper=mapper)
    frame = frame.drop(columns=[c for c in frame if frame[c].isna().all()])
    codec, back = gapped(frame)
    skipped = with_constant_gaps(frame, codec)
    assert list(back.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(
        back.drop(columns=skipped), frame.drop(columns=skipped), check_exact=True
    )
    if has_dates_as_index:
        dated = frame.set_index(pd.date_range("2020-01-01", periods=len(frame), tz="UTC"))
        state, _ = codec.encode(dated)
        pd.testing.assert_index_equal(codec.decode(state, like=dated).index, dated.index)


NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.float32(): pd.Float32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype("python"),
    pa.large_string(): pd.StringDtype("pyarrow"),
}


@settings(max_examples=40)
@given(tables(tuple(kind for kind in ARROW if kind != "dictionary")), st.booleans())
def test_a_polars_frame_comes_back(table, is_enum):
    frame = pl.from_arrow(table)
    if is_enum:
        levels = pl.Enum(["never", "1", "0"])
        frame = frame.with_columns(level=pl.col("first").cast(pl.String).cast(levels))
    codec, back = gapped(frame)
    assert back.schema == frame.schema
    skipped = with_constant_gaps(frame, codec)
    assert back.drop(skipped).equals(frame.drop(skipped))
    if is_enum:
        column = codec.columns[-1]
        assert (column.kind, column.labels) == ("ordered category", ("never", "1", "0"))


@pytest.mark.parametrize("ordered", [True, False])
def test_categories_keep_their_order_and_those_that_never_occur(ordered):
    values = pd.Categorical(["lo", None, "hi"] * 20, ["hi", "never", "lo"], ordered=ordered)
    codec, back = gapped(pd.DataFrame({"c": values}))
    pd.testing.assert_series_equal(back["c"], pd.Series(values, name="c"))
    column = codec.columns[0]
    assert column.labels == ("hi", "never", "lo")
    assert column.is_ordered == ordered
    assert column.kind == ("ordered category" if ordered else "category")


@pytest.mark.parametrize("spike", [0.0, 1 / 3])
def test_real_numbers_come_back_within_a_float32_step_and_spikes_exactly(spike):
    draw = np.random.default_rng(0)
    numbers = np.where(draw.random(3000) < 0.3, spike, draw.normal(size=3000))
    for frame in (
        pd.DataFrame({"x": numbers}),
        pl.DataFrame({"x": numbers}),
        pa.table({"x": numbers}),
        np.array([(x,) for x in numbers], [("x", "f8")]),
    ):
        back = np.asarray(gapped(frame)[1]["x"])
        assert (back[numbers == spike] == spike).all()
        assert np.abs(back - numbers).max() < 3e-6
