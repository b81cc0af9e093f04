"""Shapes as constructors take them: one positive integer per dimension."""

from __future__ import annotations

from reversal.errors import SpaceError


def checked_shape(name: str, shape: tuple[int, ...], least: int = 1) -> tuple[int, ...]:
    """Return the shape, or raise ``SpaceError`` unless ``least`` lengths are positive."""
    sound = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
    if not sound or len(shape) < least:
        raise SpaceError(
            f"Expected {name} to take positive integers, one per dimension, got {shape}. "
            f"Write {name}(2), for example."
        )
    return shape
