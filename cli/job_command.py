"""One command for each job of jobs/: its options, and the road from what was typed to the verdict."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.flags import RunFlags, takes
from cli.main import new_app

if TYPE_CHECKING:
    from cli.view import View


def build(name: str) -> Any:
    """The command of this name, from the job's own words."""
    from jobs.registry import load_job

    job = load_job(name)
    app = new_app(job.summary)

    @app.command(name, help=job.summary, epilog=f"Example: {job.example}", context_settings=app.info.context_settings)
    @takes(RunFlags)
    def command(flags: RunFlags) -> None:
        raise typer.Exit(run_job(name, flags, shlex.join(["catchup", *sys.argv[1:]])))

    return typer.main.get_command(app)


def run_job(name: str, flags: RunFlags, command: str, view: View | None = None) -> int:
    """Loads settings, opens the view, runs to the verdict; returns the exit code."""
    from cli.connect import hide_secrets
    from cli.settings import load
    from cli.signals import Signals
    from cli.view import open_view

    settings = load(os.environ, Path.cwd(), flags.env_file)
    hide_secrets(settings)
    view = view or open_view(as_json=flags.json, quiet=flags.quiet, verbose=flags.verbose)
    signals = Signals(view.abandon)
    try:
        return asyncio.run(_run(name, flags, command, settings, view, signals))
    except asyncio.CancelledError:
        sys.stderr.write("stopped before the run began: nothing was written, nothing was paid\n")
        return int(signals.exit or 1)
    finally:
        view.abandon()


async def _run(name: str, flags: RunFlags, command: str, settings: Any, view: Any, signals: Any) -> int:
    from cli import choices, connect
    from jobs.engine.run import Run
    from jobs.engine.work import Work
    from jobs.registry import load_job
    from queries.ledger import Ledger

    signals.install()
    job = load_job(name)
    choice = connect.choose_database(settings, flags.local)
    for text in (f"database: {choice.said}", *settings.warnings, *(connect.details(settings) if flags.verbose else ())):
        view.say(text)
    provider_name = connect.choose_provider(flags.provider, choice.kind)
    hosts = flags.allow_host or ()
    async with connect.open_road(settings, choice, hosts) as (road, _):
        target = await choices.pick_target(job, settings, flags.target, road)
        target = choices.with_model(target, flags, settings)
        options = choices.options_from(flags, settings, target)
        provider = connect.open_provider(
            settings, provider_name, model=target.model, price=flags.price, dry_run=flags.dry_run, allow_hosts=hosts
        )
        try:
            run = Run(
                Work(
                    job, target, Ledger(road), provider.chat, provider.tokens, provider.price,
                    provider.model, settings.state_dir, options, view, command,
                )
            )  # fmt: skip
            signals.ask = run.ask_stop
            verdict = await run.go()
        finally:
            await provider.chat.close()
    view.finish(verdict)
    return int(verdict.exit)
