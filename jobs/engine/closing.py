"""How a run ends: what is out may come back, what is settled is stored, what cannot be stored stays in the journal."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from jobs.engine.verdict import Exit
from queries.errors import CatchupError

if TYPE_CHECKING:
    from jobs.engine.session import Session

_LAST_FLUSH_S = 30.0
_DROP_S = 10.0
_LAST_FLUSH_AFTER_SIGNAL_S = 1.5  # with the grace of 5 s: out before CI's SIGTERM after 7.5 s (GitHub's documentation)


async def drain(session: Session) -> None:
    """Requests that are out may come back within the grace; those still waiting at a gate never start."""
    session.phase = "draining"
    session.in_flight.cancel(waiting_only=True)
    await session.in_flight.all_back(session.work.options.grace_s)
    session.in_flight.cancel(waiting_only=False)
    await session.in_flight.all_back()


async def end(session: Session) -> None:
    """Flushes, closes the run in the ledger, gives the lease back."""
    by_signal = session.stop.exit in (Exit.SIGINT, Exit.SIGTERM)
    session.is_ending = True
    if by_signal:
        session.database.hurry()
    seconds = _LAST_FLUSH_AFTER_SIGNAL_S if by_signal else _LAST_FLUSH_S
    try:
        await _deliver_the_rest(session, seconds / 2)
        async with asyncio.timeout(seconds):
            await session.writer.flush(finally_=True)
            if not by_signal:
                await _drop_gone(session)
            is_over = not session.stop.is_asked and not session.goes_on
            await _close(session, "finished" if is_over else "stopped", session.stop.why)
    except CatchupError as error:
        session.stop.ask_for(error)
    except TimeoutError:
        why = "the database did not answer in time: the last results are in the journal"
        session.stop.ask(Exit.STOPPED, why, "the same command stores them, without paying again")
    except OSError as error:
        session.stop.ask(Exit.REFUSED, f"the journal cannot be written: {error.strerror}", "look at the disk")
    finally:
        for task in session.background:
            task.cancel()
        session.in_journal = session.backlog_rows
        session.books.to_do += session.in_journal
        owed = session.backlog > 0
        is_over = not session.stop.is_asked and not session.goes_on
        if not is_over and not owed:
            session.opened.journal.forget_texts()
        session.opened.journal.close(keep=not is_over or owed)


async def _deliver_the_rest(session: Session, seconds: float) -> None:
    """Within half of the time there is: what does not arrive is in the journal, and the others can still be stored."""
    if session.delivery is None:
        return
    try:
        async with asyncio.timeout(seconds):
            await session.delivery.flush()
    except CatchupError as error:
        session.stop.ask_for(error)
    except TimeoutError:
        session.stop.ask(Exit.STOPPED, "not every vector has arrived: the rest is in the journal", "the same command")
    finally:
        session.delivery.cancel()


async def _drop_gone(session: Session) -> None:
    """Vectors of rows that were deleted on the way, while nobody else may write there; one that came back keeps it.

    What cannot be deleted now, `catchup verify` finds.
    """
    space, target, gone = session.work.space, session.work.target, session.writer.gone
    if space is None or target.embedding is None or not gone:
        return
    with suppress(CatchupError, TimeoutError):
        async with asyncio.timeout(_DROP_S):
            back = await session.work.ledger.read_back(target.spec, list(gone))
            parts = {key: parts for key, parts in gone.items() if key not in back}
            ids = [id_ for key, number in parts.items() for id_ in target.embedding.ids_of(key, number)]
            if ids:
                await space.delete(ids)


async def give_up(session: Session, why: str) -> None:
    """For a run that is not to be continued: what it paid for is stored, nothing new is asked."""
    await session.replay()
    session.is_ending = True
    await session.writer.flush(finally_=True)
    await _close(session, "cancelled", why)
    session.opened.journal.close(keep=False)


async def _close(session: Session, state: Literal["stopped", "finished", "cancelled"], why: str) -> None:
    """Each step may be repeated: a lost answer to the last of them is no reason to call the run unfinished."""
    ledger, lease, insist = session.work.ledger, session.opened.lease, session.database.insist
    budget, record = session.asking.budget, session.opened.record
    spent = budget.spent_usd + (record.spent_usd + record.possibly_usd if record else 0.0)
    await insist(lambda: ledger.settle_run(lease.run_id, spent_usd=spent, possibly_usd=budget.possibly_usd))
    await insist(
        lambda: ledger.close_run(run_id=lease.run_id, generation=lease.generation, state=state, stop_reason=why)
    )
    session.keeper.is_given_back = True
    await insist(lambda: ledger.release(lease))
    session.is_closed = True
