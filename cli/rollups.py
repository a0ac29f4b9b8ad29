"""refresh-views --rollups: after a run that wrote, the materialized views over what was written."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.quantities import show_duration
from cli.views_flags import ViewsFlags
from queries.errors import CatchupError

if TYPE_CHECKING:
    from cli.flags import RunFlags
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.verdict import Verdict
    from jobs.engine.work import Work
    from queries.rollups import Rollups


async def refresh_to_verdict(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    """The run, then its views; the verdict is of both, and says which of the two did not succeed."""
    from cli.job_command import finish, run_work
    from jobs.engine.verdict import Exit

    assert isinstance(flags, ViewsFlags)  # noqa: S101
    rollups = await _find(work) if flags.rollups else None
    verdict = await run_work(work, view, signals)
    if rollups is not None and not flags.dry_run and verdict.exit in (Exit.DONE, Exit.SOME_NAMED, Exit.STOPPED):
        verdict = await _follow(work, verdict, signals)
    elif rollups is not None and flags.dry_run:
        view.notice(f"rollups: {', '.join(each.name for each in rollups.views) or 'none depends on these tables'}")
    finish(verdict, flags, view)
    return int(verdict.exit)


async def _find(work: Work) -> Rollups | None:
    """Before anything is asked: what cannot be refreshed from here is said while nothing is spent."""
    from queries.rollups import find_rollups, refusal

    if (await work.ledger.hello()).schema_version is None:
        return None  # a dry run before `migrate` says so itself
    views = work.target.views
    assert views is not None  # noqa: S101
    tables = (work.target.spec.table, views.snapshots, views.priorities)
    found = await find_rollups(work.ledger.road, work.target.spec, work.target.name, tables)
    if work.dsn == "":
        raise refusal(found, "over REST every statement ends after seconds, and only their owner may refresh them")
    return found


async def _follow(work: Work, verdict: Verdict, signals: Signals) -> Verdict:
    """Whatever becomes of the views, what the run did is said."""
    from jobs.engine.verdict import Exit

    try:
        return await _refresh(work, verdict)
    except CatchupError as error:
        return _with_failure(verdict, "the views", error)
    except asyncio.CancelledError:
        if signals.exit is None:
            raise
        what = f"{verdict.headline}; stopped before the views were refreshed"
        return replace(verdict, exit=Exit(signals.exit), headline=what, next_command=work.command)


def _with_failure(verdict: Verdict, of: str, error: CatchupError) -> Verdict:
    from cli.report import exit_of
    from jobs.engine.verdict import Exit

    why = getattr(error, "words", "") or error.what
    return replace(
        verdict,
        exit=exit_of(error) if verdict.exit in (Exit.DONE, Exit.SOME_NAMED) else verdict.exit,
        headline=f"{verdict.headline}; not refreshed: {of}: {why}",
        fix=error.fix or "look at the view; the same command refreshes all of them, also if no count changes",
    )


async def _refresh(work: Work, verdict: Verdict) -> Verdict:
    from queries.rollups import refresh_rollups

    found = await _find(work)
    if found is None or not found.is_due or not found.views:
        said = "no view depends on these tables" if found and not found.views else "nothing changed: none refreshed"
        return replace(verdict, own=(*verdict.own, ("rollups", said)), facts={**verdict.facts, "rollups": []})
    done = await refresh_rollups(work.dsn, found, work.target.name)
    if done.broken:
        verdict = _with_failure(verdict, ", ".join(name for name, _ in done.broken), done.broken[0][1])
    said = ", ".join(f"{name} in {show_duration(seconds)}" for name, seconds in done.took) or "none"
    slow = [each.name for each in found.views if not each.concurrently]
    note = (
        (f"{', '.join(slow)} was locked for readers meanwhile: a unique index on it lets them go on",) if slow else ()
    )
    return replace(
        verdict,
        own=(*verdict.own, ("rollups", said)),
        notes=(*verdict.notes, *note),
        facts={**verdict.facts, "rollups": [name for name, _ in done.took]},
    )
