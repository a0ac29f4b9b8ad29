"""A worker's shift: its share of the rate limit, one video after another, and what it all came to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from jobs import rich_targets
from jobs.engine.books import Books
from jobs.engine.database import Database
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.opening import check_ledger
from jobs.engine.shared_rate import SharedRate, leave_all
from jobs.engine.verdict import Exit, Verdict
from jobs.engine.work import Work
from jobs.rich_steps import Stepping, Steps, Totals, add_books
from jobs.rich_worker import Next, Processed, VideoWorker
from queries.rates import Rates
from queries.road import Road
from queries.video_status import VideoStatuses

_TRIES_MOST = 1_000  # of one video's scenes: those of a bad one are no reason to stop


class Crew:
    """`most` messages, and it is over. One video at a time; its scenes go in parallel."""

    def __init__(self, steps: Steps, road: Road, most: int | None) -> None:
        self._id = secrets.token_hex(4)
        self._rates: list[SharedRate] = []
        self._steps = Steps(self._shared(steps.scenes, road), self._shared(steps.summary, road))
        work = self._steps.summary
        self._database = Database(
            DatabaseLoad(work.options.db_load, work.clock), work.ledger, work.clock, work.options.max_outage_s
        )
        target = replace(
            rich_targets.STATUS,
            spec=replace(rich_targets.STATUS.spec, table=work.target.spec.table, key=work.target.spec.key),
        )
        self._status = target
        self._stepping = Stepping(self._steps)
        self._worker = VideoWorker(
            self._stepping, VideoStatuses(road, target.spec, target.name), self._database, self._end
        )
        self._most, self._taken = most, 0
        self._all = Totals()
        self._exit, self._why = Exit.DONE, ""
        self._fix = ""
        self._ended: asyncio.Event | None = None
        self._started = work.clock.now()
        self._turn = asyncio.Lock()

    def _shared(self, work: Work, road: Road) -> Work:
        """Its calls take their turn in a share of the limit that all workers have together."""
        name = f"{work.service.name} {work.model}"
        rate = SharedRate(work.clock, Rates(road, name, self._id), work.options.max_per_min)
        self._rates.append(rate)
        # A message comes to any host, and after any change of configuration: what another process left of this video is
        # stored where its journal is here, and else paid for once more.
        options = replace(work.options, tries_most=_TRIES_MOST, abandon_journal=True, fresh=True)
        return replace(work, rate=rate, options=options)

    @asynccontextmanager
    async def at_work(self, ended: asyncio.Event) -> AsyncIterator[None]:
        """`ended` is set when no more messages should be taken."""
        self._ended = ended
        spec = self._status.spec
        check_ledger(
            await self._database.insist(lambda: self._steps.summary.ledger.hello(spec, self._status.name)), self._status
        )
        tasks = [asyncio.create_task(rate.keep()) for rate in self._rates]
        try:
            yield
        finally:
            await leave_all(tasks)

    async def take(self, video: str) -> Processed:
        async with self._turn:
            done = await self._worker.process(video)
            if done.totals is not None:
                self._all.merge(done.totals)
            self._taken += done.next is Next.TAKEN
            if self._most is not None and self._taken >= self._most and self._ended is not None:
                self._stepping.asked = self._stepping.asked or (Exit.DONE, "")
                self._ended.set()
            return done

    def ask_stop(self, exit_: Exit, why: str) -> None:
        self._end(exit_, why)
        self._stepping.ask_stop(exit_, why)

    def end_in_time(self, seconds: float) -> None:
        self.ask_stop(Exit.STOPPED, f"the runtime limit of {seconds:.0f} s is reached")

    def _end(self, exit_: Exit, why: str) -> None:
        if not self._why:
            self._exit, self._why = exit_, why
        self._stepping.asked = self._stepping.asked or (exit_, why)
        if self._ended is not None:
            self._ended.set()

    def verdict(self) -> Verdict:
        """The books of all videos; those that went back to the queue are still to do."""
        totals, work = self._all, self._steps.summary
        books = Books()
        add_books(books, totals.scenes)
        add_books(books, totals.videos)
        seconds = work.clock.now() - self._started
        some = bool(books.failed or books.changed or books.gone)
        headline = f"{self._taken:,} messages were taken, {totals.videos.wrote:,} videos are done"
        exit_ = self._exit if self._why else Exit.SOME_NAMED if some else Exit.DONE
        return Verdict(
            run_id=totals.last.run_id if totals.last else "",
            job="worker",
            target=f"{self._steps.scenes.target.name}, {work.target.name}",
            model=", ".join(dict.fromkeys((self._steps.scenes.model, work.model))),
            where=work.ledger.road.where,
            exit=exit_ if books.balance() else Exit.UNEXPECTED,
            headline=f"stopped: {self._why}; {headline}" if self._why else headline,
            books=books,
            money=totals.money,
            calls=totals.calls,
            tokens_in=totals.tokens_in,
            tokens_out=totals.tokens_out,
            throttled=sum(rate.throttled for rate in self._rates),
            recovered=totals.recovered,
            per_min=60 * books.settled() / max(1.0, seconds),
            seconds=seconds,
            stop_reason=self._why,
            next_command=work.command if self._why else "",
            in_journal=totals.in_journal,
            notes=tuple(totals.notes),
            named=tuple(totals.named),
            facts={"scenes": totals.scenes.as_json(), "videos": totals.videos.as_json(), "messages": self._taken},
        )
