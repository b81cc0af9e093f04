"""What is looked at before any work starts: can the results be written?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reversal.data.frames import WRITERS
from reversal.errors import DataError
from reversal.training.checkpoint import is_run

if TYPE_CHECKING:
    from reversal.model import Model


def table_to_write(path: Path) -> Path:
    """Return a path to which a table can be written.

    Raises:
        DataError: if its extension is unknown, it is a folder, or its folder cannot be written to.
    """
    if path.suffix.lower() not in WRITERS:
        raise DataError(
            f"Expected a file to write that ends in {' or '.join(WRITERS)}, got {path.name!r}. "
            "Choose such an extension."
        )
    return file_to_write(path)


def file_to_write(path: Path) -> Path:
    """Return a path to which a file can be written.

    Raises:
        DataError: if it is a folder, or its folder cannot be written to.
    """
    if path.is_dir():
        raise DataError(
            f"Expected a file to write, got the folder {str(path)!r}. Name a file in it."
        )
    return _in_writable_folder(path)


def page_to_write(path: Path) -> Path:
    """Return a path to which a page can be written.

    Raises:
        DataError: if it does not end in .html, is a folder, or its folder cannot be written to.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise DataError(
            f"Expected a page to write that ends in .html, got {path.name!r}. "
            "Choose that extension."
        )
    if path.is_dir():
        raise DataError(
            f"Expected a file to write, got the folder {str(path)!r}. Name a file in it."
        )
    return _in_writable_folder(path)


def not_the_same(file: Path, out: Path) -> None:
    """Refuse to write a result over the file that it is made from.

    Raises:
        DataError: if both are one file.
    """
    if file.exists() and out.exists() and file.samefile(out):
        raise DataError(
            f"Expected another file for the result, got {str(out)!r}, which is read. "
            "Choose another name."
        )


def run_to_write(path: Path) -> Path:
    """Return a path to which a run can be saved: a new folder, an empty one, or an older run.

    A folder in which a save was cut off holds parts of a run and nothing else: it counts as one.

    Raises:
        DataError: if something else stands there, or the place cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise DataError(
            f"Expected a folder for the run, got the file {str(path)!r}. Choose another name."
        )
    if path.is_dir() and not is_run(path):
        raise DataError(
            f"Expected a new folder or an older run, got {str(path)!r}, which holds other files. "
            "Choose another name, so that nothing is overwritten."
        )
    return _in_writable_folder(path)


def folder_to_write(path: Path) -> Path:
    """Return a folder in which files can be made; it is made where there is none.

    Raises:
        DataError: if it is a file, or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"Expected a folder to write to, got {str(path)!r}: {error.strerror}. Choose another."
        ) from error
    _try_to_write(path)
    return path


def sample_to_write(path: Path) -> Path:
    """Return a path to which samples can be written: a table, or a folder for pictures.

    Raises:
        DataError: if it is neither, holds files already, or cannot be written to.
    """
    if path.suffix.lower() in WRITERS or (path.suffix and not path.is_dir()):
        return table_to_write(path)
    if path.exists() and not path.is_dir():
        raise DataError(f"Expected a folder, got the file {str(path)!r}. Choose another name.")
    if path.is_dir() and any(path.iterdir()):
        raise DataError(
            f"Expected a new folder for pictures, got {str(path)!r}, which holds files. Choose "
            "another name; a table ends in .csv or .parquet."
        )
    return _in_writable_folder(path)


def run_for(run: Path, out: Path) -> Model:
    """Return the model of a run whose samples a file or a folder can hold.

    Raises:
        CheckpointError: if there is no run, or it is damaged.
        DataError: if a table was to go to a folder, pictures to a file, or arrays anywhere.
    """
    from reversal.data.states import StateSource
    from reversal.model import load

    if out.suffix.lower() in WRITERS:
        return table_run(run)
    model = load(run)
    if not (isinstance(model.source_, StateSource) and model.source_.is_pictures):
        raise DataError(
            f"Expected a run of pictures for the folder {str(out)!r}, got another in {str(run)!r}. "
            "Write a table to a file that ends in .csv or .parquet."
        )
    return model


def table_run(run: Path) -> Model:
    """Return the model of a run that was fitted to a table.

    Raises:
        CheckpointError: if there is no run, or it is damaged.
        DataError: if it was fitted to arrays, which no table holds.
    """
    from reversal.data.rows import TableSource
    from reversal.model import load

    model = load(run)
    if not isinstance(model.source_, TableSource):
        raise DataError(
            f"Expected a run that was fitted to a table, got one of arrays in {str(run)!r}. "
            "Sample pictures into a folder, other arrays in Python: `reversal.load(run).sample(n)`."
        )
    return model


def _in_writable_folder(path: Path) -> Path:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DataError(
            f"Expected a folder that exists for {str(path)!r}, found none at {str(folder)!r}. "
            "Make it, or choose another."
        )
    _try_to_write(folder)
    return path


def _try_to_write(folder: Path) -> None:
    """Make a file without a name in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"Expected a folder that can be written to, got {str(folder)!r}: {error.strerror}. "
            "Choose another, or change its permissions."
        ) from error
