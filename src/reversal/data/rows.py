"""Rows of a table as states of a product: numbers, packed categories, and wide columns alone.

A column of more than ``WIDE`` values gets a factor of its own, so that the narrow ones are not
padded to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from reversal.data.arrays import flat
from reversal.data.columns import Constant, Discrete
from reversal.data.conditions import Condition, Equal, OneOf, condition_of
from reversal.data.forms import form_class, to_table
from reversal.data.frames import near
from reversal.data.scales import ColumnScale, NumericScale, scale_of
from reversal.data.source import Encoded, Source, State, Target, by_name
from reversal.data.table import TableCodec
from reversal.errors import DataError
from reversal.restrictions import InCodes, InIntervals, Restriction, Site, is_sure
from reversal.spaces import Categorical, Euclidean, Product

WIDE = 256


@final
@dataclass(frozen=True)
class TableSource(Source):
    """A frame of pandas, polars or Arrow.

    Args:
        codec: the columns of the frame.
    """

    codec: TableCodec

    whole_factors: ClassVar[bool] = False

    @cached_property
    def _groups(self) -> dict[str, list[int]]:
        """The places of the discrete columns, by factor."""
        cards = self.codec.shapes.cardinalities
        narrow = [j for j, count in enumerate(cards) if count <= WIDE]
        wide = {f"category_{j}": [j] for j, count in enumerate(cards) if count > WIDE}
        return ({"category": narrow} if narrow else {}) | wide

    @cached_property
    def space(self) -> Product:
        """``numeric``, ``category`` and one factor per wide column, those that exist."""
        shapes = self.codec.shapes
        parts: dict[str, Any] = {}
        if shapes.num_numeric:
            parts["numeric"] = Euclidean(shapes.num_numeric)
        for name, places in self._groups.items():
            parts[name] = Categorical(tuple(shapes.cardinalities[j] for j in places))
        return Product(parts)

    def encode(self, data: Any, seed: int = 0) -> Encoded:
        return self.encode_with(data, torch.Generator().manual_seed(seed))

    def encode_with(self, data: Any, generator: torch.Generator) -> Encoded:
        """Return the states of rows, dithered by a generator that goes on with the next ones."""
        state, present = self.codec.encode(data, generator)
        return Encoded(self._split(state), self._split(present))

    def decode(self, state: State, seed: int | None = None, conditions: Any = None) -> Any:
        missing = None if seed is None else self._gaps(state, seed, conditions or {})
        return self.codec.decode(self._join(state), missing=missing)

    def given(self, conditions: Any, n: int) -> dict[str, tuple[Tensor, Tensor]]:
        pairs = self.codec.where(_equalities(conditions))
        values = self._split({name: pair[0] for name, pair in pairs.items()})
        known = self._split({name: pair[1] for name, pair in pairs.items()})
        return {name: (values[name], known[name]) for name in values if bool(known[name].any())}

    def restrictions(self, conditions: Any) -> tuple[Restriction, ...]:
        found = self._restricted(conditions).items()
        asked = (self._restriction(scale, allowed) for scale, allowed in found)
        return tuple(each for each in asked if each is not None)

    def events(self, conditions: Any) -> tuple[tuple[Restriction, ...], dict[str, Any]]:
        equal = _equalities(conditions)
        codes = {k: OneOf((v,)) for k, v in equal.items() if self._is_discrete(k)}
        return self.restrictions(codes), self.given(
            {k: v for k, v in equal.items() if k not in codes}, 1
        )

    def holds(self, data: Any, conditions: Any) -> np.ndarray:
        """Return which rows meet conditions, equalities among them, bool ``(n,)``.

        Raises:
            DataError: if a condition cannot be met, or an entry is not of its column's type.
        """
        table = to_table(data)
        held = np.ones(len(table), bool)
        for name, condition in _conditions(conditions).items():
            scale = scale_of(self.codec.column(name), is_clamped=False)
            if name not in table.column_names:
                raise DataError(f"Expected a column {name!r} in the rows, got none. Add it.")
            held &= scale.holds(condition.allowed(scale), flat(table[name]))
        return held

    def write_given(self, samples: Any, conditions: Any) -> Any:
        table = to_table(samples)
        if not len(table):
            return samples
        own = {k: self.codec.column(k).parse(v) for k, v in _equalities(conditions).items()}
        for scale, allowed in self._restricted(conditions).items():
            name = scale.column.name
            own[name] = scale.within(allowed, flat(table[name]))
        return _overlay(samples, own)

    def complete(
        self, data: Any, states: list[State], present: dict[str, Tensor], first: int = 0
    ) -> Any:
        own = _columns(to_table(data))
        label = "draw"
        while label in own:
            label += "_"
        filled = [
            _overlay(self.codec.decode(self._join(state), like=data, first=first), own)
            for state in states
        ]
        return form_class(data).stacked(filled, label)

    def target(self, name: str) -> Target:
        column = self._discrete(name)
        j = [other.name for other in self.codec.category].index(column.name)
        for factor, places in self._groups.items():
            if j in places:
                return Target(factor, (places.index(j),), column.cardinality)
        raise KeyError(name)

    def probabilities(self, name: str, values: np.ndarray, data: Any) -> Any:
        columns = {str(k): values[:, j] for j, k in enumerate(self._discrete(name).labels)}
        return form_class(data).of_columns(columns, data)

    def without(self, data: Any, name: str) -> Any:
        """Return rows as an Arrow table in which one column is missing everywhere."""
        import pyarrow as pa

        table = to_table(data)
        if name in table.column_names:
            table = table.drop_columns([name])
        return table.append_column(name, pa.nulls(table.num_rows))

    def log_jacobian(self, encoded: Encoded) -> Tensor:
        if "numeric" not in encoded.state:
            return torch.zeros(len(next(iter(encoded.state.values()))), dtype=torch.float64)
        units = torch.where(self.codec.units > 0, self.codec.units, 1.0)
        sites = self.codec.log_jacobian(encoded.state) + units.log()
        return torch.where(encoded.present["numeric"], sites, 0.0).sum(1)

    @property
    def measure(self) -> dict[str, str]:
        counted = {c.name: "counting" for c in self.codec.category}
        return {c.name: c.measure for c in self.codec.numeric} | counted

    def space_yaml(self) -> str:
        return self.codec.space_yaml()

    def to_config(self) -> dict[str, Any]:
        return {"type": "table", "codec": self.codec.to_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], product: Product) -> TableSource:
        """Return the source that `to_config` described."""
        return cls(TableCodec.from_config(config["codec"]))

    def _is_discrete(self, name: str) -> bool:
        return isinstance(self.codec.column(name), Discrete)

    def _restricted(self, conditions: Any) -> dict[ColumnScale, Any]:
        """Return the columns that a condition other than equality is on, and their sets."""
        scales = {
            scale_of(self.codec.column(name)): condition
            for name, condition in _conditions(conditions).items()
            if not isinstance(condition, Equal)
        }
        return {scale: scale.resolve(condition) for scale, condition in scales.items()}

    def _restriction(self, scale: ColumnScale, allowed: Any) -> Restriction | None:
        """Return a set of a column's values as a restriction of its site; None if it is none."""
        if allowed.is_everything or isinstance(scale.column, Constant):
            return None
        if isinstance(scale, NumericScale):
            site = Site("numeric", (self.codec.numeric.index(scale.column),))
            ends = torch.tensor(scale.latent(allowed).ends, dtype=torch.float64)
            return None if is_sure(ends) else InIntervals(site, ends)
        target = self.target(scale.column.name)
        return InCodes(Site(target.factor, target.place), torch.tensor(allowed.members))

    def _discrete(self, name: str) -> Discrete:
        columns = {column.name: column for column in self.codec.category}
        if str(name) not in columns:
            raise DataError(
                f"Expected a category or boolean column to predict, got {name!r}; "
                f"{near(str(name), columns)}"
            )
        return columns[str(name)]

    def _split(self, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = {k: v for k, v in packed.items() if k == "numeric"}
        if "category" in packed:
            parts |= {k: packed["category"][:, places] for k, places in self._groups.items()}
        return parts

    def _join(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        packed = {k: v for k, v in parts.items() if k == "numeric"}
        if self._groups:
            rows = len(next(iter(parts.values())))
            codes = torch.zeros((rows, len(self.codec.category)), dtype=torch.int64)
            for name, places in self._groups.items():
                codes[:, places] = parts[name].cpu()
            packed["category"] = codes
        return packed

    def _gaps(self, state: State, seed: int, conditions: Mapping[str, Any]) -> dict[str, Tensor]:
        """Draw which entries are missing, column by column at the rate that was seen."""
        rows = len(next(iter(state.values())))
        generator = torch.Generator().manual_seed(seed)
        factors = {"numeric": self.codec.numeric, "category": self.codec.category}
        gaps: dict[str, Tensor] = {}
        asked = {str(name) for name in conditions}
        for name, columns in factors.items():
            if columns:
                rates = torch.tensor(
                    [0.0 if column.name in asked else column.missing for column in columns]
                )
                gaps[name] = torch.rand((rows, len(columns)), generator=generator) < rates
        return gaps


def _conditions(given: Any) -> dict[str, Condition]:
    return {str(name): condition_of(name, value) for name, value in by_name(given).items()}


def _equalities(given: Any) -> dict[str, Any]:
    found = _conditions(given).items()
    return {name: condition.value for name, condition in found if isinstance(condition, Equal)}


def _columns(table: Any) -> dict[str, Any]:
    return {name: table[name] for name in table.column_names}


def _overlay(frame: Any, own: Mapping[str, Any]) -> Any:
    """Write the entries that are present in ``own`` over the columns of a frame.

    An array of one entry stands for all rows. Dtypes, labels and index of the frame stay.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from reversal.data.arrays import plain

    table = to_table(frame)
    form = form_class(frame).of(frame, table)
    arrays = []
    for name in table.column_names:
        drawn = flat(table[name])
        if name in own and not pa.types.is_null(drawn.type):
            fresh, seen = plain(drawn), plain(flat(own[name]))
            if not pa.types.is_null(seen.type):
                kept = seen[0].cast(fresh.type) if len(seen) == 1 else seen.cast(fresh.type)
                drawn = _alike(pc.coalesce(kept, fresh), drawn)  # pyright: ignore
        arrays.append(drawn)
    patched = pa.Table.from_arrays([_chunked(a) for a in arrays], names=table.column_names)
    return form.frame(patched, frame)


def _alike(values: Any, array: Any) -> Any:
    """Return plain values with the dictionary of an array, where it has one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(array.type):
        return values
    choices = array.dictionary
    codes = pc.index_in(values, value_set=choices.cast(values.type))  # pyright: ignore
    return pa.DictionaryArray.from_arrays(codes, choices, ordered=array.type.ordered)


def _chunked(array: Any) -> Any:
    import pyarrow as pa

    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
