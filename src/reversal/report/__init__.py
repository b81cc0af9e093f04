"""One-file HTML reports, made to be read by someone who did not train the model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reversal.report.build import report
    from reversal.report.facts import Origin
    from reversal.report.questions import Question

__all__ = ["report", "Origin", "Question"]

_HOMES = {"report": "build", "Origin": "facts", "Question": "questions"}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
