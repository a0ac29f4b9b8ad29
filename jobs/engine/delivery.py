"""Vectors on their way to where they are kept: put there and seen there before their row may be called done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from jobs.embedding import Embedding
from jobs.engine import fault_points
from jobs.engine.clock import Clock
from jobs.engine.insistence import Insistence
from jobs.engine.past import Paid
from jobs.engine.write_back import BACKLOG_MOST, Entry, WriteBack, paid_entry
from queries.errors import ItemPermanent, Misconfigured
from queries.ledger import RowVerdict
from queries.table import Key
from queries.vectors import VectorRecord, VectorSpace

_WAITING_BYTES = 44 << 20  # of vectors asked for and not yet seen where they belong: a reader may lag by seconds
_METADATA_BYTES = 1_500  # beside a vector, about
_GROUP_MOST = 2_000  # rows that travel and are looked for together
_AGE_S = 0.3
_PUTS_AT_ONCE = 3  # each of them is several requests
# A reader of Pinecone may lag behind its writers: seconds as a rule, a minute on a bad day (UPSTREAMS P7).
_PATIENCE_S = 180.0
_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 2.0
_ALIKE_MOST = 20  # refusals in a row, with nothing taken between them, are no row's fault


@dataclass(slots=True, eq=False)
class _Group:
    """Rows that are on their way together; each leaves it as soon as its fate is known."""

    rows: dict[Key, tuple[Paid, bool]]
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Delivery:
    """Between the answer and the flag. What does not arrive stays in the journal, paid, and is put again next time."""

    space: VectorSpace
    service: Insistence
    writer: WriteBack
    clock: Clock
    on_fault: Callable[[BaseException], None]
    _waiting: list[tuple[Paid, bool]] = field(default_factory=list)
    _groups: list[_Group] = field(default_factory=list)
    _oldest_at: float = 0.0
    _refused: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _puts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PUTS_AT_ONCE))

    @property
    def backlog(self) -> int:
        return len(self._waiting) + sum(len(group.rows) for group in self._groups)

    def put(self, paid: Paid, *, recovered: bool = False) -> None:
        if not self._waiting:
            self._oldest_at = self.clock.now()
        self._waiting.append((paid, recovered))
        if len(self._waiting) >= _GROUP_MOST:
            self._start_group()
        else:
            self._more.set()

    async def run(self) -> None:
        """Sends what is old enough; a group that is full does not wait for this."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                age = self.clock.now() - self._oldest_at
                if len(self._waiting) < _GROUP_MOST and age < _AGE_S:
                    await self.clock.sleep(_AGE_S - age)
                    continue  # a flush may have taken them meanwhile
                self._start_group()

    async def flush(self) -> None:
        """All that came in has gone on to the writer when this returns; raises what kept it."""
        while self._waiting or self._groups:
            while self._waiting:
                self._start_group()
            tasks = [group.task for group in self._groups if group.task]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    def _start_group(self) -> None:
        rows, self._waiting = self._waiting[:_GROUP_MOST], self._waiting[_GROUP_MOST:]
        self._oldest_at = self.clock.now()
        group = _Group({paid.key: (paid, recovered) for paid, recovered in rows})
        group.task = task = asyncio.create_task(self._deliver(group, self._without_twins(group)))
        task.add_done_callback(partial(self._ended, group))
        self._groups.append(group)

    def _without_twins(self, group: _Group) -> list[Paid]:
        """Two records with one id are refused as a whole, now and whenever the journal brings them again."""
        rows = [paid for paid, _ in group.rows.values()]
        ids = [record.id for paid in rows for record in paid.vectors]
        if len(set(ids)) == len(ids):
            return rows
        taken: dict[str, Key] = {}
        alone = []
        for paid in rows:
            twin = next((record.id for record in paid.vectors if record.id in taken), None)
            if twin is None:
                taken |= {record.id: paid.key for record in paid.vectors}
                alone.append(paid)
            else:
                other = " ".join(taken[twin])
                self._fail(group, paid, "same id as another row", f"{other} has the id {twin[:80]} too")
        return alone

    def _ended(self, group: _Group, task: asyncio.Task[None]) -> None:
        """What has not gone on to the writer waits again, for the end of the run or the next one."""
        self._groups.remove(group)
        self._waiting += group.rows.values()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_fault(error)

    def cancel(self) -> None:
        for group in list(self._groups):
            if group.task is not None:
                group.task.cancel()

    async def _deliver(self, group: _Group, rows: Sequence[Paid]) -> None:
        records = [record for paid in rows for record in paid.vectors]
        try:
            async with self._puts:
                fault_points.reach("space.before")
                await self._put(records)
                fault_points.reach("space.put")
            self._refused = 0
        except ItemPermanent as refusal:
            await self._divide(group, rows, refusal)
            return
        unseen = await self._see(records)
        fault_points.reach("space.seen")
        drop = [id_ for paid in rows for id_ in paid.drop]
        if drop:  # only now: a reader must find the old ones or the new ones
            await self.service.insist(lambda: self.space.delete(drop))
        for paid in rows:
            if unseen and any(record.id in unseen for record in paid.vectors):
                self._fail(group, paid, "stored but never seen", "the service took it and no reader finds it")
            else:
                _, recovered = group.rows.pop(paid.key)
                self.writer.put(paid_entry(paid, recovered=recovered))

    async def _divide(self, group: _Group, rows: Sequence[Paid], refusal: ItemPermanent) -> None:
        """One record of many was refused: halves, down to the one."""
        if len(rows) == 1:
            self._refused += 1
            if self._refused >= _ALIKE_MOST:
                raise Misconfigured(
                    f"{self.space.where} refused {self._refused} rows in a row: {refusal.words or refusal.what}",
                    fix="look at the index and the target's metadata; --retry-failed takes these rows again",
                    service=self.space.name,
                )
            self._fail(group, rows[0], refusal.reason, refusal.words or refusal.what)
            return
        middle = len(rows) // 2
        for part in (rows[:middle], rows[middle:]):
            await self._deliver(group, part)

    async def _see(self, records: Sequence[VectorRecord]) -> frozenset[str]:
        """Waits until a reader finds them; what is late is put once more. Returns what never came."""
        by_id = {record.id: record for record in records}
        missing, started, wait, again = set(by_id), self.clock.now(), _FIRST_LOOK_S, False
        while True:
            missing -= await self._look(missing)
            if not missing:
                return frozenset()
            waited = self.clock.now() - started
            if waited > _PATIENCE_S:
                break
            if waited > _PATIENCE_S / 2 and not again:
                again = True
                await self._put([by_id[id_] for id_ in sorted(missing)])
            await self.clock.sleep(wait)
            wait = min(_LONGEST_LOOK_S, wait * 1.6)
        if len(missing) == len(by_id):
            raise Misconfigured(
                f"{self.space.where} took {len(by_id)} vectors and shows none of them after {_PATIENCE_S:.0f} s",
                fix="look at the index and the namespace; the vectors are in the journal and are not paid for again",
                service=self.space.name,
            )
        return frozenset(missing)

    async def _put(self, records: Sequence[VectorRecord]) -> None:
        await self.service.insist(lambda: self.space.put(records))

    async def _look(self, ids: Iterable[str]) -> frozenset[str]:
        wanted = sorted(ids)
        return await self.service.insist(lambda: self.space.seen(wanted))

    def _fail(self, group: _Group, paid: Paid, reason: str, detail: str) -> None:
        del group.rows[paid.key]
        verdict = RowVerdict(paid.key, paid.guard, "failed", reason, detail[:500])
        self.writer.put(Entry(paid.key, paid.guard, verdict=verdict))


def backlog_most(embedding: Embedding | None) -> int:
    """Rows that may be paid and on their way: bounded by what their vectors hold in memory."""
    if embedding is None:
        return BACKLOG_MOST
    return max(BACKLOG_MOST, _WAITING_BYTES // (4 * embedding.dimensions + _METADATA_BYTES))
