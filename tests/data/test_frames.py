"""Tables in files: read again as they were, written whole, and refused with the cure."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from reversal.data import read, write
from reversal.datasets import penguins
from reversal.errors import DataError


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_was_written_is_read_again(tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    write(penguins(), path)
    pd.testing.assert_frame_equal(read(path), penguins(), check_dtype=ending == "parquet")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_parquet_file_comes_back_as_what_wrote_it(tmp_path):
    path = tmp_path / "table.PARQUET"
    indexed = penguins().rename_axis("bird").iloc[::-1]
    write(indexed, path)
    pd.testing.assert_frame_equal(read(path), indexed)
    table = pa.table({"x": [1, None, 3], "w": pa.array(["a", None, "b"]).dictionary_encode()})
    write(table, path)
    assert read(path).equals(table)
    write(pl.from_arrow(table), path)
    assert read(path).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("penguin.csv", None, r"found none at .*penguin.csv.*did you mean 'penguins.csv'\?"),
        ("missing/a.csv", None, r"there is no folder"),
        ("a.xlsx", b"", r"ends in .csv or .parquet, got 'a.xlsx'"),
        ("a.csv", b"", r"got an empty file"),
        ("a.csv", b"x,y\n", r"got 2 column names and no row"),
        ("a.csv", b"x,y\n1,2\n3\n", r"comma-separated.*Expected 2 columns, got 1"),
        ("a.csv", b"x;y\n1;2\n", r"commas in the place of ';'"),
        ("a.csv", b"x\n\xff\xfe\n", r"Column 'x'.*UTF-8"),
        ("a.parquet", b"PAR1 no more", r"Parquet file.*cut short"),
    ],
)
def test_a_file_that_holds_no_table_is_refused(tmp_path, name, content, message):
    (tmp_path / "penguins.csv").write_bytes(b"x\n1\n2\n")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(DataError, match="expected one type"):
        write(pd.DataFrame({"x": [1, "a"]}, dtype=object), path)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"
    with pytest.raises(DataError, match=r"Expected to write .*Choose a folder"):
        write(penguins(), tmp_path / "nowhere" / "table.csv")
    with pytest.raises(DataError, match=r"ends in .csv or .parquet, got 'table.txt'"):
        write(penguins(), tmp_path / "table.txt")


def test_importing_the_package_of_codecs_loads_nothing_heavy():
    code = (
        "import sys, reversal.data, reversal.data.frames, reversal.datasets;"
        "print(*{'pandas', 'pyarrow', 'narwhals', 'scipy', 'polars'} & set(sys.modules))"
    )
    path = [part for part in sys.path if part]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
