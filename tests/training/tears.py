"""Let a process die at every call that changes a disk, and read what it left.

The machine goes on, so nothing waits for the disk: a process that dies loses no write it has made.

Run as a program, for it forks: ``python tests/training/tears.py FOLDER``. Prints for each death
what a reader finds, what it finds after the next writer, which dies at the same call or the last
before the index changes, what after a third, which does not, and how many files there are then.
"""

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
for package in ("reversal", "reversal.training"):
    # A package without its torch, so that a child costs a millisecond.
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(SOURCE.joinpath(*package.split(".")))]
bundle: Any = importlib.import_module("reversal.training.bundle")

INDEX, NAMES = "index.json", ("a.bin", "b.bin")
CALLS = ("fsync", "replace", "unlink")
BEFORE = 5
"""The call that puts the index in its place, after the fsync of four files and their folder."""


def files(word: str) -> dict[str, bytes]:
    return {name: f"{word} {name}".encode() for name in NAMES}


def write(folder: Path, word: str) -> None:
    bundle.write(folder, INDEX, {"word": word}, files(word), {"free": word.encode()})


def found(folder: Path) -> str:
    """Return the word of a bundle whose parts belong together."""
    content, parts = bundle.read(folder, INDEX, needed=NAMES)
    return content["word"] if parts == files(content["word"]) else "TORN"


def die_at(number: int) -> None:
    """Let the process end, without any clean-up, before the call of this number."""
    count = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal count
            if count == number:
                os._exit(9)
            count += 1
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def no_waiting(handle: int) -> None:
    """Stand for ``os.fsync``: counted as a call that changes a disk, and does nothing."""


def dies(folder: Path, word: str, number: int) -> bool:
    """Write a bundle in a child; whether it died on the way."""
    child = os.fork()
    if child == 0:
        die_at(number)
        write(folder, word)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def main(folder: Path) -> None:
    os.fsync = no_waiting
    write(folder, "old")
    number, words = 0, []
    while dies(folder, "new", number):
        for then in (number, BEFORE):
            write(folder, "old")
            dies(folder, "new", number)
            first = found(folder)
            dies(folder, "newer", then)
            second = found(folder)
            write(folder, "old")
            words.append(f"{first}-{second}-{found(folder)}-{len(list(folder.iterdir()))}")
        number += 1
    print(*words, found(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
