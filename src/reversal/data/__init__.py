"""Codecs between what users have and states; imported lazily, for they need Arrow.

A codec is inferred from data, turns them into tensors and tensors into the same kind of data, and
is stored as plain JSON.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reversal.data.frames import read, write
    from reversal.data.image import ImageCodec, grid, write_png
    from reversal.data.schema import Schema, write_schema
    from reversal.data.table import TableCodec

__all__ = [
    "TableCodec",
    "Schema",
    "ImageCodec",
    "read",
    "write",
    "write_schema",
    "grid",
    "write_png",
]

_HOMES = {
    "TableCodec": "table",
    "Schema": "schema",
    "write_schema": "schema",
    "ImageCodec": "image",
    "grid": "image",
    "write_png": "image",
    "read": "frames",
    "write": "frames",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
