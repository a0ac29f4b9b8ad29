"""Two-stage signals: the first asks the run to stop, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType

from jobs.engine.verdict import Exit

# Losing the terminal (tmux gone, ssh cut) means what `kill` means. SIGPIPE stays ignored, which is Python's default.
_EXITS = {signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM, signal.SIGHUP: Exit.SIGTERM}
_WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal is gone (SIGHUP)"}


class Signals:
    """Installed before anything is connected; `ask` is set once there is a run to ask."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.exit: Exit | None = None
        self.had_run = False
        self.ask: Callable[[Exit, str], object] | None = None
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None

    def install(self) -> None:
        """Plain handlers, not the loop's: the second signal must work even when the loop is stuck."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        for number in _EXITS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.exit is not None:
            self._leave()
            os._exit(self.exit)
        self.exit = _EXITS[signal.Signals(number)]
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop, _WORDS[signal.Signals(number)])

    def _stop(self, why: str) -> None:
        if self.ask is not None and self.exit is not None:
            self.ask(self.exit, why)
        elif self._task is not None:
            self._task.cancel()
