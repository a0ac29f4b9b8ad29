"""Both steps of rich semantics as the engine needs them: targets, models and prices, from settings and flags."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cli import choices, providers
from cli.flags import RunFlags
from cli.settings import Settings
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.engine.job import Job
    from jobs.engine.watch import Watcher
    from jobs.engine.work import Work
    from jobs.rich_steps import Steps
    from jobs.targets import Target
    from queries.road import Road

_MIGRATE = "run `catchup migrate --set rich-semantics`, then `catchup migrate`; or name your columns in catchup.toml"


def find_targets(settings: Settings) -> tuple[Target, Target]:
    """The two targets as catchup.toml changes them, fitted to each other."""
    from jobs import rich_scenes, rich_targets, rich_videos

    scenes, summary = (
        choices.targets_of(job, settings)[target.name]
        for job, target in ((rich_scenes.PART, rich_targets.SCENES), (rich_videos.PART, rich_targets.SUMMARY))
    )
    return scenes, rich_targets.pair(scenes, summary)


@asynccontextmanager
async def open_steps(
    settings: Settings, flags: RunFlags, road: Road, kind: str, watcher: Watcher, command: str, name: str | None = None
) -> AsyncIterator[Steps]:
    """`name` is what the ledger calls these runs, where it is not the inline command's."""
    from jobs import rich_scenes, rich_videos
    from jobs.engine.choose import probe
    from jobs.rich_steps import Steps

    if flags.target is not None:
        raise Misconfigured("--target: both steps have a target of their own", fix="leave it out")
    scenes, summary = find_targets(settings)
    works: list[Work] = []
    try:
        for job, target in ((rich_scenes.PART, scenes), (rich_videos.PART, summary)):
            try:
                await probe(target, road)
            except Misconfigured as missing:
                missing.fix = _MIGRATE
                raise
            named = replace(job, name=name) if name else job
            works.append(_make_work(named, target, settings, flags, road, kind, watcher, command))
        yield Steps(*works)
    finally:
        for work in works:
            await work.service.close()


def _make_work(
    job: Job,
    target: Target,
    settings: Settings,
    flags: RunFlags,
    road: Road,
    kind: str,
    watcher: Watcher,
    command: str,
) -> Work:
    from jobs.engine.rate_limit import RateLimit
    from jobs.engine.work import Work
    from queries.ledger import Ledger

    if flags.price is not None and flags.model is None:
        raise Misconfigured("--price: two models are used here", fix="name one for both with --model, or leave it out")
    wanted = providers.choose_provider(flags.provider, kind)
    target = providers.fit_to_provider(choices.with_model(target, flags, settings), wanted)
    plain = replace(flags, where=None, slice=None, limit=None, redo_where=None)
    options = choices.options_from(plain, settings, target)
    hosts = flags.allow_host or ()
    service, tokens, price, model = providers.open_provider(settings, wanted, target, flags.price, flags.dry_run, hosts)
    work = Work(job, target, Ledger(road), service, tokens, price, model, settings.state_dir, options, watcher, command)
    return replace(work, rate=RateLimit(work.clock, options.max_per_min))
