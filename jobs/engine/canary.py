"""One row is paid, written and read back before the tap opens: a wrong setup costs one call, not a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from jobs.engine import fault_points
from queries.errors import Misconfigured
from queries.table import Row

if TYPE_CHECKING:
    from jobs.engine.session import Session

_CANDIDATES_MOST = 5


async def open_the_tap(session: Session, rows: AsyncGenerator[Row, None]) -> bool:
    """True once a row is proven. A content failure passes on to the next row; a configuration failure stops."""
    tried = 0
    async for row in rows:
        if session.selection.limit_reached:
            session.pending_beyond = True
            return False
        if tried >= _CANDIDATES_MOST:
            raise Misconfigured(
                f"none of the first {tried} rows gave a text that could be stored; nothing more was paid",
                fix="the reasons are named: look at the prompt, the model and these rows",
            )
        kept = session.selection.kept
        ask = session.selection.select(row)
        if ask is None and session.selection.kept == kept:
            continue
        tried += 1
        if ask is not None:
            await asyncio.wait({await session.in_flight.start(ask)})
        if session.stop.is_asked:
            return False
        await session.settle()
        if session.writer.last_written == row.key:
            await _read_back(session, row)
            return True
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
            f"row {' '.join(row.key)} was confirmed as written, but reading it back shows nothing",
            fix="a trigger or rule may undo the write; nothing more was paid",
        )


def _refuse_unwritable(session: Session, row: Row) -> None:
    """The row is as it was read, and still the update did not touch it: somebody forbids that."""
    last = session.named[-1] if session.named else None
    if last and last.key == " ".join(row.key) and last.state == "changed" and last.reason == "kept":
        raise Misconfigured(
            f"the update of row {last.key} affected 0 rows although nothing had changed it",
            fix="row level security hides it, or the key is wrong: use service_role or a role with a policy",
        )
