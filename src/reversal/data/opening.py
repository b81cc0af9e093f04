"""From data and, for arrays, a space, to a source and the process that noises its states."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from reversal.core import Capability, Path
from reversal.data.census import infer_codec
from reversal.data.pictures import Pictures
from reversal.data.rows import TableSource
from reversal.data.schema import Schema
from reversal.data.source import Source
from reversal.data.states import StateSource
from reversal.data.table import TableCodec
from reversal.errors import CapabilityError, DataError, SpaceError
from reversal.processes import Brownian, Gaussian, Independent, Mask
from reversal.schedules import Cosine
from reversal.spaces import SO3, Categorical, Euclidean, Product, Torus

SOURCES: dict[str, Any] = {"table": TableSource, "states": StateSource}


def opened(data: Any, space_or_process: Any = None) -> tuple[Source, Any]:
    """Return the source that data show, and a process on the product of its factors.

    Args:
        data: a frame, a record array or pictures; or a dict of arrays, or one array, with a space
            or process.
        space_or_process: a space gets its default process; of a table also a `Schema`, or the path
            of its file, or a codec.

    Raises:
        DataError: if the data are no frame, or arrays without a space, or too few.
        SpaceError: if they do not fit the space.
    """
    is_records = isinstance(data, np.ndarray) and data.dtype.names is not None
    if isinstance(data, Pictures) and space_or_process is None:
        space_or_process = data.space
    if isinstance(data, Mapping | Tensor | np.ndarray) and not is_records:
        return _arrays(data, space_or_process)
    codec, rest = _codec(data, space_or_process)
    source = TableSource(codec)
    if rest is None:
        return source, table_process(source.space)
    process = _on_product(default_process(space_or_process))
    if _shown(process.space) != _shown(source.space):
        raise SpaceError(
            f"Expected a process on the factors of this table, {_shown(source.space)}, got "
            f"{_shown(process.space)}. Leave it out, or build it on those."
        )
    return source, process


def source_from_config(config: dict[str, Any], product: Product) -> Source:
    """Return the source that `Source.to_config` described."""
    return SOURCES[config["type"]].from_config(config, product)


def table_process(space: Product) -> Any:
    """Return the default process of a table: more time at little noise than for other arrays.

    Columns that nearly determine each other, as a length and an area, do so at little noise alone.
    """
    parts = {
        name: Gaussian(part, Cosine(exponent=2.0)) if isinstance(part, Euclidean) else part
        for name, part in space.parts.items()
    }
    return Independent({name: default_process(part) for name, part in parts.items()})


def default_process(given: Any) -> Any:
    """Return the default process of a space: Gaussian, mask or heat; a process as it is."""
    if isinstance(given, Path):
        return given
    if isinstance(given, Product):
        return Independent({name: default_process(part) for name, part in given.parts.items()})
    if isinstance(given, Euclidean):
        return Gaussian(given, Cosine())
    if isinstance(given, Categorical):
        return Mask(given)
    if isinstance(given, Torus | SO3):
        return Brownian(given)
    raise SpaceError(
        f"Expected a space or a process, got {given!r}. "
        f"Write Product(image=Euclidean(1, 8, 8), label=Categorical(10))."
    )


def _codec(data: Any, given: Any) -> tuple[TableCodec, Any]:
    """Return the codec of a frame, declared or inferred, and a space or process that was given."""
    if isinstance(given, TableCodec):
        return given, None
    if isinstance(given, str | os.PathLike):
        given = Schema.read(given)
    if isinstance(given, Schema):
        return infer_codec(data, given), None
    return infer_codec(data), given


def _arrays(data: Any, given: Any) -> tuple[Source, Any]:
    if given is None:
        raise DataError(
            f"Expected a space for {type(data).__name__}, got none. Say where the arrays live, "
            f"`fit(data, Product(image=Euclidean(1, 8, 8), label=Categorical(10)))`, or make a "
            f"frame of them."
        )
    if isinstance(given, Schema | TableCodec | str | os.PathLike):
        raise SpaceError(
            f"Expected a space for arrays, got {given!r}, which declares columns. Say where the "
            f"arrays live, `Product(image=Euclidean(1, 8, 8), label=Categorical(10))`."
        )
    process = default_process(given)
    is_plain = not isinstance(process.parts, Mapping)
    product = _on_product(process)
    return StateSource.infer(data, product.space, is_plain=is_plain), product


def _on_product(process: Any) -> Any:
    """Return a process on a product; a plain one gets the factor ``x``.

    Raises:
        CapabilityError: unless it is Markov in continuous time, as any-part conditionals need.
    """
    product = process if isinstance(process.parts, Mapping) else Independent(x=process)
    for name, path in product.parts.items():
        if not {Capability.GENERATOR, Capability.BRIDGE} <= path.provides:
            raise CapabilityError(
                f"Expected a process with a generator and a bridge for {name!r}, got {path}. Use "
                f"Gaussian, Mask, Uniform or Brownian, or train a NetworkDenoiser by hand."
            )
    return product


def _shown(space: Product) -> dict[str, str]:
    return {name: str(part) for name, part in space.parts.items()}
