"""submit-batch from start to verdict: the engine's run, with another session and another plan."""

from __future__ import annotations

from dataclasses import replace

from jobs.batching.options import BatchWork
from jobs.batching.report import NAME, verdict_of_batches
from jobs.batching.session import BatchSession
from jobs.batching.survey import Survey, facts_of, lines_of, say_queued, survey, tokens_most, usd_of
from jobs.engine.opening import Opened, Opening, check_ledger
from jobs.engine.run import Run
from jobs.engine.session import Session
from jobs.engine.verdict import Verdict
from jobs.engine.watch import Plan, Snapshot
from queries.batch_ledger import Room
from queries.errors import Misconfigured
from queries.ledger import RunRecord
from queries.table import PageQuery, TableFacts


class BatchRun(Run):
    def __init__(self, errand: BatchWork) -> None:
        super().__init__(errand.work)
        self.errand = errand
        self.name = NAME
        self._means = replace(self._means, price=errand.price)
        self._found = Survey()

    async def go(self) -> Verdict:
        verdict = await super().go()
        session = self.session if isinstance(self.session, BatchSession) else None
        return verdict_of_batches(verdict, session, self.errand)

    def _begin(self, opened: Opened) -> Session:
        return BatchSession(self.errand, self._database, self.stop, opened, self._query(), self.books)

    async def _make_plan(self, facts: TableFacts, query: PageQuery) -> Plan:
        """A dry run counts; a real one is shown the usual sample at the price of batches."""
        plan = await super()._make_plan(facts, query)
        if not self.work.options.dry_run:
            return replace(plan, job=self.name)
        errand = self.errand
        self._plan = plan
        found, room = await self._survey(query)
        queued = await say_queued(errand, set(room.chunks))
        return replace(
            plan,
            job=self.name,
            pending_counted=found.rows,
            pending_is_floor=False,
            pending_estimate=None,
            estimate_usd=usd_of(found, errand)[0],
            sampled_rows=found.rows,
            tokens_in_per_row=found.tokens / found.requests if found.requests else 0.0,
            samples=tuple(found.samples),
            would_skip=tuple(found.skips.most_common()),
            own=lines_of(found, errand, room, queued),
            facts=facts_of(found, errand, room),
        )

    async def survey(self) -> tuple[Survey, Room]:
        """Counts, without a plan around it."""
        self._hello = await self._greet()
        check_ledger(self._hello, self.work.target)
        return await self._survey(self._query())

    async def _survey(self, query: PageQuery) -> tuple[Survey, Room]:
        errand, desk = self.errand, self.errand.desk
        room = await self._database.insist(lambda: desk.room(errand.place, self.work.model))
        self.phase = "counting"
        await survey(self._found, errand, self._database, query, tokens_most(errand, room))
        return self._found, room

    def snapshot(self) -> Snapshot:
        seen = super().snapshot()
        if self.phase != "counting":
            return seen
        plan = self._plan
        total = (plan.pending_estimate if plan.pending_is_floor else plan.pending_counted) if plan else None
        rows = self._found.rows
        return replace(seen, counted=rows, total_estimate=total, per_min=60 * rows / max(1.0, seen.seconds))

    async def _facts(self) -> TableFacts:
        await self._refuse_beside_paid()
        return await super()._facts()

    async def _refuse_beside_paid(self) -> None:
        """Answers that a live run has paid for and not stored would be bought again."""
        work = self.work
        of = (work.target.name, work.options.slice, work.job.name)
        record = await self._database.insist(lambda: work.ledger.unfinished_run(*of))
        if record is not None and record.unconfirmed:
            raise Misconfigured(
                f"run {record.run_id} of {record.job} has up to {record.unconfirmed} paid answers that are not stored",
                fix=f"let it store them first: `catchup runs resume {record.run_id}`",
            )

    async def _give_up(self, opening: Opening, record: RunRecord) -> None:
        desk = self.errand.desk
        chunks = await self._database.insist(lambda: desk.chunks(run_id=record.run_id, open_only=True))
        if chunks:
            names = ", ".join(chunk.chunk for chunk in chunks)
            raise Misconfigured(
                f"{names} of run {record.run_id} were handed in with other settings and are not collected yet",
                fix="collect them with the old settings, or give up what they bring: "
                "`catchup batches cancel CHUNK --abandon`",
            )
        await super()._give_up(opening, record)
