"""Sends requests of messages through a client library, one message after another, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from queries.messages import PublishAnswer, PublishRequest, Queue, QueueFacts, Seen
from queries.sent_record import SentRecord

IN_FLIGHT_MOST = 2  # one is sent while the other is journaled

Still = Callable[[Sequence[Seen]], Awaitable[frozenset[int]]]


class Publisher:
    """One connection, one message at a time: a cut leaves one message in doubt, and that one alone is sent again.

    What was confirmed before the cut, or by a process that was killed, is in the record and not sent twice. A row may
    have waited here for hours, or come from a replica: `still` says at the last moment whose messages are wanted.
    """

    is_local = False
    note = ""

    def __init__(self, queue: Queue, record: SentRecord, still: Still, reach: Callable[[str], None]) -> None:
        self.name = queue.where
        self.queue = queue
        self._record = record
        self._still = still
        self._reach = reach
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._before: deque[list[str]] = deque()

    async def look(self) -> QueueFacts:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.queue.look)

    async def ask(self, request: PublishRequest) -> PublishAnswer:
        wanted = await self._still(request.seen)
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            sent = await loop.run_in_executor(self._thread, self._publish, request, wanted, stop)
        finally:
            stop.set()  # whoever stopped waiting wants no further message out
        self._before.append(sent)  # not of a request that nobody waited for: what is out of it is in no journal
        return PublishAnswer(frozenset(sent), self.queue.where)

    def _publish(self, request: PublishRequest, wanted: frozenset[int], stop: threading.Event) -> list[str]:
        """With two requests in flight, the answer to the one before the last was journaled before this one was made."""
        self._record.open()
        if len(self._before) >= IN_FLIGHT_MOST:
            self._record.forget(self._before.popleft())
        sent = []
        for number, message in enumerate(request.messages):
            if not self._record.has(message.id):  # or it is out, whatever its worker has made of the row by now
                if stop.is_set() or number not in wanted:
                    continue
                self._reach("mq.before")
                self.queue.publish(message)
                self._reach("mq.published")
                self._record.note(message.id)
                self._reach("mq.confirmed")
            sent.append(message.id)
        return sent

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown()

    def _end(self) -> None:
        while self._before:
            self._record.forget(self._before.popleft())
        self.queue.close()
        self._record.close()
