"""How many requests are in flight: as many as the rate needs at the present latency, found without being told."""

from __future__ import annotations

import asyncio
import math

_MOST = 1_000
_START = 8
_UNKNOWN_MOST = 256


class Slots:
    """A window of places that widens and narrows; an operator's number is simply kept."""

    def __init__(self, fixed: int | None, most: int = _MOST) -> None:
        self._fixed = fixed
        self._most = most
        self.size = fixed or min(_START, most)
        self.in_flight = 0
        self._latency_s = 0.0
        self._freed = asyncio.Event()
        self._first_in_line = asyncio.Lock()
        self._window_at = 0.0
        self._window_done = 0
        self._best_per_s = 0.0

    async def take(self) -> None:
        """In the order of asking; a place that gets free wakes one, not all who wait."""
        async with self._first_in_line:
            while self.in_flight >= self.size:
                self._freed.clear()
                await self._freed.wait()
            self.in_flight += 1

    def free(self) -> None:
        self.in_flight -= 1
        self._freed.set()

    def learn(self, latency_s: float, allowed_per_s: float | None, now: float) -> None:
        """Little's law where the limit is known; growth for as long as it pays where it is not."""
        self._latency_s += (latency_s - self._latency_s) * (0.1 if self._latency_s else 1.0)
        if self._fixed:
            return
        if allowed_per_s is not None:
            # half as much again as the mean needs, so that a slow tail does not hold the pace back
            self.size = max(_START, min(self._most, math.ceil(allowed_per_s * self._latency_s * 1.5) + 4))
            self._freed.set()
            return
        self._window_done += 1
        if self._window_done < 2 * self.size:
            return
        per_s = self._window_done / max(1e-6, now - self._window_at)
        if self._window_at and per_s > self._best_per_s * 1.1:
            self._best_per_s = per_s
            self.size = min(self._most, _UNKNOWN_MOST, self.size * 2)
            self._freed.set()
        self._window_at, self._window_done = now, 0
