"""Answers about tables that are larger than memory: a piece of the file at a time, in its order.

Each piece has a stream of noise of its own, which the seed, the draw and the number of the piece
give: the same file gives the same result, another division into pieces another draw from the same
law. The first piece has the stream that a table in memory has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from reversal.answers import filling, scoring
from reversal.answers.methods import Bound
from reversal.core import Denoiser
from reversal.data.frames import index_columns
from reversal.data.source import Source
from reversal.data.table_file import TableFile, counted_from
from reversal.likelihood import Likelihood


def seed_of(seed: int, *place: int) -> int:
    """Return the seed of a piece: the seed itself at the place 0."""
    if not any(place):
        return seed
    words = np.random.SeedSequence([seed, *place]).generate_state(2, np.uint32)
    return int(words[0]) << 30 | int(words[1]) >> 2


def log_probs(
    denoiser: Denoiser, source: Source, data: Any, num_samples: int, seed: int
) -> Iterator[Likelihood]:
    """Yield the bounds of the rows of a frame, all at once, or of a file, some at a time.

    Raises:
        DataError: if an entry does not fit its column; a row is named by its number in the file.
    """
    for number, (first, rows) in enumerate(_pieces(data)):
        with counted_from(first):
            own = seed_of(seed, number)
            found = scoring.log_prob(denoiser, source, rows, Bound(num_samples), own)
        yield found


def imputations(
    denoiser: Denoiser, source: Source, file: TableFile, draws: int, seed: int, steps: int
) -> Iterator[Any]:
    """Yield the rows of a file filled several times, in Arrow tables: draw by draw, in its order.

    The file is read once for each draw. A Parquet file that pandas wrote lends its index.

    Raises:
        DataError: if an entry does not fit its column; a row is named by its number in the file.
    """
    import pyarrow as pa

    from reversal.data.pandas_index import with_index

    for draw in range(draws):
        for number, (first, rows) in enumerate(file.indexed_rows()):
            with counted_from(first):
                own = seed_of(seed, number, draw)
                plain = rows.drop_columns(index_columns(rows.schema))
                filled = filling.impute(denoiser, source, plain, 1, own, steps, first)
            label = pa.array(np.full(filled.num_rows, draw))
            yield with_index(filled.set_column(0, filled.column_names[0], label), rows, first)


def _pieces(data: Any) -> Iterator[tuple[int, Any]]:
    return data.rows() if isinstance(data, TableFile) else iter([(0, data)])
