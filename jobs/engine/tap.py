"""The open tap: every candidate of the scan once, gathered into requests, no faster than what is paid is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from jobs.engine.job import Ask
from jobs.engine.kept import find_kept
from jobs.engine.packing import Packer
from queries.table import Row

if TYPE_CHECKING:
    from jobs.engine.session import Session

_LOOK_AGAIN_S = 0.005  # which costs 10 us; at 0.02 the loop stood still for a twentieth of a run of vectors


async def candidates(session: Session) -> AsyncGenerator[Row, None]:
    """Every candidate once. A lagging replica may still show what we know to be written: that is left out."""
    past, only = session.opened.past, session.work.options.only
    known = past.confirmed | session.writer.recovered if past else frozenset()
    async for page in session.scan.pages_from(session.checkpoint.key):
        rows = [row for row in page if row.key not in known and (only is None or row.key in only.keys)]
        session.checkpoint.opened(row.key for row in rows)
        if session.delivery is not None:
            rows = await find_kept(rows, session.work, session.delivery)
        for row in rows:
            yield row


async def ask_for_all(session: Session, rows: AsyncGenerator[Row, None], packer: Packer) -> None:
    """Until the rows end or the limit is reached; the last request need not be full."""
    async for row in rows:
        if session.selection.limit_reached:
            session.pending_beyond = True
            break
        ask = session.selection.select(row)
        full = packer.add(ask) if ask is not None else None
        if full is not None:
            await _start(session, full)
            await asyncio.sleep(0)  # it leaves now: gathering the next one takes milliseconds
        elif ask is not None:
            continue  # it waits for others, and nothing more is on its way because of it
        while session.is_behind:
            await session.work.clock.sleep(_LOOK_AGAIN_S)
    rest = packer.take()
    if rest is not None:
        await _start(session, rest)


async def _start(session: Session, ask: Ask) -> None:
    try:
        await session.in_flight.start(ask)
    except asyncio.CancelledError:  # stopped while it waited for a place
        session.books.to_do += len(ask.rows)
        raise
