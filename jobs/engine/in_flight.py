"""Requests that are out: each has a place, outlives the feed that started it, and leaves its rows settled or to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from jobs.engine.asking import Asking, Errand, Stopped
from jobs.engine.books import Books
from jobs.engine.concurrency import Slots
from jobs.engine.job import Ask


@dataclass(slots=True)
class InFlight:
    asking: Asking
    slots: Slots
    books: Books
    on_fault: Callable[[BaseException], None]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, ask: Ask) -> asyncio.Task[None]:
        """Waits for a place."""
        await self.slots.take()
        errand = Errand([ask])
        task = asyncio.create_task(self.asking.run(errand))
        self.tasks.add(task)
        task.add_done_callback(partial(self._ended, errand))
        return task

    def _ended(self, errand: Errand, task: asyncio.Task[None]) -> None:
        """Whatever ended a request early, even before its first step, leaves its rows to do."""
        self.tasks.discard(task)
        self.slots.free()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        self.books.to_do += errand.open_rows
        if not isinstance(error, (Stopped, asyncio.CancelledError)):
            self.on_fault(error)

    async def all_back(self, timeout_s: float | None = None) -> None:
        while self.tasks:
            await asyncio.wait(set(self.tasks), timeout=timeout_s)
            if timeout_s is not None:
                return

    def cancel(self, *, waiting_only: bool) -> None:
        """Those that are still at a gate never start; those that are out only when time is up."""
        for task in list(self.tasks):
            if not waiting_only or task not in self.asking.sending:
                task.cancel()
