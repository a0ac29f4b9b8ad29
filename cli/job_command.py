"""One command for each job of jobs/: its options, and the road from what was typed to the verdict."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from cli.flags import ReembedFlags, RunFlags, takes
from cli.main import new_app
from cli.opening import go_under, open_place, run_task
from cli.reprocess_flags import ReprocessFlags
from cli.views_flags import ViewsFlags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.job import Job
    from jobs.engine.run import Run
    from jobs.engine.verdict import Verdict
    from jobs.engine.work import Work
    from queries.road import Road

    Task = Callable[[Work, RunFlags, View, Signals], Awaitable[int]]


def build(name: str) -> Any:
    """The command of this name, from the job's own words."""
    from jobs.registry import find_jobs, load_job

    job, summary = load_job(name), find_jobs()[name]
    app = new_app(summary)

    @app.command(name, help=summary, epilog=f"Example: {job.example}", context_settings=app.info.context_settings)
    @takes(_flags_of(job))
    def command(flags: RunFlags) -> None:
        typed = shlex.join(["catchup", *sys.argv[1:]])
        if isinstance(flags, ReprocessFlags):
            from cli.reprocess import reprocess

            raise typer.Exit(reprocess(name, flags, typed))
        if isinstance(flags, ViewsFlags):
            from cli.views import refresh

            raise typer.Exit(refresh(name, flags, typed))
        raise typer.Exit(run_job(name, flags, typed))

    return typer.main.get_command(app)


def _flags_of(job: Job) -> type[RunFlags]:
    match job.service:
        case "embed":
            return ReembedFlags
        case "publish":
            return ReprocessFlags
        case "views":
            return ViewsFlags
        case _:
            return RunFlags


def run_job(name: str, flags: RunFlags, command: str, view: View | None = None, *, task: Task | None = None) -> int:
    """Loads settings, opens the view, does the task (a run to its verdict); returns the exit code."""

    async def do(settings: Settings, view: View, signals: Signals) -> int:
        return await _do(name, flags, command, settings, view, signals, task or _task_of(flags))

    return run_task(flags, do, view=view)


def _task_of(flags: RunFlags) -> Task:
    if isinstance(flags, ReembedFlags) and flags.reembed:
        from cli.reembed import reembed_to_verdict

        return reembed_to_verdict
    return run_to_verdict


async def _do(
    name: str, flags: RunFlags, command: str, settings: Settings, view: View, signals: Signals, task: Task
) -> int:
    from cli.memory import keep_memory

    async with open_place(settings, flags, view) as place:
        work = await make_work(name, flags, command, settings, view, place.road, place.choice.kind)
        work = replace(work, dsn=place.dsn)
        keep_memory(over_http=place.dsn is None)
        try:
            return await task(work, flags, view, signals)
        finally:
            await work.service.close()
            if work.space is not None:
                await work.space.close()


async def run_to_verdict(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    verdict = await run_work(work, view, signals)
    if work.target.embedding is not None:
        from cli.destinations import hint_at_index

        verdict = await hint_at_index(work, flags, verdict)
    finish(verdict, flags, view)
    return int(verdict.exit)


async def make_work(
    name: str, flags: RunFlags, command: str, settings: Settings, view: View, road: Road, kind: str
) -> Work:
    """Everything the engine needs, in the order in which it becomes known."""
    if isinstance(flags, ReprocessFlags):
        from cli.sending import make_sending

        return await make_sending(name, flags, command, settings, view, road)
    if isinstance(flags, ViewsFlags):
        from cli.views import make_refreshing

        return await make_refreshing(name, flags, command, settings, view, road)
    from cli import choices, providers
    from jobs.engine.work import Work
    from jobs.registry import load_job
    from queries.ledger import Ledger

    job, ledger = load_job(name), Ledger(road)
    hosts = flags.allow_host or ()
    wanted = providers.choose_provider(flags.provider, kind)
    picked = await choices.pick_target(job, settings, flags.target, road)
    target = providers.fit_to_provider(choices.as_asked(picked, flags, settings, kind), wanted)
    options = choices.options_from(flags, settings, target)
    space = providers.open_space(settings, target, road, hosts)
    service, tokens, price, model = providers.open_provider(settings, wanted, target, flags.price, flags.dry_run, hosts)
    return Work(
        job, target, ledger, service, tokens, price, model, settings.state_dir, options, view, command, space=space
    )


async def run_work(work: Work, view: View, signals: Signals, run: Run | None = None) -> Verdict:
    from jobs.engine.run import Run

    return await go_under(signals, run or Run(work), view)


def finish(verdict: Verdict, flags: RunFlags, view: View) -> None:
    from cli.layout import as_plain
    from cli.report import verdict_lines

    view.finish(verdict)
    if getattr(sys.stdout, "failed", False) and not flags.json:
        sys.stderr.write(as_plain(verdict_lines(verdict)))  # whoever closed stdout may still read the log
