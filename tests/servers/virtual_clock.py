"""Clocks that tests own: time passes only when everybody is asleep, or a hundred times as fast."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

from jobs.engine.clock import Clock

T = TypeVar("T")


class VirtualClock(Clock):
    """Jumps to the next sleeper when nothing else can run; hours pass in milliseconds, in the right order."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self._now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(0.0, seconds), next(self._order), wake))
        await wake

    def advance(self, seconds: float) -> None:
        """A jump nobody slept through: a suspended laptop, a stopped process."""
        self._now += seconds

    async def run(self, work: Coroutine[Any, Any, T], at_most_s: float = 1e6) -> T:
        """Runs `work` to its end in virtual time; fails when it waits for something that never comes."""
        task = asyncio.ensure_future(work)
        until = self._now + at_most_s
        while not task.done():
            for _ in range(20):  # let everything that can run do so before time moves
                await asyncio.sleep(0)
            if task.done():
                break
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not self._sleepers or self._sleepers[0][0] > until:
                task.cancel()
                raise AssertionError(f"nothing left to wake up at {self._now - 1000:.1f} s")
            self._now, _, wake = heapq.heappop(self._sleepers)
            wake.set_result(None)
        return await task


class FastClock(Clock):
    """A hundred seconds pass in one: five minutes of outage fit into a test, over real sockets."""

    speed = 100.0

    def now(self) -> float:
        return super().now() * self.speed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.speed)
