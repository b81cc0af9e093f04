"""A model with another network: chosen by an object, remembered by name, refused in a sentence."""

import json

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import reversal as rv
from reversal.cli import app
from reversal.errors import CheckpointError, DataError
from tests.test_model_arguments import changed
from tests.training.runs import assert_same, table

SMALL = rv.Transformer(16, 1, 2)


def model(network=None, **settings):
    return rv.Model(**{"steps": 40, "network": network, "show_progress": False} | settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return folder, model(SMALL).fit(table(), run=folder)


def test_a_run_remembers_its_network_by_name_and_size(run):
    folder, fitted = run
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["network"] == {
        "type": "Transformer", "hidden_features": 16, "num_blocks": 1, "num_heads": 2,
        "dropout": None,
    }  # fmt: skip
    loaded = rv.load(folder)
    assert loaded.network == SMALL
    assert_same(loaded, fitted)
    pd.testing.assert_frame_equal(loaded.sample(5, steps=3), fitted.sample(5, steps=3))
    loaded.save(folder.parent / "again")
    assert_same(rv.load(folder.parent / "again"), fitted)


def test_it_answers_what_the_perceptron_answers(run):
    _, fitted = run
    rows = table(10)
    filled = fitted.impute(rows, draws=2, steps=3)
    assert not filled.isna().any().any()
    proba = fitted.predict_proba(rows, "kind").to_numpy()
    assert abs(proba.sum(1) - 1).max() < 1e-6
    assert fitted.log_prob(rows, num_samples=16).value.isfinite().all()


def test_a_training_that_is_ended_goes_on_with_its_own_network_alone(run):
    folder, fitted = run
    assert_same(model(SMALL).fit(table(), run=folder, resume=True), fitted)
    for other in (None, rv.Transformer(16, 2, 2)):
        with pytest.raises(CheckpointError, match="Expected the settings of the run"):
            model(other).fit(table(), run=folder, resume=True)


def test_dropout_is_left_to_the_data_where_it_is_not_said(run):
    _, fitted = run
    assert fitted.denoiser_.network.blocks[0].dropout.p == 0.1
    kept = model(rv.Transformer(16, 1, 2, dropout=0.0), steps=2).fit(table())
    assert kept.denoiser_.network.blocks[0].dropout.p == 0.0


def test_a_perceptron_is_what_a_model_has_by_itself():
    first = model(rv.Perceptron(), steps=20).fit(table())
    second = model(steps=20).fit(table())
    assert_same(first, second)


def test_a_run_of_an_unknown_network_is_refused(run, tmp_path):
    _, fitted = run
    for change in (
        lambda network: network.update(type="Mixture"),
        lambda network: network.update(num_rings=3),
        lambda network: network.update(num_heads=3),
        lambda network: network.pop("type"),
    ):
        fitted.save(tmp_path)
        changed(tmp_path, lambda config, change=change: change(config["model"]["network"]))
        with pytest.raises(CheckpointError, match="Expected"):
            rv.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": "Transformer"}, r"got 'Transformer'\. Write network=rv\.Transformer\(\)"),
        ({"network": torch.nn.Linear(1, 1)}, "a network of your own by NetworkDenoiser"),
        ({"network": rv.Transformer(16, 1, 3)}, "num_heads=3 and hidden_features=16"),
        ({"network": rv.Transformer(16, 1, 0)}, "num_heads >= 1"),
        ({"network": rv.Transformer(0)}, "hidden_features >= 1"),
        ({"network": rv.Transformer(dropout=1.0)}, "0 <= dropout < 1"),
        ({"network": rv.Transformer(), "num_blocks": 2}, "the size of one network"),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_any_work(settings, said):
    with pytest.raises(DataError, match=said):
        rv.Model(**settings).fit(table())


def test_the_command_goes_on_with_the_network_of_the_run(tmp_path):
    """No option says which network it is: the run does, stopped or ended."""
    path, run, network = tmp_path / "table.csv", tmp_path / "run", rv.Transformer(8, 1, 2)
    table().to_csv(path, index=False)

    def stop(_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model(network, steps=40).fit(str(path), run=run, callbacks=[stop], checkpoint_seconds=0)
    for _ in range(2):
        words = ["fit", str(path), "--out", str(run), "--resume"]
        assert CliRunner().invoke(app, words).exit_code == 0
        assert rv.load(run).network == network
