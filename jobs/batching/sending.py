"""From candidates to a batch: room first, one live row as the canary, then the file, its money, its rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING

from jobs.batching.draft import Draft
from jobs.batching.preparing import Preparing, Ready
from jobs.batching.provider import CHUNK
from jobs.batching.room import Allowed, Waiting, allow
from jobs.engine import fault_points
from jobs.engine.canary import open_the_tap
from jobs.engine.job import Ask, prepare
from jobs.engine.packing import Packer
from queries.batch_ledger import Chunk
from queries.errors import CeilingReached, ItemPermanent
from queries.table import Row

if TYPE_CHECKING:
    from jobs.batching.session import BatchSession

_TOKENS_EACH = 500.0  # of a request, until some of ours are known


class Sending:
    """`is_through`: the source of rows it was given last is empty, or nothing more of it is wanted."""

    def __init__(self, session: BatchSession) -> None:
        self._session = session
        self._carried: Ask | None = None
        self._preparing = Preparing(
            session.work.job, session.errand.means, session.folder.counting(session.opened.run_id)
        )
        self._ready: AsyncGenerator[Ready, None] | None = None
        self.is_through = False
        self.unclaimed = 0

    async def send(self, rows: AsyncGenerator[Row, None]) -> bool:
        """One chunk, or a small tail by the live road. False where there is no room, or nothing to send."""
        session = self._session
        self.is_through = False
        if session.errand.options.collect_only or not (session.back or not session.is_scanned or self._carried):
            return False
        allowed = await self._allowed()
        session.waiting_for = allowed.why
        if allowed.why:
            return False
        if not session.is_proven and not await self._prove(rows):
            self._end_of_rows()
            return False
        draft = self._new_draft(allowed)
        await self._fill(draft, rows)
        if not draft.rows:
            draft.discard()
            return False
        if self.is_through and session.made and len(draft.rows) <= session.errand.options.tail_live:
            draft.discard()
            await self._send_live(draft.few)
            return True
        await self._hand_in(draft)
        return True

    async def _allowed(self) -> Allowed:
        session, errand = self._session, self._session.errand
        model = session.work.model
        room = await session.database.insist(lambda: session.desk.room(errand.place, model))
        limit = errand.options.enqueued_limit or room.tokens
        limit = None if limit is None else int(limit / session.ratio)
        ours = {chunk.batch_id or chunk.chunk: Waiting(chunk.status, chunk.tokens) for chunk in session.chunks.values()}
        others = []
        if limit is not None:
            for remote in await session.provider.list_all():
                if remote.id in room.chunks or remote.metadata.get(CHUNK) in room.chunks:
                    ours[remote.id] = Waiting(remote.status, room.chunks.get(remote.id, 0))
                elif remote.model in ("", model):
                    others.append(Waiting(remote.status, None, remote.total))
        sent = [chunk for chunk in session.chunks.values() if chunk.requests]
        each = sum(c.tokens for c in sent) / sum(c.requests for c in sent) if sent else _TOKENS_EACH
        return allow(limit, ours.values(), others, was_refused=room.tokens is not None, tokens_each=each)

    async def _prove(self, rows: AsyncGenerator[Row, None]) -> bool:
        """One row is asked live, written and read back before a file of them is handed in (DECISIONS 17)."""
        session = self._session
        session.phase = "canary"
        session.is_proven = await open_the_tap(session, rows, Packer(session.work.job))
        session.phase = "running"
        return session.is_proven

    def _new_draft(self, allowed: Allowed) -> Draft:
        session, cells = self._session, self._session.work.target.spec.cells
        chunk = f"{session.opened.run_id}-{session.made + 1}"
        return Draft(
            chunk=chunk,
            path=session.folder.input(chunk),
            endpoint=session.errand.endpoint,
            price=session.errand.price,
            options=session.errand.options,
            tokens_most=allowed.tokens,
            cell=cells[0] if cells else "",
        )

    async def _fill(self, draft: Draft, rows: AsyncGenerator[Row, None]) -> None:
        self._session.phase = "filling"
        async for ask in self._asks(rows):
            try:
                fits = draft.add(ask)
            except ItemPermanent as odd:
                self._fail(ask, odd.reason, odd.what)
                continue
            if not fits and draft.rows:
                self._carried = ask
                return
            if not fits:
                self._fail(ask, "too large for a batch", f"it has {ask.tokens_in:,} tokens; the limit: {draft.full}")
        self._end_of_rows()

    def _fail(self, ask: Ask, reason: str, detail: str) -> None:
        self._session.settling.fail(ask.rows, reason, detail)
        self.unclaimed -= 1

    async def _asks(self, rows: AsyncGenerator[Row, None]) -> AsyncIterator[Ask]:
        """Prepared ahead while there are many; what was prepared beyond this file is for the next one."""
        selection = self._session.selection
        carried, self._carried = self._carried, None
        if carried is not None:
            yield carried
        if self._ready is None:
            self._ready = self._preparing.ahead(rows)
        async for ready in self._ready:
            if selection.limit_reached:
                self._session.pending_beyond = True
                return
            ask = selection.select(ready.row, ready.item)
            if ask is not None:
                self.unclaimed += 1
                yield ask

    def _end_of_rows(self) -> None:
        self.is_through = self._session.is_scanned = True
        self._ready = None

    def close(self) -> None:
        self._preparing.close()

    async def _send_live(self, rows: Sequence[Row]) -> None:
        """A few rows are not worth a day: they are asked now, at the live price."""
        session = self._session
        session.phase = "running"
        session.say(f"the last {len(rows)} rows go by the live road (--tail-live)")
        self.unclaimed -= len(rows)
        for row in rows:
            item = prepare(session.work.job, row, session.work.means)
            if isinstance(item, Ask):
                await session.in_flight.start(item)
            else:  # it was an Ask a moment ago: a job that is of two minds has a bug
                session.settling.fail([row], "internal error", "prepared differently a second time")
        await session.in_flight.all_back()
        await session.settle()

    async def _hand_in(self, draft: Draft) -> None:
        session = self._session
        refusal = await self._grant(draft)
        sha256 = draft.finish()
        fault_points.reach("batch.planned")
        chunk = self._chunk_of(draft, sha256)
        await session.database.insist(lambda: session.desk.open(session.lease, chunk))
        chunk = await self._claim(draft, chunk)
        session.chunks[chunk.chunk] = chunk
        session.made += 1
        session.phase = "running"
        await session.driving.drive(chunk)
        if refusal is not None:
            raise refusal

    def _chunk_of(self, draft: Draft, sha256: str) -> Chunk:
        session = self._session
        return Chunk(
            chunk=draft.chunk,
            run_id=session.opened.run_id,
            target=session.work.target.name,
            fingerprint=session.query.fingerprint,
            model=session.work.model,
            place=session.errand.place,
            endpoint=draft.endpoint,
            requests=len(draft.rows),
            tokens=draft.tokens,
            size_bytes=draft.size_bytes,
            sha256=sha256,
            reserved_usd=draft.worst_usd,
        )

    async def _claim(self, draft: Draft, chunk: Chunk) -> Chunk:
        """Sealed only when each of its rows is its own: an unsealed file is never uploaded."""
        session = self._session
        rows = [(row.n, row.key, row.guard, row.was) for row in draft.rows]
        claimed = await session.database.insist(lambda: session.desk.claim(session.lease, chunk, rows))
        fault_points.reach("batch.claimed")
        keys = [row.key for row in draft.rows]
        self.unclaimed -= len(keys)
        session.books.selected -= len(keys)
        sha256 = chunk.sha256
        if lost := frozenset(row.n for row in draft.rows) - claimed:
            session.say(f"{len(lost):,} rows are out in another batch already: they are left out")
            sha256 = draft.leave_out(lost)
        path = draft.path
        seal: dict[str, dict[str, object]] = {"input": {"sha256": sha256, "bytes": path.stat().st_size}}
        tally = session.settling.tally
        if tally.tokens_counted and tally.tokens_in:
            seal["usage"] = {"theirs": tally.tokens_in, "ours": tally.tokens_counted}
        sizes = {"sha256": sha256, "size_bytes": path.stat().st_size, "requests": len(draft.rows)}
        chunk = await session.provider.note(chunk, files=seal, **sizes)
        session.checkpoint.settled(keys)
        session.submitted += len(draft.rows)
        return chunk

    async def _grant(self, draft: Draft) -> CeilingReached | None:
        """The whole chunk at its worst, before anything is handed in; where that is too much, as much as there is.

        What is left out for want of money ends the visit, after the rest is handed in.
        """
        session = self._session
        if not session.asking.budget.is_limited:
            return None
        lump = await session.take_for_batch(draft.worst_usd)
        if lump.granted_usd + 1e-9 >= draft.worst_usd:
            return None
        out = draft.cut(lump.granted_usd)
        session.selection.admitted -= out
        self.unclaimed -= out
        session.books.to_do += out
        refusal = CeilingReached(
            f"the {lump.refused_by or 'run'}'s ceiling leaves no room for {out:,} more rows in a batch",
            scope=lump.refused_by or "run",
            fix="raise the ceiling, or wait until batches that are out are collected: they are reserved at their worst",
        )
        if draft.rows:
            return refusal
        draft.discard()
        raise refusal
