"""Keeps our share of the database's time bounded, and our pieces as large as it answers quickly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from jobs.engine.clock import Clock

_BESIDE = 1.25  # what a statement costs beside what it can measure itself: planning, printing the answer
_BEGIN_AND_COMMIT_S = 0.003
_SAVED_S = 1.0  # idle time we may use up in one go


class DatabaseLoad:
    """At most `load` of the wall time has a request of ours open; heartbeats are exempt."""

    def __init__(self, load: float, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._credit_s = _SAVED_S * load
        self._counted_at = clock.now()
        self._turn = asyncio.Lock()
        self.busy_s = 0.0

    def hurry(self) -> None:
        """The last writes of a run that was told to stop: a second of the database is worth a kept promise."""
        self._load = 1.0

    @asynccontextmanager
    async def request(self, took_s: Callable[[], float | None] = lambda: None) -> AsyncIterator[None]:
        """Where the server says how long it worked, that is what counts: reading its answer is our own time."""
        async with self._turn if self._load < 1 else nullcontext():
            await self._wait_for_credit()
            started = self._clock.now()
            try:
                yield
            finally:
                used = self._clock.now() - started
                said = took_s()
                if said is not None:
                    used = min(used, said * _BESIDE + _BEGIN_AND_COMMIT_S)
                self._credit_s -= used
                self.busy_s += used

    async def _wait_for_credit(self) -> None:
        while True:
            now = self._clock.now()
            self._credit_s = min(_SAVED_S * self._load, self._credit_s + (now - self._counted_at) * self._load)
            self._counted_at = now
            if self._credit_s >= 0 or self._load >= 1:
                return
            await self._clock.sleep(-self._credit_s / self._load)


class PieceSize:
    """Rows in one request: halved when the database cancels it, grown while it answers quickly."""

    def __init__(self, start: int, most: int, quick_s: float = 0.5, bytes_most: int = 2_000_000) -> None:
        self.rows = start
        self._most = most
        self._quick_s = quick_s
        self._bytes_most = bytes_most
        self._ceiling = most

    def worked(self, rows: int, seconds: float, size_bytes: int = 0) -> None:
        if rows and size_bytes:
            self._ceiling = max(1, min(self._most, int(self._bytes_most / (size_bytes / rows))))
        if rows >= self.rows and seconds < self._quick_s:
            self.rows = self.rows * 3 // 2 + 1
        self.rows = max(1, min(self.rows, self._ceiling))

    def timed_out(self) -> bool:
        """Halves; False when it is already as small as can be."""
        if self.rows == 1:
            return False
        self.rows = max(1, self.rows // 2)
        return True
