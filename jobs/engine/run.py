"""One run from start to verdict. Read this file first; every step it names is a file beside it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from jobs.engine import closing, fault_points, plan
from jobs.engine.books import Books
from jobs.engine.database import Database
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.destination import check_destination
from jobs.engine.insistence import Insistence
from jobs.engine.opening import Opened, Opening, check_ledger, check_table, query_of, run_params, say_filling
from jobs.engine.report import Ending, refused, say_going_on, verdict_of
from jobs.engine.session import Session
from jobs.engine.state_dir import StateDir
from jobs.engine.stop import Stop, explain
from jobs.engine.verdict import Exit, Verdict
from jobs.engine.watch import Plan, Snapshot
from jobs.engine.work import Work
from queries.errors import CatchupError, Misconfigured
from queries.ledger import Hello, RunRecord
from queries.table import PageQuery, TableFacts

_TICK_S = 0.1
_EDITED_MOST = 200_000  # rows: about a second of the database, if each is a kilobyte


class Run:
    """Nothing operational leaves `go` as an exception: every end is a verdict with its exit code."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.name = work.job.name
        self.stop = Stop()
        self.books = Books()
        self.phase = "preflight"
        self.session: Session | None = None
        self._started = work.clock.now()
        load = DatabaseLoad(work.options.db_load, work.clock)
        self._database = Database(load, work.ledger, work.clock, work.options.max_outage_s)
        self._means = replace(work.means, is_plan=True)
        self._params = run_params(work.target, work.model, work.options)
        self._fingerprint = work.target.fingerprint(work.model, self._params)
        self._notes: list[str] = [work.tokens.note] if work.tokens.note and not work.price.is_free else []
        self._notes += [say_filling(work.target)] if work.target.replaces else []
        self._plan: Plan | None = None
        self._hello: Hello | None = None

    def ask_stop(self, exit_: Exit, why: str) -> None:
        """No new paid request from now on; what is in flight may finish within the grace."""
        fault_points.reach("signal.received")
        self.stop.ask(exit_, why)

    def snapshot(self) -> Snapshot:
        if self.session is not None:
            return self.session.snapshot(self._plan)
        seconds = self.work.clock.now() - self._started
        limit = self.work.options.ceilings.run_usd
        return Snapshot(self.phase, self.books, 0, 0.0, "", 0.0, 0.0, limit, None, seconds, self._database.waiting_for)

    async def go(self) -> Verdict:
        beside = [asyncio.create_task(self._show()), asyncio.create_task(self._watch_the_clock())]
        work = asyncio.create_task(self._dry_run() if self.work.options.dry_run else self._run())
        asked = asyncio.create_task(self.stop.asked.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if self.session is None:  # nothing is paid yet, so nothing is worth waiting for
                work.cancel()
            return await work
        except asyncio.CancelledError:
            return verdict_of(self._ending())
        except CatchupError as error:
            return refused(self._ending(), error, explain(error))
        except Exception as bug:  # a fault of ours before the work began: it gets a verdict like any other end
            self.stop.ask_for_bug(bug)
            return verdict_of(self._ending())
        finally:
            for task in (*beside, asked):
                task.cancel()
            fault_points.reach("exit.report")

    async def _show(self) -> None:
        while True:
            self.work.watcher.progress(self.snapshot())
            await self.work.clock.sleep(_TICK_S)

    async def _watch_the_clock(self) -> None:
        limit = self.work.options.max_runtime_s
        if limit is not None:
            await self.work.clock.sleep(limit)
            self.stop.ask(Exit.STOPPED, f"the runtime limit of {limit:.0f} s is reached")

    def _ending(self) -> Ending:
        return Ending(
            self.work, self.books, self.stop, self.session, self._plan, self._hello, self._notes, self._started
        )

    # --- dry run -----------------------------------------------------------------------------------------

    async def _dry_run(self) -> Verdict:
        """Reads only: no ledger row, no lease, no file of ours."""
        work, hello = self.work, await self._greet()
        if hello.schema_version is None:
            await check_destination(work, None, self._database.insist)
            await self._look_at_receiver()
            made = await plan.before_migrate(work.job, self._means, work.ledger.road, work.service.name)
            self._plan = await self._with_account(made)
        else:
            self._hello = hello
            facts = await self._facts()
            work = self._decide_on_edited(facts)
            self._notes += check_table(work.target, facts)
            await check_destination(work, facts, self._database.insist)
            await self._look_at_receiver()
            self._plan = await self._make_plan(facts, self._query())
        self.books.selected = self.books.to_do = self._plan.pending_counted
        self.work.watcher.plan(self._plan)
        return verdict_of(self._ending())

    # --- real run ----------------------------------------------------------------------------------------

    async def _run(self) -> Verdict:
        state = StateDir(self.work.state_dir)
        state.prepare()
        opening = self._opening(state)
        home = opening.hold()
        try:
            self._hello = await self._greet()
            check_ledger(self._hello, self.work.target)
            facts = await self._facts()
            self._decide_on_edited(facts)
            self._notes += check_table(self.work.target, facts)
            await check_destination(self.work, facts, self._database.insist)
            await self._look_at_receiver()
            record = await opening.earlier(home)
            if record is not None and (record.fingerprint != self._fingerprint or self.work.options.only):
                await self._give_up(opening, record)
                record = None
            if record is not None:
                plan.refuse_new_triggers(plan.new_triggers(facts, record), self.work.options)
            elif not await self._agreed(facts):
                raise Misconfigured("not confirmed: nothing was done", fix="say --yes, or a smaller --limit")
            opened = await opening.take(home, record)
            return await self._work_through(opened)
        finally:
            state.unlock(opening.lock)

    async def _greet(self) -> Hello:
        work = self.work
        return await self._database.insist(lambda: work.ledger.hello(work.target.spec, work.target.name))

    async def _facts(self) -> TableFacts:
        spec = self.work.target.spec
        facts = await self._database.insist(lambda: self.work.ledger.facts(spec))
        return facts if spec.cells else replace(facts, triggers=(), publications=())  # no row is written: none fires

    def _decide_on_edited(self, facts: TableFacts) -> Work:
        """No index finds a text that was edited; walking a large table for it is an operator's decision."""
        options = self.work.options
        if options.edited_if_small and facts.estimated_rows > _EDITED_MOST:
            self.work = replace(self.work, options=replace(options, redo=None))
            self._notes.append(
                f"edited texts are not looked for in a table of ~{facts.estimated_rows:,} rows: --edited does, "
                "and `catchup verify` finds them"
            )
        return self.work

    async def _look_at_receiver(self) -> None:
        if self.work.ready is not None:
            patience = Insistence(self.work.service.name, self.work.clock, self.work.options.max_outage_s)
            self._notes += await patience.insist(self.work.ready)

    def _opening(self, state: StateDir) -> Opening:
        work = self.work
        return Opening(
            work.ledger,
            self._database,
            state,
            work.target,
            self.name,
            self._fingerprint,
            self._params,
            work.options,
            work.ledger.road.where,
        )

    async def _agreed(self, facts: TableFacts) -> bool:
        """Shows the plan; asks where the run is large, and refuses where nobody can answer."""
        if self.work.options.is_planned:
            self._params["triggers"] = list(plan.triggers_of(facts))
            return True
        self.phase = "planning"
        self._plan = await self._make_plan(facts, self._query())
        self.work.watcher.plan(self._plan)
        plan.refuse_new_triggers(self._plan.new_triggers, self.work.options)
        why = plan.why_confirm(self._plan, self.work.options)
        return not why or self.work.options.yes or await self.work.watcher.confirm(self._plan, why)

    async def _make_plan(self, facts: TableFacts, query: PageQuery) -> Plan:
        work, ledger = self.work, self.work.ledger
        last = await self._database.insist(lambda: ledger.last_finished(work.target.name))
        last_time = sum(last.books.get(name, 0) for name in ("wrote", "failed", "skipped")) if last else None
        counted = await self._database.insist(lambda: plan.count(ledger, query, work.options, last_time))
        rows = await self._database.insist(lambda: plan.sample(ledger, query, work.options, counted.above))
        standing = await self._database.insist(lambda: ledger.standing(work.target.name, self._fingerprint))
        self._params["triggers"] = list(plan.triggers_of(facts))
        found = plan.Findings(
            rows=rows,
            counted=counted,
            facts=facts,
            last_time=last_time,
            new_triggers=plan.new_triggers(facts, last) if last else (),
            standing=tuple(standing.items()),
            notes=tuple(self._notes),
            already_paid=len(work.answers.keys() | (work.options.only.free if work.options.only else frozenset())),
        )
        return await self._with_account(
            plan.build(work.job, self._means, found, provider=work.service.name, where=ledger.road.where)
        )

    async def _with_account(self, made: Plan) -> Plan:
        if self.work.account is None:
            return made
        told = await self.work.account.forecast(self._database.insist, made.pending_counted)
        return replace(made, own=told.lines, facts=told.facts, notes=(*made.notes, *told.notes))

    def _query(self) -> PageQuery:
        return query_of(self.work.target, self.work.options, self._fingerprint)

    async def _give_up(self, opening: Opening, record: RunRecord) -> None:
        """--fresh over a different run: what that one paid for is stored first, then it is closed."""
        opened = await opening.take(opening.state.home(opening.lock), record)
        session = Session(self.work, self._database, self.stop, opened, self._query(), Books())
        await closing.give_up(session, "given up by --fresh" if self.work.options.fresh else "given up for a repair")

    def _begin(self, opened: Opened) -> Session:
        return Session(self.work, self._database, self.stop, opened, self._query(), self.books)

    async def _work_through(self, opened: Opened) -> Verdict:
        self.session = session = self._begin(opened)
        if opened.record is not None:
            self.work.watcher.notice(say_going_on(session))
            if session.selection.limit_reached:
                self._notes.append(
                    f"--limit {self.work.options.limit:,} counts over the whole of a run, and the one that was stopped "
                    f"had done {session.selection.admitted:,} rows: it ends here, and the same command begins another"
                )
        try:
            await session.run()
        finally:
            await closing.end(session)
        return verdict_of(self._ending())
