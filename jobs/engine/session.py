"""A run that holds its lease: replay, canary, the tap. All state of the work in progress is here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jobs.engine.answers import Answers
from jobs.engine.asking import Asking
from jobs.engine.books import Books
from jobs.engine.breaker import Breaker
from jobs.engine.budget import Budget
from jobs.engine.canary import open_the_tap
from jobs.engine.checkpoint import Checkpoint
from jobs.engine.closing import drain
from jobs.engine.concurrency import Slots
from jobs.engine.database import Database
from jobs.engine.delivery import Delivery, backlog_most
from jobs.engine.in_flight import InFlight
from jobs.engine.insistence import Insistence
from jobs.engine.lease import LeaseKeeper
from jobs.engine.opening import Opened
from jobs.engine.packing import Packer
from jobs.engine.past import Paid
from jobs.engine.rate_limit import RateLimit
from jobs.engine.replay import replay_journal
from jobs.engine.report import snapshot_of
from jobs.engine.scan import Scan
from jobs.engine.selection import Selection
from jobs.engine.settling import Settling
from jobs.engine.stop import Stop
from jobs.engine.tap import ask_for_all, candidates
from jobs.engine.verdict import Exit, Named
from jobs.engine.watch import Plan, Snapshot
from jobs.engine.work import Work
from jobs.engine.write_back import BACKLOG_MOST, WriteBack, paid_entry
from queries.errors import CatchupError
from queries.ledger import Lump, WriteBatch
from queries.table import PageQuery

_NAMED_MOST = 200
_GATHERED_AHEAD = 400  # texts of requests that are ready to leave
_PACKS_AT_ONCE = 8  # of packed requests: each is thousands of rows, and memory must not follow the table


class Session:
    """Owns the tasks of one process's part of a run; every exit leaves the books balanced."""

    def __init__(
        self, work: Work, database: Database, stop: Stop, opened: Opened, query: PageQuery, books: Books
    ) -> None:
        clock, options = work.clock, work.options
        self.work, self.opened, self.books, self.stop = work, opened, books, stop
        record = opened.record
        is_new_list = options.among is not None  # another run's cursor and bound say nothing of the rows listed now
        start = record.checkpoint if record and not (options.fresh or is_new_list) else query.above
        self.query = query if is_new_list else replace(query, upto=opened.upper or query.upto)
        self.checkpoint = Checkpoint(start)
        self.phase = "running"
        self.named: list[Named] = []
        self.pending_beyond = False
        self.started = clock.now()
        self.tap_opened_at: float | None = None
        self.scan = Scan(work.ledger, database, self.query, clock)
        packing = work.job.packing
        slots = Slots(options.concurrency, _PACKS_AT_ONCE) if packing else Slots(options.concurrency)
        self.backlog_most = backlog_most(work.target.embedding)
        self.keeper = LeaseKeeper(work.ledger, opened.lease, clock, self._cancelled, stop.ask_for)
        self._template = WriteBatch(
            write_id="",
            run_id=opened.run_id,
            generation=opened.lease.generation,
            target=work.target.name,
            fingerprint=query.fingerprint,
            spec=work.target.spec,
            model=work.model,
            prompt_hash=work.target.prompt_hash if work.target.keep_provenance else "",
        )
        self.writer = WriteBack(
            ledger=work.ledger,
            database=database,
            journal=opened.journal,
            checkpoint=self.checkpoint,
            books=books,
            clock=clock,
            template=self._template,
            on_named=self._name,
            on_cancel=self._cancelled,
            unconfirmed=self._unconfirmed,
        )
        self.delivery: Delivery | None = None
        if work.space is not None:
            service = Insistence(work.space.name, clock, options.max_outage_s)
            self.delivery = Delivery(work.space, service, self.writer, clock, self._end_by)
        # a run that goes on has admitted some of its --limit before
        done_before = record.books if record else {}
        self.selection = Selection(
            job=work.job,
            means=work.means,
            journal=opened.journal,
            writer=self.writer,
            books=books,
            stop=stop,
            crashes=opened.past.crashes if opened.past else {},
            answers=work.answers,
            deliver=self.deliver,
            admitted=sum(done_before.get(name, 0) for name in ("wrote", "failed", "changed", "gone")),
        )
        spent = record.spent_usd + record.possibly_usd if record else 0.0
        spent += opened.past.unbooked_usd if opened.past else 0.0
        self._answers: Answers | None = None
        if options.keep_answers_s is not None:
            self._answers = Answers(work.state_dir, work.ledger.road.where, work.target.name)
            self._answers.open(opened.run_id, options.keep_answers_s)
        budget = Budget(options.ceilings, self._take_lump, spent)
        self.settling = Settling(
            job=work.job,
            means=work.means,
            journal=opened.journal,
            writer=self.writer,
            budget=budget,
            stop=stop,
            deliver=self.deliver,
            keep=self._keep,
        )
        self.asking = Asking(
            job=work.job,
            means=work.means,
            service=work.service,
            clock=clock,
            journal=opened.journal,
            writer=self.writer,
            settling=self.settling,
            budget=budget,
            rate=work.rate or RateLimit(clock, options.max_per_min),
            slots=slots,
            breaker=Breaker(clock, options.max_outage_s),
            stores=(database, *([self.delivery.service] if self.delivery else []), *([work.hold] if work.hold else [])),
            stop=stop,
            may_pay=self.keeper.may_pay,
            account=work.account,
            insist=database.insist,
        )
        ahead = _GATHERED_AHEAD // packing.texts_most if packing else 1
        self.in_flight = InFlight(self.asking, slots, books, self._end_by, asyncio.Semaphore(max(1, ahead)))
        self.database = database
        self.background: list[asyncio.Task[None]] = []
        self.is_ending = False
        self.is_closed = False
        self.goes_on = False
        """Not stopped by anything, and not over: the next start goes on with it."""
        self.is_scanned = True
        """It reads all that is pending; one that waits for room, or only collects, has not."""
        self.in_journal = 0
        self.replayed = 0

    # --- the work ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until the scan is empty, the limit is reached, or something asks to stop."""
        self.keeper.confirmed_at = self.work.clock.lasting()
        self._spawn(self.keeper.keep())
        feed = asyncio.create_task(self._feed())
        asked = asyncio.create_task(self.stop.asked.wait())
        await asyncio.wait({feed, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not feed.done():
            feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
        if not feed.cancelled() and (error := feed.exception()) is not None:
            self._end_by(error)
        if self.stop.is_asked:
            await drain(self)

    async def _feed(self) -> None:
        await self.replay()
        self.phase = "canary"
        rows = candidates(self)
        packer = Packer(self.work.job, self.asking.rate.tokens_at_once)
        try:
            if self.work.options.is_proven or await open_the_tap(self, rows, packer):
                self.phase = "running"
                self.tap_opened_at = self.work.clock.now()
                self._spawn(self.writer.run())
                if self.delivery is not None:
                    self._spawn(self.delivery.run())
                await ask_for_all(self, rows, packer)
        finally:
            self.books.to_do += packer.rows
            await rows.aclose()
        await self.in_flight.all_back()
        await self.settle()

    async def settle(self) -> None:
        """All that is answered is where it belongs, and confirmed."""
        if self.delivery is not None:
            await self.delivery.flush()
        await self.writer.flush()

    def _keep(self, paid: Sequence[Paid]) -> None:
        if self._answers is not None and paid:
            self._answers.keep(self.work.made_by, paid)

    def deliver(self, paid: Paid, *, recovered: bool = False) -> None:
        """On its way to the database, by way of the space where there is one."""
        if self.delivery is not None and paid.vectors:
            self.delivery.put(paid, recovered=recovered)
        else:
            self.writer.put(paid_entry(paid, recovered=recovered))

    @property
    def free_rows(self) -> int:
        """Rows that need no call in this session."""
        return self.replayed + self.selection.kept

    @property
    def backlog(self) -> int:
        return self.writer.backlog + (self.delivery.backlog if self.delivery else 0)

    @property
    def is_behind(self) -> bool:
        """Enough is on its way; of vectors what is asked for counts too, or answers come in bursts and then none do."""
        asked = self.in_flight.rows if self.delivery else 0
        return self.backlog + asked > self.backlog_most

    @property
    def backlog_rows(self) -> int:
        return self.writer.backlog_rows + (self.delivery.backlog if self.delivery else 0)

    async def replay(self) -> None:
        """What an earlier process paid for is stored before anything new is asked."""
        if self.opened.past is not None:
            self.phase = "replaying the journal"
            found_again = partial(self.deliver, recovered=True)
            await replay_journal(self.opened.past, self.writer, found_again, self.books, self._template)
            await self.settle()
            self.replayed = self.books.selected
            self.selection.admitted += self.replayed

    def _end_by(self, error: BaseException) -> None:
        if isinstance(error, CatchupError):
            self.stop.ask_for(error)
        else:
            self.stop.ask_for_bug(error)

    # --- what others ask of it ---------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_background_end)
        self.background.append(task)

    def _note_background_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end_by(error)

    async def _take_lump(self, want_usd: float) -> Lump:
        ceilings = self.work.options.ceilings
        return await self.database.insist(
            lambda: self.work.ledger.take_lump(run_id=self.opened.run_id, want_usd=want_usd, ceilings=ceilings)
        )

    def _cancelled(self) -> None:
        self.stop.ask(Exit.STOPPED, "cancelled by `catchup runs cancel`")

    def _name(self, named: Named) -> None:
        if len(self.named) < _NAMED_MOST:
            self.named.append(named)

    def _unconfirmed(self) -> tuple[int, float]:
        """The most that may be paid and unseen until the next write: what another host must be told of."""
        packing = self.work.job.packing
        coming = self.in_flight.slots.size * (packing.texts_most if packing else 1) + BACKLOG_MOST // 4
        rows = self.backlog + (0 if self.is_ending else coming)
        asked = max(1, self.settling.tally.rows)
        return rows, rows * (self.asking.budget.spent_usd + self.asking.budget.possibly_usd) / asked

    def snapshot(self, plan: Plan | None) -> Snapshot:
        return snapshot_of(self, plan)
