"""Everything a run of messages needs, from flags and settings: target, queue, pace, and which videos."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli import choices
from cli.queues import check_queue, open_publisher
from cli.reprocess_flags import ReprocessFlags
from queries.errors import Misconfigured
from queries.table import Condition, Redo

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.view import View
    from jobs.engine.database import Database
    from jobs.engine.job import Job
    from jobs.engine.options import Options
    from jobs.engine.work import Work
    from jobs.following import Following
    from jobs.targets import Target
    from queries.ledger import Ledger
    from queries.message_ledger import States
    from queries.messages import Seen
    from queries.publishing import Publisher
    from queries.road import Road

_PACK_UNDER_DEPTH = 20
_SAMPLE = 200


async def make_sending(
    name: str, flags: ReprocessFlags, command: str, settings: Settings, view: View, road: Road
) -> Work:
    """A run whose service is the broker: what it answers is that it has the message."""
    from jobs.engine.clock import Clock
    from jobs.engine.hold import Hold
    from jobs.engine.insistence import Insistence
    from jobs.engine.opening import query_of, run_params
    from jobs.engine.work import Work
    from jobs.registry import load_job
    from jobs.sending import Sending
    from jobs.stuck_videos import STUCK
    from queries.ledger import Ledger
    from queries.message_ledger import MessageLedger
    from queries.prices import Price
    from queries.tokens import TokenCounter

    check_queue(settings, may_be_inline=True)
    job, ledger, clock = load_job(name), Ledger(road), Clock()
    known = choices.targets_of(job, settings)
    target = as_sent(await _pick(known, flags, settings, road), flags, settings)
    options = _options(flags, settings, target)
    stuck = known[STUCK.name]
    messages = MessageLedger(road, states_of(target, stuck))
    database = _open_database(ledger, clock, options)

    redo = _redo(flags)

    async def still(seen: Sequence[Seen]) -> frozenset[int]:
        return await database.insist(lambda: messages.still(target.spec, target.name, redo, seen))

    publisher = open_publisher(settings, target, road.where, still)
    model = publisher.name

    async def ready() -> Sequence[str]:
        return await look_ahead(publisher, flags, ledger, target)

    if flags.reset_stuck is not None:
        from cli.unstick import unstick

        await unstick(flags, options, (target, stuck), messages, database, view, ready)
    if flags.ids_from is not None:
        fingerprint = target.fingerprint(model, run_params(target, model, options))
        options = await _only_listed(flags, options, ledger, query_of(target, options, fingerprint), view)
    fingerprint = target.fingerprint(model, run_params(target, model, options))
    broker = Insistence("the broker", clock, options.max_outage_s)
    query = query_of(target, options, fingerprint)
    sending = Sending(target, query, messages, publisher, broker, listed=options.among)
    return Work(
        _paced(job, flags),
        target,
        ledger,
        publisher,
        TokenCounter(model, settings.state_dir, len),
        Price(model, 0.0, 0.0, 0, 0, ""),
        model,
        settings.state_dir,
        options,
        view,
        command,
        clock=clock,
        hold=Hold(_depth(publisher), broker, clock, flags.max_depth, flags.delay or 0.0),
        ready=ready,
        account=sending,
    )


async def _pick(known: Mapping[str, Target], flags: ReprocessFlags, settings: Settings, road: Road) -> Target:
    """Of the targets that are sent; by name, or by the table's columns."""
    from jobs.engine.choose import choose_target

    sent = {name: target for name, target in known.items() if not target.spec.cells}
    if flags.target is not None and flags.target not in sent:
        raise Misconfigured(f"no target {flags.target!r} is sent", fix=f"known are {', '.join(sent)}")
    wanted = [flags.target] if flags.target is not None else [name for name in sent if name in settings.targets]
    return await choose_target([sent[name] for name in wanted or sent], road)


def states_of(target: Target, stuck: Target) -> States:
    """The columns and words of this application, as its two targets name them."""
    from queries.message_ledger import States

    spec, own = stuck.spec, States()
    flag = next((c.column for c in target.spec.pending if c.op == "is not true"), own.flag)
    return replace(
        own,
        status=spec.cells[0],
        flag=flag,
        changed_at=spec.read[0],
        idle=stuck.cells[spec.cells[0]],
        working=next((c.value or "" for c in spec.pending if c.column == spec.cells[0]), own.working),
        owner=target.spec.filters[0] if target.spec.filters else own.owner,
    )


def as_sent(target: Target, flags: ReprocessFlags, settings: Settings) -> Target:
    """The target with this queue's message, and with the status that was asked for."""
    assert settings.queue is not None  # noqa: S101
    layout, spec = settings.queue.layout, target.spec
    more = tuple(name for name in layout.columns if name not in (*spec.key, *spec.read, *spec.beside))
    pending = spec.pending
    if flags.status is not None:
        wanted = Condition("status", "=", flags.status)
        pending = tuple(wanted if (c.column, c.op) == ("status", "=") else c for c in pending)
        if wanted not in pending:
            raise Misconfigured(f"--status: target {target.name} selects by no status", fix="leave it out")
    return replace(target, message=layout, spec=replace(spec, beside=(*spec.beside, *more), pending=pending))


def _options(flags: ReprocessFlags, settings: Settings, target: Target) -> Options:
    owner = [("owner_id", flags.owner_id)] if flags.owner_id is not None else []
    options = choices.options_from(replace(flags, where=flags.where or []), settings, target)
    return replace(options, where=(*options.where, *owner), concurrency=_in_flight(flags), redo=_redo(flags))


def _redo(flags: ReprocessFlags) -> Redo:
    return Redo("unsent", "" if flags.resend_after is None else str(flags.resend_after))


def _in_flight(flags: ReprocessFlags) -> int:
    """Whoever counts what waits must not count before the last ones are there."""
    from queries.publishing import IN_FLIGHT_MOST

    return 1 if flags.max_depth is not None or flags.delay else IN_FLIGHT_MOST


def _paced(job: Job, flags: ReprocessFlags) -> Any:
    """Whoever wants a pause between messages, or few of them waiting, gets small requests."""
    most: int = job.packing.texts_most if job.packing else 1
    if flags.max_depth is not None:
        most = max(1, min(_PACK_UNDER_DEPTH, flags.max_depth // 5))
    if flags.delay:
        most = 1
    return replace(job, packing=replace(job.packing, texts_most=most))  # type: ignore[type-var]  # every job is a dataclass


async def _only_listed(flags: ReprocessFlags, options: Options, ledger: Ledger, query: Any, view: View) -> Options:
    from cli.id_list import find_listed, key_type, read_ids
    from jobs.engine.options import Only

    assert flags.ids_from is not None  # noqa: S101
    await _need_ledger(ledger, query.spec, "--ids-from")
    listed = await find_listed(ledger, query, read_ids(flags.ids_from, await key_type(ledger, query.spec)))
    for text in listed.say():
        view.say(text)
    keys = [row.key for row in listed.rows]
    only = Only(frozenset(keys), listed.rows[:_SAMPLE])
    return replace(options, only=only, among=tuple(key[0] for key in keys))


async def _need_ledger(ledger: Ledger, spec: Any, flag: str) -> None:
    if (await ledger.hello(spec)).schema_version is None:
        raise Misconfigured(f"{flag} needs the ledger, which is not installed", fix="run `catchup migrate` once")


async def look_ahead(publisher: Publisher, flags: ReprocessFlags, ledger: Ledger, target: Target) -> Sequence[str]:
    """Is there such a queue? A name with a typo would take every message, and no worker would ever see one."""
    facts = await publisher.look()
    if facts.exists or (
        not facts.is_certain and (flags.create_queue or await _was_used(ledger, target, publisher.name))
    ):
        return facts.notes
    seen = f"; seen there: {', '.join(facts.seen[:5])}" if facts.seen else ""
    if facts.is_certain:
        fix = "correct [queue] name in catchup.toml, or start a worker once: it declares the queue as it needs it"
    else:
        fix = "correct [queue] name in catchup.toml; --create-queue if it is right and has never held anything yet"
    raise Misconfigured(f"there is no {publisher.name}{seen}", fix=fix)


async def _was_used(ledger: Ledger, target: Target, queue: str) -> bool:
    """An empty queue leaves no trace in Redis, but our own ledger knows it."""
    if (await ledger.hello()).schema_version is None:
        return False
    last = await ledger.last_finished(target.name)
    return last is not None and last.params.get("model") == queue


def _depth(publisher: Publisher) -> Callable[[], Awaitable[int]]:
    async def depth() -> int:
        return (await publisher.look()).waiting

    return depth


def _open_database(ledger: Ledger, clock: Any, options: Options) -> Database:
    from jobs.engine.database import Database
    from jobs.engine.database_load import DatabaseLoad

    return Database(DatabaseLoad(options.db_load, clock), ledger, clock, options.max_outage_s)


def open_following(work: Work, run_id: str) -> Following:
    from jobs.following import Following
    from jobs.sending import Sending
    from queries.publishing import Publisher

    assert isinstance(work.account, Sending)  # noqa: S101
    assert isinstance(work.service, Publisher)  # noqa: S101
    database = _open_database(work.ledger, work.clock, work.options)
    return Following(work.account.messages, database, work.target, work.clock, run_id, _depth(work.service))
