"""The command `schema` and the option `--space`: printed, written, edited, obeyed or refused."""

import pandas as pd
import pytest
import yaml

from reversal.data import Schema, frames
from reversal.datasets import penguins
from tests.cli.test_commands import call, refused


@pytest.fixture
def place(tmp_path):
    frames.write(penguins().assign(bird=[f"b{k}" for k in range(344)]), tmp_path / "penguins.csv")
    return tmp_path


def edited(path, **columns):
    tree = yaml.safe_load(path.read_text("utf-8"))
    tree["columns"] |= columns
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


def test_a_schema_is_printed_and_written(place):
    done = call("schema", place / "penguins.csv", "--out", place / "space.yaml")
    assert done.exit_code == 0, done.output
    for said in (
        "bill_length_mm",
        "identifier",
        "32.1 to 59.6 by 0.1",
        "3.2 %",
        "new ones from b344",
    ):
        assert said in " ".join(done.stdout.split())
    schema = Schema.read(place / "space.yaml")
    assert list(schema.columns) == [*penguins().columns, "bird"]


def test_an_edited_schema_is_obeyed_from_the_file_to_the_samples(place):
    assert call("schema", place / "penguins.csv", "--out", place / "space.yaml").exit_code == 0
    space = edited(
        place / "space.yaml",
        year={"type": "ordered category", "categories": [2007, 2008, 2009]},
        island={"type": "drop"},
    )
    done = call(
        *("fit", place / "penguins.csv", "--out", place / "run"),
        *("--minutes", 0.003, "--space", space),
    )
    assert done.exit_code == 0, done.output
    assert "2007 < 2008 < 2009" in done.stdout and "left out: island" in done.stdout
    assert call("sample", place / "run", "-n", 9, "--out", place / "new.csv").exit_code == 0
    new = frames.read(place / "new.csv")
    assert list(new.columns) == [c for c in [*penguins().columns, "bird"] if c != "island"]
    assert new["bird"].tolist() == [f"b{344 + k}" for k in range(9)]
    assert set(new["year"]) <= {2007, 2008, 2009}
    again = call("schema", place / "penguins.csv", "--space", space)
    assert "2007 < 2008 < 2009" in again.stdout


def test_levels_that_are_declared_can_be_drawn_and_are_no_evidence(place):
    done = call("schema", place / "penguins.csv", "--out", place / "space.yaml")
    assert done.exit_code == 0 and "values: [2007, 2008, 2009]" in (place / "space.yaml").read_text(
        "utf-8"
    )
    wider = {"type": "levels", "values": [2005, 2007, 2008, 2009, 2011]}
    space = edited(place / "space.yaml", year=wider)
    done = call(
        *("fit", place / "penguins.csv", "--out", place / "run"),
        *("--minutes", 0.003, "--space", space),
    )
    assert done.exit_code == 0, done.output
    assert "never seen: 2005, 2011" in " ".join(done.stdout.split())
    assert Schema.read(place / "run" / "space.yaml").columns["year"].values == (
        *(2005, 2007, 2008),
        *(2009, 2011),
    )
    new = place / "new.csv"
    assert call("sample", place / "run", "-n", 20, "--out", new).exit_code == 0
    assert set(frames.read(new)["year"]) <= set(wider["values"])
    wanted = ("sample", place / "run", "-n", 20, "--out", new, "--where")
    assert call(*wanted, "year in 2005..2007").exit_code == 0
    assert set(frames.read(new)["year"]) <= {2005, 2007}
    before = new.read_bytes()
    for asked in ("year == 2011", "year > 2009", "year in (2005, 2011)"):
        done = refused(*wanted, asked)
        assert "a value that was seen" in done and "ask for another value" in done
    assert "one of 2005, 2007, 2008, 2009, 2011, got 2006" in refused(*wanted, "year == 2006")
    assert new.read_bytes() == before


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"species": {"type": "real"}},
            "Column 'species': expected numbers (real), got 'Adelie' in row 0",
        ),
        (
            {"year": {"type": "integer", "greatest": 2008}},
            "got 2009 in row 100 (counting from 0). Widen",
        ),
        (
            {"year": {"type": "levels", "values": [2007, 2008]}},
            "got 2009 in row 100 (counting from 0). Add it to `values` in space.yaml",
        ),
        ({"weight": {"type": "real"}}, "Expected a column 'weight', which space.yaml declares"),
        ({"year": {"type": "integr"}}, "did you mean 'integer'"),
    ],
)
def test_a_schema_that_does_not_fit_is_refused_before_any_work(place, columns, said):
    (place / "space.yaml").write_text("version: 1\ncolumns: {}\n", "utf-8")
    space = edited(place / "space.yaml", **columns)
    arguments = ("fit", place / "penguins.csv", "--out", place / "run", "--space", space)
    assert said in refused(*arguments)
    assert not (place / "run").exists()


def test_a_schema_that_is_none_is_refused(place):
    table = place / "penguins.csv"
    assert "reversal schema FILE" in refused(
        "fit", table, "--out", place / "run", "--space", place / "no"
    )
    (place / "bad.yaml").write_text("version: 1\ncolumns: {a: [}", "utf-8")
    assert "line 2" in refused("schema", table, "--space", place / "bad.yaml")


def test_a_schema_is_not_written_where_it_cannot_be_or_over_the_table(place):
    table = place / "penguins.csv"
    before = table.read_bytes()
    assert "a folder that exists" in refused("schema", table, "--out", place / "no" / "space.yaml")
    assert "can be written to" in refused("schema", table, "--out", "/proc/space.yaml")
    assert "got the folder" in refused("schema", table, "--out", place)
    assert "which is read" in refused("schema", table, "--out", table)
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("x,y\n", "no row"),
        ("x,y\n1,a\n", "at least two rows, got one row"),
        ("x,y\n1,\n1,\n", "a column that varies"),
        ("x,x\n1,2\n2,3\n", "'x' more than once"),
        ("x\n1.5\ninf\n", "'x': expected finite numbers"),
        ("x\n1.5\n-inf\n2\n", "'x': expected finite numbers"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "schema"])
def test_a_table_that_teaches_nothing_is_refused(tmp_path, command, content, said):
    (tmp_path / "table.csv").write_text(content, "utf-8")
    out = ("--out", tmp_path / "run") if command == "fit" else ()
    assert said in refused(command, tmp_path / "table.csv", *out)
    assert not (tmp_path / "run").exists()


def test_mixed_types_in_a_column_are_refused(tmp_path):
    """A CSV column of numbers and words is text; one that is not text in Parquet is refused."""
    frame = pd.DataFrame({"x": [[1, 2], [3], []], "y": [1.5, 2.5, 3.0]})
    frame.to_parquet(tmp_path / "lists.parquet")
    assert "Column 'x'" in refused("fit", tmp_path / "lists.parquet", "--out", tmp_path / "run")
    (tmp_path / "mixed.csv").write_text("x,y\n1,1.5\nb,2.5\n1,3.5\n", "utf-8")
    (tmp_path / "space.yaml").write_text("version: 1\ncolumns: {x: integer}\n", "utf-8")
    sentence = refused(
        *(
            "fit",
            tmp_path / "mixed.csv",
            "--out",
            tmp_path / "run",
            "--space",
            tmp_path / "space.yaml",
        )
    )
    assert "Column 'x': expected numbers (integer), got 'b' in row 1" in sentence


def test_constant_and_all_missing_columns_are_kept_beside_one_that_varies(tmp_path):
    (tmp_path / "t.csv").write_text(
        "x,c,n\n" + "\n".join(f"{k}.5,same," for k in range(30)), "utf-8"
    )
    fitted = call("fit", tmp_path / "t.csv", "--out", tmp_path / "run", "--minutes", 0.002)
    assert fitted.exit_code == 0, fitted.output
    assert "always same" in fitted.stdout and "all missing" in fitted.stdout
    assert call("sample", tmp_path / "run", "-n", 4, "--out", tmp_path / "o.csv").exit_code == 0
    assert (tmp_path / "o.csv").read_text().splitlines()[1].endswith(',"same",')


def test_dates_in_a_csv_file_come_back_as_dates_and_are_asked_for(tmp_path):
    rows = [
        f"2024-01-{1 + k % 28:02d},2024-01-01 {k % 24:02d}:30:00,{k % 24:02d}:15:00,{k}.5"
        for k in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["day,at,clock,x", *rows]), "utf-8")
    fitted = call("fit", tmp_path / "t.csv", "--out", tmp_path / "run", "--minutes", 0.002)
    assert fitted.exit_code == 0, fitted.output
    out = tmp_path / "new.csv"
    asked = "day == '2024-01-05' and clock == '07:15'"
    done = call("sample", tmp_path / "run", "-n", 5, "--out", out, "--where", asked)
    assert done.exit_code == 0, done.output
    lines = out.read_text("utf-8").splitlines()
    assert len(lines) == 6
    for line in lines[1:]:
        day, at, clock, _ = line.split(",")
        assert (day, clock) == ("2024-01-05", "07:15:00")
        assert at.startswith("2024-01-01 ") and at.endswith(":30:00")
    never = ("sample", tmp_path / "run", "-n", 5, "--out", out, "--where", "day == '2025-01-01'")
    assert "a date from 2024-01-01 to 2024-01-28" in refused(*never)
