"""catchup submit-batch: hands in what fits, collects what is done, writes it back; run it again, or --watch."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import quantities
from cli.flags import RunFlags, VectorFlags, option, takes
from cli.main import new_app

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.batching.options import BatchOptions, BatchWork
    from jobs.engine.work import Work

app = new_app("A job's work at half the price, by OpenAI's Batch API: hand in, collect.")
JOBS = ("backfill-summaries", "vectorize")


@dataclass(frozen=True, kw_only=True)
class BatchFlags(VectorFlags):
    """What only batches ask. The flags of vectors are for targets of vectorize."""

    watch: Annotated[bool, option("--watch", help="Stay until all is in; else do what is possible now and exit.")] = (
        False
    )
    tail_live: Annotated[
        int, option(min=0, max=10_000, metavar="N", help="So few rows at the end (100) go by the live road.")
    ] = 100
    enqueued_limit: Annotated[
        int | None,
        option(min=1, metavar="TOKENS", help="The organisation's limit of enqueued tokens; learned if left out."),
    ] = None
    stall: Annotated[
        float | None,
        option(read=quantities.read_duration_s, metavar="TIME", help="Name a batch that stands still this long (6h)."),
    ] = None
    rescue: Annotated[
        bool, option("--rescue", help="Cancel stalled batches, take what they did, send the rest again.")
    ] = False


@app.command("submit-batch", epilog="Example: catchup submit-batch --dry-run")
@takes(BatchFlags)
def submit_batch(flags: BatchFlags) -> None:
    """Do what a job does live, at half the price: hand rows in as batches, collect them, write them back.

    One start does whatever is possible now and exits with 0, also while batches are at the provider: run the same
    command again, by cron every ten minutes, or stay with --watch. --target may be one of backfill-summaries or
    vectorize."""
    raise typer.Exit(run_batches(flags, shlex.join(["catchup", *sys.argv[1:]])))


def run_batches(flags: BatchFlags, command: str, *, collect_only: bool = False) -> int:
    from cli.job_command import run_job
    from cli.settings import load

    settings = load(os.environ, Path.cwd(), flags.env_file)
    name = job_of(flags.target, settings)
    options = options_from(flags, collect_only=collect_only)

    async def task(work: Work, given: RunFlags, view: View, signals: Signals) -> int:
        return await _submit(work, given, view, signals, settings, options)

    return run_job(name, flags_for(name, flags), command, task=task)


def job_of(target: str | None, settings: Settings) -> str:
    """The job whose target this is; without a name the first one's, which is then found by its columns."""
    from cli.choices import targets_of
    from jobs.registry import load_job

    for name in JOBS:
        if target is not None and target in targets_of(load_job(name), settings):
            return name
    return JOBS[0]


def flags_for(job: str, flags: BatchFlags) -> RunFlags:
    """A job without vectors has no flags for them."""
    if job != JOBS[0]:
        return flags
    return RunFlags(**{field.name: getattr(flags, field.name) for field in fields(RunFlags)})


def options_from(flags: BatchFlags, *, collect_only: bool = False) -> BatchOptions:
    from jobs.batching.options import STALL_S, BatchOptions

    return BatchOptions(
        watch=flags.watch,
        tail_live=flags.tail_live,
        enqueued_limit=flags.enqueued_limit,
        stall_s=flags.stall or STALL_S,
        rescue=flags.rescue,
        collect_only=collect_only,
    )


async def _submit(
    work: Work, flags: RunFlags, view: View, signals: Signals, settings: Settings, options: BatchOptions
) -> int:
    from cli.job_command import finish, run_work
    from jobs.batching.run import BatchRun

    errand = open_batches(work, settings, options, flags)
    try:
        verdict = await run_work(work, view, signals, BatchRun(errand))
    finally:
        await errand.batches.close()
    if not options.collect_only and verdict.next_command:
        verdict = replace(verdict, next_command=work.command.replace(" --dry-run", ""))
    finish(verdict, flags, view)
    return int(verdict.exit)


def open_batches(work: Work, settings: Settings, options: BatchOptions, flags: RunFlags) -> BatchWork:
    """The same key and address as the live road's. Small local models answer at once: there is nothing to hand in."""
    from jobs.batching.options import BatchWork
    from queries.errors import Misconfigured
    from queries.openai_batches import OpenAIBatches

    if work.service.is_local:
        live = f"catchup {work.job.name}"
        raise Misconfigured(
            "the local provider has no Batch API: it answers at once, and costs nothing",
            fix=f"`{live}` does the same work; for batches say --provider openai and set OPENAI_API_KEY",
        )
    key = settings.openai_api_key.get_secret_value().strip() if settings.openai_api_key else "none-needed"
    hosts = {*settings.allow_hosts, *(flags.allow_host or ())}
    batches = OpenAIBatches(key, settings.openai_base_url, timeout_s=settings.limits.call_timeout, allow_hosts=hosts)
    return BatchWork(work, batches, options, batches.base_url)
