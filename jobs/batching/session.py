"""One visit to the provider under the lease: what is there is collected, what fits is handed in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from jobs.batching.collecting import Collecting
from jobs.batching.driving import Driving
from jobs.batching.folder import Folder
from jobs.batching.options import BatchWork
from jobs.batching.provider import Provider
from jobs.batching.sending import Sending
from jobs.engine.books import Books
from jobs.engine.database import Database
from jobs.engine.opening import Opened
from jobs.engine.scan import Scan
from jobs.engine.session import Session
from jobs.engine.stop import Stop
from jobs.engine.tap import candidates
from jobs.engine.verdict import Exit
from jobs.engine.watch import Plan, Snapshot
from queries.batch_ledger import Chunk
from queries.errors import CatchupError
from queries.ledger import Lump
from queries.table import Key, PageQuery, Row

POLL_S = 30.0
_BACK_AT_ONCE = 200
_COUNTED_S = 5.0


class BatchSession(Session):
    """Rows that are out count in no book until they are settled; at the end they are to do."""

    def __init__(
        self,
        errand: BatchWork,
        database: Database,
        stop: Stop,
        opened: Opened,
        query: PageQuery,
        books: Books,
    ) -> None:
        super().__init__(errand.work, database, stop, opened, query, books)
        self.scan = Scan(errand.work.ledger, database, self.query, errand.work.clock)
        self.errand = errand
        self.desk = errand.desk
        self.lease = opened.lease
        self.chunks: dict[str, Chunk] = {}
        self.made = 0
        self.back = 0
        self.collected_usd = 0.0
        self.at_work = ""
        self.waiting_for = ""
        self.said: list[str] = []
        self.collected: dict[str, int] = {}
        self.submitted = 0
        self._taken_up: set[Key] = set()
        self.is_scanned = False
        self._ratio = 1.0
        self.is_proven = False
        self.folder = Folder(errand.work.state_dir)
        self.provider = Provider(errand, database, opened.lease, self.folder, self._note_bytes)
        self.collecting = Collecting(self, self.say)
        self.driving = Driving(self)
        self.sending = Sending(self)
        self._open_rows = 0

    # --- the visit ---------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        await self.replay()
        self.folder.prepare()
        await self._take_over()
        self.selection.admitted += sum(chunk.out for chunk in self.chunks.values())  # by earlier visits, and not back
        self.is_proven = self.made > 0 or bool(self.opened.record and self.opened.record.books.get("wrote"))
        self.folder.sweep(self.opened.run_id, self.chunks)
        await self._learn_ratio()
        self._spawn(self.writer.run())
        if self.delivery is not None:
            self._spawn(self.delivery.run())
        rows = self.candidates()
        try:
            while not self.stop.is_asked:
                await self.driving.drive_all()
                if self.stop.is_asked:
                    break
                sent = await self.sending.send(rows)
                await self._take_over()
                if self.sending.is_through:
                    await rows.aclose()
                    rows = self.candidates()
                if sent:
                    continue
                if not self.has_more:
                    break
                if not self.errand.options.watch:
                    break
                await self._wait()
        finally:
            self.sending.close()
            await rows.aclose()
        await self.in_flight.all_back()
        await self.settle()
        self.goes_on = self.has_more

    async def _take_over(self) -> None:
        taken = await self.database.insist(lambda: self.desk.take(self.lease, self.work.target.name))
        odd = [chunk.chunk for chunk in taken.chunks if chunk.fingerprint != self.query.fingerprint]
        if odd:
            self.stop.ask(
                Exit.REFUSED,
                f"{', '.join(odd)} was handed in with another prompt, model or setting",
                "collect it with the old settings, or give it up: `catchup batches cancel --abandon`",
            )
        away = {chunk.place: chunk.chunk for chunk in taken.chunks if chunk.place != self.errand.place}
        for place, chunk in away.items():
            self.stop.ask(
                Exit.REFUSED,
                f"{chunk} was handed in at {place}, and this visit is to {self.errand.place}",
                "set OPENAI_BASE_URL as it was, or give it up: `catchup batches cancel --abandon`",
            )
        self.chunks = {chunk.chunk: chunk for chunk in taken.chunks}
        self.made, self.back = taken.made, taken.back

    @property
    def ratio(self) -> float:
        """Their count of tokens by ours: the limit is in theirs. Never below one; by answers, or by earlier ones."""
        tally = self.settling.tally
        if tally.tokens_counted and tally.tokens_in:
            return _sane(tally.tokens_in / tally.tokens_counted)
        return self._ratio

    async def _learn_ratio(self) -> None:
        target = self.work.target.name
        for chunk in await self.database.insist(lambda: self.desk.chunks(target=target, limit=5)):
            usage = chunk.files.get("usage")
            if usage and chunk.model == self.work.model:
                self._ratio = _sane(usage["theirs"] / usage["ours"])
                return

    async def _wait(self) -> None:
        self.phase = "waiting"
        await self.work.clock.sleep(POLL_S + self.work.clock.jitter(POLL_S))
        self.phase = "running"

    @property
    def has_more(self) -> bool:
        """Something is at the provider, or has still to go there and may."""
        return bool(self.chunks) or (not self.errand.options.collect_only and (self.back > 0 or not self.is_scanned))

    async def run(self) -> None:
        await super().run()
        await self._count_open()

    async def _count_open(self) -> None:
        """By the ledger, row by row: what is out or has come back is to do."""
        with contextlib.suppress(CatchupError):  # it is away: then as it was seen last
            async with asyncio.timeout(_COUNTED_S):
                await self._take_over()
        out = sum(chunk.out for chunk in self.chunks.values()) + self.back
        self._open_rows = max(0, out - self.backlog_rows)  # those on their way are booked when they have arrived
        self.books.selected += self._open_rows
        self.books.to_do += self._open_rows
        if self.stop.is_asked or self.has_more:
            self.books.to_do += self.sending.unclaimed

    @property
    def free_rows(self) -> int:
        return super().free_rows + self.books.to_do

    # --- rows --------------------------------------------------------------------------------------------

    async def candidates(self) -> AsyncGenerator[Row, None]:
        """First those that came back, then what the scan finds behind its cursor: each row once."""
        async for row in self._came_back():
            self._taken_up.add(row.key)
            yield row
        if self.is_scanned:
            return
        async for row in candidates(self):
            if row.key not in self._taken_up:
                yield row

    async def _came_back(self) -> AsyncGenerator[Row, None]:
        query, after = replace(self.query, limit=_BACK_AT_ONCE), ("", -1)
        run_id = self.opened.run_id
        while page := await self.database.insist(lambda after=after: self.desk.back(query, run_id, after)):  # type: ignore[misc]
            lost = [sent.key for sent in page if sent.row is None or not sent.is_pending]
            if lost:
                await self.forget(lost)
            for sent in page:
                if sent.row is not None and sent.is_pending:
                    yield sent.row
            after = (page[-1].chunk, page[-1].n)

    async def forget(self, keys: Sequence[Key]) -> None:
        await self.database.insist(lambda: self.desk.forget_back(self.lease, self.work.target.name, keys))
        self.back -= len(keys)

    async def put_back(self, chunk: Chunk, reason: str, rows: Sequence[int] | None, *, counts: bool = False) -> None:
        """Rows that got no answer are sent again: they have not been admitted for anything yet."""
        came = await self.database.insist(
            lambda: self.desk.put_back(self.lease, chunk.chunk, reason, rows, counts=counts)
        )
        self.back += came
        self.selection.admitted -= came

    # --- money -------------------------------------------------------------------------------------------

    async def wait_until_may_pay(self) -> None:
        while not self.keeper.may_pay():
            await self.work.clock.sleep(0.2)

    async def take_for_batch(self, worst_usd: float) -> Lump:
        return await self._take_lump(worst_usd)

    async def give_back(self) -> None:
        """What a collected batch held beyond its cost is free for the next one, while we are still here."""
        budget, record = self.asking.budget, self.opened.record
        if not budget.is_limited:
            return
        before = record.spent_usd + record.possibly_usd if record else 0.0
        held = sum(chunk.reserved_usd for chunk in self.chunks.values())
        needed = before + held + self.collected_usd + budget.granted_usd
        await self.database.insist(
            lambda: self.work.ledger.settle_run(self.opened.run_id, spent_usd=needed, possibly_usd=0.0)
        )

    async def book_lost(self, chunk: Chunk) -> None:
        """Nobody can say any more what it cost: at its worst, and as possible."""
        self.collecting.book_possibly((chunk.chunk,), chunk.reserved_usd)
        await self.settle()

    # --- what others ask of it ---------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Once to whoever watches, and again in the verdict."""
        if text not in self.said:
            self.said.append(text)
            self.work.watcher.notice(text)

    def note_closed(self, chunk: Chunk) -> None:
        for how, rows in chunk.books.items():
            self.collected[how] = self.collected.get(how, 0) + rows

    def _note_bytes(self, chunk: str, done: int, of: int) -> None:
        self.at_work = f"{chunk}: {done / 1e6:,.1f} of {of / 1e6:,.1f} MB"

    def snapshot(self, plan: Plan | None) -> Snapshot:
        seen = super().snapshot(plan)
        waiting = seen.waiting_for or self.provider.service.waiting_for
        if not waiting and self.phase == "waiting":
            waiting = self.waiting_for or f"{len(self.chunks)} batches at the provider"
        spent = seen.spent_usd + self.collected_usd
        counted = self.submitted + self.sending.unclaimed if self.phase == "filling" else 0
        bound_by = self.at_work or seen.bound_by
        return replace(seen, waiting_for=waiting, spent_usd=spent, bound_by=bound_by, counted=counted)


def _sane(ratio: float) -> float:
    return min(3.0, max(1.0, ratio))
