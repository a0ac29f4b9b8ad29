"""From the state of a run to what is said of it: the snapshot while it works, the verdict when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jobs.engine.account import Told
from jobs.engine.books import Books
from jobs.engine.stop import Reason, Stop
from jobs.engine.verdict import Exit, Money, Verdict
from jobs.engine.watch import Plan, Snapshot
from jobs.engine.work import Work
from queries.errors import CatchupError, LeaseHeld
from queries.ledger import Hello

if TYPE_CHECKING:
    from jobs.engine.session import Session

_DONE_BY_OTHERS_MOST = 10  # rows, between the plan and the run
_REFUSED_LONG = 3  # in a row: that is no pace any more, that is waiting


@dataclass(frozen=True, slots=True)
class Ending:
    work: Work
    books: Books
    stop: Stop
    session: Session | None
    plan: Plan | None
    hello: Hello | None
    notes: Sequence[str]
    started: float


def say_going_on(session: Session) -> str:
    """Said first by a run that continues another."""
    record, past = session.opened.record, session.opened.past
    done = sum(record.books.get(name, 0) for name in ("wrote", "skipped", "failed")) if record else 0
    found = f"; {len(past.paid)} paid answers wait in the journal" if past and past.paid else ""
    found += "; its torn last line was dropped" if past and past.torn else ""
    return f"going on with run {session.opened.run_id} from where it stopped: {done:,} rows are done{found}"


def snapshot_of(session: Session, plan: Plan | None) -> Snapshot:
    asking, options = session.asking, session.work.options
    now = session.work.clock.now()
    since = session.tap_opened_at if session.tap_opened_at is not None else now
    waiting = session.database.waiting_for or (session.delivery.service.waiting_for if session.delivery else "")
    waiting = waiting or (session.work.hold.waiting_for if session.work.hold else "")
    if asking.breaker.is_open:
        waiting = f"the provider: {asking.breaker.why}"
    elif asking.refused >= _REFUSED_LONG:
        waiting = f"the provider: {asking.refusal}"
    total = None
    if plan is not None:
        total = plan.pending_estimate or plan.pending_counted
        total = min(total, options.limit) if options.limit is not None else total
    return Snapshot(
        phase=session.phase,
        books=session.books,
        in_flight=len(asking.sending),
        per_min=60 * session.books.settled() / max(1.0, now - since),
        bound_by=bound_by(session),
        spent_usd=asking.budget.spent_usd,
        possibly_usd=asking.budget.possibly_usd,
        ceiling_usd=options.ceilings.run_usd,
        total_estimate=total,
        seconds=now - session.started,
        waiting_for=waiting,
        last_text=session.settling.last_text,
    )


def bound_by(session: Session) -> str:
    """What keeps the run from going faster, in an operator's words."""
    asking = session.asking
    if session.database.waiting_for:
        return "the database"
    if asking.budget.is_waiting:
        return "the money ceiling"
    limit = asking.rate.bound_by()
    if limit:
        return limit
    if session.backlog > session.backlog_most / 2:
        space = session.delivery if session.delivery and session.delivery.backlog > session.writer.backlog else None
        return space.space.where if space else "database load (--db-load)"
    if asking.slots.in_flight >= asking.slots.size:
        return "concurrency" if session.work.options.concurrency else "the provider's latency"
    return "reading pages (--db-load)" if session.work.options.db_load < 1 else "reading pages"


def verdict_of(ending: Ending) -> Verdict:
    """The exit code follows from the books first: no stop reason can turn a wrong sum into a success."""
    session, work = ending.session, ending.work
    exit_, headline = _judge(ending)
    budget = session.asking.budget if session else None
    seconds = work.clock.now() - ending.started
    told = work.account.report(ending.books) if session and work.account else Told()
    tap_s = max(1.0, work.clock.now() - session.tap_opened_at) if session and session.tap_opened_at else seconds
    return Verdict(
        run_id=session.opened.run_id if session else "",
        job=work.job.name,
        target=work.target.name,
        model=work.model,
        where=work.ledger.road.where,
        exit=exit_,
        headline=headline,
        books=ending.books,
        money=Money(
            estimate_usd=ending.plan.estimate_usd if ending.plan else None,
            actual_usd=budget.spent_usd if budget else 0.0,
            possibly_usd=budget.possibly_usd if budget else 0.0,
            reserve_usd=budget.idle_usd if budget else 0.0,
        ),
        calls=session.settling.tally.calls if session else 0,
        tokens_in=session.settling.tally.tokens_in if session else 0,
        tokens_out=session.settling.tally.tokens_out if session else 0,
        throttled=session.asking.rate.throttled if session else 0,
        recovered=len(session.writer.recovered) if session else 0,
        per_min=60 * ending.books.settled() / tap_s if session else 0.0,
        bound_by=bound_by(session) if session else "",
        seconds=seconds,
        stop_reason=ending.stop.why,
        fix=ending.stop.fix,
        next_command=_next(ending, exit_),
        dry_run=work.options.dry_run,
        pending_beyond=session.pending_beyond if session else False,
        cells_enforced_by=_enforced_by(ending.hello),
        notes=(*ending.notes, *_notes_of(work), *told.notes, *_in_journal(session)),
        in_journal=session.in_journal if session else 0,
        named=tuple(session.named) if session else (),
        own=told.lines,
        facts=told.facts,
    )


def _notes_of(work: Work) -> list[str]:
    return [each.note for each in (work.service, work.space) if each is not None and each.note]


def _in_journal(session: Session | None) -> tuple[str, ...]:
    """What a stopped run still owes the database, and that it costs nothing to pay it."""
    if session is None or not session.in_journal:
        return ()
    waits = "1 finished row waits" if session.in_journal == 1 else f"{session.in_journal} finished rows wait"
    return (f"{waits} in the journal; the same command stores them and pays for none again",)


def refused(ending: Ending, error: CatchupError, reason: Reason) -> Verdict:
    """A run that ended before, or outside, its session: the reason and the fix, and books that say nothing was done."""
    ending.stop.ask(reason.exit, error.what, error.fix)
    said = f" ({reason.service}: {reason.words})" if reason.words else ""
    facts = {"held_for_s": round(error.seconds_left)} if isinstance(error, LeaseHeld) else {}
    return replace(verdict_of(ending), exit=reason.exit, headline=error.what + said, facts=facts)


def _judge(ending: Ending) -> tuple[Exit, str]:
    books, stop = ending.books, ending.stop
    if not books.balance():
        off = books.selected - books.settled() - books.to_do
        return Exit.UNEXPECTED, f"the books do not balance: {off:+d} rows are unaccounted for"
    if stop.exit is not None:
        said = f" ({stop.service}: {stop.words})" if stop.words else ""
        return stop.exit, f"stopped: {stop.why}{said}"
    if ending.work.options.dry_run:
        return Exit.DONE, "dry run: nothing was written, nothing was paid"
    return _judge_finished(ending)


def _judge_finished(ending: Ending) -> tuple[Exit, str]:
    """Nothing stopped it: then a run with work and without a single call is a fault of ours, never a success."""
    books, session = ending.books, ending.session
    calls = session.settling.tally.calls if session else 0
    free = session.free_rows if session else 0
    if books.selected - free > books.skipped.total() and calls == 0 and not books.failed:
        return Exit.UNEXPECTED, "there was work and not one call was made"
    if books.failed or books.changed or books.gone:
        return Exit.SOME_NAMED, "finished, and the rows named below were not written"
    beyond = "; more rows are pending beyond this run" if session and session.pending_beyond else ""
    if books.selected or beyond:
        return Exit.DONE, f"done{beyond}"
    counted = ending.plan.pending_counted if ending.plan and not ending.work.options.only else 0
    if counted > _DONE_BY_OTHERS_MOST and session and session.is_scanned:
        return Exit.UNEXPECTED, f"the plan counted {counted:,} rows, and a moment later the run was shown none of them"
    nothing = Exit.NOTHING_TO_DO if ending.work.options.error_on_nothing else Exit.DONE
    return nothing, "nothing to do: no row is pending"


def _next(ending: Ending, exit_: Exit) -> str:
    session, command = ending.session, ending.work.command
    if session is not None:  # it has begun: said again, --fresh would give up the place it stopped at
        command = command.replace(" --fresh", "")
    match exit_:
        case Exit.SOME_NAMED:
            return f"catchup runs show {session.opened.run_id}" if session else ""
        case Exit.STOPPED | Exit.SIGINT | Exit.SIGTERM | Exit.BREAKER | Exit.CEILING | Exit.LEASE_HELD:
            return command
        case Exit.DONE if session and session.pending_beyond:
            return command
        case Exit.DONE if ending.work.options.dry_run:
            return command.replace(" --dry-run", "")
        case _:
            return ""


def _enforced_by(hello: Hello | None) -> str:
    if hello is None:
        return ""
    if hello.least_privilege:
        return f"the database: role {hello.role} can update nothing else"
    return f"this tool's functions: role {hello.role} could write more"
