"""Rows prepared ahead, in pieces: a thread counts one's tokens while the next is read, and this one's file is written.

Counting leaves the interpreter to others, so a thread does what took a process before, with its start, its memory and
its copies of every row. Rows come out as they went in, in order. A few rows are not worth it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from jobs.engine.job import Ask, Job, Keep, Means, Skip, prepare
from jobs.engine.scan import weigh
from queries.batch_requests import Encoded, write_body
from queries.errors import ItemPermanent
from queries.table import Row

Item = Ask | Skip | Keep
ROWS_WORTH_COUNTING_AHEAD = 2_000
_PIECE_ROWS, _PIECE_BYTES = 500, 4 << 20
_PIECES_AHEAD = 2
_ROWS_AT_A_TIME = 100  # then the loop has its turn: the database's answer is waiting to be read
_GARBAGE_AFTER = 200_000
_SWEPT_AFTER = 20_000  # rows: what HTTP leaves of a page is in a circle, 2 MB that a threshold alone never met


class Ready(NamedTuple):
    """A row and what became of it; None where whoever takes it is to prepare it, and to see what is odd."""

    row: Row
    item: Item | None = None


class _Piece(NamedTuple):
    """Each row's item, with the body where it is a request, and the tokens of all texts that are uncounted yet."""

    rows: Sequence[Row]
    items: Sequence[tuple[Item | None, bytes]]
    counts: asyncio.Future[list[int]]


class Preparing:
    """Close it, or leave its block, and its thread is gone.

    `trace` is a file that is there while it counts. A process that died has left it, killed by a text perhaps: then
    rows are left to whoever takes them, who names each one on the disk meanwhile.
    """

    def __init__(
        self, job: Job, means: Means, trace: Path | None = None, worth: int = ROWS_WORTH_COUNTING_AHEAD
    ) -> None:
        self._job, self._means, self._worth, self._trace = job, replace(means, counts_later=True), worth, trace
        limit = means.options.limit
        self._is_one_by_one = (limit is not None and limit < worth) or (trace is not None and trace.exists())
        self._thread: ThreadPoolExecutor | None = None
        self._unswept = 0
        self._thresholds = gc.get_threshold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            gc.set_threshold(*self._thresholds)
            thread.shutdown(wait=False, cancel_futures=True)
        if self._trace is not None:
            self._trace.unlink(missing_ok=True)

    async def ahead(self, rows: AsyncIterator[Row]) -> AsyncGenerator[Ready, None]:
        """Every row once. Those of a few pieces are read ahead, never more than memory has room for."""
        if self._is_one_by_one:
            async for row in rows:
                yield Ready(row)
            return
        waiting: deque[_Piece] = deque()
        async for piece in _cut(rows, self._worth):
            if self._thread is None and len(piece) < self._worth and sum(map(weigh, piece)) < _PIECE_BYTES:
                for row in piece:  # they are all there is
                    yield Ready(row)
                return
            waiting.append(await self._start(piece))
            while len(waiting) > _PIECES_AHEAD:
                async for ready in _finish(waiting.popleft()):
                    yield ready
        while waiting:
            async for ready in _finish(waiting.popleft()):
                yield ready

    async def _start(self, piece: list[Row]) -> _Piece:
        if self._thread is None:
            self._thread = self._open()
        self._sweep(len(piece))
        items: list[tuple[Item | None, bytes]] = []
        texts: list[str] = []
        for row in piece:
            items.append(self._prepare(row))
            item = items[-1][0]
            if isinstance(item, Ask):
                texts += item.uncounted
            if len(items) % _ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return _Piece(piece, items, asyncio.wrap_future(self._thread.submit(self._means.tokens.count_many, texts)))

    def _open(self) -> ThreadPoolExecutor:
        # Tens of thousands of rows are kept until their file is full, none of them in a circle: looking through them
        # for garbage again and again took a tenth of the time (2026-11-21).
        self._thresholds = gc.get_threshold()
        gc.set_threshold(_GARBAGE_AFTER, *self._thresholds[1:])
        if self._trace is not None:
            with contextlib.suppress(OSError):  # a full disk is said where the file itself is written
                self._trace.touch()
        self._means.tokens.hurry()
        return ThreadPoolExecutor(1, "count")

    def _sweep(self, rows: int) -> None:
        self._unswept += rows
        if self._unswept >= _SWEPT_AFTER:
            self._unswept = 0
            gc.collect(0)

    def _prepare(self, row: Row) -> tuple[Item | None, bytes]:
        item = prepare(self._job, row, self._means)
        if isinstance(item, Exception):
            return None, b""
        if not isinstance(item, Ask):
            return item, b""
        try:
            return item, write_body(item.request)
        except ItemPermanent:
            return None, b""


async def _cut(rows: AsyncIterator[Row], first_rows: int) -> AsyncIterator[list[Row]]:
    """In pieces of so many rows, or so many bytes; the first one tells whether rows are many."""
    piece: list[Row] = []
    room_rows, room_bytes = first_rows, _PIECE_BYTES
    async for row in rows:
        piece.append(row)
        room_rows, room_bytes = room_rows - 1, room_bytes - weigh(row)
        if room_rows <= 0 or room_bytes <= 0:
            yield piece
            piece = []
            room_rows, room_bytes = _PIECE_ROWS, _PIECE_BYTES
    if piece:
        yield piece


async def _finish(piece: _Piece) -> AsyncIterator[Ready]:
    counts = iter(await piece.counts)
    for number, (row, (item, body)) in enumerate(zip(piece.rows, piece.items, strict=True), start=1):
        yield Ready(row, _counted(item, body, counts) if isinstance(item, Ask) else item)
        if number % _ROWS_AT_A_TIME == 0:
            await asyncio.sleep(0)


def _counted(ask: Ask, body: bytes, counts: Iterator[int]) -> Ask:
    """Not by `replace`, which takes three times as long."""
    return Ask(
        ask.rows,
        Encoded(body),
        ask.tokens_in + sum(islice(counts, len(ask.uncounted))),
        ask.source,
        ask.tokens_out_most,
        ask.tokens_worst,
        ask.answer_bytes,
        ask.texts,
    )
