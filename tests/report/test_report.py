"""A report is one page that needs nothing else, and says what the metrics say."""

import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from reversal.data.forms import to_table
from reversal.datasets import penguins
from reversal.errors import DataError
from reversal.metrics import c2st, nearest, shape, trend, utility
from reversal.model import Model
from reversal.report import Origin, Question, build, density, facts, material, report, trust
from reversal.report.blocks import Finding, Tone
from reversal.report.log import Line, read
from reversal.report.material import codes, gather
from reversal.report.path import HIDDEN, cells
from reversal.report.words import association, between, of_share, percent
from reversal.spaces import Euclidean

VOID = {"meta", "br", "path", "rect", "line", "circle"}
ALL = penguins().sample(frac=1, random_state=0).reset_index(drop=True)
NOTE = "<b>&'\"</b>"
ALL["note"] = np.where(np.arange(len(ALL)) % 3, "plain", NOTE)
ALL["flag"] = np.arange(len(ALL)) % 5 == 0
ALL["always"] = 7
TRAIN, HOLDOUT = ALL[:200], ALL[200:]


def never(*words):
    """Stand where the long work begins."""
    raise AssertionError(words)


class Page(HTMLParser):
    """The text of a page, and what is wrong with it."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.links, self.ids = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named[k] for k in ("href", "src", "xlink:href", "action") if k in named]
        assert not [name for name in named if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def words(page):
    """Return what a reader sees, blanks made equal."""
    return re.sub(r"\s+", " ", unescape(" ".join(Page(page).text)))


@pytest.fixture(scope="module")
def model():
    return Model(steps=60, hidden_features=24, num_blocks=1, show_progress=False).fit(TRAIN)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Ask the model about few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "IMPUTED", 30)
        patch.setattr(density, "SCORED", 60)
        yield


@pytest.fixture(scope="module")
def page(model):
    asked = [Question("species == 'Gentoo'", {"species": "Gentoo"})]
    origin = Origin("the run", "holdout.csv", "train.csv", "reversal report run")
    return report(model, HOLDOUT, TRAIN, asked=asked, origin=origin)


def test_the_page_is_whole_and_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|<iframe", page)
    assert page.count("<svg") == page.count('role="img" aria-label="')
    assert len(page) < 300_000
    assert "nan" not in words(page).lower().split()
    assert "/tmp" not in page


def test_the_figures_are_those_of_the_metrics(model, page):
    material = gather(model, HOLDOUT, TRAIN, seed=0)
    real, unseen, made = material.equal()
    said = words(page).replace("\u00a0", " ")
    figures = [
        percent(shape(real, made).error),
        percent(shape(real, unseen).error),
        percent(trend(real, made, common=True).error),
        percent(trend(real, unseen, common=True).error),
        percent(trend(real, made).error),
        between(c2st(unseen, made)),
        between(c2st(real, unseen, most=len(unseen))),
        between(utility(real, material.made, material.unseen).loss),
        association(trend(real, made, common=True).worst()[0].real),
    ]
    near = nearest(real, material.unseen, material.made)
    figures += [between(near.synthetic_median), between(near.closer), of_share(near.copies)]
    for figure in figures:
        assert figure.replace("\u00a0", " ") in said


def test_what_comes_from_the_data_is_text_and_not_markup(page):
    assert NOTE not in page
    assert NOTE in words(page)


def test_columns_that_are_left_out_are_named_with_the_reason(page):
    assert "left out: one value" in words(page)


def test_the_same_arguments_give_the_same_page(model):
    origin = Origin("run")
    first, second = (report(model, HOLDOUT, TRAIN, origin=origin, rows=40) for _ in range(2))
    assert first == second


def test_without_training_rows_the_holdout_is_its_own_floor(model):
    said = words(report(model, HOLDOUT))
    assert "no training rows were given" in said
    assert "one half of the holdout with the other" in said
    assert "Does it remember" not in said


@pytest.mark.parametrize("train", [TRAIN, None])
def test_how_many_rows_of_a_file_were_looked_at_is_said(model, monkeypatch, train):
    def told():
        found = gather(model, HOLDOUT, train, rows=40)
        rows = dict(facts.section(found, Origin(train="t.csv"), []).blocks[0].rows)
        return rows["Holdout"], rows["Training rows"]

    assert told()[0] == "holdout: 144 rows"
    monkeypatch.setattr(material, "MOST_REAL", 90)
    monkeypatch.setattr(material, "MOST_MADE", 60)
    holdout, training = told()
    number = 60 if train is not None else 2 * 60
    assert holdout == f"holdout: 144 rows, of which {number} were drawn to be looked at"
    if train is not None:
        assert training == "t.csv: 200 rows, of which 90 were drawn to be looked at"


def test_few_rows_are_never_called_good(model):
    page = report(model, HOLDOUT.head(5), TRAIN, rows=20)
    assert 'class="good"' not in page
    assert "too few to tell" in page
    assert "only 5 unseen real rows" in page


def test_verdicts_follow_the_tones():
    tones = [[Tone.GOOD] * 3, [Tone.GOOD, Tone.FAIR], [Tone.FAIR, Tone.POOR], [Tone.PLAIN]]
    said = [build.verdict([Finding("", "", "", "", tone) for tone in part]) for part in tones]
    starts = ["Not told", "Close to", "Use with care", "too little"]
    assert all(start in words for start, words in zip(starts, said, strict=True))


def test_values_that_the_model_never_saw_are_counted_and_no_harm(model):
    strange = HOLDOUT.assign(island=np.where(np.arange(len(HOLDOUT)) < 3, "Atlantis", "Dream"))
    said = words(report(model, strange, TRAIN, rows=50))
    assert "island (3)" in said


@pytest.mark.parametrize(
    ("holdout", "train", "said"),
    [
        (HOLDOUT.drop(columns="sex"), TRAIN, "holdout file, got it without 'sex'"),
        (HOLDOUT, TRAIN.assign(more=1), "train file, got 'more' as well"),
        (HOLDOUT.head(0), TRAIN, "Expected rows in the holdout file"),
        (HOLDOUT.head(3), None, "at least 4 rows"),
        (HOLDOUT.assign(year="long ago"), TRAIN, "'year'"),
        (HOLDOUT.assign(body_mass_g=np.inf), TRAIN, "'body_mass_g'"),
        (HOLDOUT.assign(flag=2), TRAIN, "'flag'"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_a_sentence(model, holdout, train, said):
    with pytest.raises(DataError, match="xpected") as error:
        gather(model, holdout, train, show=never)
    assert said in str(error.value)


def test_a_question_or_target_that_is_none_is_refused_before_rows_are_drawn(model):
    with pytest.raises(DataError, match="Dodo"):
        gather(model, HOLDOUT, TRAIN, [{"species": "Dodo"}], show=never)
    with pytest.raises(DataError, match="one value"):
        gather(model, HOLDOUT, TRAIN, target="always", show=never)


def test_a_model_of_arrays_is_refused():
    arrays = Model(steps=2, hidden_features=8, num_blocks=0, show_progress=False)
    arrays.fit(np.zeros((20, 2), np.float32) + np.arange(20)[:, None], Euclidean(2))
    with pytest.raises(DataError, match="one of arrays"):
        report(arrays, HOLDOUT)


def test_hidden_entries_are_dots_and_data_have_none(model):
    seeded = torch.Generator().manual_seed(0)
    prior = model.process_.prior.sample(3, seeded, model.denoiser_.like)
    start = cells(model, prior)
    assert start["species"] == [HIDDEN] * 3
    assert HIDDEN not in start["body_mass_g"]
    state, _ = model.source_.encode(TRAIN.head(3))
    assert cells(model, state)["species"] == list(TRAIN["species"].head(3))


def test_codes_are_those_of_the_model_whatever_the_type_of_the_column(model):
    table = to_table(pd.DataFrame({"year": [2007.0, 2009.0, np.nan], "flag": [True, False, None]}))
    np.testing.assert_array_equal(codes(model, table, "year"), [0, 2, -1])
    np.testing.assert_array_equal(codes(model, table, "flag"), [1, 0, -1])


def test_a_level_that_was_never_seen_is_a_gap_of_the_holdout(model):
    odd = HOLDOUT.assign(year=[2031] + [2008] * (len(HOLDOUT) - 1))
    material = gather(model, odd, TRAIN, rows=40)
    assert material.unknown == {"year": 1}
    assert material.holdout["year"][0].as_py() is None


def test_a_log_is_read_line_by_line_and_what_was_cut_off_is_left_out(tmp_path):
    assert read(tmp_path) == []
    text = '{"step": 2, "seconds": 1.5, "loss": 3}\n{"step": 1, "held_out": 4}\nnone\n[]\n{"step'
    (tmp_path / "log.jsonl").write_text(text, "utf-8")
    first, second = read(tmp_path)
    assert (first.step, first.held_out) == (1, 4.0)
    assert second == Line(2, 1.5, 3.0, pytest.approx(np.nan, nan_ok=True), second.stderr)


def test_the_course_of_training_is_drawn_and_its_least_loss_named(model):
    history = [Line(k, k / 2, 9.0 / k, abs(k - 6) + 1.0, 0.5) for k in range(1, 11)]
    said = words(report(model, HOLDOUT, TRAIN, history=history, rows=40))
    assert "10 steps in 5 s" in said
    assert "1 \u00b1 0.5, came at step 6 of 10" in said
