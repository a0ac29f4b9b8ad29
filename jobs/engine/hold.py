"""Holds what is sent back while too much waits at the receiver, or until it is time for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobs.engine.clock import Clock
from jobs.engine.insistence import Insistence

_LOOK_S = 1.0


class Hold:
    """`depth` asks how much waits; `most` of it may, and `delay_s` passes between one sending and the next.

    A receiver that cannot say is waited for, as one that cannot take.
    """

    def __init__(
        self,
        depth: Callable[[], Awaitable[int]],
        receiver: Insistence,
        clock: Clock,
        most: int | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self._depth = depth
        self._receiver = receiver
        self._clock = clock
        self._most = most
        self._delay_s = delay_s
        self._next_at = 0.0
        self._turn = asyncio.Lock()
        self._said = ""

    @property
    def waiting_for(self) -> str:
        return self._receiver.waiting_for or self._said

    async def well(self) -> None:
        """Waits for room. Nothing is in flight meanwhile: a stop ends it at once."""
        async with self._turn:
            try:
                while self._most is not None and (waiting := await self._receiver.insist(self._depth)) > self._most:
                    self._said = f"the workers: {waiting:,} messages wait, more than {self._most:,}"
                    await self._clock.sleep(_LOOK_S)
                self._said = ""
                await self._clock.sleep(max(0.0, self._next_at - self._clock.now()))
                self._next_at = self._clock.now() + self._delay_s
            finally:
                self._said = ""
