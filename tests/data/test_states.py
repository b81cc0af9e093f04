"""Arrays as states: any scale, no code outside its space, and masks of known shapes alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import reversal as rv
from reversal.data.opening import opened
from reversal.errors import DataError, ReversalError

SPACE = rv.Product(image=rv.Euclidean(1, 2, 2), label=rv.Categorical(3), pose=rv.SO3())
ROWS = 8


def data(scale: float = 1.0) -> dict[str, np.ndarray]:
    """Rows of every kind; images of a given scale, with another shape than that of the space."""
    rng = np.random.default_rng(0)
    poses = SPACE.parts["pose"].example(ROWS, torch.empty(())).numpy()
    image = scale * rng.normal(size=(ROWS, 4))
    return {"image": image, "label": rng.integers(0, 3, ROWS), "pose": poses}


@pytest.fixture(scope="module")
def source():
    return opened(data(), SPACE)[0]


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e290, 1e-290, 1.0])
def test_the_state_does_not_depend_on_the_unit_and_comes_back_in_it(scale):
    unit, _ = opened(data(), SPACE)
    other, _ = opened(data(scale), SPACE)
    state = other.encode(data(scale)).state
    torch.testing.assert_close(state["image"], unit.encode(data()).state["image"])
    back = other.decode(state)["image"]
    assert np.abs(back / scale - data()["image"]).max() < 1e-5
    jacobian = other.log_jacobian(other.encode(data(scale)))
    expected = unit.log_jacobian(unit.encode(data())) - 4 * math.log(scale)
    torch.testing.assert_close(jacobian, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_sample_beyond_the_type_is_its_greatest_number(dtype):
    most = float(np.finfo(dtype).max)
    own = data() | {"image": (data()["image"] / 4 * most).astype(dtype)}
    source, _ = opened(own, SPACE)
    state = source.encode(own).state
    state["image"] = 100 * state["image"].sign()
    drawn = source.decode(state)["image"]
    assert drawn.dtype == dtype
    assert np.isfinite(drawn).all()
    assert set(np.abs(drawn).ravel().astype(float)) == {most}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((ROWS, 4), 1e-310) * np.arange(4), "Choose another unit"),
        (np.full((ROWS, 4), 0.1), "one value everywhere"),
        (np.full((ROWS, 4), "a"), "Expected numbers in 'image', got <U1"),
        (np.full((ROWS, 4), None), "Expected numbers in 'image', got object"),
        ([[1.0, 2.0], [3.0]] * 4, "Expected an array for 'image', got list"),
    ],
)
def test_an_array_that_holds_no_numbers_of_any_scale_is_refused(values, said):
    with pytest.raises(DataError, match=said):
        opened(data() | {"image": values}, SPACE)


@pytest.mark.parametrize(
    ("code", "said"),
    [(7, "lie in Categorical"), (3, "lie in Categorical"), (-2, "-1 for a gap, got -2")],
)
def test_a_code_outside_its_space_is_refused_by_every_way_in(source, code, said):
    wrong = data() | {"label": np.full(ROWS, code)}
    with pytest.raises(ReversalError, match=said):
        opened(wrong, SPACE)[0].encode(wrong)
    with pytest.raises(ReversalError, match=said):
        source.encode(wrong)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1, 1, 1)),
        ((4,), (1, 1, 2, 2)),
        ((1, 2, 2), (1, 1, 2, 2)),
        ((1, 4), (1, 1, 2, 2)),
        ((5,), (5, 1, 1, 1)),
        ((5, 4), (5, 1, 2, 2)),
        ((5, 1, 2, 2), (5, 1, 2, 2)),
    ],
)
def test_a_mask_has_the_shape_of_the_event_of_the_sites_or_one_for_each_row(
    source, shape, expected
):
    known = np.random.default_rng(1).random(shape) < 0.5
    value, mask = source.given({"image": (data()["image"][0], known)}, 5)["image"]
    wanted = np.broadcast_to(known.reshape(expected), (*expected[:1], 1, 2, 2))
    assert (mask.numpy() == wanted).all()
    drawn = {"image": np.full((5, 4), 9.0)}
    written = source.write_given(drawn, {"image": (data()["image"][0], known)})["image"]
    rows = np.broadcast_to(wanted.reshape(-1, 4), (5, 4))
    assert (written == np.where(rows, data()["image"][0], 9.0)).all()
    assert len(value) == 1


def test_a_pose_is_known_as_a_whole(source):
    pose = data()["pose"][0]
    part = np.ones((3, 3), bool)
    assert source.given({"pose": (pose, part)}, 5)["pose"][1].tolist() == [True]
    part[0, 0] = False
    assert source.given({"pose": (pose, part)}, 5)["pose"][1].tolist() == [False]
    written = source.write_given({"pose": np.zeros((5, 3, 3))}, {"pose": (pose, part)})
    assert (written["pose"] == 0).all()


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (np.ones((2, 2, 1, 2, 1), bool), "booleans of shape"),
        (np.ones((2, 4), bool), r"booleans of shape .* got bool of shape \(2, 4\)"),
        (np.ones((4, 1), bool), "booleans of shape"),
        (np.ones(4), "got float64 of shape"),
        (None, "got object of shape"),
    ],
)
def test_a_mask_of_another_shape_or_type_is_refused(source, known, said):
    with pytest.raises(DataError, match=said):
        source.given({"image": (data()["image"][0], known)}, 5)


def test_a_condition_that_is_neither_values_nor_a_pair_is_refused(source):
    value = data()["image"][0]
    with pytest.raises(DataError, match=r"a tuple \(values, known\).*got a list"):
        source.given({"image": [value, np.ones(4, bool)]}, 2)
    with pytest.raises(DataError, match="got 3 entries"):
        source.given({"image": (value, True, None)}, 2)
    for wrong in ("c == 3", 3):
        with pytest.raises(DataError, match="a dict of names and values"):
            source.given(wrong, 2)


KIND = rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(3))


def kinds(values):
    """Labels as they come, beside numbers."""
    return {"x": np.arange(float(len(values))), "kind": values}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, "1", 2], "got 1 and '1'"),
        (["a", 1, 2], "got 'a' and 1"),
        ([True, 0, 2], "got True and 0"),
        ([np.True_, np.str_("b"), np.int64(2)], "got True and 'b' and 2"),
    ],
)
def test_labels_of_several_types_are_refused(labels, said):
    with pytest.raises(DataError, match=f"labels of one type in 'kind', all .*{said}.*None"):
        opened(kinds(np.array(labels * 2, object)), KIND)


def test_gaps_alone_are_no_labels():
    with pytest.raises(DataError, match=r"a label in 'kind', got gaps alone. Leave"):
        opened(kinds(np.array([None, math.nan] * 3, object)), KIND)


def test_a_list_of_several_types_is_not_spelled_out_before_it_is_seen():
    with pytest.raises(DataError, match=r"labels of one type in 'kind', all .*got 1 and '1'"):
        opened(kinds([1, "1", 2] * 2), KIND)
    source, _ = opened(kinds(["b", "a", "c"] * 2), KIND)
    assert source.encode(kinds(["c", "a"])).state["kind"].tolist() == [2, 0]


@pytest.mark.parametrize("gap", [None, math.nan, np.float32("nan"), pd.NA])
@pytest.mark.parametrize("unwrap", [lambda x: x, np.int64])
def test_what_stands_for_no_label_is_a_gap(gap, unwrap):
    labels = np.array([*map(unwrap, (5, 3, 9)), gap], object)
    source, _ = opened(kinds(labels), KIND)
    encoded = source.encode(kinds(labels))
    assert encoded.state["kind"][:3].tolist() == [1, 0, 2]
    assert encoded.present["kind"].tolist() == [True] * 3 + [False]
    assert [type(label) for label in source.forms["kind"].labels] == [int] * 3
    json.dumps(source.to_config())


def test_sets_of_booleans_are_restrictions_of_their_site():
    labels = np.array([True, None, False, np.True_], object)
    space = rv.Product(x=rv.Euclidean(1), kind=rv.Categorical(2))
    source, _ = opened(kinds(labels), space)
    (found,) = source.restrictions({"kind": rv.one_of(True)})
    assert found.members.tolist() == [0, 1]
