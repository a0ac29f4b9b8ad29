"""catchup plan: the live road, batches and both, side by side, before anything is paid."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import quantities
from cli.flags import RunFlags, option, takes
from cli.layout import Line
from cli.main import new_app
from cli.report import write_json
from cli.submit_batch import JOBS, BatchFlags, flags_for, job_of, open_batches, options_from
from cli.visit import show

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.batching.lanes import Lane, Pace
    from jobs.engine.work import Work

app = new_app("Compare the live road, batches and both: when each is done, and what it costs.")


@dataclass(frozen=True, kw_only=True)
class LaneFlags(BatchFlags):
    deadline: Annotated[
        float | None, option(read=quantities.read_duration_s, metavar="TIME", help="When all must be in: 12h, 2d.")
    ] = None


@app.command("plan", epilog="Example: catchup plan backfill-summaries --deadline 36h")
@takes(LaneFlags)
def plan(
    flags: LaneFlags,
    job: Annotated[str, typer.Argument(metavar="JOB", help="backfill-summaries or vectorize.")] = JOBS[0],
) -> None:
    """Compare three lanes for a job: live, by batches, and split between both, for time and money.

    It reads every candidate and counts its tokens, and writes nothing. The pace of the live road is that of the last
    live run, or --max-rate; the limit of batches is the one last learned, or --enqueued-limit."""
    from cli.job_command import run_job
    from cli.settings import load
    from queries.errors import Misconfigured

    settings = load(os.environ, Path.cwd(), flags.env_file)
    if job not in JOBS:
        raise Misconfigured(f"there are no lanes for {job!r}", fix=f"name one of {', '.join(JOBS)}")
    name = job_of(flags.target, settings) if flags.target else job

    async def task(work: Work, given: RunFlags, view: View, signals: Signals) -> int:
        del view, signals
        return await _compare(work, replace(flags, dry_run=True), settings)

    command = shlex.join(["catchup", *sys.argv[1:]])
    raise typer.Exit(run_job(name, flags_for(name, replace(flags, dry_run=True)), command, task=task))


async def _compare(work: Work, flags: LaneFlags, settings: Settings) -> int:
    from jobs.batching.lanes import Amount, compare
    from jobs.batching.run import BatchRun
    from jobs.batching.survey import tokens_most, usd_of

    errand = open_batches(work, settings, options_from(flags), flags)
    try:
        found, room = await BatchRun(errand).survey()
    finally:
        await errand.batches.close()
    batch_usd, live_usd = usd_of(found, errand)
    amount = Amount(found.requests, found.tokens, batch_usd, live_usd)
    pace, said = await _pace(work, flags, tokens_most(errand, room))
    lanes = compare(amount, pace, flags.deadline)
    if flags.json:
        for lane in lanes:
            write_json({"type": "lane", "target": work.target.name, **asdict(lane)})
        return 0
    lines = [
        Line("target", f"{work.target.name}: {found.requests:,} requests, {found.tokens:,} tokens, {work.model}"),
        Line("live pace", said),
        Line("enqueued", f"{pace.enqueued_tokens:,} tokens" if pace.enqueued_tokens else "unknown, taken as none"),
    ]
    show([*lines, *(Line(lane.name, _say(lane), "warn" if lane.meets is False else "") for lane in lanes)])
    return 0


async def _pace(work: Work, flags: LaneFlags, enqueued: int | None) -> tuple[Pace, str]:
    from jobs.batching.lanes import Pace

    if flags.max_rate:
        return Pace(float(flags.max_rate), enqueued), f"{flags.max_rate:,} rows a minute, by --max-rate"
    for record in await work.ledger.runs(200):
        seconds = _seconds(record.started_at, record.updated_at)
        if (record.job, record.target) == (work.job.name, work.target.name) and record.calls > 20 and seconds > 1:
            per_min = 60 * sum(record.books.get(name, 0) for name in ("wrote", "failed")) / seconds
            said = f"{per_min:,.0f} rows a minute, as in run {record.run_id} of {record.started_at[:10]}"
            return Pace(per_min, enqueued), said
    return Pace(None, enqueued), "unknown: no live run yet (--max-rate says one)"


def _seconds(start: str, end: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _say(lane: Lane) -> str:
    rows = " + ".join(
        f"{count:,} {how}" for count, how in ((lane.live_rows, "live"), (lane.batch_rows, "by batch")) if count
    )
    longest = "time unknown" if lane.seconds is None else f"at most {quantities.show_duration(lane.seconds)}"
    meets = {True: "; in time", False: "; too late", None: ""}[lane.meets]
    return f"~{quantities.show_usd(lane.usd)}, {longest}{meets}; {rows or 'nothing to do'}"
