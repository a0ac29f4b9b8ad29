"""One rate limit for many processes: each paces itself within a share of it, renewed every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jobs.engine.clock import Clock
from jobs.engine.rate_limit import RateLimit, Ticket
from queries.errors import RunFatal, UpstreamError
from queries.rates import Rates

RENEW_S = 2.0
TTL_S = 6.0  # a share is of so many seconds of work at most: a dead worker's comes back by itself
_MORE = 1.5  # than was used: who is about to want more must not wait for it


class SharedRate(RateLimit):
    """The gate of one process. Without a confirmed share nothing passes: the limit is not ours alone."""

    def __init__(self, clock: Clock, rates: Rates, most_per_min: int | None = None) -> None:
        super().__init__(clock, most_per_min)
        self._rates = rates
        self._granted = asyncio.Event()
        self._sent = 0
        self._asked_at = clock.now()
        self._confirmed_at: float | None = None
        self.workers = 1

    async def enter(self, tokens: int) -> Ticket:
        await self._granted.wait()
        ticket = await super().enter(tokens)
        self._sent += 1
        return ticket

    async def keep(self) -> None:
        """Renews until it is cancelled; then the others may have it at once."""
        try:
            while True:
                await self.renew()
                await self._clock.sleep(RENEW_S)
        finally:
            try:
                async with asyncio.timeout(1.0):
                    await self._rates.leave()
            except (UpstreamError, RunFatal, TimeoutError):
                pass  # it runs out by itself

    async def renew(self) -> None:
        now = self._clock.now()
        wants = self._wants(now)
        self._asked_at, self._sent = now, 0
        try:
            got = await self._rates.take(wants=wants, ttl_s=TTL_S, closed_s=max(0.0, self._closed_until - now))
        except (UpstreamError, RunFatal):
            if self._confirmed_at is not None and now - self._confirmed_at > TTL_S:
                self._granted.clear()  # somebody else may have it by now
            return
        self._confirmed_at, self.workers = now, got.workers
        self._closed_until = max(self._closed_until, now + got.closed_s)
        for meter in (self.requests, self.tokens):
            meter.share = got.share
        if got.share > 0:
            self._granted.set()

    def _wants(self, now: float) -> float:
        """All there is when the limit keeps us back, or is not known; else somewhat more than was used."""
        whole, passed = self.requests.per_s, now - self._asked_at
        if whole is None or passed < RENEW_S / 2 or self.is_held_back():
            return 1.0
        return min(1.0, _MORE * self._sent / (whole * passed) + 0.05)


async def leave_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
