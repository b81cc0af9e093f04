"""A posterior on disk: what is loaded draws what was saved, and what is damaged is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import reversal as rv
from reversal.training import checkpoint

GOLDEN = Path(__file__).resolve().parent / "training" / "golden"
TINY = {
    "steps": 30,
    "normal_steps": 30,
    "batch_size": 32,
    "hidden_features": 8,
    "num_blocks": 1,
    "show_progress": False,
}
XI = torch.tensor([0.3, torch.nan], dtype=torch.float64)


def simulated() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    theta = torch.rand(200, 2, generator=random, dtype=torch.float64)
    evidence = theta + 0.2 * torch.randn(200, 2, generator=random, dtype=torch.float64)
    evidence[::5, 1] = torch.nan
    return theta, evidence


@pytest.fixture(scope="module", params=["box", "line"])
def posterior(request) -> rv.AmortizedPosterior:
    support = rv.Box([0.0, 0.0], [1.0, 1 / 3 + 2 / 3]) if request.param == "box" else None
    return rv.AmortizedPosterior(support, **TINY).fit(*simulated())


def test_what_is_loaded_draws_what_was_saved(posterior, tmp_path):
    posterior.save(tmp_path)
    loaded = rv.AmortizedPosterior.load(tmp_path)
    for shown in (XI, torch.tensor([0.3, 0.9])):
        assert torch.equal(posterior.sample(7, shown, seed=3), loaded.sample(7, shown, seed=3))
    theta, evidence = simulated()
    first, second = (one.log_prob(theta[:4], evidence[:4]) for one in (posterior, loaded))
    assert torch.equal(first.value, second.value)
    assert torch.equal(posterior.gaps_, loaded.gaps_)
    assert posterior.trace_ == loaded.trace_
    assert (posterior.support is None) == (loaded.support is None)
    loaded.save(tmp_path / "again")
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {"model.safetensors", "config.json", "log.jsonl"}
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
    refitted = loaded.fit(theta, evidence)
    assert torch.equal(posterior.sample(7, XI, seed=3), refitted.sample(7, XI, seed=3))


def test_what_is_damaged_is_refused_with_the_cure(posterior, tmp_path):
    folder = tmp_path / "run"
    posterior.save(folder)
    weights, index = folder / "model.safetensors", folder / "config.json"
    whole, text = weights.read_bytes(), index.read_text()
    config = json.loads(text)
    for name, damage in {
        "model.safetensors": lambda: weights.write_bytes(whole[:-9]),
        "as it was saved": lambda: index.write_text(text.replace('"seed": 0', '"seed": 1')),
        "format 99": lambda: index.write_text(json.dumps(config | {"format": 99})),
        "text that is none": lambda: index.write_text(text[:-20]),
    }.items():
        damage()
        with pytest.raises(rv.CheckpointError, match=name):
            rv.AmortizedPosterior.load(folder)
        weights.write_bytes(whole)
        index.write_text(text)
    with pytest.raises(rv.CheckpointError, match="no such folder"):
        rv.AmortizedPosterior.load(tmp_path / "nothing")


def test_what_this_version_does_not_know_is_refused(posterior, tmp_path):
    """A whole run whose checksum holds, with a support or a setting of another version."""
    posterior.save(tmp_path)
    tensors, config, _ = checkpoint.read(tmp_path)
    own = {name: value for name, value in config.items() if name not in ("format", "files")}
    for odd in (
        {"support": own["support"] | {"type": "Ball"}},
        {"settings": own["settings"] | {"colour": 1}},
        {"settings": own["settings"] | {"hidden_features": 9}},
        {"gaps": [True]},
    ):
        checkpoint.write(tmp_path / "odd", tensors, own | odd)
        with pytest.raises(rv.CheckpointError, match="Install the version of reversal"):
            rv.AmortizedPosterior.load(tmp_path / "odd")


def test_a_model_and_a_posterior_are_told_apart(posterior, tmp_path):
    posterior.save(tmp_path)
    with pytest.raises(rv.CheckpointError, match=r"AmortizedPosterior\.load"):
        rv.load(tmp_path)
    with pytest.raises(rv.CheckpointError, match=r"reversal\.load"):
        rv.AmortizedPosterior.load(GOLDEN / "table")
    with pytest.raises(rv.NotFittedError):
        rv.AmortizedPosterior().save(tmp_path)


def test_a_writer_that_fails_leaves_the_older_posterior(posterior, tmp_path, monkeypatch):
    posterior.save(tmp_path)
    before = posterior.sample(5, XI)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(rv.CheckpointError, match="No space left"):
        rv.AmortizedPosterior(**TINY | {"seed": 1}).fit(*simulated()).save(tmp_path)
    monkeypatch.undo()
    assert torch.equal(rv.AmortizedPosterior.load(tmp_path).sample(5, XI), before)


def test_an_interrupted_fit_leaves_the_posterior_as_it_was(posterior, monkeypatch):
    before = posterior.sample(5, XI)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reversal.amortized.simulations.train", stop)
    with pytest.raises(KeyboardInterrupt):
        posterior.fit(*simulated())
    assert torch.equal(posterior.sample(5, XI), before)


def test_a_golden_posterior_answers_as_it_did():
    """Frozen as the golden runs are, see ``training/test_golden.py``."""
    folder, answers = GOLDEN / "posterior", GOLDEN / "posterior.json"
    theta, evidence = simulated()
    if os.environ.get("REVERSAL_FREEZE"):
        if not folder.exists():
            rv.AmortizedPosterior(rv.Box([0, 0], [1, 1]), **TINY).fit(theta, evidence).save(folder)
        answers.write_text(json.dumps(answered(folder), indent=1))
    expected = json.loads(answers.read_text())
    for name, values in answered(folder).items():
        found, wanted = torch.tensor(values), torch.tensor(expected[name])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 40_000


def answered(folder: Path) -> dict[str, list[float]]:
    """Draws and bounds of a saved posterior."""
    posterior = rv.AmortizedPosterior.load(folder)
    theta, evidence = simulated()
    bound = posterior.log_prob(theta[:6], evidence[:6], num_samples=8)
    return {"sample": posterior.sample(4, XI, seed=1).tolist(), "log_prob": bound.value.tolist()}
