"""The demo writes every file, and its exit code says whether the promises hold."""

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from reversal.cli import app, digits, digits_tour
from reversal.cli.console import duration
from reversal.cli.digits import Figures
from reversal.cli.pictures import Sheet
from reversal.data import frames
from reversal.datasets import penguins
from reversal.metrics import Copying, Share

PICTURES = ["digits-completed", "digits-path", "digits-sampled", "penguins"]
GOOD = Figures(Share(950, 1000), Share(94, 100), Copying(1.0, 1.2, 1.0, 1.4, 0.05))


@pytest.mark.slow
def test_an_untrained_model_writes_every_file_and_breaks_its_promises(tmp_path, monkeypatch):
    brief = {"PENGUINS_STEPS": 3, "DIGITS_STEPS": 3}
    for name, value in brief.items():
        monkeypatch.setattr(sys.modules["reversal.cli.demo"], name, value)
    monkeypatch.setattr(digits_tour, "PER_LABEL", digits_tour.SHOWN)
    monkeypatch.setattr(digits_tour, "STEPS", digits_tour.MOMENTS)
    out = tmp_path / "deep" / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert "BROKEN" in result.stdout
    assert result.stdout.isascii() or "─" in result.stdout
    for name in PICTURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(frames.read(out / "penguins-sampled.csv")) == len(penguins())
    assert set(frames.read(out / "penguins-gentoo.csv")["species"]) == {"Gentoo"}
    filled = frames.read(out / "penguins-filled.csv")
    assert len(filled) == 20 * penguins().isna().any(axis=1).sum()
    assert not filled.isna().any(axis=None)


def test_a_promise_is_kept_at_its_bound_and_broken_below():
    assert [found.is_kept for found in digits_tour.findings(GOOD)] == [True, True, True, None]
    poor = Figures(Share(949, 1000), Share(93, 100), Copying(0.99, 1.2, 1.0, 1.4, 0.05))
    assert [found.is_kept for found in digits_tour.findings(poor)] == [False, False, False, None]


def test_the_digits_are_split_once_and_for_all():
    fitted, held = digits.load()
    assert (len(fitted.labels), len(held.labels)) == (1300, 497)
    both = np.concatenate([fitted.images, held.images]).reshape(1797, -1)
    assert both.min() == 0
    assert both.max() == digits.LEVELS
    assert len(np.unique(both, axis=0)) == 1797
    assert held.first_of_each().labels.tolist() == list(range(10))


def test_a_sheet_places_every_image_once(tmp_path):
    """Ink in one corner of one image is found at its row and column of the picture."""
    images = np.zeros((3, 4, 8, 8))
    images[1, 2] = 1
    path = tmp_path / "sheet.png"
    Sheet(images, "title", "caption", ["a", "b", "c"], rules=(0,)).write(path)
    from matplotlib.image import imread

    dark = imread(path)[..., :3].mean(-1) < 0.3
    rows, columns = (np.flatnonzero(dark.mean(axis) > 0.05) for axis in (1, 0))
    assert 60 < len(rows) < 90
    assert 60 < len(columns) < 90
    assert 0.3 < rows.mean() / dark.shape[0] < 0.9
    assert columns.mean() / dark.shape[1] > 0.5


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (204, "3 min 24 s")]
)
def test_a_duration_is_said_in_minutes_and_seconds(seconds, said):
    assert duration(seconds) == said
