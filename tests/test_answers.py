"""Ranges, sets and their kin through the facade: every row meets them, in the caller's form."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import reversal as rv
from reversal.answers import drawing, support
from reversal.data.conditions import Between, Every, Not
from reversal.data.rows import TableSource
from reversal.data.table import TableCodec
from tests.general_location import GeneralLocation

N = 500
TINY = {"hidden_features": 16, "num_blocks": 1, "show_progress": False}


def frame():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "age": rng.integers(17, 91, N),
            "price": rng.gamma(2, 20, N).round(2).astype(np.float32),
            "weight": rng.normal(size=N),
            "job": pd.Categorical(rng.choice(["cook", "smith", "clerk"], N)),
            "smoker": rng.random(N) < 0.3,
            "always": 7,
        }
    )
    data.loc[::9, ["weight", "job"]] = None
    return data


LIBRARIES = {
    "pandas": lambda data: data,
    "polars": pl.from_pandas,
    "arrow": lambda data: pa.Table.from_pandas(data, preserve_index=False),
}


@pytest.fixture(scope="module")
def quick():
    """A model that learned next to nothing, for what holds of any weights."""
    return rv.Model(steps=3, **TINY).fit(frame())


CONDITIONS = [
    ({"age": rv.between(65, 80)}, lambda d: d.age.between(65, 80)),
    ({"age": rv.none_of(*range(20, 89))}, lambda d: ~d.age.between(20, 88)),
    (
        {"age": Between(30, 40, True, True), "job": rv.one_of("cook", "smith"), "smoker": True},
        lambda d: (d.age > 30) & (d.age < 40) & d.job.isin(["cook", "smith"]) & d.smoker,
    ),
    ({"price": rv.between(10.5, 11.25)}, lambda d: (d.price >= 10.5) & (d.price <= 11.25)),
    (
        {"weight": Between(None, 0.1, excludes_high=True), "job": rv.none_of("clerk")},
        lambda d: (d.weight < 0.1) & d.job.isin(["cook", "smith"]),
    ),
    (
        {"weight": Every((rv.between(-1, 1), Not(rv.between(-0.5, 0.5)))), "age": 30},
        lambda d: (d.weight.abs() <= 1) & (d.weight.abs() >= 0.5) & (d.age == 30),
    ),
    ({"smoker": rv.none_of(True), "always": rv.between(5, None)}, lambda d: ~d.smoker),
    ({"smoker": rv.one_of(True)}, lambda d: d.smoker),
]


@pytest.mark.parametrize(("given", "holds"), CONDITIONS)
def test_every_row_meets_its_conditions_and_keeps_its_types(quick, given, holds):
    drawn = quick.sample(60, given=given, steps=4)
    assert len(drawn) == 60
    assert holds(drawn).all()
    assert (drawn.dtypes == frame().dtypes).all()
    assert not drawn.isna().any(axis=None)


@pytest.mark.parametrize("library", LIBRARIES)
def test_conditions_hold_in_every_library(library):
    model = rv.Model(steps=2, **TINY).fit(LIBRARIES[library](frame()))
    given = {"age": rv.between(60, 70), "weight": rv.between(0, 0.3), "job": rv.one_of("cook")}
    drawn = model.sample(30, given=given, steps=3)
    assert type(drawn) is type(LIBRARIES[library](frame()))
    seen = drawn if isinstance(drawn, pd.DataFrame) else drawn.to_pandas()
    assert seen.age.between(60, 70).all()
    assert seen.weight.between(0, 0.3).all()
    assert (seen.job == "cook").all()


def test_dates_orders_and_spikes_are_asked_for():
    rng = np.random.default_rng(1)
    levels = ["low", "middle", "high"]
    data = pd.DataFrame(
        {
            "born": pd.Timestamp("1970-01-01")
            + pd.to_timedelta(rng.integers(0, 3000, N), unit="D"),
            "level": pd.Categorical(rng.choice(levels, N), levels, ordered=True),
            "gain": np.where(rng.random(N) < 0.6, 0.0, np.exp(rng.normal(size=N))),
        }
    )
    given = {
        "born": rv.between("1972-03-01", "1972-03-31"),
        "level": rv.between("middle", None),
        "gain": rv.none_of(0),
    }
    drawn = rv.Model(steps=2, **TINY).fit(data).sample(40, given=given, steps=3)
    assert drawn["born"].between("1972-03-01", "1972-03-31").all()
    assert (drawn["level"] >= "middle").all()
    assert (drawn["gain"] > 0).all()
    assert (drawn.dtypes == data.dtypes).all()


def test_gaps_are_written_beside_conditions_and_not_over_them(quick):
    given = {"weight": rv.between(0, 1)}
    drawn = quick.sample(400, given=given, steps=2, missing=True)
    assert drawn["weight"].between(0, 1).all()
    assert drawn["job"].isna().any()


def test_the_seed_fixes_restricted_rows(quick):
    given = {"age": rv.between(30, 50), "job": rv.one_of("cook", "smith")}
    first, again = (quick.sample(20, given=given, seed=3, steps=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not quick.sample(20, given=given, seed=4, steps=3).equals(first)


def test_no_row_and_one_row_are_legal(quick):
    given = {"age": rv.between(30, 50), "job": rv.one_of("cook", "smith")}
    assert len(quick.sample(0, given=given, steps=2)) == 0
    assert quick.sample(1, given=given, steps=2)["age"].between(30, 50).all()


def test_no_row_and_one_row_are_scored(quick):
    assert quick.log_prob(frame().head(0), num_samples=8).stderr.shape == (0,)
    assert quick.log_prob(frame().head(1), num_samples=8).stderr.item() > 0


def test_evidence_is_told(quick):
    found = []
    given = {"age": rv.between(30, 50), "job": rv.one_of("cook", "smith")}
    quick.sample(50, given=given, steps=2, on_evidence=found.append)
    (evidence,) = found
    assert 0 < evidence.prob < 1
    assert 0 < evidence.effective_size <= evidence.num_draws
    assert abs(quick.probability(given).prob - evidence.prob) < 0.05
    assert quick.probability({"job": rv.one_of("cook", "smith", "clerk")}).prob == 1


def test_given_codes_that_exclude_each_other_are_refused():
    """Cells of a table: independent ones have lift 1, an empty one has no support."""
    data = pd.DataFrame({"x": np.linspace(-1, 1, 8), "a": list("ppqq") * 2, "b": list("rsrs") * 2})
    source = TableSource(TableCodec.infer(data))
    tables = [[[0.56, 0.24], [0.14, 0.06]], [[0.559, 0.24], [0.2, 1e-3]], [[0.56, 0.24], [0.2, 0]]]
    for table, wanted in zip(tables, [1.0, 1e-3 / (0.201 * 0.241), None], strict=True):
        probs = torch.tensor(table, dtype=torch.float64)
        law = GeneralLocation(probs, torch.zeros(2, 2, 1).double(), torch.eye(1).double())
        if wanted is None:
            with pytest.raises(rv.DataError, match="no support for an answer"):
                support.lift(law, source, {"a": "q", "b": "s"})
        else:
            found = support.lift(law, source, {"a": "q", "b": "s", "x": 0.3})
            assert found == pytest.approx(wanted, rel=1e-2)
    assert support.lift(law, source, {"a": "q", "x": rv.between(0, 1)}) == 1


def test_probabilities_of_disjoint_sets_add_up(quick):
    """P(A) + P(not A) = 1: exactly for codes, up to the flow's rounding for numbers."""
    for given in ({"job": rv.one_of("cook")}, {"age": rv.between(30, 50)}):
        ((name, condition),) = given.items()
        rest = Not(condition)
        both = (quick.probability({name: each, "smoker": True}).prob for each in (condition, rest))
        assert sum(both) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_asked_is_refused(quick):
    with pytest.raises(rv.DataError, match="17 to 90"):
        quick.sample(5, given={"age": rv.between(100, 120)})
    with pytest.raises(rv.DataError, match="Write rv"):
        quick.sample(5, given={"job": ["cook", "smith"]})
    arrays = rv.Model(steps=2, **TINY).fit(np.random.default_rng(0).normal(size=(40, 2)),
                                           rv.Euclidean(2))  # fmt: skip
    with pytest.raises(rv.DataError, match="asked of columns and of factors of one"):
        arrays.sample(3, given={"x": rv.between(0, 1)})


def test_chunks_do_not_change_what_is_predicted(quick, monkeypatch):
    """Booleans and categories, rows with gaps, the target present or not."""
    rows = frame().head(60)
    whole = [quick.predict_proba(rows, name) for name in ("smoker", "job")]
    monkeypatch.setattr(drawing, "CHUNK", 7)
    parts = [quick.predict_proba(rows.drop(columns=name), name) for name in ("smoker", "job")]
    assert [list(each.columns) for each in whole] == [["False", "True"], ["clerk", "cook", "smith"]]
    for each, part in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(each, part, atol=1e-6)
        assert each.sum(axis=1).to_numpy() == pytest.approx(1)
