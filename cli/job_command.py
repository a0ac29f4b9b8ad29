"""One command for each job of jobs/: its options, and the road from what was typed to the verdict."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.flags import ReembedFlags, RunFlags, takes
from cli.main import new_app
from cli.reprocess_flags import ReprocessFlags
from cli.views_flags import ViewsFlags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.job import Job
    from jobs.engine.run import Run
    from jobs.engine.verdict import Exit, Verdict
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
    from cli.connect import hide_secrets
    from cli.settings import load
    from cli.signals import Signals
    from cli.view import open_view

    settings = load(os.environ, Path.cwd(), flags.env_file)
    hide_secrets(settings)
    view = view or open_view(as_json=flags.json, quiet=flags.quiet, verbose=flags.verbose)
    signals = Signals(view.abandon)
    try:
        return asyncio.run(_do(name, flags, command, settings, view, signals, task or _task_of(flags)))
    except asyncio.CancelledError:
        after = "stopped after the run: what was to follow is not finished"
        before = "stopped before the run began: nothing was written, nothing was paid"
        sys.stderr.write(f"{after if signals.had_run else before}\n")
        return int(signals.exit or 1)
    finally:
        view.abandon()


def _task_of(flags: RunFlags) -> Task:
    if isinstance(flags, ReembedFlags) and flags.reembed:
        from cli.reembed import reembed_to_verdict

        return reembed_to_verdict
    return run_to_verdict


async def _do(
    name: str, flags: RunFlags, command: str, settings: Settings, view: View, signals: Signals, task: Task
) -> int:
    from cli import connect
    from cli.memory import keep_memory

    signals.install()
    choice = connect.choose_database(settings, flags.local)
    for text in (f"database: {choice.said}", *settings.warnings, *(connect.details(settings) if flags.verbose else ())):
        view.say(text)
    async with connect.open_road(settings, choice, flags.allow_host or ()) as (road, dsn):
        work = replace(await make_work(name, flags, command, settings, view, road, choice.kind), dsn=dsn)
        keep_memory()
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

    run = run or Run(work)

    def stop(exit_: Exit, why: str) -> None:
        run.ask_stop(exit_, why)
        view.dismiss()

    signals.ask = stop
    try:
        return await run.go()
    finally:  # what a command does after its run is ended by a signal like anything else
        signals.ask, signals.had_run = None, True


def finish(verdict: Verdict, flags: RunFlags, view: View) -> None:
    from cli.layout import as_plain
    from cli.report import verdict_lines

    view.finish(verdict)
    if getattr(sys.stdout, "failed", False) and not flags.json:
        sys.stderr.write(as_plain(verdict_lines(verdict)))  # whoever closed stdout may still read the log
