"""Sends requests of messages through a client library, one message after another, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from queries.messages import Message, PublishAnswer, PublishRequest, Queue, QueueFacts, Seen
from queries.sent_record import SentRecord


Still = Callable[[Sequence[Seen]], Awaitable[frozenset[int]]]


class Publisher:
    """One connection, one message at a time: a cut leaves one message in doubt, and that one alone is sent again.

    What was confirmed before the cut, or by a process that was killed, is in the record and is not sent twice. A row may
    have waited here for hours, so `still` says at the last moment which rows are as they were read.
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
        self._before: frozenset[str] = frozenset()

    async def look(self) -> QueueFacts:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.queue.look)

    async def ask(self, request: PublishRequest) -> PublishAnswer:
        there = await self._still(request.seen)
        wanted = [message for number, message in enumerate(request.messages) if number in there]
        stop = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, wanted, stop)
        finally:
            stop.set()  # whoever stopped waiting wants no further message out

    def _publish(self, messages: Sequence[Message], stop: threading.Event) -> PublishAnswer:
        """The last request's answer was journaled before this one was made."""
        self._record.open()
        ids = [message.id for message in messages]
        if self._before and self._before.isdisjoint(ids):
            self._record.forget(self._before)
            self._before = frozenset()
        sent = []
        for message in messages:
            if stop.is_set():
                break
            if not self._record.has(message.id):
                self._reach("mq.publishing")
                self.queue.publish(message)
                self._reach("mq.published")
                self._record.note(message.id)
                self._reach("mq.confirmed")
            sent.append(message.id)
        self._before = frozenset(ids)
        return PublishAnswer(frozenset(sent), self.queue.where)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown()

    def _end(self) -> None:
        self._record.forget(self._before)
        self.queue.close()
        self._record.close()
