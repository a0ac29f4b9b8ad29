"""What an answer was worth: booked, judged, journaled, and sent on its way; or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.engine.budget import Budget, Reservation
from jobs.engine.collapse import Collapse
from jobs.engine.job import Answer, Ask, Bad, Good, Job, Means, Skip
from jobs.engine.journal import Journal
from jobs.engine.past import Paid
from jobs.engine.stop import Stop
from jobs.engine.verdict import Exit
from jobs.engine.write_back import Entry, WriteBack
from queries.errors import ItemPermanent
from queries.ledger import RowVerdict, Spend, WriteRow
from queries.table import Row, write_array

_ALIKE_MOST = 20


@dataclass(slots=True)
class Tally:
    """What went over the wire in this session."""

    calls: int = 0
    rows: int = 0
    """That these calls asked for: each as often as it was asked for."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_counted: int = 0
    """By us, of the same requests that `tokens_in` is told of."""


@dataclass(slots=True)
class Settling:
    """`deliver` takes what may be stored on its way to the database; `keep` remembers it for later, where asked to."""

    job: Job
    means: Means
    journal: Journal
    writer: WriteBack
    budget: Budget
    stop: Stop
    deliver: Callable[[Paid], None]
    keep: Callable[[Sequence[Paid]], None]
    collapse: Collapse = field(default_factory=Collapse)
    tally: Tally = field(default_factory=Tally)
    last_text: tuple[str, str] | None = None
    _alike: int = 0
    _useless: int = 0
    _last_reason: str = ""

    def settle(self, ask: Ask, attempt: int, reservation: Reservation, answer: Answer) -> list[Ask]:
        """Books the money and takes the answer; returns the changed requests where one more try is due."""
        self._alike = 0
        # a server that does not say what it used is counted for, not taken as free
        tokens_out = answer.tokens_out or self.means.tokens.count(answer.text or "")
        usd = self.means.price.worst_usd(answer.tokens_in or ask.tokens_in, tokens_out)
        self.budget.settle(reservation, usd)
        self.tally.tokens_in += answer.tokens_in
        self.tally.tokens_out += answer.tokens_out
        self.tally.tokens_counted += ask.tokens_in
        self.writer.spend(Spend(1, answer.tokens_in, answer.tokens_out, usd))
        return self.take(ask, attempt, usd, answer)

    def take(self, ask: Ask, attempt: int, usd: float, answer: Answer) -> list[Ask]:
        """An answer that is booked: judged, journaled, and on its way."""
        goods: list[tuple[Good, Paid]] = []
        bads: list[RowVerdict] = []
        again: list[Ask] = []
        alike = self._cells("", {}, answer)  # of all rows whose answer is no text: thousands may share one request
        for verdict in self._judge(ask, answer):
            if isinstance(verdict, Good):
                cells = self._cells(verdict.text, verdict.more, answer) if verdict.text or verdict.more else alike
                goods.append((verdict, _paid(verdict, cells)))
            elif isinstance(verdict, Skip):
                bads.append(replace(_verdict(verdict.row, verdict.reason, verdict.detail), state="skipped"))
            elif verdict.again is not None:
                again.append(verdict.again)
            else:
                bads.append(_verdict(verdict.row, verdict.reason, verdict.detail))
        self.journal.answered(attempt, usd, [paid for _, paid in goods], bads)
        self.keep([paid for _, paid in goods])
        for bad in bads:
            self.writer.put(Entry(bad.key, bad.guard, verdict=bad))
        self._note_useless(goods, bads)
        accepted = [good for good, paid in goods if self._accept(good, paid, ask)]
        if accepted:
            last = accepted[-1]
            self.last_text = (" ".join(last.row.key), last.text if self.job.service == "chat" else ask.source)
        return again

    def _note_useless(self, goods: Sequence[object], bads: Sequence[RowVerdict]) -> None:
        """Vectors are good or the provider is not working; of texts many may be refused for good reasons."""
        self._useless = 0 if goods else self._useless + len(bads)
        if self.job.service == "embed" and bads and self._useless >= _ALIKE_MOST:
            why = f"the provider gave nothing that can be stored for {self._useless} rows: {bads[0].reason}"
            self.stop.ask(Exit.BREAKER, why, "look at the model; --retry-failed takes these rows again")

    def _judge(self, ask: Ask, answer: Answer) -> Sequence[Good | Bad | Skip]:
        try:
            return self.job.judge(ask, answer, self.means)
        except Exception as bug:  # one odd answer must not stop the run; it is named, not hidden
            return [Bad(row, "internal error", f"{type(bug).__name__} while judging the answer") for row in ask.rows]

    def _cells(self, text: str, more: Mapping[str, tuple[str, ...]], answer: Answer) -> Mapping[str, str]:
        sources = {"answer": text, "model": answer.model, "now": "now"}
        sources |= {f"answer.{name}": write_array(parts) for name, parts in more.items()}
        return {cell: sources.get(source, source) for cell, source in self.means.target.cells.items()}

    def _accept(self, good: Good, paid: Paid, ask: Ask) -> bool:
        """Texts are compared: a provider that says the same of many rows is not working."""
        earlier = self.collapse.note(good.row, good.text, ask.source) if self.job.service == "chat" else None
        if earlier is None:
            self.deliver(paid)
            return True
        self._drop(good.row, good.text)
        for row, text in earlier:
            self._take_back(row, text)
        if self.collapse.is_general:
            self.stop.ask(
                Exit.BREAKER,
                "the provider gives the same text for many different rows",
                "look at the prompt and the model",
            )
        return False

    def _drop(self, row: Row, text: str) -> None:
        verdict = _verdict(row, "same text for many rows", text)
        self.journal.answered(0, 0.0, [], [verdict])
        self.writer.put(Entry(row.key, row.guard, verdict=verdict))

    def _take_back(self, row: Row, text: str) -> None:
        """A text accepted before the pattern showed: dropped if it has not left, undone under the guard if it has."""
        if self.writer.take_back(row.key) is not None:
            self._drop(row, text)
            return
        verdict = _verdict(row, "same text for many rows", text)
        cell = self.means.target.spec.cells[0]
        undo = WriteRow(row.key, row.guard, {**row.was, cell: text}, row.was)
        self.writer.put(Entry(row.key, row.guard, write=undo, verdict=verdict))

    def fail(self, rows: Sequence[Row], reason: str, detail: str) -> None:
        for row in rows:
            self.writer.put(Entry(row.key, row.guard, verdict=_verdict(row, reason, detail)))

    def note_refusal(self, refusal: ItemPermanent) -> None:
        """A refusal that meets every row alike is no row's fault, whatever it calls itself."""
        self._alike = self._alike + 1 if refusal.reason == self._last_reason else 1
        self._last_reason = refusal.reason
        if self._alike >= _ALIKE_MOST:
            said = refusal.words or refusal.what
            self.stop.ask(
                Exit.REFUSED,
                f"the provider refused {self._alike} rows in a row for the same reason: {said}",
                "look at the model and its parameters; --retry-failed takes these rows again",
            )


def _paid(good: Good, cells: Mapping[str, str]) -> Paid:
    return Paid(good.row.key, good.row.guard, good.row.was, cells, good.vectors, good.drop, is_sent=good.is_sent)


def _verdict(row: Row, reason: str, detail: str) -> RowVerdict:
    return RowVerdict(row.key, row.guard, "failed", reason, detail[:500])
