"""Identifiers: what is taken for one, and that new ones have the same form and are new."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from reversal.data import TableCodec
from reversal.data.conditions import between, none_of, one_of
from reversal.data.rows import TableSource
from reversal.errors import DataError


def rng(seed=0):
    return np.random.default_rng(seed)


def codec_of(values, name="k"):
    return TableCodec.infer(pd.DataFrame({name: values, "x": rng().normal(size=len(values))}))


N = 200
TEXTS = rng(1).permutation(N)
LETTERS = [
    "".join(word) for word in rng(2).choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), (N, 5)).tolist()
]
KEYS = {
    "from one": [int(k) + 1 for k in TEXTS],
    "from zero": [int(k) for k in TEXTS],
    "numbered text": [f"user{k}" for k in TEXTS],
    "padded text": [f"A-{k:05d}" for k in TEXTS],
    "digits and letters": [f"{k:04d}-{word}" for k, word in zip(TEXTS, LETTERS, strict=True)],
    "the last of its length": [f"{k:02d}" for k in range(100)],
    "uuid": [
        str(uuid.UUID(int=int(a) << 64 | int(b), version=4))
        for a, b in rng(3).integers(0, 2**62, (N, 2))
    ],
    "free text": [f"{'very ' * int(k % 5)}good, said {k} of them" for k in TEXTS],
    "ünïcode": [f"mö{'ö' * int(k % 3)}-{k}x" for k in TEXTS],
    "text of digits": [str(10**15 + int(k)) for k in TEXTS],
}


@pytest.mark.parametrize("name", KEYS)
def test_new_keys_are_new_distinct_and_have_the_type_of_the_old(name):
    values = KEYS[name]
    codec = codec_of(values)
    assert [column.kind for column in codec.columns] == ["identifier", "real"]
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    assert rebuilt == codec
    drawn = rebuilt.decode({"numeric": torch.zeros(5000, 1)})["k"]
    assert drawn.dtype == pd.Series(values).dtype
    assert drawn.is_unique and not set(drawn) & set(values)
    assert rebuilt.decode({"numeric": torch.zeros(0, 1)})["k"].dtype == drawn.dtype


@pytest.mark.parametrize("name", KEYS)
def test_new_keys_of_later_rows_go_on_with_those_of_earlier_ones(name):
    codec = codec_of(KEYS[name])
    whole = codec.decode({"numeric": torch.zeros(5000, 1)})["k"]
    later = codec.decode({"numeric": torch.zeros(1300, 1)}, first=3700)["k"]
    assert later.tolist() == whole[3700:].tolist()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("numbered text", r"user2\d\d"),
        ("padded text", r"A-00[2-9]\d\d"),
        ("digits and letters", r"02\d\d-[A-Z]{5}"),
        ("uuid", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
        ("text of digits", r"1000000000000[23]\d\d"),
        ("the last of its length", r"1\d\d"),
        ("free text", r"k-[1-9]\d*"),
    ],
)
def test_new_keys_have_the_form_of_the_old(name, pattern):
    drawn = codec_of(KEYS[name]).decode({"numeric": torch.zeros(80, 1)})["k"]
    assert all(re.fullmatch(pattern, key) for key in drawn), drawn.head()


SPARSE = {
    "numbers": rng(6).choice(10**9, N, replace=False) + 10**6,
    "negative numbers": -(10**6) - rng(6).choice(10**9, N, replace=False),
    "numbered text": [f"cust{k}" for k in rng(7).choice(10**9, N, replace=False) + 10**6],
    "digits and letters": KEYS["digits and letters"],
    "uuid": KEYS["uuid"],
    "padded text": [f"A-{k:09d}" for k in rng(8).choice(10**8, N, replace=False)],
}


@pytest.mark.parametrize("name", SPARSE)
def test_no_key_of_the_data_is_told_by_the_run(name):
    values = SPARSE[name]
    codec = codec_of(values, "id")
    told = json.dumps(codec.to_config()) + codec.space_yaml()
    drawn = codec.decode({"numeric": torch.zeros(300, 1)})["id"]
    assert drawn.is_unique and not set(drawn) & set(values)
    told += " ".join(map(str, drawn))
    assert not [key for key in values if str(key) in told]
    assert str(max(values)) not in told


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ([*range(1000, 1050)], 1050),
        ([*range(1000, 1050), 1200], 1300),
        ([*range(7, 60), 12_345], 20_000),
        ([10**15, *range(10**15 + 7, 10**15 + 60)], 10**15 + 70),
        ([100, *range(200, 250), 999], 1100),
        ([-500, *range(-400, -350), -1], 100),
        (np.array([*range(40), 121], np.int8), 123),
        (np.array([*range(40), 126], np.int8), 127),
        (np.array([*range(40), 32_111], np.int16), 32_200),
    ],
)
def test_numbers_go_on_after_a_round_one_unless_they_number_rows(values, first):
    assert codec_of(values, "id").columns[0].form.first == str(first)


NOT_KEYS = {
    "measured numbers": rng(4).normal(size=N),
    "measured cents": np.arange(N) * 1.37,
    "whole numbers as floats": np.arange(N, dtype=float),
    "years": np.arange(1900, 1900 + N),
    "sparse whole numbers": rng(5).choice(10**6, N, replace=False),
    "dates": [dt.date(2020, 1, 1) + dt.timedelta(k) for k in range(N)],
    "timestamps": pd.date_range("2020-01-01", periods=N, freq="h"),
    "durations": pd.to_timedelta(np.arange(N), "h"),
    "dates as text": [f"{1 + k % 28:02d}/{1 + k // 28:02d}/2020" for k in range(N)],
    "times as text": [f"{k // 60:02d}:{k % 60:02d}" for k in range(N)],
    "numbers as text": [f"{k / 7:.4f}" for k in range(N)],
    "percents as text": [f"{k / 7:.2f} %" for k in range(N)],
    "categories": pd.Categorical([f"c{k}" for k in range(N)]),
    "texts of which one repeats": ["a0", *(f"a{k}" for k in range(N - 1))],
    "a small table of texts": [f"a{k}" for k in range(19)],
    "a small table of numbers": list(range(1, 20)),
}


@pytest.mark.parametrize("name", NOT_KEYS)
def test_what_is_measured_or_declared_is_no_identifier(name):
    assert codec_of(NOT_KEYS[name]).columns[0].kind != "identifier"


@pytest.mark.parametrize(
    "name", ["id", "ID", "customer_id", "customerID", "orderId", "key", "row key"]
)
def test_sparse_whole_numbers_are_keys_where_the_name_says_so(name):
    column = codec_of(NOT_KEYS["sparse whole numbers"], name).columns[0]
    assert column.kind == "identifier"
    assert "named a key" in column.detail


@pytest.mark.parametrize("name", ["paid", "grid", "humidity", "monkey", "width", "bid"])
def test_a_name_that_only_ends_alike_says_nothing(name):
    assert codec_of(NOT_KEYS["sparse whole numbers"], name).columns[0].kind == "integer"


def test_the_schema_says_why_and_what_models_it():
    detail = codec_of(KEYS["digits and letters"]).columns[0].detail
    assert detail.startswith("200 texts, all different: not modelled, new ones from 0200-AAAAB")
    assert "`type: category` in space.yaml models it" in detail
    assert "`type: integer`" in codec_of(KEYS["from one"]).columns[0].detail


def test_keys_need_no_room_in_the_state_and_any_new_ones_are_taken():
    codec = codec_of(KEYS["numbered text"])
    assert codec.shapes == (1, ())
    other = pd.DataFrame({"k": ["never", None, "seen"], "x": [0.1, 0.2, 0.3]})
    assert codec.encode(other)[0].keys() == {"numeric"}


@pytest.mark.parametrize("asked", [7, between(3, 9), one_of(1, 2), none_of(1)])
def test_a_condition_on_an_identifier_is_refused(asked):
    source = TableSource(codec_of(KEYS["from one"]))
    with pytest.raises(DataError, match="'k': expected no condition on an identifier"):
        source.given({"k": asked}, 5)
        source.restrictions({"k": asked})


def test_a_code_of_an_identifier_is_refused():
    with pytest.raises(DataError, match="'k': expected no condition on an identifier"):
        codec_of(KEYS["from one"]).where({"k": 7})


def test_keys_that_a_dtype_cannot_count_on_are_refused():
    frame = pl.DataFrame({"k": pl.Series(range(120), dtype=pl.Int8), "x": rng().normal(size=120)})
    codec = TableCodec.infer(frame)
    assert codec.decode({"numeric": torch.zeros(8, 1)})["k"].to_list() == list(range(120, 128))
    with pytest.raises(DataError, match=r"'k': expected room for 9 keys up to 127.*Widen"):
        codec.decode({"numeric": torch.zeros(9, 1)})


def test_large_unsigned_keys_count_on():
    start = 2**64 - 200
    keys = np.arange(start, start + 50, dtype=np.uint64)
    drawn = codec_of(keys, "id").decode({"numeric": torch.zeros(100, 1)})["id"]
    assert drawn.tolist() == list(range(start + 50, start + 150))


def test_a_table_of_nothing_but_keys_is_refused_with_the_cure():
    with pytest.raises(DataError, match=r"another one in every row.*`type: integer`"):
        TableCodec.infer(pd.DataFrame({"id": range(50)}))


def test_a_stored_form_that_is_none_is_refused():
    config = codec_of(KEYS["from one"]).to_config()
    config["columns"][0]["form"] = {"greatest": 3}
    with pytest.raises(DataError, match="form of an identifier, got the fields greatest"):
        TableCodec.from_config(config)
