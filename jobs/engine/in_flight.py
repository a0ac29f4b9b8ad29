"""Requests that are out, and a few at the door. Each outlives the feed that started it, and leaves its rows settled or
to do."""

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
    door: asyncio.Semaphore
    """Several answers may come at once: then as many requests should be ready to leave."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    rows: int = 0
    """Of all of them, those at the door included."""

    async def start(self, ask: Ask) -> asyncio.Task[None]:
        """Waits for room at the door."""
        await self.door.acquire()
        errand = Errand([ask])
        task = asyncio.create_task(self._go(errand))
        self.tasks.add(task)
        self.rows += len(ask.rows)
        task.add_done_callback(partial(self._ended, errand, len(ask.rows)))
        return task

    async def _go(self, errand: Errand) -> None:
        await self.slots.take()
        errand.has_place = True
        self.door.release()
        await self.asking.run(errand)

    def _ended(self, errand: Errand, rows: int, task: asyncio.Task[None]) -> None:
        """Whatever ended a request early, even before its first step, leaves its rows to do."""
        self.tasks.discard(task)
        self.rows -= rows
        if errand.has_place:
            self.slots.free()
        else:
            self.door.release()
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
