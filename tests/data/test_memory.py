"""How much memory a fit of a large file takes: measured in processes of their own.

What counts is anonymous memory (`RssAnon`): pages of a mapped file are given back when others need
them. The bound is on what a fit adds to a process that has fitted a tiny file before.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

ROOT = Path(__file__).parents[2]
MOST = 3 * 2**27
"""The bytes that a streamed fit may add, whatever the size of the file."""
PROGRAM = """
import re, sys, threading
import reversal as rv
from reversal.data import table_file

def anonymous():
    text = open("/proc/self/status").read()
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", text)[1])

def watch():
    while not ended.wait(0.002):
        peaks.append(anonymous())

small = dict(steps=5, hidden_features=16, num_blocks=1, show_progress=False)
table_file.LARGE = int(sys.argv[3])
rv.Model(**small).fit(sys.argv[1])
before, peaks, ended = anonymous(), [0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
rv.Model(**small).fit(sys.argv[2])
ended.set()
watcher.join()
print(max(peaks) - before)
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc"
)


def rows_of(seed, n):
    """Numbers, rounded numbers, categories and booleans: 8 columns."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "a": rng.normal(size=n),
            "b": rng.integers(0, 100, n),
            "c": np.array(["red", "green", "blue"])[rng.integers(0, 3, n)],
            "d": np.round(rng.exponential(size=n), 2),
            "e": rng.random(n) < 0.4,
            "f": rng.normal(size=n),
            "g": np.array([f"v{j}" for j in range(50)])[rng.integers(0, 50, n)],
            "h": rng.normal(size=n).astype("f4"),
        }
    )


def generated(path, rows, step=2**17):
    """Write a file, some rows at a time."""
    opened = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
    with opened(path, rows_of(0, 1).schema) as file:
        for start in range(0, rows, step):
            file.write_table(rows_of(start, min(step, rows - start)))
    return path


def added(tmp_path, path, large=0):
    """Return the bytes of memory that a fit of a file adds at its peak."""
    tiny = generated(tmp_path / f"tiny{path.suffix}", 300)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny), str(path), str(large)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_fit_of_half_a_million_rows_is_bounded(tmp_path, name):
    assert added(tmp_path, generated(tmp_path / name, 500_000)) < MOST


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_twice_the_rows_take_no_more_memory(tmp_path, name):
    """1.5 and 3 million rows: in memory the difference is more than 500 MiB."""
    half = added(tmp_path, generated(tmp_path / name, 1_500_000))
    path = generated(tmp_path / name, 3_000_000)
    whole = added(tmp_path, path)
    assert max(half, whole) < MOST
    assert whole < half + 2**26


@pytest.mark.slow
def test_the_same_fit_in_memory_takes_a_multiple(tmp_path):
    """What the bound is worth: two million rows."""
    path = generated(tmp_path / "table.parquet", 2_000_000)
    assert added(tmp_path, path, large=2**60) > 2.5 * added(tmp_path, path)
