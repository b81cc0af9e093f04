"""The loop on problems with a known minimum, averaged weights, and runs on disk."""

import dataclasses
import io
import json
import math
import sys

import pytest
import torch
from torch import nn

import reversal as rv
from reversal.clocks import AnyClock, SharedClock, SiteClocks
from reversal.times import OnGrid
from reversal.training import (
    Check,
    MovingAverage,
    Plan,
    Progress,
    checkpoint,
    logs,
    progress,
    recipe,
    train,
)
from reversal.training.method import (
    ANY_COLUMNS,
    MINUTES,
    SETTINGS,
    WHOLE_FACTORS,
    Method,
    method_for,
    minutes_for,
)


class Point(nn.Module):
    """One parameter, whose loss is its squared distance from each item."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([4.0, -4.0]))

    def loss(self, items: torch.Tensor) -> torch.Tensor:
        return ((self.place - items) ** 2).sum(1)


ITEMS = torch.randn(64, 2, generator=torch.Generator().manual_seed(5))


def fitted(plan: Plan, seed: int = 0, validate=None, on_progress=None, callbacks=()):
    point = Point()
    generator = torch.Generator().manual_seed(seed)
    trace = train(
        point, lambda i: point.loss(ITEMS[i]), 64, plan, generator,
        validate and (lambda: validate(point)), on_progress, callbacks,
    )  # fmt: skip
    return point, trace


def test_the_minimizer_of_a_squared_loss_is_the_mean():
    point, trace = fitted(Plan(steps=600, batch_size=64, learning_rate=0.1))
    torch.testing.assert_close(point.place.detach(), ITEMS.mean(0), rtol=0, atol=1e-2)
    assert trace.steps == trace.best_step == 600
    assert not point.training


def test_every_item_is_seen_equally_often():
    seen = torch.zeros(10, dtype=torch.int64)
    point = Point()

    def loss(index):
        seen.index_add_(0, index, torch.ones_like(index))
        return point.loss(ITEMS[index])

    train(point, loss, 10, Plan(steps=25, batch_size=4), torch.Generator().manual_seed(0))
    assert seen.tolist() == [10] * 10


def test_the_average_is_the_weighted_sum_of_the_weights(global_seed):
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = MovingAverage(module, decay=0.5)
    expected, path = 0.0, [1.0, 3.0, -2.0, 5.0, 0.5, 7.0, 7.5]
    for k, value in enumerate(path, start=1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update()
        decay = min(0.5, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * value
    assert float(average.shadow[0]) == pytest.approx(expected, abs=1e-6)
    with average.applied():
        assert float(module.weight.detach()) == pytest.approx(expected, abs=1e-6)
    assert float(module.weight.detach()) == path[-1]


def test_the_best_weights_are_kept_and_patience_ends_training():
    """A held-out loss whose minimum lies on the way: training ends after it, and returns to it."""

    def away(point):
        return ((point.place.detach() - torch.tensor([2.0, -2.0])) ** 2).sum()[None]

    plan = Plan(steps=4000, learning_rate=0.05, patience=3)
    point, trace = fitted(plan, validate=away)
    losses = dict(trace.held_out)
    assert trace.steps < 4000
    assert losses[trace.best_step] == min(losses.values())
    assert float(away(point)) == pytest.approx(losses[trace.best_step], abs=1e-6)
    assert [step for step, _ in trace.held_out if step > trace.best_step][-1] == trace.steps
    assert sum(step > trace.best_step for step in losses) == 3


def test_a_number_of_steps_is_exact_and_the_seed_fixes_the_weights():
    first, second = fitted(Plan(steps=30)), fitted(Plan(steps=30))
    assert first[1].steps == 30
    assert torch.equal(first[0].place, second[0].place)


def test_a_time_budget_becomes_steps():
    shown: list[Progress] = []
    _, trace = fitted(Plan(minutes=0.02, visits=10**6), on_progress=shown.append)
    assert shown[0].steps is None
    assert shown[-1].steps == trace.steps or trace.steps < (shown[-1].steps or 0)
    assert trace.steps > 30
    assert 0.3 < trace.steps / shown[-1].rate < 3.0


def test_no_item_is_visited_too_often_whatever_the_time():
    plan = Plan(minutes=10.0, batch_size=256, visits=400)
    assert plan.most_steps(1170) == 400 * 1170 // 256
    assert plan.most_steps(64) == 1000


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "Expected steps or minutes of training, got neither"),
        ({"steps": 0}, "Expected steps > 0, got 0"),
        ({"minutes": float("nan")}, "Expected minutes > 0, got nan"),
        ({"steps": 5, "minutes": -1.0}, "Expected minutes > 0, got -1"),
    ],
)
def test_a_plan_without_a_budget_is_refused(budget, said):
    with pytest.raises(rv.DataError, match=said):
        Plan(**budget)


def test_the_learning_rate_rises_and_falls():
    plan = Plan(steps=1000, learning_rate=2.0)
    rates = [plan.rate_at(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02, rel=1e-3)
    assert max(rates) == pytest.approx(2.0, rel=0.05)
    assert rates[550] == pytest.approx(1 + math.cos(0.55 * math.pi))
    assert rates[-1] < 1e-4
    assert min(rates) > 0


def test_the_standard_error_is_that_of_the_held_out_items():
    held = torch.tensor([1.0, 2.0, 4.0, 9.0])
    _, trace = fitted(Plan(steps=25), validate=lambda _: held)
    assert trace.checks[-1].held_out == 4.0
    assert trace.checks[-1].stderr == pytest.approx(math.sqrt(held.double().var() / 4))


def test_checks_are_read_where_nothing_is_held_out():
    seen = []
    _, trace = fitted(Plan(steps=50), callbacks=[seen.append])
    assert [at.step for at in seen] == [25, 50]
    assert seen == trace.checks
    assert all(math.isnan(at.held_out) for at in seen)
    assert trace.best_step == 50


def test_a_log_is_read_back_as_it_was_written():
    nan = math.nan
    checks = [Check(25, 0.1, 1 / 3, nan, nan, 1e-3, 7.0), Check(50, 0.2, 0.1, 0.5, 0.1, 0.0, 8.0)]
    text = logs.to_lines(checks)
    assert [json.loads(line)["held_out"] for line in text.splitlines()] == [None, 0.5]
    assert repr(logs.from_lines(text)) == repr(checks)
    with pytest.raises(rv.CheckpointError, match="one JSON object per line"):
        logs.from_lines(text[:-9])


def test_tensorboard_is_refused_with_its_cure_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(rv.CapabilityError, match=r"pip install 'reversal\[tensorboard\]'"):
        logs.TensorBoard(tmp_path)


def test_the_default_budget_grows_with_the_data_between_two_ends():
    budgets = [minutes_for(rows, 15) for rows in (2, 1000, 32_561, 10**6, 10**9)]
    assert budgets == sorted(budgets)
    assert (budgets[0], budgets[-1]) == MINUTES
    assert MINUTES[0] < budgets[2] < MINUTES[1]


def test_the_budget_is_announced():
    out = io.StringIO()
    progress.announce(Plan(minutes=4.0), 32_561, 15, stream=out)
    progress.announce(Plan(minutes=0.5), 1, 1, stream=out)
    progress.announce(Plan(steps=3000), 344, 8, stream=out)
    progress.announce(Plan(steps=3000), 344, 8, (1200, 3000), stream=out)
    assert out.getvalue().splitlines() == [
        "training for at most 4 minutes: 32,561 rows x 15 columns",
        "training for at most 30 seconds: 1 row x 1 column",
        "training for 3,000 steps: 344 rows x 8 columns",
        "going on after step 1,200 of 3,000: 344 rows x 8 columns",
    ]


def test_progress_is_a_line_where_there_is_no_terminal():
    out = io.StringIO()
    at = Progress(step=10, steps=10, loss=1.5, held_out=math.nan, rate=5.0)
    with progress.shown(True, out) as show:
        show(at._replace(step=5))
        show(at)
    assert out.getvalue() == "step 10/10, 5 steps/s, loss 1.5, 0 s left\n"
    with progress.shown(False, out) as show:
        assert show is None


# Runs on disk

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


@pytest.fixture
def run(tmp_path):
    config, records = {"kind": "test", "x": [1, 2.5]}, {"log.jsonl": "{}\n"}
    checkpoint.write(tmp_path / "run", TENSORS, config, records, "# A card")
    return tmp_path / "run"


def test_a_run_comes_back_as_it_was(run):
    tensors, config, records = checkpoint.read(run)
    assert records == {"log.jsonl": "{}\n"}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert (config["kind"], config["x"], config["format"]) == ("test", [1, 2.5], checkpoint.FORMAT)


def test_a_run_is_replaced_and_other_files_stay(run):
    (run / "notes.txt").write_text("mine")
    checkpoint.write(run, {"a": torch.ones(1)}, {})
    assert checkpoint.read(run)[0].keys() == {"a"}
    assert sorted(p.name for p in run.iterdir()) == [
        "README.md", "config.json", "log.jsonl", "model.safetensors", "notes.txt"]  # fmt: skip


def edit(run, **changes):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = [
    (lambda run: cut(run / "model.safetensors"), "truncated"),
    (lambda run: flip(run / "model.safetensors"), "another checksum"),
    (lambda run: (run / "model.safetensors").unlink(), "with model.safetensors"),
    (lambda run: (run / "config.json").unlink(), "with config.json"),
    (lambda run: cut(run / "config.json"), "truncated"),
    (lambda run: (run / "config.json").write_text("[]"), "none: truncated"),
    (lambda run: edit(run, format=3), "got format 3"),
    (lambda run: edit(run, kind="other"), "changed"),
    (lambda run: cut(run / "log.jsonl"), "another checksum"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_damaged_run_is_refused(run, damage, said):
    damage(run)
    with pytest.raises(rv.CheckpointError, match=said):
        checkpoint.read(run)


def test_a_run_is_read_without_its_records_and_with_another_card(run):
    (run / "log.jsonl").unlink()
    (run / "README.md").write_text("# Mine")
    assert checkpoint.read(run)[2] == {}


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(rv.CheckpointError, match="no such folder"):
        checkpoint.read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(rv.CheckpointError, match="may be written to"):
        checkpoint.write(tmp_path / "file", TENSORS, {})


PROCESSES = [
    rv.Gaussian(rv.Euclidean(1, 8, 8), rv.Cosine()),
    rv.Gaussian(rv.Euclidean(2), rv.VarianceExploding(sigma_max=3.0)),
    rv.Mask(rv.Categorical((2, 16, 42))),
    rv.Mask(rv.Categorical((7,))),
    rv.Uniform(rv.Categorical(27, 4), rv.ExponentialSurvival(5.0)),
    rv.Brownian(rv.Torus(2)),
    rv.Brownian(rv.SO3(5)),
    rv.Independent(a=rv.Brownian(rv.SO3()), b=rv.Mask(rv.Categorical(3))),
]


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_process_is_what_its_text_says(process):
    config = json.loads(json.dumps(recipe.process_to_config(process)))
    assert repr(recipe.process_from_config(config)) == repr(process)


LAWS = [
    ANY_COLUMNS,
    WHOLE_FACTORS,
    ((SiteClocks(0.3, 0.2, OnGrid(7), common=False), 0.5), (SharedClock(), 2.0)),
]


@pytest.mark.parametrize("clocks", LAWS)
def test_a_method_is_what_its_text_says(clocks):
    settings = {"steps": None, "minutes": None, "learning_rate": 1e-3, "dropout": None}
    settings |= {"hidden_features": 7, "num_blocks": 2}
    method = dataclasses.replace(method_for(settings, 500, 9, whole_factors=False), clocks=clocks)
    assert Method.from_config(json.loads(json.dumps(method.to_config()))) == method


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": {"steps": 3, "speed": 2}}, "speed"),
        ({"plan": {"steps": -3}}, "Expected steps > 0"),
        ({"clocks": [[{"type": "Sundial"}, 1.0]]}, "parts that this version knows, got 'Sundial'"),
        ({"clocks": []}, "Expected pairs of a clock law"),
        ({"clocks": None}, "not iterable"),
        ({"mood": 1}, "mood"),
    ],
)
def test_a_method_of_another_version_is_refused(change, said):
    settings = dict.fromkeys(SETTINGS, 1)
    config = method_for(settings, 500, 9, whole_factors=True).to_config() | change
    with pytest.raises(rv.CheckpointError, match=said) as refused:
        Method.from_config(config)
    assert "Install the version of reversal" in str(refused.value)


def test_clocks_without_a_text_form_are_refused():
    with pytest.raises(rv.CheckpointError, match="got AnyClock"):
        recipe.clocks_to_config(AnyClock())


def test_a_process_without_a_text_form_is_refused():
    space = rv.Euclidean(2)
    with pytest.raises(rv.CheckpointError, match="Interpolant"):
        recipe.process_to_config(rv.Interpolant(space, rv.Paired()))
