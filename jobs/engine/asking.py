"""The road of one request: admitted, booked, sent, classified. Retries happen only here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from jobs.engine import fault_points
from jobs.engine.account import Account, Insist
from jobs.engine.breaker import Breaker
from jobs.engine.budget import Budget, Reservation
from jobs.engine.clock import Clock
from jobs.engine.concurrency import Slots
from jobs.engine.hold import Hold
from jobs.engine.insistence import Insistence
from jobs.engine.job import Answer, Ask, Job, Means, Service
from jobs.engine.journal import Journal
from jobs.engine.rate_limit import RateLimit, Ticket
from jobs.engine.settling import Settling
from jobs.engine.stop import Stop
from jobs.engine.write_back import WriteBack
from queries.errors import (
    CatchupError,
    CeilingReached,
    ItemPermanent,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
    UpstreamError,
)
from queries.ledger import Spend

# One call in five failing is weather the operator must not see as failed rows (UPSTREAMS O5): at five
# tries it would still name one row in three thousand, at eight one in four hundred thousand.
_TRIES_MOST = 8
_PAID_TRIES_MOST = 3  # tries that may have been billed: malformed or missing answers
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0


class Stopped(Exception):
    """The run was asked to stop before this request was sent: its rows are still to do."""


@dataclass(slots=True)
class Errand:
    """What is still to be asked of one request and of what became of it: changed requests, or its halves."""

    todo: list[Ask]
    failures: int = 0
    has_place: bool = False
    """Until then it is at the door."""

    @property
    def open_rows(self) -> int:
        return sum(len(ask.rows) for ask in self.todo)


@dataclass(slots=True)
class Asking:
    """`stores` are where results go: while one of them is failing nothing more is paid for."""

    job: Job
    means: Means
    service: Service
    clock: Clock
    journal: Journal
    writer: WriteBack
    settling: Settling
    budget: Budget
    rate: RateLimit
    slots: Slots
    breaker: Breaker
    stores: Sequence[Insistence | Hold]
    stop: Stop
    may_pay: Callable[[], bool]
    account: Account | None
    insist: Insist
    sending: set[asyncio.Task[None]] = field(default_factory=set)
    refused: int = 0
    """Asked to wait so often in a row, whatever was asked."""
    refusal: str = ""

    async def run(self, errand: Errand) -> None:
        """Asks until every row of it is settled; raises what must end the run."""
        while errand.todo:
            # a half waits behind the other one: that it is answered tells whose fault a failure is
            errand.todo = [*errand.todo[1:], *await self._ask(errand.todo[0], errand)]

    async def _ask(self, ask: Ask, errand: Errand) -> list[Ask]:
        """One request through to an answer; returns what has to be asked in its place."""
        failures, paid_failures = 0, 0
        while True:
            try:
                reservation, ticket = await self._admit(ask)
            except CeilingReached:
                if len(ask.parts) > 1:  # what is left of the money may do for some of them
                    return self._halves(ask)
                raise
            try:
                attempt, answer = await self._send(ask, reservation)
            except Throttle as refusal:
                self.rate.refused(ticket, refusal)
                self.breaker.abandoned()
                self.refused, self.refusal = self.refused + 1, refusal.what
                continue
            except ItemPermanent as refusal:
                self.breaker.succeeded()
                if len(ask.parts) > 1:
                    return self._halves(ask)
                self.settling.fail(ask.rows, refusal.reason, refusal.words or refusal.what)
                self.settling.note_refusal(refusal)
                return []
            except (Transient, UnknownOutcome) as fault:
                self.breaker.failed(fault)
                failures += not isinstance(fault, Unreachable)
                errand.failures += not isinstance(fault, Unreachable)
                paid_failures += _may_be_billed(fault)
                is_enough = failures >= _TRIES_MOST or paid_failures >= _PAID_TRIES_MOST
                if is_enough and len(ask.parts) > 1:
                    return self._halves(ask)
                # only where others are answered is it this row's fault
                others_work = not self.breaker.is_open and self.breaker.since_success < errand.failures
                if is_enough and others_work:
                    self.settling.fail(
                        ask.rows, "no answer", f"{failures} tries; the last: {fault.words or fault.what}"
                    )
                    return []
                await self._back_off(fault, failures)
                continue
            self.breaker.succeeded()
            self.refused = 0
            self._learn(ticket, answer)
            return self.settling.settle(ask, attempt, reservation, answer)

    def _halves(self, ask: Ask) -> list[Ask]:
        """One row of many spoils a request: it is found by halving, and the others are not blamed."""
        middle = len(ask.parts) // 2
        return [self.job.pack(part) for part in (ask.parts[:middle], ask.parts[middle:])]

    def worst_usd(self, ask: Ask) -> float:
        return self.means.price.worst_usd(max(ask.tokens_in, ask.tokens_worst), ask.tokens_out_most)

    async def _admit(self, ask: Ask) -> tuple[Reservation, Ticket]:
        """Every gate in turn: a healthy upstream and database, money, pace. Nothing is paid without all of them."""
        self._check_stop()
        for store in self.stores:
            await store.well()
        await self.breaker.enter()
        self._check_stop()
        reservation = await self.budget.reserve(self.worst_usd(ask))
        is_admitted = False
        try:
            if self.account is not None:
                await self.account.admit(self.insist)
                is_admitted = True
                self._check_stop()
            ticket = await self._take_turn(ask.tokens_in + ask.tokens_out_most)
            self.journal.reserve((len(self.sending) + 1) * ask.answer_bytes)  # beside the answers that are still out
        except BaseException:
            self.budget.settle(reservation, 0.0)
            self.breaker.abandoned()
            if self.account is not None and is_admitted:
                self.account.readmit()
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
        self.settling.tally.calls += 1
        self.settling.tally.rows += len(ask.rows)
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

    async def _back_off(self, fault: UpstreamError, failures: int) -> None:
        ceiling = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**failures)
        await self.clock.sleep(max(fault.retry_after_s or 0.0, self.clock.jitter(ceiling)))


def _may_be_billed(error: CatchupError) -> bool:
    """Unanswered, or answered with something unreadable: the provider may have done the work."""
    return isinstance(error, UnknownOutcome) or getattr(error, "code", "") == "malformed"
