"""Puts results into the database in groups, under the guard, and books only what it confirmed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.engine import fault_points
from jobs.engine.books import Books
from jobs.engine.checkpoint import Checkpoint
from jobs.engine.clock import Clock
from jobs.engine.database import Database
from jobs.engine.database_load import PieceSize
from jobs.engine.journal import Journal
from jobs.engine.past import Paid
from jobs.engine.verdict import Named
from queries.errors import DataRejected, StatementTimeout
from queries.ledger import Ledger, RowVerdict, Spend, WriteBatch, WriteResult, WriteRow
from queries.table import Key

_FLUSH_S = 1.0  # also the bound of what another host could not see after our death
BACKLOG_MOST = 2_000
# Of one statement, which grows while it takes less than half a second. Each costs a sync of the journal and a commit:
# 1,000 rows at a time held a run of vectors back by a tenth (2026-11-22).
_ROWS_MOST, _BYTES_MOST = 2_000, 8_000_000
_ROW_BYTES = 200  # of its key, guard and former cells


@dataclass(slots=True)
class Entry:
    """One settled row on its way: a text to write, an exception to remember, or (both) a text to take back."""

    key: Key
    guard: str
    write: WriteRow | None = None
    verdict: RowVerdict | None = None
    recovered: bool = False


@dataclass(slots=True)
class WriteBack:
    """The only writer of a run: one batch in flight, each with its own id, journaled before it is sent.

    `gone` are rows that were deleted while their vectors were on the way, and how many those are.
    """

    ledger: Ledger
    database: Database
    journal: Journal
    checkpoint: Checkpoint
    books: Books
    clock: Clock
    template: WriteBatch
    on_named: Callable[[Named], None]
    on_cancel: Callable[[], None]
    unconfirmed: Callable[[], tuple[int, float]]
    recovered: set[Key] = field(default_factory=set)
    last_written: Key | None = None
    gone: dict[Key, int] = field(default_factory=dict)
    _pending: list[Entry] = field(default_factory=list)
    _leaving: list[Entry] = field(default_factory=list)
    _unsure: tuple[WriteBatch, Sequence[Entry]] | None = None
    _oldest_at: float | None = None
    _size: PieceSize = field(default_factory=lambda: PieceSize(start=500, most=_ROWS_MOST, bytes_most=_BYTES_MOST))
    _unbooked: Spend = field(default_factory=Spend)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def backlog(self) -> int:
        return len(self._pending) + (len(self._unsure[1]) if self._unsure else 0)

    def spend(self, spend: Spend) -> None:
        """Money on its way to the ledger: it travels with the next batch."""
        self._unbooked = _add(self._unbooked, spend)

    def put(self, entry: Entry) -> None:
        self._pending.append(entry)
        if self._oldest_at is None:
            self._oldest_at = self.clock.now()
        self._more.set()

    def take_back(self, key: Key) -> Entry | None:
        """Removes a text that has not left yet; None when it has."""
        for index, entry in enumerate(self._pending):
            if entry.key == key and entry.write is not None:
                return self._pending.pop(index)
        return None

    async def run(self) -> None:
        """Writes when a group is full or a second old."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._pending:
                age = self.clock.now() - (self._oldest_at or 0.0)
                if len(self._pending) < self._size.rows and age < _FLUSH_S:
                    await self.clock.sleep(min(0.05, _FLUSH_S - age))
                    continue
                await self._flush_some()

    @property
    def backlog_rows(self) -> int:
        """Selected rows that are still on their way (a text being taken back was booked long ago)."""
        waiting = [*self._pending, *(self._unsure[1] if self._unsure else ())]
        return sum(1 for entry in waiting if not (entry.write and entry.verdict))

    async def flush(self, *, finally_: bool = False) -> None:
        """All that is settled is confirmed, or named, when this returns; the last one says that nothing is open."""
        while self._pending or self._unsure or self._unbooked != Spend() or finally_:
            finally_ = finally_ and (self._unsure is not None or len(self._pending) > self._size.rows)
            await self._flush_some()

    async def _flush_some(self) -> None:
        async with self._turn:
            if self._unsure is not None:
                await self._resolve(*self._unsure)
                return
            self._leaving = self._pending[: self._size.rows]
            del self._pending[: len(self._leaving)]
            self._oldest_at = self.clock.now() if self._pending else None
            try:
                await self._write(self._leaving)
            finally:
                unsure: set[Key] = {entry.key for entry in self._unsure[1]} if self._unsure else set()
                self._pending[:0] = [entry for entry in self._leaving if entry.key not in unsure]
                self._leaving = []

    async def _resolve(self, batch: WriteBatch, part: Sequence[Entry]) -> None:
        """A batch that left and was never answered; if it turns out to be rolled back, its rows go again in pieces."""
        try:
            await self._deliver(batch, part)
        except (StatementTimeout, DataRejected):
            self._pending[:0] = part

    async def _write(self, entries: Sequence[Entry]) -> None:
        todo = [list(entries)]
        while todo:
            part = todo.pop(0)
            try:
                await self._send(self._batch(part), part)
            except StatementTimeout:
                if not self._size.timed_out() or len(part) == 1:
                    raise
                todo[:0] = _halves(part)
            except DataRejected as refusal:
                if len(part) > 1:
                    todo[:0] = _halves(part)
                else:
                    todo.insert(0, [self._as_failed(part[0], refusal)])

    def _batch(self, part: Sequence[Entry]) -> WriteBatch:
        spend, self._unbooked = self._unbooked, Spend()
        back = sum(1 for e in part if e.write and e.verdict)
        unconfirmed, unconfirmed_usd = self.unconfirmed()
        skipped = sum(1 for e in part if e.verdict and e.verdict.state == "skipped")
        failed = sum(1 for e in part if e.verdict and e.verdict.state == "failed")
        return replace(
            self.template,
            write_id=str(uuid.uuid4()),
            rows=[e.write for e in part if e.write is not None],
            verdicts=[e.verdict for e in part if e.verdict is not None],
            # a text taken back is confirmed like any write, but it takes one away
            books={"skipped": skipped, "failed": failed, "wrote": -2 * back},
            checkpoint=self.checkpoint.would_be(e.key for e in part),
            spend=spend,
            unconfirmed=unconfirmed,
            unconfirmed_usd=unconfirmed_usd,
        )

    async def _send(self, batch: WriteBatch, part: Sequence[Entry]) -> None:
        self.journal.writing(batch.write_id, _intent(batch, part))
        self._unsure = (batch, part)
        await self.journal.sync()
        fault_points.reach("write.before")
        await self._deliver(batch, part)

    async def _deliver(self, batch: WriteBatch, part: Sequence[Entry]) -> None:
        """Until its outcome is known a batch keeps its id: asked again, the ledger says what became of it."""
        started = self.clock.now()
        try:
            result = await self.database.insist(lambda: self.ledger.write(batch), shrinks=True)
        except (StatementTimeout, DataRejected):
            self._unsure = None
            self.journal.voided(batch.write_id)
            self._unbooked = _add(self._unbooked, batch.spend)
            raise
        fault_points.reach("write.sent")
        self._unsure = None
        self._book(part, result)
        self.journal.confirmed(batch.write_id)
        fault_points.reach("write.confirmed")
        await self.journal.shorten()
        self._size.worked(len(part), self.clock.now() - started, _weigh(batch))
        if result.cancel_asked:
            self.on_cancel()

    async def repeat(self, batch: WriteBatch) -> None:
        """Asks again about a batch that was on its way when the process died: same id, same outcome."""
        verdicts = {verdict.key: verdict for verdict in batch.verdicts}
        part = [Entry(row.key, row.guard, row, verdicts.pop(row.key, None), recovered=True) for row in batch.rows]
        part += [Entry(verdict.key, verdict.guard, verdict=verdict) for verdict in verdicts.values()]
        await self._resolve(batch, part)

    def _book(self, part: Sequence[Entry], result: WriteResult) -> None:
        index = 0
        for entry in part:
            if entry.write is not None:
                self._book_write(index, entry, result)
                index += 1
            elif entry.verdict is not None:
                self._book_verdict(entry.verdict)
        keys = {entry.key for entry in part}
        self._leaving = [entry for entry in self._leaving if entry.key not in keys]
        self.checkpoint.settled(keys)

    def _book_write(self, index: int, entry: Entry, result: WriteResult) -> None:
        if entry.verdict is not None:  # a text taken back: it had been booked as written
            if index in result.wrote:
                self.books.wrote -= 1
                self._book_verdict(entry.verdict)
        elif index in result.wrote:
            self.books.wrote += 1
            if entry.recovered:
                self.recovered.add(entry.key)
            self.last_written = entry.key
        elif index in result.gone:
            self.books.gone += 1
            if entry.write is not None and entry.write.elsewhere and len(self.gone) < BACKLOG_MOST:
                self.gone[entry.key] = entry.write.parts
            self.on_named(Named(self.ledger.show(entry.key), "gone", "gone", "the row was deleted while we worked"))
        else:
            self.books.changed += 1
            why = result.changed.get(index, "not as it was read")
            self.on_named(Named(self.ledger.show(entry.key), "changed", why, "left as it is; it is a candidate again"))

    def _book_verdict(self, verdict: RowVerdict) -> None:
        ledger = self.books.skipped if verdict.state == "skipped" else self.books.failed
        ledger[verdict.reason] += 1
        if verdict.state == "failed":
            self.on_named(Named(self.ledger.show(verdict.key), "failed", verdict.reason, verdict.detail))

    def _as_failed(self, entry: Entry, refusal: DataRejected) -> Entry:
        detail = f"{refusal.code} {refusal.words or refusal.what}".strip()
        if entry.write is None:  # a verdict itself was refused: its detail is the only free text in it
            detail = "the detail could not be stored"
        verdict = RowVerdict(entry.key, entry.guard, "failed", f"refused by the database ({refusal.reason})", detail)
        return Entry(entry.key, entry.guard, verdict=verdict)


def paid_entry(paid: Paid, *, recovered: bool = False) -> Entry:
    return Entry(paid.key, paid.guard, write=write_row(paid), recovered=recovered)


def write_row(paid: Paid) -> WriteRow:
    parts = paid.kept or max(1, len(paid.vectors))
    return WriteRow(
        paid.key, paid.guard, paid.was, paid.cells, parts, elsewhere=bool(paid.vectors), is_sent=paid.is_sent
    )


def _intent(batch: WriteBatch, part: Sequence[Entry]) -> Mapping[str, object]:
    """What a repetition needs beside the texts, which the journal already has (but for those taken back)."""
    back = [e.write for e in part if e.write is not None and e.verdict is not None]
    return {
        "back": [{"k": row.key, "g": row.guard, "w": dict(row.was), "c": dict(row.cells)} for row in back],
        "keys": [row.key for row in batch.rows],
        "verdicts": [[v.key, v.guard, v.state, v.reason, v.detail] for v in batch.verdicts],
        "books": dict(batch.books),
        "checkpoint": batch.checkpoint,
        "usd": batch.spend.usd,
        "possibly_usd": batch.spend.possibly_usd,
        "calls": batch.spend.calls,
        "tokens": [batch.spend.tokens_in, batch.spend.tokens_out],
    }


def _weigh(batch: WriteBatch) -> int:
    """About its bytes on the way."""
    return sum(_ROW_BYTES + sum(len(cell or "") for cell in row.cells.values()) for row in batch.rows)


def _halves(part: Sequence[Entry]) -> list[list[Entry]]:
    middle = len(part) // 2
    return [list(part[:middle]), list(part[middle:])]


def _add(one: Spend, two: Spend) -> Spend:
    return Spend(
        one.calls + two.calls,
        one.tokens_in + two.tokens_in,
        one.tokens_out + two.tokens_out,
        one.usd + two.usd,
        one.possibly_usd + two.possibly_usd,
    )
