r"""A table as a state of two tensors, and back.

Numbers, dates and times are packed in ``numeric`` ``(B, d)``, float32, each close to N(0, 1) by a
monotone map; levels, categories and booleans in ``category`` ``(B, c)``, int64, column j with codes
0, ..., n_j - 1. A number x that was rounded to the unit h is a density by uniform dithering,

.. math:: P(x) = h\, E\, p\big(x + h (u - \tfrac12)\big), \qquad u \sim U[0, 1),

and is rounded back: ``decode(encode(frame)) = frame`` wherever float32 tells the numbers apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reversal.data.arrays import flat
from reversal.data.columns import Column, Discrete, column_from_config, infer
from reversal.data.forms import Form, form_class, form_from_config, to_table
from reversal.data.frames import near
from reversal.data.numeric import Numeric, Real
from reversal.data.quantiles import QuantileMap
from reversal.data.schema import Schema, schema_text
from reversal.errors import DataError, listed

VERSION = 2
READS = (1, 2)
BLOCK = 2**19  # numbers that are mapped at once

State = dict[str, Tensor]


class Shapes(NamedTuple):
    """What the space of a codec's states needs to know."""

    num_numeric: int
    cardinalities: tuple[int, ...]


@final
@dataclass(frozen=True)
class TableCodec:
    """The columns of a table and the form of the frame that they came in.

    Args:
        columns: one object per column, in the caller's order.
        form: library, dtypes and labels of the caller's frame.
    """

    columns: tuple[Column, ...]
    form: Form
    dropped: tuple[str, ...] = ()

    @classmethod
    def infer(cls, frame: Any, schema: Schema | None = None) -> TableCodec:
        """Return the codec that a frame shows: pandas, polars, Arrow or a record array.

        Args:
            frame: at least two rows.
            schema: what is declared of columns, as `space.yaml` holds it; the rest is inferred.

        Cost: a sort of each column.

        Raises:
            DataError: if there is no column, fewer than two rows, no column that varies, two
                columns of one name, an infinity, a column of mixed or unknown type, or one that
                the schema does not fit.
        """
        table = to_table(frame)
        _check_size(table)
        form = form_class(frame).of(frame, table)
        return cls.inferred(form, schema, lambda name, what: infer(name, table[name], what))

    @classmethod
    def inferred(
        cls, form: Form, schema: Schema | None, column: Callable[[str, Any], Column]
    ) -> TableCodec:
        """Return the codec of a form's columns, each of which a function of name and schema shows.

        Raises:
            DataError: if none of them varies, or the schema has others.
        """
        declared = {} if schema is None else schema.of(form.names)
        dropped = tuple(name for name, what in declared.items() if what.type == "drop")
        kept = [name for name in form.names if name not in dropped]
        columns = tuple(column(name, declared.get(name)) for name in kept)
        if not any(isinstance(column, Numeric | Discrete) for column in columns):
            raise DataError(
                f"Expected a column that varies, got {len(columns)} with one value each, or with "
                "another one in every row. There is nothing to learn: hand over more rows or other "
                "columns, or say `type: category` or `type: integer` of a key in space.yaml."
            )
        return cls(columns, form.keep(kept), dropped)

    @cached_property
    def numeric(self) -> tuple[Numeric, ...]:
        """The columns that are packed in ``numeric``, in this order."""
        return tuple(column for column in self.columns if isinstance(column, Numeric))

    @cached_property
    def category(self) -> tuple[Discrete, ...]:
        """The columns that are packed in ``category``, in this order."""
        return tuple(column for column in self.columns if isinstance(column, Discrete))

    @property
    def shapes(self) -> Shapes:
        """The number of numeric columns and the cardinalities of the others."""
        return Shapes(len(self.numeric), tuple(column.cardinality for column in self.category))

    @cached_property
    def quantiles(self) -> QuantileMap:
        """The map between positions ``(B, d)`` and normal quantiles."""
        return QuantileMap.pack([(column.knots, column.normals) for column in self.numeric])

    @cached_property
    def units(self) -> Tensor:
        """The unit h to which each numeric column is rounded, or 0; float64 ``(d,)``."""
        units = [column.unit if column.lattice else 0.0 for column in self.numeric]
        return torch.tensor(units, dtype=torch.float64)

    @property
    def _factors(self) -> dict[str, tuple[Numeric, ...] | tuple[Discrete, ...]]:
        factors = {"numeric": self.numeric, "category": self.category}
        return {name: columns for name, columns in factors.items() if columns}

    def encode(
        self, frame: Any, generator: torch.Generator | None = None
    ) -> tuple[State, dict[str, Tensor]]:
        """Return the state of a frame, and which of its entries are present.

        Args:
            frame: any frame with the columns of this codec, in any order.
            generator: where dithering comes from; by default a stream that depends on the number
                of rows alone.

        Returns:
            ``{"numeric": (B, d), "category": (B, c)}`` without what would be empty, 0 where an
            entry is missing, and bool tensors of the same shapes, False there.

        Raises:
            DataError: if columns are missing or unknown, or an entry is not of its column's type.
        """
        table = self._select(to_table(frame))
        codes = {column.name: column.encode(flat(table[column.name])) for column in self.columns}
        rows = table.num_rows
        generator = generator or torch.Generator().manual_seed(rows)
        size, device = (rows, len(self.numeric)), generator.device
        noise = torch.rand(size, generator=generator, device=device, dtype=torch.float64).cpu()
        return self._pack(codes, noise.sub_(0.5))

    def decode(
        self,
        state: Mapping[str, Tensor],
        like: Any = None,
        missing: Mapping[str, Tensor] | None = None,
        first: int = 0,
    ) -> Any:
        """Return the frame of a state: numbers rounded, and clamped to what was seen.

        Args:
            state: ``{"numeric": (B, d), "category": (B, c)}``, as `encode` returns it.
            like: a frame with these columns whose library, dtypes and column order the result
                takes, and whose index where it has B rows. By default the frame that was inferred,
                with rows numbered anew.
            missing: bool tensors of the same shapes, True where a missing entry is written.
            first: the number of the first row: new identifiers are counted on from there.

        Raises:
            DataError: if the state has other factors, shapes or codes than this codec.
        """
        rows = np.arange(first, first + self._check(state))
        packed = dict(state)
        if self.numeric:
            packed["numeric"] = _blocked(self.quantiles.inverse, state["numeric"].detach().cpu())
        values, gaps = self._unpack(packed), self._unpack(missing or {})
        arrays = [
            column.decode(values.get(column.name, rows), gaps.get(column.name))
            for column in self.columns
        ]
        table = pa.Table.from_arrays(arrays, names=[column.name for column in self.columns])
        form = self.form if like is None else self._form_like(like)
        return form.frame(table.select(list(form.names)), like)

    def where(self, conditions: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return equality conditions on columns as what a sampler is given.

        Args:
            conditions: column names to values; text is read as the column's type.

        Returns:
            ``{"numeric": (values (1, d), known (1, d)), "category": (values (1, c), known)}``.
            A rounded number stands at the middle of its unit.

        Raises:
            DataError: if a column is unknown, or a value was never seen.
        """
        codes: dict[str, np.ndarray] = {}
        for name, value in conditions.items():
            column = self.column(name)
            codes[name] = column.encode(column.parse(value))
            if isinstance(column, Discrete):
                column.refuse_unseen(codes[name])
        values, known = self._pack(codes, torch.zeros(1, len(self.numeric), dtype=torch.float64))
        return {name: (values[name], known[name]) for name in values}

    def log_jacobian(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return log |dz / dx| of each numeric column at a state, float64 ``(B, d)``.

        x is in the caller's units. The logarithm of a rounded number's probability is that of its
        density plus log h, h = `units`. On a spike x is its level u, and the logarithm of its
        probability that of the density.
        """
        scales = torch.tensor([column.unit for column in self.numeric], dtype=torch.float64)
        return _blocked(self.quantiles.log_jacobian, state["numeric"]) - scales.log()

    def describe(self) -> str:
        """Return the schema as an aligned table: name, type, detail and missing entries."""
        rows = [("column", "type", "detail", "missing")]
        rows += [(c.name, c.kind, c.detail, f"{100 * c.missing:.1f} %") for c in self.columns]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [
            "  ".join(
                [cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[3]]
            )
            for row in rows
        ]
        return "\n".join(lines)

    def space_yaml(self) -> str:
        """Return the schema as the text of `space.yaml`, which `Schema.parse` reads."""
        return schema_text(self.columns, self.dropped)

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types from which `from_config` rebuilds the same codec."""
        columns = [column.to_config() for column in self.columns]
        form, dropped = self.form.to_config(), list(self.dropped)
        return {"version": VERSION, "form": form, "columns": columns, "dropped": dropped}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TableCodec:
        """Return the codec that `to_config` described.

        Raises:
            DataError: if a newer version wrote it, or it names a type of column that is unknown.
        """
        if config.get("version") not in READS:
            raise DataError(
                f"Expected a table codec of version {VERSION}, got {config.get('version')!r}. "
                "Install the version of reversal that wrote it, or fit again."
            )
        columns = tuple(column_from_config(column) for column in config["columns"])
        dropped = tuple(config.get("dropped", ()))
        return cls(columns, form_from_config(config["form"]), dropped)

    def _pack(
        self, codes: Mapping[str, np.ndarray], noise: Tensor
    ) -> tuple[State, dict[str, Tensor]]:
        """Pack the codes of columns ``(B,)``; a column that has none is missing everywhere."""
        state: State = {}
        present: dict[str, Tensor] = {}
        rows = len(noise)
        if self.numeric:
            blank = np.full(rows, np.nan)
            positions = _stack([codes.get(column.name, blank) for column in self.numeric])
            present["numeric"] = ~positions.isnan()
            normals = self._normals(positions.nan_to_num_(0.0), noise)
            state["numeric"] = normals.where(present["numeric"], torch.zeros(()))
        if self.category:
            blank = np.full(rows, -1)
            packed = _stack([codes.get(column.name, blank) for column in self.category])
            present["category"] = packed >= 0
            state["category"] = packed.clamp(min=0)
        return state, present

    def _normals(self, positions: Tensor, noise: Tensor) -> Tensor:
        """Dither positions and map them, float32; where rounding would fail, do not dither."""
        widths = torch.tensor([column.width for column in self.numeric], dtype=torch.float64)

        def dithered(positions: Tensor, noise: Tensor) -> Tensor:
            normals = self.quantiles.forward_float(positions + widths * noise, noise + 0.5)
            moved = self.quantiles.inverse(normals).round() != positions.round()
            moved &= widths > 0
            if not moved.any():
                return normals
            return torch.where(moved, self.quantiles.forward(positions).float(), normals)

        return _blocked(dithered, positions, noise)

    def _unpack(self, packed: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Return the entries ``(B,)`` of each column of a packed tree."""
        return {
            column.name: part
            for name, columns in self._factors.items()
            if name in packed
            for column, part in zip(columns, packed[name].cpu().numpy().T, strict=True)
        }

    def _check(self, state: Mapping[str, Tensor]) -> int:
        """Return the number of rows of a state that this codec can decode."""
        widths = {name: len(columns) for name, columns in self._factors.items()}
        got = {name: tuple(part.shape) for name, part in state.items()}
        rows = max((shape[0] for shape in got.values() if shape), default=0)
        if got != {name: (rows, width) for name, width in widths.items()}:
            wanted = listed(f"{name} (B, {width})" for name, width in widths.items())
            shown = listed(f"{name} {shape}" for name, shape in got.items())
            raise DataError(
                f"Expected a state of {wanted}, got {shown}. Decode with the codec that encoded it."
            )
        if "numeric" in state and state["numeric"].isnan().any():
            raise DataError("Expected numbers in the state, got NaN. Look at where it was made.")
        if "category" in state:
            limits = torch.tensor(self.shapes.cardinalities, device=state["category"].device)
            wrong = ((state["category"] < 0) | (state["category"] >= limits)).nonzero()
            if len(wrong):
                column = self.category[int(wrong[0, 1])]
                raise DataError(
                    f"Column {column.name!r}: expected codes below {column.cardinality}, got "
                    f"{int(state['category'][tuple(wrong[0])])}. Restrict the state to its space."
                )
        return rows

    def column(self, name: str) -> Column:
        """Return the column of a name.

        Raises:
            DataError: if there is none.
        """
        columns = {column.name: column for column in self.columns}
        if str(name) not in columns:
            raise DataError(
                f"Expected a column of the table, got {name!r}; {near(str(name), columns)}"
            )
        return columns[str(name)]

    def _select(self, table: pa.Table) -> pa.Table:
        """Return a table that has exactly the columns of this codec; what it drops is dropped."""
        names = [column.name for column in self.columns]
        table = table.select([name for name in table.column_names if name not in self.dropped])
        for name in table.column_names:
            if name not in names:
                raise DataError(
                    f"Expected only columns of the fitted table, got {name!r} as well; "
                    f"{near(name, names)} Rename it, or drop it."
                )
        absent = [name for name in names if name not in table.column_names]
        if absent:
            raise DataError(
                f"Expected every column of the fitted table, got none named "
                f"{listed(map(repr, absent))}. Add what is absent, with missing entries if need be."
            )
        return table

    def _form_like(self, like: Any) -> Form:
        """Return the form of another frame with the same columns.

        An empty one has no type, and whole numbers in a real one say nothing of its law: both take
        the fitted type.
        """
        table = self._select(to_table(like))
        reals = {column.name for column in self.numeric if isinstance(column, Real)}
        untold = [
            name
            for name in table.column_names
            if flat(table[name]).null_count == table.num_rows
            or (name in reals and pa.types.is_integer(table[name].type))
        ]
        form = form_class(like).of(like, to_table(like)).keep(table.column_names)
        return form.adopt(self.form, untold)


def _blocked(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """Return a function of rows ``(B, d)``, computed some rows at a time to bound the memory."""
    size = max(1, BLOCK // max(1, parts[0].shape[1]))
    pieces = zip(*(part.split(size) for part in parts), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def _stack(columns: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(columns, axis=1))


def _check_size(table: pa.Table) -> None:
    """Refuse a table from which nothing can be learned."""
    if table.num_columns == 0:
        raise DataError("Expected a table with columns, got none. Select at least one column.")
    if table.num_rows < 2:
        rows = "no row" if table.num_rows == 0 else "one row"
        raise DataError(
            f"Expected at least two rows, got {rows} of {table.num_columns} columns. "
            "Hand over more rows: look at the filter or the query that made the table."
        )
