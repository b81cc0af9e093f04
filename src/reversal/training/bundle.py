"""Files that change together: an index in JSON that names the others by checksum.

A writer puts every file in full beside its place, as a draft, and forces it to disk. Then the index
takes its place in one rename, and the others follow. A reader takes, for each name in the index,
the file with that checksum, from its place or from a draft. So whenever a writer dies, what is read
is the old bundle or the new one, whole. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from reversal.errors import CheckpointError

FORMAT: Final = 2
"""1 named no file but the weights; it is still read."""
ATTEMPTS: Final = 3
"""How often a reader looks again, where a writer changes the bundle under its eyes."""
DRAFT: Final = re.compile(r"\.(.+)\.[0-9a-f]+\.part")


def write(
    folder: str | os.PathLike[str],
    index: str,
    content: Mapping[str, Any],
    files: Mapping[str, bytes],
    free: Mapping[str, bytes] | None = None,
    placed: Iterable[str] = (),
) -> None:
    """Write a bundle in the place of an older one.

    Args:
        folder: made if there is none; files of other names stay as they are.
        index: the name of the index.
        content: what the index says, in plain JSON types.
        files: what the index vouches for, by name.
        free: files that go along without a checksum, because people may edit them.
        placed: names of files that are in the folder already, and that no index names yet.

    Raises:
        CheckpointError: if the folder cannot be written to; the older bundle is still there.
    """
    folder = Path(folder)
    sums = {name: digest(data) for name, data in files.items()}
    sums |= {name: digest(_bytes(folder, name)) for name in placed}
    entry = {"format": FORMAT, **content, "files": sums}
    entry["checksum"] = _checksum(entry)
    text = json.dumps(entry, indent=1, allow_nan=False).encode()
    new = {index: text, **files, **(free or {})}
    drafts = {name: folder / f".{name}.{secrets.token_hex(4)}.part" for name in new}
    is_decided = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in new.items():
            _write_through(drafts[name], data)
        _settle(folder)
        os.replace(drafts[index], folder / index)
        is_decided = True
        for name in new.keys() - {index}:
            os.replace(drafts[name], folder / name)
        _settle(folder)
        _sweep(folder, new)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        if not is_decided:
            for draft in drafts.values():
                with suppress(OSError):
                    draft.unlink()


def read(
    folder: str | os.PathLike[str], index: str, needed: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what the index of a bundle says, and the files it vouches for.

    Args:
        folder: where the bundle is.
        index: the name of its index.
        needed: the files without which the bundle is of no use, by default all; others may be
            deleted.

    Raises:
        CheckpointError: if the bundle is missing, truncated, of a newer format, or changed.
    """
    folder = Path(folder)
    for attempt in range(ATTEMPTS):
        text = _bytes(folder, index)
        content = _content(folder, index, text)
        try:
            files = {k: _vouched(folder, index, k, v) for k, v in content["files"].items()}
        except CheckpointError:
            if attempt + 1 == ATTEMPTS or _bytes(folder, index) == text:
                raise
            continue
        for name in files if needed is None else needed:
            if files.get(name) is None:
                _bytes(folder, name)
                raise _changed(folder, index)
        return content, {name: data for name, data in files.items() if data is not None}
    raise _changed(folder, index)


def names(folder: str | os.PathLike[str], index: str) -> list[str]:
    """Return the names of the files that the index of a bundle vouches for; none without an index.

    Raises:
        CheckpointError: if the index is damaged, or of a newer format.
    """
    folder = Path(folder)
    if not (folder / index).exists():
        return []
    return list(_content(folder, index, _bytes(folder, index))["files"])


def is_draft(path: Path, names: Collection[str]) -> bool:
    """Whether a file is one that `write` renames at its end, for one of these names."""
    match = DRAFT.fullmatch(path.name)
    return match is not None and match[1] in names


def writable(folder: Path) -> Path:
    """Make a folder, and try to write to it.

    Raises:
        CheckpointError: if that fails.
    """
    probe = folder / f".probe.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_through(probe, b"x")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise _unwritable(folder, error) from error
    return folder


def replace(path: Path, data: bytes) -> None:
    """Write one file whole or not at all.

    Raises:
        CheckpointError: if that fails; the older file is still there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write_through(draft, data)
        os.replace(draft, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def _vouched(folder: Path, index: str, name: str, expected: str) -> bytes | None:
    """Return a file with the checksum of the index; None if there is none of its name at all."""
    found = None
    for path in _places(folder, name):
        with suppress(OSError):
            data = path.read_bytes()
            if digest(data) == expected:
                return data
            found = data if path.name == name else found
    if found is None:
        return None
    raise CheckpointError(
        f"Expected the {name} that {str(folder / index)!r} was saved with, got a {name} of "
        f"{len(found)} bytes with another checksum: truncated, changed, or of another run. "
        f"Copy the folder again, or fit and save again."
    )


def _places(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    yield from (path for path in folder.iterdir() if is_draft(path, [name]))


def _content(folder: Path, index: str, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_no_number)
        version, checksum = int(content["format"]), str(content.pop("checksum"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected the configuration of a run in {str(folder / index)!r}, got text that is "
            f"none: truncated, or of another program. Copy the folder again, or save again."
        ) from error
    if not 1 <= version <= FORMAT:
        raise CheckpointError(
            f"Expected a run of format {FORMAT} or older, got format {version} in {str(folder)!r}. "
            f"Install the version of reversal that wrote it, or fit and save again."
        )
    if _checksum(content) != checksum or not _names_files(content):
        raise _changed(folder, index)
    if version == 1:
        content["files"] = {"model.safetensors": content.pop("weights")}
    return content


def _names_files(content: Mapping[str, Any]) -> bool:
    return (
        "weights" in content if content["format"] == 1 else isinstance(content.get("files"), dict)
    )


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        found = "a folder without it" if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"Expected a saved run with {name} in {str(folder)!r}, got {found}. "
            f"Give the folder that `model.save` or `reversal fit` wrote."
        ) from error


def _changed(folder: Path, index: str) -> CheckpointError:
    return CheckpointError(
        f"Expected {str(folder / index)!r} as it was saved, got one that was changed. "
        f"Copy the folder again, or fit and save again."
    )


def _unwritable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Expected to write a run to {str(folder)!r}, got: {error.strerror or error}. "
        f"Choose a folder that may be written to and has room."
    )


def _sweep(folder: Path, names: Collection[str]) -> None:
    """Remove the drafts of writers that died."""
    for stale in [path for path in folder.iterdir() if is_draft(path, names)]:
        stale.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _checksum(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True, allow_nan=False).encode())
