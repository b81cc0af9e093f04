"""Being asked to stop, at a moment that suits: Ctrl-C and SIGTERM wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@final
class Interruption:
    """Notes the first signal of a kind, and lets the second one do what it did before.

    Only the main thread of a process can listen; elsewhere nothing changes.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Callable[..., Any] | int | None] = {}

    def listen(self) -> None:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def ignore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._before[number] or signal.SIG_DFL)
