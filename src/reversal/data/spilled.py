"""The states of a file on disk: written batch by batch, read by index, never in memory.

A part lies in a file without a name: it is gone when the process is, however that ends, and nothing
can take it for anything else. Codes are stored in the smallest type that holds them, masks in bits.
What is read is a tensor of the type that the same part has in memory.
"""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from reversal.data.rows import TableSource
from reversal.data.source import Encoded, Source
from reversal.data.table_file import TableFile, counted_from
from reversal.errors import DataError

SMALL: Final = (np.uint8, np.int16, np.int32, np.int64)


class Stored(ABC):
    """A tensor ``(n, *event)`` on disk, of which rows are asked for.

    Args:
        folder: where its file is.
        event: the shape of a row.
        dtype: of what is read.
    """

    def __init__(self, folder: str | os.PathLike[str], event: tuple[int, ...], dtype: Any) -> None:
        self.event, self.dtype = event, dtype
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._rows = 0
        self._map: np.ndarray | None = None

    @abstractmethod
    def pack(self, part: Tensor) -> np.ndarray:
        """Return rows as they are stored ``(B, k)``."""

    @abstractmethod
    def unpack(self, rows: np.ndarray) -> Tensor:
        """Return stored rows ``(B, k)`` as they were."""

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole."""
        return torch.Size((self._rows, *self.event))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """Return the rows of indices ``(B,)`` or of a slice, or one row."""
        stored = self._stored()
        if isinstance(index, int):
            return self.unpack(np.array(stored[index][None]))[0]
        where = index.numpy() if isinstance(index, Tensor) else index
        return self.unpack(np.array(stored[where]))

    def append(self, part: Tensor) -> None:
        """Write the next rows."""
        packed = self.pack(part)
        self._width, self._kind = packed.shape[1], packed.dtype
        self._file.write(np.ascontiguousarray(packed).tobytes())
        self._rows += len(part)
        self._map = None

    def _stored(self) -> np.ndarray:
        if self._map is None:
            self._file.flush()
            shape = (self._rows, self._width)
            self._map = np.memmap(self._file, self._kind, "r", shape=shape)
        return self._map


@final
class Values(Stored):
    """Real numbers, or codes below a number."""

    def __init__(
        self, folder: str | os.PathLike[str], event: tuple[int, ...], dtype: Any, codes: int = 0
    ) -> None:
        super().__init__(folder, event, dtype)
        self._type = next(k for k in SMALL if codes - 1 <= np.iinfo(k).max) if codes else None

    def pack(self, part: Tensor) -> np.ndarray:
        rows = part.reshape(len(part), -1).numpy()
        return rows if self._type is None else rows.astype(self._type)

    def unpack(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.dtype).view(len(rows), *self.event)


@final
class Bits(Stored):
    """Masks."""

    def pack(self, part: Tensor) -> np.ndarray:
        return np.packbits(part.reshape(len(part), -1).numpy(), axis=1)

    def unpack(self, rows: np.ndarray) -> Tensor:
        bits = np.unpackbits(rows, axis=1, count=math.prod(self.event))
        return torch.from_numpy(bits.astype(bool)).view(len(rows), *self.event)


def encode(
    source: Source, data: Any, seed: int, run: str | os.PathLike[str] | None = None
) -> Encoded:
    """Return the states of data: tensors, or what reads them from disk where data are a file.

    Args:
        source: the way between data and states.
        data: what was opened.
        seed: where dithering comes from; the states are the same either way.
        run: a folder on whose disk the states of a file have room; by default that of temporary
            files.

    Raises:
        DataError: if an entry does not fit its column, or the disk is full.
    """
    if not isinstance(data, TableFile) or not isinstance(source, TableSource):
        return source.encode(data, seed)
    folder = _existing(run)
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}
    present: dict[str, Any] = {}
    rows = 0
    try:
        for batch in data.batches():
            if not batch.num_rows:
                continue
            encoded = _encoded(source, batch, generator, rows)
            for name, part in encoded.state.items():
                if name not in state:
                    codes = getattr(source.space.parts[name], "num_values", 0)
                    event = tuple(part.shape[1:])
                    state[name] = Values(folder, event, part.dtype, codes)
                    present[name] = Bits(folder, event, torch.bool)
                state[name].append(part)
                present[name].append(encoded.present[name])
            rows += batch.num_rows
    except OSError as error:
        raise DataError(
            f"Expected room for the states of {str(data.path)!r} in {str(folder)!r}, got: "
            f"{error.strerror or error}. Choose a run on a larger disk."
        ) from error
    return Encoded(state, present)


def _encoded(source: TableSource, batch: Any, generator: torch.Generator, rows: int) -> Encoded:
    """Encode rows; what is wrong is said of its row in the file."""
    names = {column.name for column in source.codec.columns}
    kept = batch.select([name for name in batch.column_names if name in names])
    with counted_from(rows):
        return source.encode_with(kept, generator)


def _existing(run: str | os.PathLike[str] | None) -> Path:
    """Return the innermost folder of a run that exists, or that of temporary files."""
    if run is None:
        return Path(tempfile.gettempdir())
    path = Path(run).absolute()
    return next((place for place in (path, *path.parents) if place.is_dir()), path)
