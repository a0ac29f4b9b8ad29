"""catchup reprocess-videos: what was stuck is put back, the rest is sent, and then watched; or done here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cli import choices
from cli.queues import check_queue, open_publisher
from cli.reprocess_flags import ReprocessFlags
from queries.errors import Misconfigured
from queries.table import Condition, Redo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.settings import Settings
    from cli.view import View
    from jobs.engine.options import Options
    from jobs.engine.work import Work
    from jobs.targets import Target
    from queries.publishing import Publisher
    from queries.road import Road


def reprocess(name: str, flags: ReprocessFlags, command: str) -> int:
    """The exit code of the one road or the other."""
    if flags.inline:
        from cli.inline import run_inline

        return run_inline(flags, command)
    from cli.job_command import run_job

    return run_job(name, flags, command)


async def make_sending(
    name: str, flags: ReprocessFlags, command: str, settings: Settings, view: View, road: Road
) -> Work:
    """A run whose service is the broker: what it answers is that it has the message."""
    from jobs.engine.clock import Clock
    from jobs.engine.hold import Hold
    from jobs.engine.work import Work
    from jobs.registry import load_job
    from queries.ledger import Ledger
    from queries.prices import Price
    from queries.tokens import TokenCounter

    check_queue(settings)
    job = load_job(name)
    target = as_sent(await choices.pick_target(job, settings, flags.target, road), flags, settings)
    publisher = open_publisher(settings, target, road.where)
    model = publisher.queue.where
    clock = Clock()

    async def depth() -> int:
        return (await publisher.look()).waiting

    return Work(
        job,
        target,
        Ledger(road),
        publisher,
        TokenCounter(model, settings.state_dir, len),
        Price(model, 0.0, 0.0, 0, 0, ""),
        model,
        settings.state_dir,
        _options(flags, settings, target),
        view,
        command,
        clock=clock,
        hold=Hold(depth, clock, flags.max_depth, flags.delay or 0.0),
        ready=lambda: look_ahead(publisher, flags),
    )


def as_sent(target: Target, flags: ReprocessFlags, settings: Settings) -> Target:
    """The target with this queue's message, and with the status that was asked for."""
    assert settings.queue is not None  # noqa: S101
    layout, spec = settings.queue.layout, target.spec
    wrong = list(layout.find_wrong())
    if wrong:
        raise Misconfigured(f"catchup.toml, [queue]: {'; '.join(wrong)}", fix="see docs/reprocess-videos.md")
    more = tuple(name for name in layout.columns if name not in (*spec.key, *spec.read, *spec.beside))
    pending = spec.pending
    if flags.status is not None:
        pending = tuple(replace(c, value=flags.status) if (c.column, c.op) == ("status", "=") else c for c in pending)
        if Condition("status", "=", flags.status) not in pending:
            raise Misconfigured(f"--status: target {target.name} selects by no status", fix="leave it out")
    return replace(target, message=layout, spec=replace(spec, beside=(*spec.beside, *more), pending=pending))


def _options(flags: ReprocessFlags, settings: Settings, target: Target) -> Options:
    where = flags.where or []
    options = choices.options_from(replace(flags, where=where, redo_where=None), settings, target)
    if flags.owner_id is not None:
        options = replace(options, where=(*options.where, ("owner_id", flags.owner_id)))
    # one connection sends one message after another: a cut leaves one in doubt
    return replace(options, concurrency=1, redo=Redo("unsent", str(flags.resend_after or "")))


async def look_ahead(publisher: Publisher, flags: ReprocessFlags) -> Sequence[str]:
    """Is there such a queue? A name with a typo would take every message, and no worker would ever see one."""
    facts = await publisher.look()
    if not facts.exists and not flags.create_queue:
        seen = f"; seen there: {', '.join(facts.seen[:5])}" if facts.seen else ""
        raise Misconfigured(
            f"there is no {publisher.queue.where}{seen}",
            fix="correct [queue] name in catchup.toml, or start a worker once; --create-queue if it is meant to be new",
        )
    waiting = f"{facts.waiting:,} messages wait in {publisher.queue.where}"
    return (waiting, *facts.notes)
