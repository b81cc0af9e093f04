"""Kill trainings at random moments, and count those that did not resume to the same model.

Run as a program, so that each training is a child process that starts at once::

    python tests/training/kills.py FOLDER KILLS

Prints the number of kills, the number of trainings they hit, and of those that came out otherwise.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from reversal.data import opening, rows  # noqa: F401  imported here, so that children have it
from reversal.training import bundle, checkpoint, keeping
from tests.training.runs import model, table

STEPS = 400


def fit(run: Path, seed: int) -> None:
    """Train in a folder, or go on with what it holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    trained = model(steps=STEPS, seed=seed)
    trained.fit(table(), run=run, resume=True, checkpoint_seconds=0.02)
    os._exit(0)


def kill(run: Path, seed: int, wait: float) -> bool:
    """Train in a child and kill it some time after it began to save; whether it was still alive."""
    child = os.fork()
    if child == 0:
        fit(run, seed)
    before = stamp(run)
    while stamp(run) == before and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(wait)
    try:
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    except (ProcessLookupError, ChildProcessError):
        return False


def stamp(run: Path) -> int:
    """When a state was written last."""
    index = run / keeping.FOLDER / keeping.INDEX
    return index.stat().st_mtime_ns if index.exists() else 0


def outcome(run: Path) -> tuple[object, object]:
    """The weights of a run, and its log but for what a clock says."""
    _, config, records = checkpoint.read(run)
    checks = [at._replace(seconds=0.0, rate=0.0) for at in checks_of(records)]
    return config["files"][checkpoint.WEIGHTS], repr(checks)


def checks_of(records):
    from reversal.training.logs import from_lines

    return from_lines(records[checkpoint.LOG])


def main(folder: Path, wanted: int) -> None:
    """Kill so many times, one training after another; print what came of it."""
    chance, kills, trainings, wrong = random.Random(0), 0, 0, 0
    while kills < wanted:
        run, whole = folder / f"run-{trainings}", folder / f"whole-{trainings}"
        while kills < wanted and kill(run, trainings, chance.uniform(0.0, 0.25)):
            kills += 1
            if keeping.is_unfinished(run):
                bundle.read(run / keeping.FOLDER, keeping.INDEX, needed=[keeping.TENSORS])
        for place in (run, whole):
            child = os.fork()
            if child == 0:
                fit(place, trainings)
            os.waitpid(child, 0)
        wrong += outcome(run) != outcome(whole)
        trainings += 1
    print(kills, trainings, wrong)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
