"""A training that was stopped and resumed is the training that was not, bit for bit."""

import dataclasses
import itertools
import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

import reversal as rv
from reversal.training import Keeper, checkpoint, keeping, recipe, snapshot
from reversal.training.method import WHOLE_FACTORS, method_for
from tests.training.runs import TINY, assert_same, model, names, table, untimed


class CrashError(Exception):
    """What stops a training in these tests."""


@pytest.fixture
def crash(monkeypatch):
    """Let trainings crash after a number of steps, before or after these are saved."""
    after_step = Keeper.after_step
    at = set()

    def crashing(self, step, snapshot):
        if -step in at:
            raise CrashError
        after_step(self, step, snapshot)
        if step in at:
            raise CrashError

    monkeypatch.setattr(Keeper, "after_step", crashing)
    return at


@pytest.fixture(scope="module")
def whole():
    """The training that nothing stops."""
    return model().fit(table())


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, (1, 25, -50, 79)), (1e6, (1, -26, 80))])
def test_a_training_that_crashed_goes_on_bit_for_bit(whole, tmp_path, crash, seconds, steps):
    """At the first step, around a check and at the last one; what was not saved is done again.

    With 0 seconds every step is saved, but for those with a minus; with many the first alone.
    """
    for step in steps:
        crash.clear()
        crash.add(step)
        with pytest.raises(CrashError):
            model().fit(table(), run=tmp_path, resume=True, checkpoint_seconds=seconds)
        assert "checkpoint" in names(tmp_path)
    crash.clear()
    resumed = model().fit(table(), run=tmp_path, resume=True)
    assert_same(whole, resumed)
    assert_same(whole, rv.load(tmp_path))
    files = ["README.md", "config.json", "log.jsonl", "model.safetensors", "space.yaml"]
    assert names(tmp_path) == files


def test_keeping_a_training_does_not_change_it(whole, tmp_path):
    assert_same(whole, model().fit(table(), run=tmp_path, checkpoint_seconds=0.0))


def test_the_number_of_steps_is_fixed_by_the_first_sitting(tmp_path, monkeypatch):
    """Copies of a run with a time budget, taken on its way, end where it ends.

    The clocks of the sittings run at different speeds.
    """
    run, copies = tmp_path / "run", []

    def copy(check):
        if keeping.is_unfinished(run) and len(copies) < 2:
            copies.append(tmp_path / f"copy-{check.step}")
            shutil.copytree(run, copies[-1])

    def fit(folder, tick, seconds=60.0, callbacks=()):
        clock = SimpleNamespace(monotonic=itertools.count(0.0, tick).__next__)
        monkeypatch.setattr(rv.training.loop, "time", clock)
        how = {"resume": True, "checkpoint_seconds": seconds, "callbacks": callbacks}
        return rv.Model(minutes=0.006, **TINY).fit(table(), run=folder, **how)

    whole = fit(run, 1e-3, 0.0, [copy])
    assert whole.trace_.ended != "the time was up"
    assert len(copies) == 2
    for folder, tick in zip(copies, (1e-3, 5e-4), strict=True):
        assert_same(whole, fit(folder, tick))


class Accelerator:
    """What torch has for a kind of device: a generator for each of them."""

    def __init__(self, *devices):
        self.states = {device: torch.tensor([1], dtype=torch.uint8) for device in devices}

    def get_rng_state(self, device):
        return self.states[device].clone()

    def set_rng_state(self, state, device):
        self.states[device] = state


def test_the_generators_of_the_accelerators_in_use_go_on_where_they_were(
    whole, tmp_path, monkeypatch, crash
):
    """They count the steps here; the third device holds no weights and is left alone."""
    first, second, third = (torch.device("cuda", number) for number in range(3))
    chip = Accelerator(first, second, third)
    monkeypatch.setattr(snapshot, "accelerators", lambda module: [first, second])
    monkeypatch.setattr(torch, "get_device_module", lambda device: chip)

    def fit(**how):
        def draw(check):
            for device in (first, third):
                chip.states[device] = chip.states[device] + 1

        return model().fit(table(), run=tmp_path, callbacks=[draw], **how)

    crash.add(50)
    with pytest.raises(CrashError):
        fit(checkpoint_seconds=0.0)
    assert [int(state) for state in chip.states.values()] == [3, 1, 3]
    chip.states = dict.fromkeys(chip.states, torch.tensor([9], dtype=torch.uint8))
    crash.clear()
    assert_same(whole, fit(resume=True))
    assert [int(state) for state in chip.states.values()] == [3 + 2, 1, 9 + 2]


def test_accelerators_are_the_devices_of_the_weights():
    assert snapshot.accelerators(torch.nn.LayerNorm(2)) == []
    at = [torch.device("cuda", 1), torch.device("cpu"), torch.device("cuda", 0)]
    parts = [SimpleNamespace(device=device) for device in at]
    found = snapshot.accelerators(SimpleNamespace(parameters=lambda: parts))
    assert found == [torch.device("cuda", 0), torch.device("cuda", 1)]


@pytest.mark.gpu
def test_the_generator_of_an_accelerator_is_what_its_file_says(tmp_path):
    (place,) = snapshot.accelerators(torch.nn.LayerNorm(2, device="cuda"))
    chip = torch.get_device_module(place)
    state = {"a": chip.get_rng_state(place)}
    first = torch.rand(5, device=place)
    chip.set_rng_state(checkpoint.unpacked(checkpoint.packed(state), tmp_path)["a"], place)
    assert torch.equal(first, torch.rand(5, device=place))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops_and_gives_the_handler_back(whole, tmp_path, number):
    before = signal.getsignal(number)
    stop = [lambda check: signal.raise_signal(number)]
    with pytest.raises(KeyboardInterrupt, match="stopped after 25 steps"):
        model().fit(table(), run=tmp_path, callbacks=stop, checkpoint_seconds=1e6)
    assert signal.getsignal(number) is before
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert state["state"]["done"] == 25
    assert_same(whole, model().fit(table(), run=tmp_path, resume=True))
    assert signal.getsignal(number) is before


def test_the_second_signal_does_not_wait(tmp_path, request):
    """Where the first handler is Python's own; a job in the background inherits none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def twice(check):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        model().fit(table(), run=tmp_path, callbacks=[twice])
    assert not stopped.value.args
    assert names(tmp_path) == ["checkpoint"]


def test_a_training_that_has_ended_is_loaded_and_nothing_is_done(whole, tmp_path):
    model().fit(table(), run=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = model().fit(table(), run=tmp_path, resume=True)
    assert_same(whole, again)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_training_of_other_data_or_settings_is_refused(tmp_path, crash):
    crash.add(30)
    with pytest.raises(CrashError):
        model().fit(table(), run=tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    changed = table()
    changed.loc[3, "x"] += 1e-3
    scaled = table().assign(x=2 * table()["x"])
    for other in (changed, scaled, table().iloc[::-1], table().rename(columns={"x": "y"})):
        with pytest.raises(rv.CheckpointError, match="got other rows, columns or kinds"):
            model().fit(other, run=tmp_path, resume=True)
    settings = {"steps": 81, "seed": 1, "dropout": 0.1, "hidden_features": 8, "learning_rate": 1e-3}
    for name, value in settings.items():
        said = f"got {name}={value} where it has {name}="
        with pytest.raises(rv.CheckpointError, match=said):
            model(**{name: value}).fit(table(), run=tmp_path, resume=True)
    with pytest.raises(rv.CheckpointError, match="without an unfinished training"):
        model().fit(table(), run=tmp_path)
    assert kept == {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    (tmp_path / "ended").mkdir()
    model(steps=2).fit(table(), run=tmp_path / "ended")
    with pytest.raises(rv.CheckpointError, match="got steps=3 where it has steps=2"):
        model(steps=3).fit(table(), run=tmp_path / "ended", resume=True)


def older(settings, *data):
    """A method that is not today's in anything, as an older version may have chosen it."""
    now = method_for(settings, *data)
    plan = {"batch_size": 32, "weight_decay": 0.1, "clip": 0.05, "checks": 8, "patience": 1}
    plan |= {"visits": 300, "average_decay": 0.9}
    return dataclasses.replace(
        now,
        plan=dataclasses.replace(now.plan, **plan),
        network=now.network | {"dropout": 0.4},
        clocks=WHOLE_FACTORS,
        held_out=9,
        checked=64,
    )


def test_a_training_goes_on_by_the_method_that_it_began_with(tmp_path, monkeypatch, crash):
    """One of an older version, whose every choice was another; its model is read in the same way.

    Its patience would end it, and the method of today has none.
    """

    def fit(folder):
        return model(dropout=None, learning_rate=0.3).fit(table(), run=folder, resume=True)

    today = fit(tmp_path / "today")
    with monkeypatch.context() as patch:
        patch.setattr("reversal.model.method_for", older)
        whole = fit(tmp_path / "whole")
        crash.add(30)
        with pytest.raises(CrashError):
            fit(tmp_path / "run")
        crash.clear()
    resumed = fit(tmp_path / "run")
    assert_same(whole, resumed)
    assert resumed.training_ == whole.training_
    assert (today.trace_.ended, whole.trace_.ended) == (
        "all steps were done", "the held-out loss stopped falling")  # fmt: skip
    for ended in (fit(tmp_path / "run"), rv.load(tmp_path / "run")):
        assert_same(whole, ended)
        assert ended.denoiser_.clocks.laws == WHOLE_FACTORS != today.denoiser_.clocks.laws


def test_a_training_whose_method_is_unknown_is_refused_and_stays(tmp_path, monkeypatch, crash):
    crash.add(30)
    with pytest.raises(CrashError):
        model().fit(table(), run=tmp_path)
    crash.clear()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "clocks_from_config", lambda law: recipe._known({}, law["type"]))
        with pytest.raises(rv.CheckpointError, match=r"got 'SiteClocks'.* version of reversal"):
            model().fit(table(), run=tmp_path, resume=True)
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    model().fit(table(), run=tmp_path, resume=True)


def test_an_older_model_can_be_read_until_the_new_one_is_whole(tmp_path, crash):
    old = model(seed=5).fit(table(), run=tmp_path)
    crash.add(70)
    with pytest.raises(CrashError):
        model().fit(table(), run=tmp_path, checkpoint_seconds=0.0)
    assert_same(old, rv.load(tmp_path))
    crash.clear()
    new = model().fit(table(), run=tmp_path, resume=True)
    assert_same(new, rv.load(tmp_path))


def test_the_log_on_the_way_is_that_of_the_steps_done(whole, tmp_path, crash):
    crash.add(60)
    with pytest.raises(CrashError):
        model().fit(table(), run=tmp_path)
    text = (tmp_path / "checkpoint" / "log.jsonl").read_text()
    checks = rv.training.logs.from_lines(text)
    assert untimed(checks) == untimed(whole.trace_.checks[:2])


def test_a_training_that_diverged_or_failed_at_once_leaves_nothing(tmp_path):
    with pytest.raises(rv.DataError, match="Lower learning_rate"):
        model(learning_rate=1e30).fit(table(), run=tmp_path / "run", checkpoint_seconds=0.0)
    assert not (tmp_path / "run").exists()


def test_arguments_of_keeping_are_looked_at(tmp_path):
    with pytest.raises(rv.DataError, match="a folder to resume from"):
        model().fit(table(), resume=True)
    for seconds in (-1, float("nan"), "60"):
        with pytest.raises(rv.DataError, match="checkpoint_seconds >= 0"):
            model().fit(table(), run=tmp_path, checkpoint_seconds=seconds)


def test_a_disk_that_fills_up_costs_no_training_and_no_checkpoint(
    whole, tmp_path, monkeypatch, capsys
):
    """The first checkpoint has to be written; a later one may fail, and the next is tried."""
    real, calls = checkpoint.bundle.write, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) == fails_at:
            raise rv.CheckpointError("Expected room, got none.")
        real(*args, **kwargs)

    monkeypatch.setattr(keeping.bundle, "write", full)
    fails_at = 1
    with pytest.raises(rv.CheckpointError, match="Expected room"):
        model().fit(table(), run=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    calls.clear()
    fails_at = 3
    kept = model().fit(table(), run=tmp_path / "b", checkpoint_seconds=0.0)
    assert "goes on without a new checkpoint: Expected room" in capsys.readouterr().err
    assert_same(whole, kept)


def test_no_state_is_kept_where_the_steps_are_not_known_yet(tmp_path):
    budget = rv.Model(minutes=5.0, **TINY)
    denoise = rv.training.fitting.Regression.__call__

    def loss(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return denoise(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rv.training.fitting.Regression, "__call__", loss)
        with pytest.raises(KeyboardInterrupt, match="stopped after 1 steps"):
            budget.fit(table(), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
