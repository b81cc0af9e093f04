"""Tables that are streamed, and what is read off them."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from reversal.data import reservoir
from reversal.data.census import infer_codec
from reversal.data.table_file import open_table

ROWS = 3000


def small_sample(patch, rows=500):
    """Let a sample hold some rows only."""
    patch.setattr(reservoir, "MOST_ROWS", rows)


def mixed(rows=ROWS):
    """Every type of column, with gaps."""
    rng = np.random.default_rng(1)
    days = pd.to_timedelta(rng.integers(0, 900, rows), "D")
    seconds = pd.to_timedelta(rng.integers(0, 90_000, rows), "s")
    frame = pd.DataFrame(
        {
            "key": [f"k{j}" for j in range(rows)],
            "number": np.arange(rows),
            "x": rng.normal(size=rows),
            "money": np.round(rng.exponential(size=rows), 2),
            "fives": 5 * rng.integers(3, 16, rows),
            "kind": rng.choice(list("abcd"), rows),
            "is": rng.random(rows) < 0.3,
            "day": pd.Timestamp("2020-01-01") + days,
            "at": pd.Timestamp("2020-01-01", tz="Europe/Berlin") + seconds,
            "level": pd.Categorical(rng.choice(["lo", "hi"], rows), ["lo", "mid", "hi"], True),
            "one": 1.0,
        }
    )
    frame.loc[::7, "x"] = np.nan
    frame.loc[3::11, "kind"] = None
    frame["gaps"] = frame["fives"].astype(float).where(rng.random(rows) < 0.8)
    return frame


def written(frame, path):
    """Write a frame in row groups smaller than the file."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        parquet.write_table(pa.Table.from_pandas(frame), path, row_group_size=700)
    return path


def config(codec):
    """A codec as text: what it comes to, bit for bit."""
    return json.dumps(codec.to_config())


def shown(codec):
    """What is said of columns, knots aside."""
    return {c.name: (c.kind, c.detail, c.missing) for c in codec.columns}


def column(path, name="x"):
    """Return one column of what a streamed file shows."""
    return infer_codec(open_table(path)).column(name)
