"""One row is paid, written and read back before the tap opens: a wrong setup costs one call, not a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from jobs.engine import fault_points
from jobs.engine.packing import Packer
from queries.errors import Misconfigured
from queries.table import Row

if TYPE_CHECKING:
    from jobs.engine.session import Session


async def open_the_tap(session: Session, rows: AsyncGenerator[Row, None], packer: Packer) -> bool:
    """True once a row is proven. A content failure passes on to the next row; a configuration failure stops.

    Where a whole request costs as much as one of a single row, it is whole requests that are tried.
    """
    tried = 0
    async for row in rows:
        if session.selection.limit_reached:
            session.pending_beyond = True
            break
        if tried >= session.work.options.tries_most:
            raise Misconfigured(
                f"none of the first {tried} rows gave a text that could be stored; nothing more was paid",
                fix="the reasons are named: look at the prompt, the model and these rows",
            )
        kept = session.selection.kept
        ask = session.selection.select(row)
        if ask is None and session.selection.kept == kept:
            continue
        if ask is not None and _is_gathered(session):
            ask = packer.add(ask)
            if ask is None:
                continue
        tried += 1
        if ask is not None:
            await asyncio.wait({await session.in_flight.start(ask)})
        if session.stop.is_asked:
            return False
        if await _is_proven(session, ask.rows if ask is not None else (row,)):
            return True
    rest = None if session.stop.is_asked else packer.take()
    if rest is not None:
        await asyncio.wait({await session.in_flight.start(rest)})
        if not session.stop.is_asked:
            await _is_proven(session, rest.rows)
    return False


def _is_gathered(session: Session) -> bool:
    packing = session.work.job.packing
    return packing is not None and packing.is_first_full


async def _is_proven(session: Session, rows: Sequence[Row]) -> bool:
    await session.settle()
    written = next((row for row in rows if row.key == session.writer.last_written), None)
    if written is not None:
        await _read_back(session, written)
        return True
    for row in rows:
        _refuse_unwritable(session, row)
    return False


async def _read_back(session: Session, row: Row) -> None:
    """A trigger or rule may undo what the database confirmed."""
    fault_points.reach("verify.before")
    spec = session.work.target.spec
    if not spec.cells:  # nothing is written there, and the vector has been seen
        return
    stored = await session.database.insist(lambda: session.work.ledger.read_back(spec, [row.key]))
    if not stored.get(row.key, {}).get(spec.cells[0]):
        raise Misconfigured(
            f"row {session.work.ledger.show(row.key)} was confirmed as written, but reading it back shows nothing",
            fix="a trigger or rule may undo the write; nothing more was paid",
        )


def _refuse_unwritable(session: Session, row: Row) -> None:
    """The row is as it was read, and still the update did not touch it: somebody forbids that."""
    shown = session.work.ledger.show(row.key)
    last = next((named for named in session.named if named.key == shown), None)
    if last and last.state == "changed" and last.reason == "kept":
        raise Misconfigured(
            f"the update of row {last.key} affected 0 rows although nothing had changed it",
            fix="row level security hides it, or the key is wrong: use service_role or a role with a policy",
        )
