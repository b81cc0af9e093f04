"""A uniform sample of the rows of a stream, in one pass and bounded memory.

Each row draws a number; the sample is the rows of the k least numbers, in the order of the stream
(bottom-k sampling: Cohen and Kaplan 2007). A sample of a stream of at most k rows is the stream.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np
import pyarrow as pa

MOST_ROWS: Final = 200_000
MOST_CELLS: Final = 2**23
MOST_BYTES: Final = 2**27
"""How large a sample is: rows, cells and bytes; all three hold, but 1,000 rows are kept."""
LEAST_ROWS: Final = 1000


@final
class Reservoir:
    """A sample of at most some rows.

    Args:
        num_columns: of the stream.
        seed: where the sample comes from.

    Memory: two samples and a batch.
    """

    def __init__(self, num_columns: int, seed: int = 0) -> None:
        self.size = min(MOST_ROWS, max(LEAST_ROWS, MOST_CELLS // max(1, num_columns)))
        self.seen = 0
        self._noise = np.random.default_rng(seed)
        self._limit, self._count, self._bytes = 1.0, 0, 0
        self._tables: list[pa.Table] = []
        self._draws: list[np.ndarray] = []

    @property
    def is_whole(self) -> bool:
        """Whether the sample is all that was seen."""
        return self._count == self.seen

    def add(self, table: pa.Table) -> None:
        """See the next rows."""
        draws = self._noise.random(table.num_rows)
        chosen = np.flatnonzero(draws < self._limit)
        self.seen += table.num_rows
        if len(chosen) == table.num_rows:
            self._push(table, draws)
        elif len(chosen):
            self._push(table.take(pa.array(chosen)), draws[chosen])
        if self._count > 2 * self.size or self._bytes > MOST_BYTES:
            self._shrink()

    def table(self) -> pa.Table:
        """Return the sample, in the order of the stream."""
        if self._count > self.size:
            self._shrink()
        return pa.concat_tables(self._tables)

    def _push(self, table: pa.Table, draws: np.ndarray) -> None:
        self._tables.append(table)
        self._draws.append(draws)
        self._count += len(draws)
        self._bytes += table.nbytes

    def _shrink(self) -> None:
        """Keep the rows of the least draws; fewer where they take too much memory."""
        while self._bytes > MOST_BYTES // 2 and self.size > LEAST_ROWS and self._count:
            mean = self._bytes / self._count
            if self.size * mean <= MOST_BYTES // 2:
                break
            self.size = max(LEAST_ROWS, self.size // 2)
        draws = np.concatenate(self._draws)
        if len(draws) <= self.size:
            return
        self._limit = float(np.partition(draws, self.size)[self.size])
        kept = np.flatnonzero(draws < self._limit)
        table = pa.concat_tables(self._tables).take(pa.array(kept)).combine_chunks()
        self._tables, self._draws, self._count, self._bytes = [], [], 0, 0
        self._push(table, draws[kept])
