"""Sends requests of messages through a client library, one message after another, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from queries.messages import Message, PublishAnswer, PublishRequest, Queue, QueueFacts, Seen
from queries.sent_record import SentRecord


IN_FLIGHT_MOST = 2  # one is sent while the other is journaled
_AHEAD = 30  # requests of 100: two pages of a thousand rows, and what is being gathered
_FRESH_S = 5.0

Still = Callable[[Sequence[Seen]], Awaitable[frozenset[int]]]


class Publisher:
    """One connection, one message at a time: a cut leaves one message in doubt, and that one alone is sent again.

    What was confirmed before the cut, or by a process that was killed, is in the record and is not sent twice. A row may
    have waited here for hours: unless we are quick, `still` says at the last moment which rows are as they were read.
    """

    is_local = False
    note = ""

    def __init__(
        self, queue: Queue, record: SentRecord, still: Still, now: Callable[[], float], reach: Callable[[str], None]
    ) -> None:
        self.name = queue.where
        self.queue = queue
        self._record = record
        self._still = still
        self._now = now
        self._asked_at: deque[float] = deque([now()], maxlen=_AHEAD)
        self._reach = reach
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._before: deque[list[str]] = deque()

    async def look(self) -> QueueFacts:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.queue.look)

    async def ask(self, request: PublishRequest) -> PublishAnswer:
        wanted = await self._still_wanted(request)
        stop = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, wanted, stop)
        finally:
            stop.set()  # whoever stopped waiting wants no further message out

    async def _still_wanted(self, request: PublishRequest) -> Sequence[Message]:
        """A row is read so many requests ahead at most: if they all went out in a moment, it was read a moment ago."""
        age_s = self._now() - self._asked_at[0]
        self._asked_at.append(self._now())
        if age_s < _FRESH_S:
            return request.messages
        there = await self._still(request.seen)
        return [message for number, message in enumerate(request.messages) if number in there]

    def _publish(self, messages: Sequence[Message], stop: threading.Event) -> PublishAnswer:
        """With two requests in flight, the answer to the one before the last was journaled before this one was made."""
        self._record.open()
        if len(self._before) >= IN_FLIGHT_MOST:
            self._record.forget(self._before.popleft())
        sent = []
        for message in messages:
            if stop.is_set():
                break
            if not self._record.has(message.id):
                self._reach("mq.before")
                self.queue.publish(message)
                self._reach("mq.published")
                self._record.note(message.id)
                self._reach("mq.confirmed")
            sent.append(message.id)
        self._before.append(sent)
        return PublishAnswer(frozenset(sent), self.queue.where)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown()

    def _end(self) -> None:
        while self._before:
            self._record.forget(self._before.popleft())
        self.queue.close()
        self._record.close()
