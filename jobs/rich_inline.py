"""reprocess-videos --inline: the selected videos in blocks, both steps for each; one plan before, one verdict after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from jobs.engine import plan as planning
from jobs.engine.books import Books
from jobs.engine.database import Database
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.opening import run_params
from jobs.engine.run import Run
from jobs.engine.stop import explain
from jobs.engine.verdict import Exit, Verdict
from jobs.engine.watch import Plan
from jobs.engine.work import Work
from jobs.rich_steps import GOES_ON, Beside, Stepping, Steps, add_books
from queries.errors import CatchupError, Misconfigured
from queries.table import Condition, Key, PageQuery

BLOCK = 200  # videos: finished ones are there early, and memory does not follow the table


@dataclass(frozen=True, slots=True)
class Selection:
    """Which videos: conditions beside "not rich yet", filters, and ids if they were given one by one."""

    pending: tuple[Condition, ...] = (Condition("status", "=", "READY"),)
    where: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    ids: tuple[str, ...] | None = None


class _Planned(Beside):
    """Keeps the plan of one step instead of showing it."""

    found: Plan | None = None

    def plan(self, plan: Plan) -> None:
        self.found = plan


class Inline:
    def __init__(self, steps: Steps, selection: Selection) -> None:
        self.steps, self.selection = steps, selection
        summary = steps.summary
        self.options = summary.options
        until = None
        if self.options.max_runtime_s is not None:
            until = summary.clock.now() + self.options.max_runtime_s
        self.stepping = Stepping(steps, until=until)
        self.ask_stop = self.stepping.ask_stop
        self._started = summary.clock.now()
        self._database = Database(
            DatabaseLoad(self.options.db_load, summary.clock), summary.ledger, summary.clock, self.options.max_outage_s
        )
        self._plans: list[Plan] = []
        self._selected = 0
        self._more = False

    async def go(self) -> Verdict:
        try:
            if not await self._agree():
                return self._planned_only()
            async for block in self._blocks():
                if not await self.stepping.go(block):
                    break
        except CatchupError as error:
            return replace(self._verdict(), exit=explain(error).exit, headline=error.what, fix=error.fix)
        return self._verdict()

    # --- which videos ------------------------------------------------------------------------------------

    def _query(self) -> PageQuery:
        """As the second step asks, so that a video which failed as it stands is no candidate here either."""
        target = self.steps.summary.target
        pending = (*target.spec.pending, *self.selection.pending)
        options = replace(self.options, limit=None, where=())
        fingerprint = target.fingerprint(
            self.steps.summary.model, run_params(target, self.steps.summary.model, options)
        )
        return PageQuery(
            spec=replace(target.spec, pending=pending),
            target=target.name,
            fingerprint=fingerprint,
            above=self.options.slice.above,
            upto=self.options.slice.upto,
            limit=BLOCK,
            where=self.selection.where,
            retry_failed=self.options.retry_failed,
        )

    async def _blocks(self) -> AsyncIterator[tuple[str, ...]]:
        """Each video once, in key order; with ids, in blocks as they were given."""
        ids = self.selection.ids
        for among in [None] if ids is None else [ids[at : at + BLOCK] for at in range(0, len(ids), BLOCK)]:
            query = replace(self._query(), among=among)
            while True:
                left = None if self.selection.limit is None else self.selection.limit - self._selected
                if left == 0:
                    self._more = self._more or bool(await self._look(replace(query, limit=1)))
                    return
                page = await self._look(replace(query, limit=min(BLOCK, left or BLOCK)))
                if not page:
                    break
                self._selected += len(page)
                yield tuple(key[0] for key in page)
                query = replace(query, above=page[-1])

    async def _look(self, query: PageQuery) -> list[Key]:
        page = await self._database.insist(lambda: self.steps.summary.ledger.look(query))
        return [row.key for row in page.rows]

    # --- the plan ----------------------------------------------------------------------------------------

    async def _agree(self) -> bool:
        """Shows what both steps will do and cost; False where that was all, or nobody agreed."""
        query = self._query()
        ids = self.selection.ids
        most = planning.blast_rows(None) + 1
        at_most = most if self.selection.limit is None else min(self.selection.limit, most)
        sample = replace(query, among=ids[:BLOCK] if ids is not None else None)
        first = await self._look(replace(sample, limit=min(BLOCK, at_most)))
        if not first:
            return False
        if ids is None:
            total = await self._database.insist(lambda: self.steps.summary.ledger.count_up_to(query, at_most))
        else:
            total = min(at_most, len(ids))
        for work in (self.steps.scenes, self.steps.summary):
            self._plans.append(await self._plan_of(work, tuple(key[0] for key in first), total))
        for plan in self._plans:
            self.steps.summary.watcher.plan(plan)
        if self.options.dry_run:
            return False
        for plan in self._plans:
            planning.refuse_new_triggers(plan.new_triggers, self.options)
        last = self._plans[-1]
        why = planning.why_confirm(replace(last, last_time=None), replace(self.options, limit=self.selection.limit))
        if why and not self.options.yes and not await self.steps.summary.watcher.confirm(last, why):
            raise Misconfigured("not confirmed: nothing was done", fix="say --yes, or a smaller --limit")
        return True

    async def _plan_of(self, work: Work, first: tuple[str, ...], total: int) -> Plan:
        """Of the first block as it is, and in proportion for the rest of the videos."""
        watcher = _Planned(work.watcher)
        options = replace(work.options, dry_run=True, among=first)
        verdict = await Run(replace(work, options=options, watcher=watcher)).go()
        if watcher.found is None:
            raise Misconfigured(verdict.headline, fix=verdict.fix)
        times = total / len(first)
        plan = watcher.found
        is_floor = plan.pending_is_floor or total > planning.BLAST_ROWS
        return replace(
            plan,
            pending_counted=round(plan.pending_counted * times),
            pending_is_floor=is_floor,
            pending_estimate=None,
            estimate_usd=plan.estimate_usd * times,
            rewrite_bytes=round(plan.rewrite_bytes * times),
            samples=plan.samples if work is self.steps.scenes else (),  # what it will be made from is not there yet
        )

    # --- the verdict -------------------------------------------------------------------------------------

    def _planned_only(self) -> Verdict:
        verdict = self._verdict()
        if not self.options.dry_run:
            return verdict
        command = verdict_command(self.steps).replace(" --dry-run", "")
        headline = "dry run: nothing was written, nothing was paid"
        return replace(verdict, headline=headline, dry_run=True, next_command=command)

    def _verdict(self) -> Verdict:
        totals, work = self.stepping.totals, self.steps.summary
        books = Books()
        add_books(books, totals.scenes)
        add_books(books, totals.videos)
        seconds = work.clock.now() - self._started
        verdict = Verdict(
            run_id=totals.last.run_id if totals.last else "",
            job=work.job.name,
            target=f"{self.steps.scenes.target.name}, {work.target.name}",
            model=", ".join(dict.fromkeys((self.steps.scenes.model, work.model))),
            where=work.ledger.road.where,
            exit=Exit.DONE,
            headline="",
            books=books,
            money=replace(
                totals.money, estimate_usd=sum(plan.estimate_usd for plan in self._plans) if self._plans else None
            ),
            calls=totals.calls,
            tokens_in=totals.tokens_in,
            tokens_out=totals.tokens_out,
            throttled=totals.throttled,
            recovered=totals.recovered,
            per_min=60 * books.settled() / max(1.0, seconds),
            bound_by=totals.last.bound_by if totals.last else "",
            seconds=seconds,
            pending_beyond=self._more,
            cells_enforced_by=totals.last.cells_enforced_by if totals.last else "",
            in_journal=totals.in_journal,
            notes=tuple(totals.notes),
            named=tuple(totals.named),
            facts=self._facts(),
        )
        return self._conclude(verdict)

    def _facts(self) -> dict[str, Any]:
        return {"scenes": self.stepping.totals.scenes.as_json(), "videos": self.stepping.totals.videos.as_json()}

    def _conclude(self, verdict: Verdict) -> Verdict:
        """The worse of both steps; what ended them early stands above what they named."""
        totals, last = self.stepping.totals, self.stepping.totals.last
        command = verdict_command(self.steps)
        if not verdict.books.balance():
            return replace(verdict, exit=Exit.UNEXPECTED, headline="the books do not balance")
        if last is not None and last.exit not in GOES_ON:
            said = {"exit": last.exit, "headline": last.headline, "stop_reason": last.stop_reason, "fix": last.fix}
            return replace(verdict, **said, next_command=command if last.next_command else "")  # type: ignore[arg-type]
        if self.stepping.asked is not None:
            exit_, why = self.stepping.asked
            return replace(verdict, exit=exit_, headline=f"stopped: {why}", next_command=command)
        beyond = "; more videos are pending beyond this run" if self._more else ""
        said_done = f"{totals.videos.wrote:,} videos have their summary, {totals.scenes.wrote:,} scenes were described"
        books = verdict.books
        if books.failed or books.changed or books.gone:
            headline = f"finished, and the rows named below were not written: {said_done}"
            return replace(verdict, exit=Exit.SOME_NAMED, headline=headline)
        if not books.selected:
            nothing = Exit.NOTHING_TO_DO if self.options.error_on_nothing else Exit.DONE
            return replace(verdict, exit=nothing, headline="nothing to do: no video is pending")
        return replace(verdict, headline=f"done: {said_done}{beyond}", next_command=command if beyond else "")


def verdict_command(steps: Steps) -> str:
    return steps.summary.command
