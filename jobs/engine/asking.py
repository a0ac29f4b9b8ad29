"""The road of one request: admitted, booked, sent, classified, judged, journaled. Retries happen only here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from jobs.engine import fault_points
from jobs.engine.books import Books
from jobs.engine.breaker import Breaker
from jobs.engine.budget import Budget, Reservation
from jobs.engine.clock import Clock
from jobs.engine.collapse import Collapse
from jobs.engine.concurrency import Slots
from jobs.engine.database import Database
from jobs.engine.job import Answer, Ask, Bad, Good, Job, Means, Service
from jobs.engine.journal import Journal
from jobs.engine.past import Paid
from jobs.engine.rate_limit import RateLimit, Ticket
from jobs.engine.stop import Stop
from jobs.engine.verdict import Exit
from jobs.engine.write_back import Entry, WriteBack
from queries.errors import (
    CatchupError,
    ItemPermanent,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
    UpstreamError,
)
from queries.ledger import RowVerdict, Spend, WriteRow
from queries.table import Row

# One call in five failing is weather the operator must not see as failed rows (UPSTREAMS O5): at five
# tries it would still name one row in three thousand, at eight one in four hundred thousand.
_TRIES_MOST = 8
_PAID_TRIES_MOST = 3  # tries that may have been billed: malformed or missing answers
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_ALIKE_MOST = 20


class Stopped(Exception):
    """The run was asked to stop before this request was sent: its rows are still to do."""


@dataclass(slots=True)
class Errand:
    """What is still to be asked of one request and of what became of it: changed requests, or its halves."""

    todo: list[Ask]

    @property
    def open_rows(self) -> int:
        return sum(len(ask.rows) for ask in self.todo)


@dataclass(slots=True)
class Tally:
    """What went over the wire in this session."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(slots=True)
class Asking:
    job: Job
    means: Means
    service: Service
    clock: Clock
    journal: Journal
    writer: WriteBack
    deliver: Callable[[Paid], None]
    books: Books
    budget: Budget
    rate: RateLimit
    slots: Slots
    breaker: Breaker
    database: Database
    collapse: Collapse
    stop: Stop
    may_pay: Callable[[], bool]
    tally: Tally = field(default_factory=Tally)
    sending: set[asyncio.Task[None]] = field(default_factory=set)
    last_text: tuple[str, str] | None = None
    alike: int = 0
    last_reason: str = ""

    async def run(self, errand: Errand) -> None:
        """Asks until every row of it is settled; raises what must end the run."""
        while errand.todo:
            errand.todo[:1] = await self._ask(errand.todo[0])

    async def _ask(self, ask: Ask) -> list[Ask]:
        """One request through to an answer; returns what has to be asked in its place."""
        failures, paid_failures = 0, 0
        while True:
            reservation, ticket = await self._admit(ask)
            try:
                attempt, answer = await self._send(ask, reservation)
            except Throttle as refusal:
                self.rate.refused(ticket, refusal)
                self.breaker.abandoned()
                continue
            except ItemPermanent as refusal:
                self.breaker.succeeded()
                if len(ask.parts) > 1:
                    return self._halves(ask)
                self._fail(ask.rows, refusal.reason, refusal.words or refusal.what)
                self._note_refusal(refusal)
                return []
            except (Transient, UnknownOutcome) as fault:
                self.breaker.failed(fault)
                failures += not isinstance(fault, Unreachable)
                paid_failures += _may_be_billed(fault)
                # only where others are answered is it this row's fault
                others_work = not self.breaker.is_open and self.breaker.since_success < failures
                if others_work and (failures >= _TRIES_MOST or paid_failures >= _PAID_TRIES_MOST):
                    if len(ask.parts) > 1:
                        return self._halves(ask)
                    self._fail(ask.rows, "no answer", f"{failures} tries; the last: {fault.words or fault.what}")
                    return []
                await self._back_off(fault, failures)
                continue
            self.breaker.succeeded()
            self.alike = 0
            self._learn(ticket, answer)
            return self._settle(ask, attempt, reservation, answer)

    def _halves(self, ask: Ask) -> list[Ask]:
        """One row of many spoils a request: it is found by halving, and the others are not blamed."""
        middle = len(ask.parts) // 2
        return [self.job.pack(part) for part in (ask.parts[:middle], ask.parts[middle:])]

    def _note_refusal(self, refusal: ItemPermanent) -> None:
        """A refusal that meets every row alike is no row's fault, whatever it calls itself."""
        self.alike = self.alike + 1 if refusal.reason == self.last_reason else 1
        self.last_reason = refusal.reason
        if self.alike >= _ALIKE_MOST:
            self.stop.ask(
                Exit.REFUSED,
                f"the provider refused {self.alike} rows in a row for the same reason: {refusal.words or refusal.what}",
                "look at the model and its parameters; --retry-failed takes these rows again",
            )

    def worst_usd(self, ask: Ask) -> float:
        return self.means.price.worst_usd(max(ask.tokens_in, ask.tokens_worst), ask.tokens_out_most)

    async def _admit(self, ask: Ask) -> tuple[Reservation, Ticket]:
        """Every gate in turn: a healthy upstream and database, money, pace. Nothing is paid without all of them."""
        self._check_stop()
        await self.database.well()
        await self.breaker.enter()
        self._check_stop()
        reservation = await self.budget.reserve(self.worst_usd(ask))
        try:
            ticket = await self._take_turn(ask.tokens_in + ask.tokens_out_most)
            self.journal.reserve((len(self.sending) + 1) * ask.answer_bytes)  # beside the answers that are still out
        except BaseException:
            self.budget.settle(reservation, 0.0)
            self.breaker.abandoned()
            raise
        return reservation, ticket

    async def _take_turn(self, tokens: int) -> Ticket:
        """A turn taken before a silence of the lease is void after it: all of them at once would be a burst."""
        while True:
            while not self.may_pay():
                await self.clock.sleep(0.2)
                self._check_stop()
            ticket = await self.rate.enter(tokens)
            self._check_stop()
            if self.may_pay():
                return ticket

    def _check_stop(self) -> None:
        if self.stop.is_asked:
            raise Stopped

    async def _send(self, ask: Ask, reservation: Reservation) -> tuple[int, Answer]:
        """One attempt, booked before it leaves; one without an answer is booked again for what it may cost."""
        attempt = self.journal.attempted([row.key for row in ask.rows], reservation.worst_usd)
        self.tally.calls += 1
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.sending.add(task)
        try:
            fault_points.reach("send.before")
            answer = await self.service.ask(ask.request)
            fault_points.reach("answer.received")
        except CatchupError as error:
            self.rate.learn(getattr(error, "limits", None))
            self._book_nothing(attempt, reservation, reservation.worst_usd if _may_be_billed(error) else 0.0)
            raise
        except BaseException:  # cancelled or broken while it was out: the provider may bill it
            self._book_nothing(attempt, reservation, reservation.worst_usd)
            raise
        finally:
            self.sending.discard(task)
        return attempt, answer

    def _book_nothing(self, attempt: int, reservation: Reservation, possibly_usd: float) -> None:
        self.journal.ended(attempt, possibly_usd)
        self.budget.settle(reservation, 0.0, possibly_usd)
        self.writer.spend(Spend(calls=1, possibly_usd=possibly_usd))

    def _learn(self, ticket: Ticket, answer: Answer) -> None:
        self.rate.learn(answer.limits)
        allowed = None if self.rate.per_min is None else self.rate.per_min / 60
        now = self.clock.now()
        self.slots.learn(now - ticket.sent_at, allowed, now)

    def _settle(self, ask: Ask, attempt: int, reservation: Reservation, answer: Answer) -> list[Ask]:
        """Books the money, judges the answer, journals both; returns the changed requests where one more try is due."""
        # a server that does not say what it used is counted for, not taken as free
        tokens_out = answer.tokens_out or self.means.tokens.count(answer.text or "")
        usd = self.means.price.worst_usd(answer.tokens_in or ask.tokens_in, tokens_out)
        self.budget.settle(reservation, usd)
        self.tally.tokens_in += answer.tokens_in
        self.tally.tokens_out += answer.tokens_out
        self.writer.spend(Spend(1, answer.tokens_in, answer.tokens_out, usd))
        goods: list[tuple[Good, Paid]] = []
        bads: list[RowVerdict] = []
        again: list[Ask] = []
        for verdict in self._judge(ask, answer):
            if isinstance(verdict, Good):
                goods.append((verdict, self._paid(verdict, answer)))
            elif verdict.again is not None:
                again.append(verdict.again)
            else:
                bads.append(_verdict(verdict.row, verdict.reason, verdict.detail))
        self.journal.answered(attempt, usd, [paid for _, paid in goods], bads)
        for bad in bads:
            self.writer.put(Entry(bad.key, bad.guard, verdict=bad))
        if len(bads) >= _ALIKE_MOST and not goods:
            why = f"the provider gave nothing that can be stored for {len(bads)} rows: {bads[0].reason}"
            self.stop.ask(Exit.BREAKER, why, "look at the model; --retry-failed takes these rows again")
        for good, paid in goods:
            self._accept(good, paid, ask)
        return again

    def _judge(self, ask: Ask, answer: Answer) -> list[Good | Bad]:
        try:
            return self.job.judge(ask, answer, self.means)
        except Exception as bug:  # one odd answer must not stop the run; it is named, not hidden
            return [Bad(row, "internal error", f"{type(bug).__name__} while judging the answer") for row in ask.rows]

    def _paid(self, good: Good, answer: Answer) -> Paid:
        sources = {"answer": good.text, "model": answer.model, "now": "now"}
        cells = {cell: sources.get(source, source) for cell, source in self.means.target.cells.items()}
        return Paid(good.row.key, good.row.guard, good.row.was, cells, good.vectors, good.drop)

    def _accept(self, good: Good, paid: Paid, ask: Ask) -> None:
        """Texts are compared: a provider that says the same of many rows is not working."""
        if self.job.service == "embed":
            self.deliver(paid)
            self.last_text = (" ".join(good.row.key), ask.source)
            return
        earlier = self.collapse.note(good.row, good.text, ask.source)
        if earlier is None:
            self.deliver(paid)
            self.last_text = (" ".join(good.row.key), good.text)
            return
        self._drop(good.row, good.text)
        for row, text in earlier:
            self._take_back(row, text)
        if self.collapse.is_general:
            self.stop.ask(
                Exit.BREAKER,
                "the provider gives the same text for many different rows",
                "look at the prompt and the model",
            )

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

    def _fail(self, rows: Sequence[Row], reason: str, detail: str) -> None:
        for row in rows:
            self.writer.put(Entry(row.key, row.guard, verdict=_verdict(row, reason, detail)))

    async def _back_off(self, fault: UpstreamError, failures: int) -> None:
        ceiling = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**failures)
        await self.clock.sleep(max(fault.retry_after_s or 0.0, self.clock.jitter(ceiling)))


def _verdict(row: Row, reason: str, detail: str) -> RowVerdict:
    return RowVerdict(row.key, row.guard, "failed", reason, detail[:500])


def _may_be_billed(error: CatchupError) -> bool:
    """Unanswered, or answered with something unreadable: the provider may have done the work."""
    return isinstance(error, UnknownOutcome) or getattr(error, "code", "") == "malformed"
