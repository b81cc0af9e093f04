"""What can go wrong, by name. Every message says what was expected, what came, and the cure."""

from __future__ import annotations


class ReversalError(Exception):
    """Root of the errors that a caller can mend."""


class SpaceError(ReversalError, ValueError):
    """A state does not lie in the space it is said to lie in: shape, dtype, value or name."""


class DataError(ReversalError, ValueError):
    """A table, file or array cannot be read as data, or does not fit what was fitted."""


class ClockError(ReversalError, ValueError):
    """A time lies outside [0, 1], has the wrong shape, or asks what the clock law never trained."""


class CapabilityError(ReversalError, TypeError):
    """An object was asked for something that it does not provide."""


class ConvergenceError(ReversalError, ArithmeticError):
    """A computation to a given tolerance did not reach it."""


class NotFittedError(ReversalError, RuntimeError):
    """A model was asked for samples before it was fitted."""


class CheckpointError(ReversalError, ValueError):
    """A saved run is missing, truncated, newer than this version, or tampered with."""


def listed(names: object) -> str:
    """Return ``a, b and c`` for a collection of names, sorted; ``nothing`` when it is empty."""
    words = sorted(str(name) for name in names)  # pyright: ignore[reportGeneralTypeIssues]
    if not words:
        return "nothing"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
