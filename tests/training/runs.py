"""A tiny training, and what two of them have to agree on."""

import os

import numpy as np
import pandas as pd
import torch

import reversal as rv

TINY = {"hidden_features": 16, "num_blocks": 1, "dropout": 0.2, "show_progress": False}
TIMED = ("seconds", "rate")


def table(rows: int = 60) -> pd.DataFrame:
    """Numbers, categories and gaps."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "kind": rng.choice(["a", "b", "c"], rows)})
    frame.loc[::7, "x"] = np.nan
    return frame


def model(**settings):
    """A model that trains for 80 steps, with dropout, and reads its held-out loss four times."""
    return rv.Model(**{"steps": 80} | TINY | settings)


def assert_same(first, second):
    """Weights bit for bit, and the log but for what a clock says."""
    ours, theirs = (m.denoiser_.network.state_dict() for m in (first, second))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert untimed(first.trace_.checks) == untimed(second.trace_.checks)
    assert first.trace_.steps == second.trace_.steps
    assert first.trace_.best_step == second.trace_.best_step
    assert first.trace_.ended == second.trace_.ended


def untimed(checks):
    """What checks say, as text, for NaN is not equal to itself."""
    rows = [check._asdict() for check in checks]
    return repr([{k: v for k, v in row.items() if k not in TIMED} for row in rows])


def names(folder):
    """The names of the files in a folder."""
    return sorted(os.listdir(folder))
