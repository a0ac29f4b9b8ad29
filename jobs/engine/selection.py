"""From a row that was read to a request, an exception or nothing to do: content checks before any money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from jobs.engine.books import Books
from jobs.engine.job import Ask, Job, Keep, Means, Skip, prepare
from jobs.engine.journal import Journal
from jobs.engine.past import Paid
from jobs.engine.stop import Stop
from jobs.engine.verdict import Exit
from jobs.engine.write_back import Entry, WriteBack, paid_entry
from queries.ledger import RowVerdict
from queries.table import Key, Row

_CRASHES_MOST = 3
_SAME_BUGS_MOST = 3


@dataclass(slots=True)
class Selection:
    """`admitted` counts towards --limit; it starts with what an earlier part of this run has admitted."""

    job: Job
    means: Means
    journal: Journal
    writer: WriteBack
    books: Books
    stop: Stop
    crashes: Mapping[Key, int]
    answers: Mapping[Key, Paid]
    deliver: Callable[[Paid], None]
    admitted: int = 0
    kept: int = 0
    _bugs: Counter[str] = field(default_factory=Counter)

    @property
    def limit_reached(self) -> bool:
        limit = self.means.options.limit
        return limit is not None and self.admitted >= limit

    def select(self, row: Row, made: Ask | Skip | Keep | None = None) -> Ask | None:
        """The row is named on disk meanwhile: if its text kills us, we will know which it was.

        `made` is what another process has prepared already.
        """
        self.journal.mark(row.key)
        self.books.selected += 1
        crashes = self.crashes.get(row.key, 0)
        if crashes >= _CRASHES_MOST:
            self._except(row, "failed", "crashed the process", f"{crashes} times while its text was being read")
            return None
        answer = self.answers.get(row.key)
        if answer is not None and answer.guard == row.guard and not row.is_kept:
            self.journal.mark(None)
            self.admitted += 1
            self.kept += 1
            self.deliver(replace(answer, was=row.was))
            return None
        item = made if made is not None else prepare(self.job, row, self.means)
        self.journal.mark(None)
        if isinstance(item, Exception):
            self._note_bug(item)
            self._except(row, "failed", "internal error", f"{type(item).__name__} while reading its text")
            return None
        if isinstance(item, Skip):
            self._except(row, "skipped", item.reason, item.detail)
            return None
        self.admitted += 1
        if isinstance(item, Keep):
            self._keep(row, item.parts)
            return None
        return item

    def _keep(self, row: Row, parts: int) -> None:
        """Nothing is paid: all it lacks is the mark that it is done."""
        self.kept += 1
        sources = {"model": row.known.model if row.known else self.means.model}
        cells = {cell: sources.get(source, source) for cell, source in self.means.target.cells.items()}
        paid = Paid(row.key, row.guard, row.was, cells, kept=parts)
        self.journal.answered(0, 0.0, [paid])  # or a write whose answer a kill swallowed could not be asked about again
        self.writer.put(paid_entry(paid))

    def _except(self, row: Row, state: Literal["failed", "skipped"], reason: str, detail: str) -> None:
        verdict = RowVerdict(row.key, row.guard, state, reason, detail)
        self.writer.put(Entry(row.key, row.guard, verdict=verdict))

    def _note_bug(self, bug: Exception) -> None:
        self._bugs[f"{type(bug).__name__}: {bug}"] += 1
        if max(self._bugs.values()) >= _SAME_BUGS_MOST:
            self.stop.ask(Exit.UNEXPECTED, f"the same internal error {_SAME_BUGS_MOST} times: {type(bug).__name__}")
