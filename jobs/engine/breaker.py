"""Stops paying a failing upstream: pauses, probes with one call at a time, and gives up after a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from jobs.engine.clock import Clock
from queries.errors import CatchupError, Unreachable, UpstreamError

_WINDOW = 40
_LEAST_FAILURES = 20
_HEALTHY_SHARE = 0.3  # one call in five failing is weather; seven in ten is an outage
_UNREACHABLE_IN_A_ROW = 5
_FIRST_IN_A_ROW = 5  # before anything ever worked there is no reason to believe in weather
_IN_A_ROW = 12
_SILENT_S = 110.0
_HANGS = 2  # of one connection that takes half a minute to say so, five would be long
_HANGING_S = 45.0
_PROBE_S = 30.0


class UpstreamDown(CatchupError):
    """The upstream did not come back within the outage we are willing to wait for."""

    def __init__(self, last: UpstreamError, waited_s: float) -> None:
        super().__init__(f"{last.service or 'the service'} did not recover within {waited_s:.0f} s: {last.what}")
        self.last = last
        self.is_outage = isinstance(last, Unreachable)


class Breaker:
    """Closed: everybody passes. Open: one probe every half minute. No item fails by it."""

    def __init__(self, clock: Clock, max_outage_s: float, probe_s: float = _PROBE_S) -> None:
        self._clock = clock
        self._max_outage_s = max_outage_s
        self._probe_s = min(probe_s, max(0.05, max_outage_s / 3))
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._unreachable = 0
        self.since_success = 0
        self._ever_succeeded = False
        self._last_success = clock.now()
        self._opened_at: float | None = None
        self._last_error: UpstreamError | None = None
        self._prober: asyncio.Task[Any] | None = None
        self._changed = asyncio.Event()
        self.trips = 0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def why(self) -> str:
        return self._last_error.what if self._last_error and self.is_open else ""

    async def enter(self) -> bool:
        """Waits while the upstream is down; True means this attempt is the probe."""
        while self._opened_at is not None:
            open_s = self._clock.now() - self._opened_at
            if self._last_error is not None and open_s >= self._max_outage_s:
                raise UpstreamDown(self._last_error, open_s)
            if self._prober is None:
                self._prober = asyncio.current_task()
                try:
                    await self._clock.sleep(min(self._probe_s, self._max_outage_s - open_s))
                except BaseException:
                    self.abandoned()
                    raise
                return True
            self._changed.clear()
            await self._changed.wait()
        return False

    def succeeded(self) -> None:
        self._recent.append(True)
        self._unreachable = self.since_success = 0
        self._ever_succeeded = True
        self._last_success = self._clock.now()
        if self._opened_at is not None:
            self._opened_at = None
            self._recent.clear()
            self._prober = None
        self.abandoned()

    def failed(self, error: UpstreamError) -> None:
        self._recent.append(False)
        self.since_success += 1
        self._last_error = error
        self._unreachable = self._unreachable + 1 if isinstance(error, Unreachable) else 0
        if self._opened_at is None and self._is_down():
            self._opened_at = self._clock.now()
            self.trips += 1
        self.abandoned()

    def abandoned(self) -> None:
        """The probe is over, whatever became of it: the next may try. What others report does not end it."""
        if self._prober in (None, asyncio.current_task()):
            self._prober = None
            self._changed.set()

    def _is_down(self) -> bool:
        failures = self._recent.count(False)
        silent_s = self._clock.now() - self._last_success
        if self._unreachable >= _UNREACHABLE_IN_A_ROW or (self._unreachable >= _HANGS and silent_s > _HANGING_S):
            return True
        if self.since_success >= (_IN_A_ROW if self._ever_succeeded else _FIRST_IN_A_ROW):
            return True
        if failures >= _LEAST_FAILURES and self._recent.count(True) < _HEALTHY_SHARE * len(self._recent):
            return True
        return self.since_success >= 5 and silent_s > _SILENT_S
