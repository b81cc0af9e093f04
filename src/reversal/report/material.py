"""What every section looks at: the model, real rows, unseen real rows, and synthetic ones.

With the training rows at hand, *real* are the training rows and *unseen* is the holdout. Without
them, real and unseen are two halves of the holdout, so that every figure keeps its floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from reversal.data.column import Column
from reversal.data.columns import Discrete
from reversal.data.forms import to_table
from reversal.data.frames import near
from reversal.data.rows import TableSource
from reversal.errors import DataError, listed
from reversal.metrics import Rows, aligned

if TYPE_CHECKING:
    import pyarrow as pa

    from reversal.model import Model

MOST_REAL, MOST_MADE = 200_000, 16_000
"""How many rows are looked at, at most."""
CELLS = 4_000_000
"""How many cells of a wide table are looked at, about; at least 1,000 rows."""
LEAST_SPLIT = 4
ANSWERED = 1000
"""How many rows are drawn under a condition."""

Show = Callable[..., AbstractContextManager[Callable[[int, Any], None]]]


@final
@dataclass(frozen=True)
class Material:
    """Tables under one schema, and the tables that the model is asked about.

    Args:
        model: that is reported on.
        columns: of its table, as they were learned.
        real: training rows, or one half of the holdout.
        unseen: the holdout, or its other half.
        made: rows that the model drew.
        train: training rows as the model reads them, where they are at hand.
        holdout: the holdout as the model reads it: values that it has never seen are gaps.
        sizes: the rows of the files, by "train" and "holdout".
        unknown: per column, how many entries of the holdout the model has never seen.
        answers: rows that the model drew under conditions, in the order of the questions.
        met: which of the real and then of the unseen rows meet those conditions.
        seed: of all that is drawn.
    """

    model: Model
    columns: tuple[Column, ...]
    real: Rows
    unseen: Rows
    made: Rows
    train: pa.Table | None
    holdout: pa.Table
    sizes: Mapping[str, int]
    unknown: Mapping[str, int]
    answers: tuple[Rows, ...] = ()
    met: tuple[np.ndarray, ...] = ()
    seed: int = 0

    @property
    def has_train(self) -> bool:
        """Whether the training rows are at hand."""
        return self.train is not None

    @property
    def names(self) -> tuple[str, str, str]:
        """What the three tables are called."""
        if self.has_train:
            return "training rows", "holdout", "synthetic"
        return "holdout, one half", "holdout, other half", "synthetic"

    def equal(self, most: int = MOST_MADE) -> tuple[Rows, Rows, Rows]:
        """Return real rows, and equal numbers of unseen and synthetic ones.

        Args:
            most: how many of the latter, at most.
        """
        size = min(len(self.unseen), len(self.made), most)
        return self.real, self.unseen.draw(size, self.seed), self.made.draw(size, self.seed)


def gather(
    model: Model,
    holdout: Any,
    train: Any = None,
    conditions: Sequence[Any] = (),
    *,
    target: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> Material:
    """Draw synthetic rows, and bring all tables under one schema.

    What can be refused is refused before the long work of drawing.

    Args:
        model: that was fitted to a table.
        holdout: a frame of real rows that it was not trained on.
        train: the frame that it was trained on, or a part of it.
        conditions: what `Model.sample` takes, one per question.
        target: a column that must be among those that are compared.
        rows: how many rows are drawn; by default as many as there are to compare with.
        seed: of all that is drawn.
        show: ``show(done, doing, steps)`` accompanies the drawing.

    Raises:
        DataError: if a table lacks columns of the fitted one, or has others, or no row; or if the
            holdout is too small to be split where there are no training rows.
    """
    columns = _columns(model)
    tables = {"holdout": holdout} | ({} if train is None else {"train": train})
    read = {what: _checked(to_table(frame), columns, what) for what, frame in tables.items()}
    asked = {what: _askable(table, columns) for what, table in read.items()}
    for table, _ in asked.values():
        model.source_.encode(table)
    most = max(1000, CELLS // len(columns))
    real, unseen = _split(read, min(MOST_REAL, 5 * most), min(MOST_MADE, most), seed)
    kinds = {c.name: "an identifier" for c in columns if c.kind == "identifier"}
    if target is not None:
        aligned(real, unseen, leave_out=kinds)[0].schema.place(target)
    answers = [model.sample(ANSWERED, c, seed=seed, missing=True) for c in conditions]
    count = rows or max(min(len(real), MOST_MADE, most), len(unseen))
    steps = 100 * -(-count // 4096)
    with (show or _silent)(f"drew {count:,} rows", "drawing rows", steps) as on_step:
        made = model.sample(count, seed=seed, missing=True, on_step=on_step)
    views = aligned(real, unseen, *map(to_table, [made, *answers]), leave_out=kinds)
    return Material(
        model=model,
        columns=columns,
        real=views[0],
        unseen=views[1],
        made=views[2],
        train=asked["train"][0] if train is not None else None,
        holdout=asked["holdout"][0],
        sizes={what: table.num_rows for what, table in read.items()},
        unknown=asked["holdout"][1],
        answers=views[3:],
        met=tuple(_met(model, (real, unseen), columns, asked) for asked in conditions),
        seed=seed,
    )


def _met(
    model: Model, tables: Sequence[pa.Table], columns: tuple[Column, ...], asked: Any
) -> np.ndarray:
    """Return which rows of tables meet conditions; values that were never seen meet none."""
    source: Any = model.source_
    known = [_askable(table, columns)[0] for table in tables]
    return np.concatenate([source.holds(table, asked) for table in known])


def drawn(table: pa.Table, n: int, seed: int) -> pa.Table:
    """Return n rows of a table at random, in their order; all if fewer."""
    if table.num_rows <= n:
        return table
    order = np.random.default_rng(seed).permutation(table.num_rows)
    return table.take(np.sort(order[:n]))


def codes(model: Model, table: pa.Table, name: str) -> np.ndarray:
    """Return the codes ``(n,)`` of a discrete column as the model has them, -1 where missing."""
    from reversal.data.arrays import flat

    source: Any = model.source_
    return source.codec.column(name).encode(flat(table[name]))


def _columns(model: Model) -> tuple[Column, ...]:
    """Return the columns of the table that a model was fitted to."""
    if not isinstance(model.source_, TableSource):
        raise DataError(
            "Expected a model of a table to report on, got one of arrays. "
            "Compare samples by `reversal.metrics`."
        )
    return model.source_.codec.columns


def _silent(*words: Any) -> AbstractContextManager[Callable[[int, Any], None]]:
    return nullcontext(lambda step, x_t: None)


def _checked(table: pa.Table, columns: tuple[Column, ...], what: str) -> pa.Table:
    """Return the columns of the fitted table, in its order."""
    names = [column.name for column in columns]
    absent = [name for name in names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in names]
    if absent:
        raise DataError(
            f"Expected all columns of the fitted table in the {what} file, got it without "
            f"{listed(map(repr, absent[:5]))}. Use rows of the same table."
        )
    if extra:
        raise DataError(
            f"Expected only columns of the fitted table in the {what} file, got {extra[0]!r} as "
            f"well; {near(extra[0], names)} Rename it, or drop it."
        )
    if not table.num_rows:
        raise DataError(f"Expected rows in the {what} file, got none. Add at least one.")
    return table.select(names)


def _split(
    read: Mapping[str, pa.Table], most_real: int, most_unseen: int, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Return real and unseen rows."""
    holdout = read["holdout"]
    if "train" in read:
        return drawn(read["train"], most_real, seed), drawn(holdout, most_unseen, seed)
    if holdout.num_rows < LEAST_SPLIT:
        raise DataError(
            f"Expected at least {LEAST_SPLIT} rows in the holdout file, got {holdout.num_rows}: "
            "without training rows it is compared with itself, half by half. Give the training "
            "rows as well (--train), or more rows."
        )
    half = min(holdout.num_rows // 2, most_unseen)
    order = np.random.default_rng(seed).permutation(holdout.num_rows)
    return holdout.take(np.sort(order[:half])), holdout.take(np.sort(order[half : 2 * half]))


def _askable(table: pa.Table, columns: tuple[Column, ...]) -> tuple[pa.Table, dict[str, int]]:
    """Return a table with gaps in the place of values that the model has never seen."""
    import pyarrow as pa

    from reversal.data.arrays import flat, plain

    unknown: dict[str, int] = {}
    arrays = []
    for column in columns:
        array = flat(table[column.name])
        if isinstance(column, Discrete):
            array, count = _known(array, plain(pa.array(column.labels)))
            unknown |= {column.name: count} if count else {}
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names=table.column_names), unknown


def _known(array: pa.Array, known: pa.Array) -> tuple[pa.Array, int]:
    """Return an array with gaps where a value is not known, and how many there were."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from reversal.data.arrays import plain

    values = plain(array)
    try:
        common = pa.float64() if pa.types.is_floating(values.type) else known.type
        seen = pc.is_in(values.cast(common), value_set=known.cast(common))  # pyright: ignore
    except (pa.ArrowException, NotImplementedError):
        return array, 0  # of another type altogether: the codec says so
    new = pc.and_(pc.invert(seen), values.is_valid())  # pyright: ignore
    count = pc.sum(new).as_py() or 0  # pyright: ignore
    if not count:
        return array, 0
    return pc.if_else(new, pa.scalar(None, values.type), values), count  # pyright: ignore
