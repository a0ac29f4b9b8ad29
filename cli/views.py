"""catchup refresh-views: what it needs beside other jobs, and what may follow its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.project import LOOPBACK
from cli.views_flags import ViewsFlags
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cli.settings import Settings
    from cli.view import View
    from jobs.engine.work import Work
    from queries.road import Road
    from queries.views_ledger import Pick
    from queries.youtube import Views

QUOTA_A_DAY = 10_000
"""What a project has unless Google grants more (developers.google.com/youtube/v3, quota; 2026-11-21)."""
_OF_MODELS = ("model", "price", "provider", "max_cost", "redo_where")


def refresh(name: str, flags: ViewsFlags, command: str) -> int:
    """The exit code of the run, or of the list of what it changed."""
    if flags.since_run is not None:
        from cli.views_since import list_changes

        return list_changes(flags)
    from cli.job_command import run_job
    from cli.rollups import refresh_to_verdict

    return run_job(name, flags, command, task=refresh_to_verdict)


async def make_refreshing(
    name: str, flags: ViewsFlags, command: str, settings: Settings, view: View, road: Road
) -> Work:
    """Everything the engine needs, in the order in which it becomes known."""
    from dataclasses import replace

    from cli import choices
    from jobs.engine.clock import Clock
    from jobs.engine.work import Work
    from jobs.metered_views import MeteredViews
    from jobs.registry import load_job
    from jobs.views_account import ViewsAccount
    from queries.prices import Price
    from queries.quota import Quota
    from queries.tokens import TokenCounter
    from queries.views_ledger import ViewsLedger

    _refuse_foreign(flags)
    job, clock = load_job(name), Clock()
    target = await choices.pick_target(job, settings, flags.target, road)
    options = choices.options_from(flags, settings, target)
    pick = _pick(flags, options.slice)
    where = (*options.where, *((("channel_id", flags.channel),) if flags.channel else ()))
    options = replace(options, where=where, picked=_said(pick, flags))
    assert target.views is not None, "a target of views says where they are kept"  # noqa: S101
    ledger = ViewsLedger(road, target.views, pick)
    limit, reserve = flags.quota or QUOTA_A_DAY, flags.quota_reserve or 0
    if reserve >= limit:
        raise Misconfigured(f"--quota-reserve {reserve:,} leaves nothing of {limit:,} units", fix="keep less of it")
    service = MeteredViews(
        open_youtube(settings, {*settings.allow_hosts, *(flags.allow_host or ())}, flags.dry_run),
        Quota(road, limit=limit, reserve=reserve),
        limit,
        lambda: ledger.alive(target.name),
        clock,
    )
    return Work(
        job,
        target,
        ledger,
        service,
        TokenCounter(target.model, settings.state_dir, lambda text: 0),  # nothing is counted in tokens here
        Price(target.model, 0.0, 0.0, 0, 0, ""),
        target.model,
        settings.state_dir,
        options,
        view,
        command,
        clock,
        account=ViewsAccount(service, ledger, target, where, options.limit, limit, reserve),
    )


def _refuse_foreign(flags: ViewsFlags) -> None:
    for option in _OF_MODELS:
        if getattr(flags, option) is not None:
            said = f"--{option.replace('_', '-')}"
            raise Misconfigured(
                f"{said} means nothing to refresh-views: YouTube costs units, not money", fix="leave it out"
            )
    chosen = [
        said
        for said, is_said in (("--all", flags.all), ("--stale", flags.stale), ("--retry-failed", flags.retry_failed))
        if is_said
    ]
    if len(chosen) > 1:
        raise Misconfigured(f"{' and '.join(chosen)} are two answers to one question", fix="say one of them")


def _pick(flags: ViewsFlags, slice_: object) -> Pick:
    from queries.views_ledger import Pick

    mode = "all" if flags.all else "stale" if flags.stale is not None else "due"
    tiers = tuple(map(int, flags.tier.split(","))) if flags.tier else ()
    return Pick(mode, tiers, flags.stale or 0.0, slice_)  # type: ignore[arg-type]  # the options' slice


def _said(pick: Pick, flags: ViewsFlags) -> tuple[tuple[str, str], ...]:
    """What makes this choice another work than the choice of an unfinished run."""
    said: list[tuple[str, str]] = [("mode", pick.mode)] if pick.mode != "due" else []
    said += [("stale_s", f"{pick.stale_s:g}")] if flags.stale is not None else []
    said += [("tiers", ",".join(map(str, pick.tiers)))] if pick.tiers else []
    return tuple(said)


def open_youtube(settings: Settings, allowed: Iterable[str], dry_run: bool) -> Views:
    from urllib.parse import urlsplit

    from queries.youtube_client import YouTube

    if settings.youtube_api_key:
        key = settings.youtube_api_key.get_secret_value().strip()
    elif dry_run or urlsplit(settings.youtube_api_endpoint or "").hostname in LOOPBACK:
        key = "none-needed-here"
    else:
        raise Misconfigured(
            "YOUTUBE_API_KEY is not set, and there is no YouTube on this machine: --local means the database only",
            fix="make a key in Google's console (YouTube Data API v3), and set it in the environment or .env",
        )
    return YouTube(
        key, settings.youtube_api_endpoint, timeout_s=settings.limits.call_timeout, allow_hosts=frozenset(allowed)
    )
