"""The one seam for time and chance, so that tests can own both."""

from __future__ import annotations

import asyncio
import random
import time

# Linux's monotonic clock stands still in suspend, as does what Python reads on macOS (clock_gettime(2), 2026-11-21).
_LASTING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Intervals by the monotonic clock only: the wall clock may jump, and nothing here must care."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311  # jitter, not a secret

    def now(self) -> float:
        return time.monotonic()

    def lasting(self) -> float:
        """As `now`, but it goes on while the machine sleeps: for what others count on meanwhile, a lease or a day."""
        return self.now() + time.clock_gettime(_LASTING) - time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def jitter(self, ceiling: float) -> float:
        """Full jitter: anything from nothing to the ceiling."""
        return self._random.uniform(0.0, ceiling)
