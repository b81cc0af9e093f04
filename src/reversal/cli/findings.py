"""What the demo measures, beside what was promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Finding:
    """A line of the last table; ``is_kept`` is None where nothing was promised."""

    what: str
    measured: str
    promised: str = ""
    is_kept: bool | None = None

    @property
    def verdict(self) -> str:
        """What stands in the last column."""
        return "" if self.is_kept is None else "kept" if self.is_kept else "BROKEN"
