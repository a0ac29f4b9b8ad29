"""Repeats what may be repeated until it is answered, or until the outage is too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobs.engine.breaker import UpstreamDown
from jobs.engine.clock import Clock
from queries.errors import StatementTimeout, Throttle, Transient, UnknownOutcome, UpstreamError

Answer = TypeVar("Answer")
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 30.0


class Insistence:
    """Reads and idempotent writes only: a call whose answer was lost is simply made again."""

    def __init__(self, who: str, clock: Clock, max_outage_s: float) -> None:
        self._who = who
        self._clock = clock
        self._max_outage_s = max_outage_s
        self._well = asyncio.Event()
        self._well.set()
        self.waiting_for = ""

    async def insist(self, call: Callable[[], Awaitable[Answer]], *, shrinks: bool = False) -> Answer:
        """Repeats until it is answered or the outage is too long. `shrinks`: the caller handles 57014 itself."""
        failing_since: float | None = None
        tries = 0
        while True:
            try:
                answer = await call()
            except (Transient, Throttle, UnknownOutcome) as error:
                if shrinks and isinstance(error, StatementTimeout):
                    raise
                failing_since = self._clock.now() if failing_since is None else failing_since
                await self._wait(error, tries, self._clock.now() - failing_since)
                tries += 1
            else:
                self._well.set()
                self.waiting_for = ""
                return answer

    async def well(self) -> None:
        """Waits while it is failing: nothing more is paid for that could not be stored."""
        await self._well.wait()

    async def _wait(self, error: UpstreamError, tries: int, failing_s: float) -> None:
        if failing_s >= self._max_outage_s:
            raise UpstreamDown(error, failing_s)
        self._well.clear()
        self.waiting_for = f"{self._who}: {error.what}"
        ceiling = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**tries)
        wait = max(error.retry_after_s or 0.0, ceiling / 2 + self._clock.jitter(ceiling / 2))
        # the server's own wait is never shortened, not even by the end of the outage we allow
        await self._clock.sleep(wait if error.retry_after_s else min(wait, self._max_outage_s))
