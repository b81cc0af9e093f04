"""A training in one or several processes: ``processes.py RUN KIND STOP [SIGNAL]``.

Trains in a folder, or goes on with what it holds. KIND is ``copies`` or ``shards``; the last of the
processes sends itself a signal at the check of step STOP, if there is one (SIGTERM by default).
Every process says at its end how many threads of its group are left; none may outlive it.
"""

import atexit
import os
import signal
import sys
from pathlib import Path

from reversal.cli.console import is_first
from tests.training.runs import model, table

KEPT: list[object] = []
"""What a program still has when it ends."""


def say_threads() -> None:
    tasks = [task / "comm" for task in Path("/proc/self/task").glob("*")]
    print(f"threads left: {sum('gloo' in task.read_text() for task in tasks)}\n", end="")


def main(run: str, kind: str, stop: str, number: str = "15") -> None:
    def watch(check) -> None:
        if check.step == int(stop) and is_last():
            signal.raise_signal(int(number))

    how = {"resume": True, "checkpoint_seconds": 0.0, "callbacks": [watch]}
    try:
        KEPT.append(model().fit(table(), run=run, shard=kind == "shards", **how))
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped.args[0]) if is_first() else 1)


def is_last() -> bool:
    return int(os.environ.get("RANK", "0")) + 1 == int(os.environ.get("WORLD_SIZE", "1"))


if __name__ == "__main__":
    atexit.register(say_threads)  # the first to be registered is the last to be called
    main(*sys.argv[1:])
