"""Implicit losses of several processes are those of one, and so are their gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reversal.training.distributed import Alone
from tests.objectives.processes import LOSSES, measured

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["copies", "shards"])
def test_two_processes_have_the_losses_and_gradients_of_one(kind, global_seed):
    """13 rows in parts of 6 and 7: probes, axes, an energy and drawn jumps, to 1e-12."""
    program = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *program, str(ROOT / "tests" / "objectives" / "processes.py"), kind],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in LOSSES:
        losses, slopes = measured(name, Alone())
        assert len(losses) == 13
        assert max(map(max, slopes)) > 0.1
        assert found[name][0] == pytest.approx(losses, rel=1e-12, abs=1e-12), name
        assert len(slopes) == (3 if name == "energy" else 4)
        for ours, theirs in zip(found[name][1], slopes, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12), name
