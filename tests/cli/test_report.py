"""``reversal report``: a page where all is well, a sentence and exit code 2 where it is not."""

import pytest
from typer.testing import CliRunner

from reversal.cli import app
from reversal.data import frames
from reversal.datasets import penguins
from reversal.model import Model
from reversal.report import density, trust

PROGRAM = CliRunner()


def call(*arguments):
    """Run the command; nothing but an exit code comes out of it."""
    result = PROGRAM.invoke(app, ["report", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Ask the model about few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "IMPUTED", 20)
        patch.setattr(density, "SCORED", 40)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("report")
    rows = penguins().sample(frac=1, random_state=0)
    frames.write(rows[:200], place / "train.csv")
    frames.write(rows[200:], place / "test.csv")
    train = frames.read(place / "train.csv")
    small = Model(steps=30, hidden_features=16, num_blocks=1, show_progress=False)
    small.fit(train).save(place / "run")
    return place


def test_a_page_is_written_with_the_answers_and_the_command(folder):
    out = folder / "report.html"
    options = ("--holdout", folder / "test.csv", "--train", folder / "train.csv", "-n", 60)
    where = ("--where", "species == 'Gentoo'", "--where", "year == 2008 and sex == 'female'")
    where += ("--where", "body_mass_g in 4000..5000 and island != 'Dream'")
    done = call(folder / "run", *options, *where, "--target", "species", "--out", out)
    assert done.exit_code == 0, done.output
    page = out.read_text("utf-8")
    assert "--where &#34;species == &#39;Gentoo&#39;&#34;" in page
    assert "Where year == 2008" in page
    assert "\u201cspecies\u201d" in page
    assert "30 steps in " in page
    assert str(folder) not in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "page.pdf"], "ends in .html"),
        (["--out", "none/page.html"], "folder that exists"),
        (["--out", "folder.html"], "got the folder"),
        (["--holdout", "gone.csv"], "found none"),
        (["--holdout", "empty.csv"], "empty file"),
        (["--holdout", "head.csv"], "no row"),
        (["--holdout", "other.csv"], "without"),
        (["--train", "other.csv"], "without"),
        (["--where", "species = 'Gentoo'"], "got `=`"),
        (["--where", "specie == 'Gentoo'"], "did you mean 'species'?"),
        (["--target", "always"], "'always'"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    folder, tmp_path, monkeypatch, options, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "empty.csv").write_text("", "utf-8")
    (tmp_path / "head.csv").write_text("species,island\n", "utf-8")
    (tmp_path / "other.csv").write_text("species,island\na,b\nb,c\n", "utf-8")
    good = {"--holdout": str(folder / "test.csv"), "--out": "page.html", "-n": "5"}
    good |= dict(zip(options[::2], options[1::2], strict=True))
    done = call(folder / "run", *[word for pair in good.items() for word in pair])
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("reversal: ")
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_run_that_is_none_is_refused(folder, tmp_path):
    done = call(tmp_path / "gone", "--holdout", folder / "test.csv", "--out", tmp_path / "p.html")
    assert done.exit_code == 2
    assert "gone" in done.stderr
