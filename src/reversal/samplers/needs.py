"""Checks that a path provides what a sampler needs, before the first step."""

from __future__ import annotations

from reversal.core import Capability, Path
from reversal.errors import CapabilityError, listed


def require(sampler: object, path: Path, needed: set[Capability], cure: str) -> None:
    """Raise ``CapabilityError`` unless the path provides at least one of ``needed``."""
    if not needed & path.provides:
        raise CapabilityError(
            f"Expected a path with {' or '.join(sorted(needed))} for {sampler}, got {path}, which "
            f"provides {listed(path.provides)}. {cure}"
        )
