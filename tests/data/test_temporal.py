"""Dates, times and durations: lattices of steps, the caller's unit and zone, exact returns."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from reversal.data import TableCodec
from reversal.data.conditions import between, one_of
from reversal.data.rows import TableSource
from reversal.errors import DataError

DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def rng(seed=0):
    return np.random.default_rng(seed)


def gapped(codec, frame):
    state, observed = codec.encode(frame)
    return codec.decode(state, missing={name: ~mask for name, mask in observed.items()})


def with_gaps(values, seed=0):
    hidden = rng(seed).random(len(values)) < 0.1
    return [None if gap else value for gap, value in zip(hidden, values, strict=True)]


def moments(n=120):
    """Entries of each type as Python objects, with gaps."""
    draw = rng(3)
    days = [dt.date(1969, 12, 1) + dt.timedelta(int(k)) for k in draw.integers(0, 900, n)]
    noons = [dt.datetime.combine(day, dt.time(12)) for day in days]
    quarters = [dt.time(int(k) // 4, int(k) % 4 * 15) for k in draw.integers(0, 96, n)]
    lengths = [dt.timedelta(minutes=int(k)) for k in draw.integers(-500, 500, n)]
    lists = {"days": days, "noons": noons, "quarters": quarters, "lengths": lengths}
    return {name: with_gaps(values, k) for k, (name, values) in enumerate(lists.items())}


def arrow_table():
    found = moments()
    columns = {
        "date32": pa.array(found["days"], pa.date32()),
        "date64": pa.array(found["days"], pa.date64()),
        "time32[s]": pa.array(found["quarters"], pa.time32("s")),
        "time32[ms]": pa.array(found["quarters"], pa.time32("ms")),
        "time64[us]": pa.array(found["quarters"], pa.time64("us")),
        "time64[ns]": pa.array(found["quarters"], pa.time64("ns")),
    }
    for unit in ("s", "ms", "us", "ns"):
        columns[f"duration[{unit}]"] = pa.array(found["lengths"], pa.duration(unit))
        for zone in (None, "UTC", "Europe/Berlin", "+05:30", "America/New_York"):
            kind = pa.timestamp(unit, zone)
            columns[str(kind)] = pa.array(found["noons"], pa.timestamp(unit)).cast(kind)
    return pa.table(columns)


def numpy_frame():
    table = arrow_table().drop_columns(["date64", "time32[s]", "time32[ms]", "time64[ns]"])
    frame = table.to_pandas(timestamp_as_object=False)
    assert {str(dtype) for dtype in frame.dtypes} >= {
        "object",
        "datetime64[s]",
        "datetime64[us, Europe/Berlin]",
        "timedelta64[ms]",
    }
    return frame


def polars_frame():
    columns = ("date32", "time64[ns]", "duration[us]", "timestamp[ns]", "timestamp[us, tz=UTC]")
    return pl.from_arrow(arrow_table().select([*columns, "timestamp[ms, tz=Europe/Berlin]"]))


def assert_same(result, frame):
    if isinstance(frame, pd.DataFrame):
        pd.testing.assert_frame_equal(result, frame, check_exact=True)
    else:
        assert result.schema == frame.schema
        assert result.equals(frame)


FRAMES = {
    "Arrow": arrow_table,
    "NumPy in pandas": numpy_frame,
    "Arrow in pandas": lambda: arrow_table().to_pandas(types_mapper=pd.ArrowDtype),
    "polars": polars_frame,
}


@pytest.mark.parametrize("name", FRAMES)
def test_moments_come_back_exactly_in_the_unit_and_the_zone_of_the_caller(name):
    frame = FRAMES[name]()
    codec = TableCodec.infer(frame)
    assert {column.kind for column in codec.columns} == {"date", "datetime", "time", "duration"}
    assert_same(gapped(codec, frame), frame)
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    assert rebuilt == codec
    assert_same(gapped(rebuilt, frame), frame)


@pytest.mark.parametrize("unit", DAY)
@pytest.mark.parametrize("count", [3, 60])
def test_daily_timestamps_lie_on_a_lattice_of_days(unit, count):
    days = pd.date_range("2019-12-30", periods=count).as_unit(unit)
    column = TableCodec.infer(pd.DataFrame({"t": days})).columns[0]
    assert (column.lattice.step, column.lattice.last) == (DAY[unit], count - 1)
    assert column.detail.endswith("by day")


def test_the_step_is_the_greatest_that_all_moments_share():
    start = pd.Timestamp("2024-03-01 00:07:30")
    for step, said in [("7D", "7 day"), ("90min", "1 h 30 min"), ("250ms", "250 ms")]:
        times = start + pd.to_timedelta(step) * np.arange(30)
        column = TableCodec.infer(pd.DataFrame({"t": times})).columns[0]
        assert column.detail.endswith(f"by {said}")
        assert column.lattice.last == 29


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_days_of_a_zone_are_days_though_its_clocks_change(zone):
    days = pd.date_range("2023-01-01", "2023-12-31", tz=zone)
    assert len(set(np.diff(days.as_unit("ns").asi8))) > 1
    frame = pd.DataFrame({"t": days})
    codec = TableCodec.infer(frame)
    assert codec.columns[0].lattice.last == 364
    pd.testing.assert_frame_equal(gapped(codec, frame), frame)
    between = codec.decode({"numeric": torch.linspace(-4, 4, 500)[:, None]})["t"]
    assert (between.dt.normalize() == between).all()
    assert str(between.dt.tz) == zone


def test_both_instants_of_an_hour_that_a_clock_shows_twice_come_back():
    hours = pd.date_range("2023-10-28 22:00", periods=48, freq="h", tz="UTC")
    frame = pd.DataFrame({"t": hours.tz_convert("Europe/Berlin")})
    pd.testing.assert_frame_equal(gapped(TableCodec.infer(frame), frame), frame)


def test_random_nanoseconds_come_back_within_half_a_float32_step_of_the_range():
    low, high = (pd.Timestamp(year).value for year in ("1990", "2020"))
    frame = pd.DataFrame({"t": pd.to_datetime(rng(5).integers(low, high, 2000))})
    back = gapped(TableCodec.infer(frame), frame)
    error = (back["t"] - frame["t"]).abs().max().value
    assert 0 < error < 2.0**-20 * (high - low)
    assert back["t"].dtype == frame["t"].dtype


def test_a_sample_stays_within_the_days_that_were_seen():
    frame = pd.DataFrame({"d": [dt.date(2020, 1, 1) + dt.timedelta(k) for k in range(30)]})
    codec = TableCodec.infer(frame)
    far = codec.decode({"numeric": torch.tensor([[-40.0], [40.0]])})["d"].tolist()
    assert far == [dt.date(2020, 1, 1), dt.date(2020, 1, 30)]


def test_moments_in_another_unit_or_zone_are_the_same_moments():
    days = pd.date_range("2020-01-01", periods=40, tz="UTC")
    codec = TableCodec.infer(pd.DataFrame({"t": days.as_unit("ns")}))
    state = codec.encode(pd.DataFrame({"t": days.as_unit("ns")}))[0]
    for other in (days.as_unit("s"), days.tz_convert("Asia/Tokyo")):
        assert torch.equal(codec.encode(pd.DataFrame({"t": other}))[0]["numeric"], state["numeric"])
    with pytest.raises(DataError, match=r"'t': expected datetimes .*tz=UTC.*got timestamp\[us\]"):
        codec.encode(pd.DataFrame({"t": days.tz_localize(None).as_unit("us")}))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("day", "2020-01-05", dt.date(2020, 1, 5)),
        ("day", dt.date(2020, 1, 5), dt.date(2020, 1, 5)),
        ("day", pd.Timestamp("2020-01-05"), dt.date(2020, 1, 5)),
        ("day", np.datetime64("2020-01-05"), dt.date(2020, 1, 5)),
        ("at", "2020-01-01 07:00", pd.Timestamp("2020-01-01 07:00")),
        ("at", "2020-01-01T07:00:00", pd.Timestamp("2020-01-01 07:00")),
        ("at", dt.datetime(2020, 1, 1, 7), pd.Timestamp("2020-01-01 07:00")),
        ("there", "2020-01-01 07:00", pd.Timestamp("2020-01-01 07:00", tz="Europe/Berlin")),
        ("there", "2020-01-01 06:00Z", pd.Timestamp("2020-01-01 07:00", tz="Europe/Berlin")),
        ("clock", "07:00", dt.time(7)),
        ("clock", dt.time(7), dt.time(7)),
        ("length", "7 h", pd.Timedelta("7h")),
        ("length", dt.timedelta(hours=7), pd.Timedelta("7h")),
    ],
)
def test_a_condition_reads_moments_as_objects_and_as_text(column, value, expected):
    n = 48
    hours = pd.date_range("2020-01-01", periods=n, freq="h")
    frame = pd.DataFrame(
        {
            "day": [dt.date(2020, 1, 1 + k % 20) for k in range(n)],
            "at": hours,
            "there": hours.tz_localize("Europe/Berlin"),
            "clock": [dt.time(k % 24) for k in range(n)],
            "length": pd.to_timedelta(np.arange(n), "h"),
        }
    )
    codec = TableCodec.infer(frame)
    values, known = codec.where({column: value})["numeric"]
    assert int(known.sum()) == 1
    assert codec.decode({"numeric": values})[column][0] == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("soon", r"'t': expected a datetime from 2020-01-01 to 2020-01-31, got 'soon'.*ISO 8601"),
        ("1999-01-01", r"got '1999-01-01'. Nothing was learned beyond"),
        (7, r"got 7. Write it as"),
        (None, r"got None"),
    ],
)
def test_a_condition_that_is_no_moment_or_lies_beyond_is_refused(value, message):
    frame = pd.DataFrame({"t": pd.date_range("2020-01-01", periods=31)})
    with pytest.raises(DataError, match=message):
        TableCodec.infer(frame).where({"t": value})


def test_constant_moments_and_columns_of_gaps_come_back():
    frame = pd.DataFrame(
        {
            "x": [1.5, 2.5, 9.0],
            "same": pd.to_datetime(["2020-01-01 10:00"] * 3).tz_localize("Europe/Berlin"),
            "partly": [dt.date(2020, 1, 1), None, dt.date(2020, 1, 1)],
            "never": pd.to_datetime([None] * 3),
        }
    )
    codec = TableCodec.infer(frame)
    assert [column.detail for column in codec.columns[1:]] == [
        "always 2020-01-01 10:00:00+01:00",
        "always 2020-01-01",
        "all missing",
    ]
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    back = rebuilt.decode(rebuilt.encode(frame)[0])
    filled = frame.assign(partly=[dt.date(2020, 1, 1)] * 3)
    pd.testing.assert_frame_equal(back, filled)
    with pytest.raises(DataError, match=r"'same': expected always 2020-01-01 10:00:00\+01:00"):
        codec.encode(frame.assign(same=frame["same"] + pd.Timedelta("1h")))


def test_the_law_of_dates_counts():
    draw = rng(6)
    frame = pd.DataFrame(
        {"t": pd.Timestamp("2020") + pd.to_timedelta(draw.integers(0, 9, 900), "D")}
    )
    codec = TableCodec.infer(frame)
    z = torch.special.ndtri((torch.arange(200_001, dtype=torch.float64) + 0.5) / 200_001)
    shares = codec.decode({"numeric": z[:, None]})["t"].value_counts(normalize=True)
    seen = frame["t"].value_counts(normalize=True)
    assert (shares - seen).abs().max() < 1e-5
    assert codec.columns[0].measure == "counting"


def test_the_ends_of_time_are_held():
    ends = [-(2**62), 2**62]
    frame = pd.DataFrame(
        {"t": pd.to_datetime([*ends, *ends, 0]), "d": pd.to_timedelta([*ends] * 2 + [0])}
    )
    codec = TableCodec.infer(frame)
    far = codec.decode({"numeric": torch.tensor([[-90.0, -90.0], [90.0, 90.0]])})
    assert far["t"].astype("int64").tolist() == ends
    assert far["d"].astype("int64").tolist() == ends
    years = [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2020, 1, 1)]
    dates = pd.DataFrame({"d": years * 10})
    pd.testing.assert_frame_equal(gapped(TableCodec.infer(dates), dates), dates)


def test_no_rows_are_no_rows_of_each_type():
    frame = numpy_frame()
    codec = TableCodec.infer(frame)
    empty = codec.decode({"numeric": torch.zeros(0, len(codec.numeric))})
    assert empty.dtypes.equals(frame.dtypes) and len(empty) == 0
    assert codec.encode(frame.head(0))[0]["numeric"].shape == (0, len(codec.numeric))


def test_categories_that_are_dates_are_refused_with_the_cure():
    days = pd.Categorical(pd.to_datetime(["2020-01-01", "2021-01-01"]))
    with pytest.raises(DataError, match=r"'x': expected numbers, text.*dictionary.*Convert it"):
        TableCodec.infer(pd.DataFrame({"x": days}))


def test_ranges_of_moments_are_those_of_their_positions():
    days = [dt.date(2020, 1, 1 + k) for k in range(30)]
    source = TableSource(TableCodec.infer(pd.DataFrame({"d": days, "x": rng().normal(size=30)})))
    asked = between("2020-01-05", "2020-01-07")
    (found,) = source.restrictions({"d": asked})
    z = torch.linspace(-2.5, 2.5, 4001, dtype=torch.float64)
    drawn = source.codec.decode({"numeric": torch.stack([z, z], 1)})["d"]
    inside = drawn.between(dt.date(2020, 1, 5), dt.date(2020, 1, 7)).to_numpy()
    low, high = found.ends[0].tolist()
    assert (inside == ((z >= low) & (z <= high)).numpy()).mean() > 0.999
    with pytest.raises(DataError, match="from 2020-01-01 to 2020-01-30, got 2021-01-01"):
        source.restrictions({"d": between("2021-01-01")})
    with pytest.raises(
        DataError, match="expected a date from 2020-01-01 to 2020-01-30, got 'soon'"
    ):
        source.restrictions({"d": between("soon")})


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        (between("2019-12-31"), True),
        (between("2020-01-01", "2020-01-01"), True),
        (one_of("2020-01-01", "2021-01-01"), True),
        (between("2020-01-02"), False),
        (one_of("2021-01-01", "2022-01-01"), False),
    ],
)
def test_a_range_holds_for_a_constant_day_or_is_refused(asked, holds):
    frame = pd.DataFrame({"d": [pd.Timestamp("2020-01-01")] * 30, "x": rng().normal(size=30)})
    source = TableSource(TableCodec.infer(frame))
    if holds:
        assert source.restrictions({"d": asked}) == ()
    else:
        with pytest.raises(DataError, match="expected conditions that some value meets"):
            source.restrictions({"d": asked})
