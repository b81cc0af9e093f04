"""NumPy record arrays: the same dtype back, gaps where it has a word for one, else refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reversal.data import TableCodec
from reversal.data.opening import opened
from reversal.data.rows import TableSource
from reversal.errors import DataError


def records(n=150, **options):
    """One field of each dtype, with gaps where it has a word for one."""
    draw = np.random.default_rng(0)
    gaps = draw.random(n) < 0.1
    fields = {
        "i1": draw.integers(-100, 100, n).astype("i1"),
        "u8": draw.integers(0, 50, n).astype("u8") + np.uint64(2**63),
        "big endian": draw.integers(0, 9, n).astype(">i4"),
        "f4": np.where(gaps, np.nan, draw.normal(size=n).round(1)).astype("f4"),
        "f8": np.where(gaps, np.nan, draw.gamma(2, 20, n).round(2)),
        ">f8": draw.integers(0, 40, n).astype(">f8") / 4,
        "bool": draw.random(n) < 0.4,
        "U": draw.choice(["red", "green", "ünï"], n),
        "S": np.char.encode(draw.choice(["ä", "bc"], n), "utf-8"),
        "O": np.where(gaps, None, draw.choice(["x", "y"], n)).astype(object),
        "M8[D]": np.datetime64("2020-01-01") + draw.integers(0, 90, n),
        "M8[h]": (np.datetime64("2020-01-01T00") + draw.integers(0, 90, n)).astype("M8[h]"),
        "M8[us]": np.datetime64("2020-01-01", "us") + draw.integers(0, 90, n) * 60_000_000,
        "m8[m]": draw.integers(-90, 90, n).astype("m8[m]"),
        "constant": np.full(n, 7, "i2"),
    }
    fields["M8[us]"][3] = np.datetime64("NaT")
    result = np.empty(n, np.dtype([(k, v.dtype) for k, v in fields.items()], **options))
    for name, values in fields.items():
        result[name] = values
    return result


def assert_same(result, array):
    assert type(result) is type(array)
    assert result.dtype == array.dtype and result.shape == array.shape
    for name in array.dtype.names:
        np.testing.assert_array_equal(result[name], array[name], err_msg=name, strict=True)


@pytest.mark.parametrize("kind", ["plain", "aligned", "recarray"])
def test_a_record_array_comes_back_exactly(kind):
    array = records(align=kind == "aligned")
    array = array.view(np.recarray) if kind == "recarray" else array
    codec = TableCodec.infer(array)
    state, observed = codec.encode(array)
    missing = {name: ~mask for name, mask in observed.items()}
    assert_same(codec.decode(state, missing=missing), array)
    rebuilt = TableCodec.from_config(json.loads(json.dumps(codec.to_config())))
    assert rebuilt == codec
    assert_same(rebuilt.decode(state, missing=missing), array)


def test_the_fields_have_the_types_of_columns():
    kinds = [column.kind for column in TableCodec.infer(records()).columns]
    assert kinds == [
        *("integer", "integer", "integer", "real", "real", "real", "boolean"),
        *("category", "category", "category"),
        *("datetime" if unit else "date" for unit in (0, 1, 1)),
        *("duration", "constant"),
    ]


def test_a_view_of_some_fields_and_some_rows_is_read():
    array = records()[["f8", "U"]][::-2]
    codec = TableCodec.infer(array)
    state, observed = codec.encode(array)
    back = codec.decode(state, missing={name: ~mask for name, mask in observed.items()})
    for name in ("f8", "U"):
        np.testing.assert_array_equal(back[name], array[name])


def test_a_source_completes_conditions_and_predicts_in_record_arrays():
    array = records()
    source, _ = opened(array)
    assert isinstance(source, TableSource)
    encoded = source.encode(array)
    filled = source.complete(array, [encoded.state] * 2, encoded.present)
    assert filled.dtype.names == ("draw", *array.dtype.names)
    assert filled["draw"].tolist() == [0] * len(array) + [1] * len(array)
    known = ~np.isnan(array["f8"])
    np.testing.assert_array_equal(filled["f8"][: len(array)][known], array["f8"][known])
    assert not np.isnan(filled["f8"]).any()
    drawn = source.write_given(source.decode(encoded.state), {"U": "red"})
    assert (drawn["U"] == "red").all() and drawn.dtype == array.dtype
    shares = source.probabilities("U", np.full((4, 3), 1 / 3), array[:4])
    assert shares.dtype.names == ("green", "red", "ünï") and shares.shape == (4,)


def test_gaps_that_a_dtype_has_no_word_for_are_refused():
    codec = TableCodec.infer(records())
    state = codec.encode(records())[0]
    with pytest.raises(DataError, match=r"'i1': expected entries everywhere.*int8.*150 gaps"):
        codec.decode(state, missing={"numeric": torch.ones_like(state["numeric"]) > 0})


def test_keys_that_a_field_is_too_narrow_for_are_refused():
    keys = np.array([(f"{k:02d}", k * 0.37) for k in range(100)], [("k", "U2"), ("x", "f8")])
    with pytest.raises(DataError, match=r"'k': expected text that fits <U2, got <U3. Widen"):
        TableCodec.infer(keys).decode({"numeric": torch.zeros(3, 1)})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), [("x", "f8")]), r"shape \(B,\), got shape \(3, 2\)"),
        (np.ma.zeros(3, [("x", "f8")]), r"got a masked one"),
        (np.zeros(3, [("x", "f8", (2,))]), r"'x': .*of shape \(2,\) per row"),
        (np.zeros(3, [("x", "c16")]), r"'x': .*got complex128"),
        (np.array([(1,), ("a",)], [("x", "O")]), r"'x': expected one type"),
        (np.array([(b"\xff",), (b"a",)], [("x", "S1")]), r"'x': expected one type.*utf-8"),
        (np.array([(np.inf,), (1.0,)], [("x", "f8")]), r"'x': expected finite"),
        (np.zeros(1, [("x", "f8")]), r"at least two rows"),
    ],
)
def test_what_is_no_table_is_refused(array, message):
    with pytest.raises(DataError, match=message):
        TableCodec.infer(array)
