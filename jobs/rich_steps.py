"""Both steps of rich semantics for a list of videos: a run over their scenes, then a run over the videos themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jobs import rich_targets
from jobs.engine.books import Books
from jobs.engine.options import Options
from jobs.engine.run import Run
from jobs.engine.verdict import Exit, Money, Named, Verdict
from jobs.engine.watch import Plan, Snapshot, Watcher
from jobs.engine.work import Work
from queries.ledger import Ceilings
from queries.table import Slice

GOES_ON = (Exit.DONE, Exit.NOTHING_TO_DO, Exit.SOME_NAMED)
_NAMED_MOST = 200
_COUNTED = ("calls", "tokens_in", "tokens_out", "throttled", "recovered", "in_journal")


@dataclass(frozen=True, slots=True)
class Steps:
    """The same options for both; each with its own target, model and price."""

    scenes: Work
    summary: Work


class Beside:
    """A watcher of one run among several: the plan was shown and agreed to before the first."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def plan(self, plan: Plan) -> None:
        pass

    async def confirm(self, plan: Plan, why: str) -> bool:
        return True

    def notice(self, text: str) -> None:
        self._watcher.notice(text)

    def progress(self, snapshot: Snapshot) -> None:
        self._watcher.progress(snapshot)


@dataclass(slots=True)
class Totals:
    """What all runs together did."""

    scenes: Books = field(default_factory=Books)
    videos: Books = field(default_factory=Books)
    money: Money = field(default_factory=Money)
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    throttled: int = 0
    recovered: int = 0
    in_journal: int = 0
    named: list[Named] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    last: Verdict | None = None

    def add(self, books: Books, verdict: Verdict) -> None:
        add_books(books, verdict.books)
        self.money = replace(
            self.money,
            actual_usd=self.money.actual_usd + verdict.money.actual_usd,
            possibly_usd=self.money.possibly_usd + verdict.money.possibly_usd,
            reserve_usd=verdict.money.reserve_usd,
        )
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        self.named += verdict.named[: _NAMED_MOST - len(self.named)]
        self.notes |= dict.fromkeys(verdict.notes)
        self.last = verdict

    def merge(self, more: Totals) -> None:
        add_books(self.scenes, more.scenes)
        add_books(self.videos, more.videos)
        self.money = Money(
            actual_usd=self.money.actual_usd + more.money.actual_usd,
            possibly_usd=self.money.possibly_usd + more.money.possibly_usd,
        )
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.named += more.named[: _NAMED_MOST - len(self.named)]
        self.notes |= more.notes
        self.last = more.last or self.last

    @property
    def spent_usd(self) -> float:
        return self.money.actual_usd + self.money.possibly_usd


def add_books(books: Books, more: Books) -> None:
    for name in ("selected", "wrote", "changed", "gone", "to_do"):
        setattr(books, name, getattr(books, name) + getattr(more, name))
    books.skipped.update(more.skipped)
    books.failed.update(more.failed)


class Stepping:
    """Runs both steps as often as asked; `ask_stop` ends what runs now and keeps anything else from starting."""

    def __init__(self, steps: Steps, *, until: float | None = None) -> None:
        """`until` is when all of it has to be over, by the runs' clock."""
        self.steps, self.until = steps, until
        self.totals = Totals()
        self.running: Run | None = None
        self.asked: tuple[Exit, str] | None = None
        self.spent_before_usd = 0.0
        self._proven: set[str] = set()

    def begin_anew(self) -> Totals:
        """New totals under what is left of the same ceiling; returns the old ones."""
        before, self.totals = self.totals, Totals()
        self.spent_before_usd += before.spent_usd
        return before

    def ask_stop(self, exit_: Exit, why: str) -> None:
        self.asked = self.asked or (exit_, why)
        if self.running is not None:
            self.running.ask_stop(exit_, why)

    async def go(self, videos: Sequence[str], *, only: str | None = None) -> bool:
        """False where it has to end here. `only`: the one video that is meant, held by a lease of its own."""
        among = tuple(videos)
        ranges = (rich_targets.scenes_of(only), rich_targets.only(only)) if only is not None else (Slice(), Slice())
        described = await self._run(self.steps.scenes, self.totals.scenes, among, ranges[0])
        if described is None or described.exit not in GOES_ON:
            self.totals.videos.selected += len(among)
            self.totals.videos.to_do += len(among)
            return False
        done = await self._run(self.steps.summary, self.totals.videos, among, ranges[1])
        if done is None:
            self.totals.videos.selected += len(among)
            self.totals.videos.to_do += len(among)
        return done is not None and done.exit in GOES_ON

    async def _run(self, work: Work, books: Books, among: tuple[str, ...], slice_: Slice) -> Verdict | None:
        if self.asked is not None:
            return None
        name = work.target.name
        options = replace(
            work.options,
            among=among,
            slice=slice_,
            is_proven=name in self._proven,
            is_planned=True,
            ceilings=self._what_is_left(work.options.ceilings),
            max_runtime_s=self._time_left(work.options, work.clock.now()),
        )
        self.running = Run(replace(work, options=options, watcher=Beside(work.watcher)))
        try:
            verdict = await self.running.go()
        finally:
            self.running = None
        if verdict.books.wrote:
            self._proven.add(name)
        self.totals.add(books, verdict)
        return verdict

    def _what_is_left(self, ceilings: Ceilings) -> Ceilings:
        if ceilings.run_usd is None:
            return ceilings
        return replace(ceilings, run_usd=max(0.0, ceilings.run_usd - self.spent_before_usd - self.totals.spent_usd))

    def _time_left(self, options: Options, now: float) -> float | None:
        return options.max_runtime_s if self.until is None else max(0.0, self.until - now)
