"""Rows prepared ahead by other processes, with this one as many as there are cores: counting is most of planning.

Rows come out as they went in, in order. While the processes start, for a few rows at all, and when the others have
enough to do, this process does it itself; so it does when one of them dies, so that a text that kills is known by name.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from jobs.batching.worker import Made, Recipe, is_ready, prepare_page, start
from jobs.engine.job import Ask, Job, Keep, Means, Skip
from queries.batch_requests import Encoded
from queries.page_rows import Told
from queries.table import Row

Item = Ask | Skip | Keep
ROWS_WORTH_A_PROCESS = 2_000
_GARBAGE_AFTER = 200_000
_SWEPT_AFTER = 20_000  # rows: what HTTP leaves of a page is in a circle, 2 MB that a threshold alone never met
_PAGES_OUT = 2  # for each process: one in work, one waiting
_PAGES_AHEAD = 4  # for each process: what is read beyond those that are out is for this one
_PAGES_HELD = 8
"""Nothing is prepared before it is known whether rows are many: the first pages are small, together 6 MB."""
_SWITCH_S = 0.0005
"""A page comes back in forty pieces: whoever waits 5 ms for his turn at each, as is usual, keeps the sender idle."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A row and what became of it; None where this process is to prepare it itself."""

    row: Row
    item: Item | None = None


def spare_cores() -> int:
    """This process reads pages and writes files meanwhile: on two cores one more process is all there is room for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


class Preparing:
    """`processes` 0 is never more than this one. Close it, or leave its block, and they are gone."""

    def __init__(self, job: Job, means: Means, processes: int | None = None, worth: int = ROWS_WORTH_A_PROCESS) -> None:
        self._recipe = Recipe(job, means.target, means.model, means.tokens.cache_dir, means.price, means.options)
        self._tokens, self._worth = means.tokens, worth
        self._most = spare_cores() if processes is None else processes
        limit = means.options.limit
        self._held = _PAGES_HELD if self._most and (limit is None or limit >= worth) else 0
        self._pool: ProcessPoolExecutor | None = None
        self._starting: list[Future[None]] = []
        self._seen = self._swept = 0
        self._thresholds = gc.get_threshold()
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            gc.set_threshold(*self._thresholds)
            sys.setswitchinterval(self._switch_s)
            pool.shutdown(wait=False, cancel_futures=True)

    async def ahead(self, pages: AsyncIterator[list[Row]]) -> AsyncGenerator[Ready, None]:
        """Every row of every page once. Some pages are read ahead, never more than the processes can chew on."""
        waiting: deque[tuple[list[Row], asyncio.Future[list[Made]] | None]] = deque()
        most = self._most * _PAGES_AHEAD
        async for page in pages:
            self._seen += len(page)
            if self._pool is not None and self._seen - self._swept >= _SWEPT_AFTER:
                self._swept = self._seen
                gc.collect(0)
            out = sum(1 for _, made in waiting if made is not None and not made.done())
            waiting.append((page, self._submit(page) if out < self._most * _PAGES_OUT else None))
            while waiting and (self._is_made(waiting[0][1]) or len(waiting) > max(most, self._held)):
                for ready in await self._take(*waiting.popleft()):
                    yield ready
        while waiting:
            for ready in await self._take(*waiting.popleft()):
                yield ready

    def _is_made(self, made: asyncio.Future[list[Made]] | None) -> bool:
        """What is for this process waits until the others have enough to do meanwhile, or there are none to come."""
        if made is not None:
            return made.done()
        return not self._is_ready() and (self._pool is not None or not self._held)

    def _is_ready(self) -> bool:
        return self._pool is not None and all(each.done() for each in self._starting)

    def _submit(self, page: list[Row]) -> asyncio.Future[list[Made]] | None:
        if self._pool is None and self._most > 0 and self._seen >= self._worth:
            self._open()
        if self._pool is None or not self._is_ready():
            return None
        try:
            return asyncio.wrap_future(self._pool.submit(prepare_page, [_light(row) for row in page]))
        except BrokenProcessPool:
            return None

    def _open(self) -> None:
        # Tens of thousands of rows are kept until their file is full, none of them in a circle: looking through them
        # for garbage again and again took a tenth of the time (2026-11-21).
        self._thresholds = gc.get_threshold()
        gc.set_threshold(_GARBAGE_AFTER, *self._thresholds[1:])
        # Spawned, not forked: a fork of a process with threads and open connections may hang or share them.
        self._pool = ProcessPoolExecutor(
            self._most, mp_context=get_context("spawn"), initializer=start, initargs=(self._recipe,)
        )
        self._starting = [self._pool.submit(is_ready) for _ in range(self._most)]
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._held = 0
        self._tokens.hurry()  # while they start

    async def _take(self, page: list[Row], made: asyncio.Future[list[Made]] | None) -> Sequence[Ready]:
        if made is None:
            return [Ready(row) for row in page]
        try:
            return [_ready(row, each) for row, each in zip(page, await made, strict=True)]
        except BrokenProcessPool:
            # One of these texts may have killed it: from now on the row at work is named on disk, as always.
            self._most = 0
            self.close()
            return [Ready(row) for row in page]


def _light(row: Row) -> tuple[object, ...]:
    """Plain tuples travel in half the time of a dataclass, and values as they came; `was` is not needed there."""
    values = row.values.text if isinstance(row.values, Told) else dict(row.values)
    return row.key, values, row.joined, row.known, row.is_kept, row.is_due


def _ready(row: Row, made: Made) -> Ready:
    match made:
        case (
            bytes() as body,
            int() as tokens_in,
            int() as out_most,
            int() as worst,
            int() as answer_bytes,
            int() as texts,
        ):
            return Ready(row, Ask((row,), Encoded(body), tokens_in, "", out_most, worst, answer_bytes, texts))
        case ("skip", str() as reason, str() as detail):
            return Ready(row, Skip(row, reason, detail))
        case _:
            return Ready(row)
