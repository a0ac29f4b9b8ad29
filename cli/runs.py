"""catchup runs: what the ledger knows of runs, and the few things that can be done to one."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import typer

from cli.flags import Pair, ReembedFlags, RunFlags, VectorFlags, WorldFlags, takes
from cli.layout import Line, reasons
from cli.main import new_app
from cli.quantities import show_time, show_usd
from cli.report import named_line, write_json
from cli.untrusted import clean
from cli.visit import Place, show, visit
from jobs.engine.verdict import Named
from jobs.registry import find_jobs
from queries.errors import Misconfigured
from queries.ledger import RowVerdict, RunRecord
from queries.table import Key

app = new_app("List, show, resume, cancel and prune runs.")
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run id, or its beginning.")]


@dataclass(frozen=True, kw_only=True)
class ListFlags(WorldFlags):
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20


@app.command("list", epilog="Example: catchup runs list --limit 5")
@takes(ListFlags)
def list_runs(flags: ListFlags) -> None:
    """List runs, newest first."""

    async def read(place: Place) -> list[RunRecord]:
        return [as_it_is(place, record) for record in await place.ledger.runs(flags.limit)]

    records = visit(flags, read, needs_ledger=True)
    if flags.json:
        for record in records:
            write_json({"type": "run", **asdict(record)})
    else:
        show(run_table(records))


def as_it_is(place: Place, record: RunRecord) -> RunRecord:
    """The ledger says running until somebody says otherwise; a process that was killed says nothing."""
    from jobs.engine.state_dir import StateDir, lock_id

    if record.state != "running":
        return record
    lock = lock_id(place.road.where, record.target, record.slice.above, record.slice.upto)
    if not StateDir(place.settings.state_dir).proves_dead(record.home_id, lock):
        return record
    return replace(record, state="stopped", stop_reason="its process is dead; the same command goes on from there")


def run_table(records: list[RunRecord]) -> list[Line]:
    if not records:
        return [Line("", "no runs yet")]
    return [Line(record.run_id, _in_short(record)) for record in records]


def _in_short(record: RunRecord) -> str:
    began = show_time(clean(record.started_at))
    done = f"wrote {record.books.get('wrote', 0):,}  {show_usd(record.spent_usd)}"
    reason = clean(record.stop_reason, 80)
    return f"{record.state:9} {began}  {record.job} · {record.target}  {done}  {reason}".rstrip()


@app.command("show", epilog="Example: catchup runs show 3f2a9c01b2")
@takes(WorldFlags)
def show_run(run: RunId, flags: WorldFlags) -> None:
    """Show one run: its books, its money, and every row it named."""

    async def read(place: Place) -> tuple[RunRecord, list[RowVerdict]]:
        record = as_it_is(place, await find_run(place, run))
        return record, await place.ledger.named(record.run_id)

    record, named = visit(flags, read, needs_ledger=True)
    if flags.json:
        write_json({"type": "run", **asdict(record), "named": [asdict(row) for row in named]})
    else:
        show(run_lines(record, named))


async def find_run(place: Place, wanted: str) -> RunRecord:
    """By id or by an unmistakable beginning of it."""
    record = await place.ledger.run(wanted)
    if record is not None:
        return record
    close = [item for item in await place.ledger.runs(1000) if item.run_id.startswith(wanted)]
    if len(close) != 1:
        said = "several runs begin with" if close else "there is no run"
        raise Misconfigured(f"{said} {clean(wanted, 40)}", fix="see `catchup runs list`")
    return close[0]


def run_lines(record: RunRecord, named: list[RowVerdict]) -> list[Line]:
    lines = [
        Line("run", f"{record.run_id} · {record.job} · {record.target}"),
        Line("state", record.state + (", asked to stop" if record.cancel_asked else "")),
        Line("began", f"{show_time(clean(record.started_at))}; last seen {show_time(clean(record.updated_at))}"),
        Line("on", clean(record.home_host)),
        Line("model", clean(record.params.get("model", ""))),
        Line("books", reasons(sorted(record.books.items())) or "empty"),
        Line("cost", f"{show_usd(record.spent_usd)} for {record.calls:,} calls"
             + (f", {show_usd(record.possibly_usd)} more possibly billed" if record.possibly_usd else "")),
    ]  # fmt: skip
    if record.state in ("running", "stopped"):
        lines.append(Line("checkpoint", clean(_key(record.checkpoint) or "at the start")))
    if record.unconfirmed:
        lines.append(
            Line(
                "journal",
                f"up to {record.unconfirmed:,} answers ({show_usd(record.unconfirmed_usd)}) are paid and only there",
            )
        )
    if record.stop_reason:
        lines.append(Line("stopped", clean(record.stop_reason, 400)))
    lines += [named_line(Named(_key(row.key) or "", row.state, row.reason, row.detail)) for row in named]
    if record.state in ("running", "stopped"):
        lines.append(Line("next", f"catchup runs resume {record.run_id}"))
    return lines


@app.command("resume", epilog="Example: catchup runs resume 3f2a9c01b2 --max-runtime 1h")
@takes(RunFlags)
def resume(run: RunId, flags: RunFlags) -> None:
    """Go on with an unfinished run under its own settings."""
    from cli.job_command import run_job

    async def read(place: Place) -> RunRecord:
        return await find_run(place, run)

    record = visit(replace(flags, quiet=True), read, needs_ledger=True)
    if record.state in ("finished", "cancelled"):
        raise Misconfigured(f"run {record.run_id} is {record.state}", fix=f"start a new one: catchup {record.job}")
    if record.job not in find_jobs():
        raise Misconfigured(
            f"run {record.run_id} is a part of other work",
            fix=f"the same command goes on with it: catchup {record.job}",
        )
    if record.params.get("redo") == ["any", ""]:
        again = f"catchup verify {record.target} --repair"
        if record.params.get("replaces"):
            again = f"catchup vectorize --target {record.params['replaces']} --reembed --into {record.params['into']}"
        raise Misconfigured(f"run {record.run_id} is a repair of what differed then", fix=f"compare again: {again}")
    same = as_it_was(_flags_of(record.job, flags, record), record)
    raise typer.Exit(run_job(record.job, same, f"catchup runs resume {record.run_id}"))


def as_it_was(flags: RunFlags, record: RunRecord) -> RunFlags:
    """The flags that made the run what it is; how fast and how long is this command's own."""
    params: Any = record.params
    redo = params.get("redo")
    return replace(
        flags,
        target=params.get("replaces") or record.target,
        where=[Pair(*pair) for pair in params.get("where") or ()] or None,
        redo_where=Pair(*redo) if redo and not params.get("replaces") else None,
        slice=_slice(record),
        model=flags.model or params.get("model"),
    )


def _flags_of(job: str, flags: RunFlags, record: RunRecord) -> RunFlags:
    """A job that stores vectors has flags of its own; where they go was decided when the run began."""
    if job != "vectorize":
        return flags
    same = {field.name: getattr(flags, field.name) for field in fields(RunFlags)}
    params: Any = record.params
    same["store"] = params.get("store") if params.get("store") in ("pinecone", "pgvector") else None
    if not params.get("replaces"):
        return VectorFlags(**same)
    return ReembedFlags(**same, **{name: params[name] for name in ("into", "index", "dimensions")}, reembed=True)


def _slice(record: RunRecord) -> Pair | None:
    if record.slice.above is None and record.slice.upto is None:
        return None
    return Pair(_key(record.slice.above, ",") or "", _key(record.slice.upto, ",") or "")


def _key(key: Key | None, between: str = " ") -> str | None:
    return between.join(key) if key is not None else None


@dataclass(frozen=True, kw_only=True)
class CancelFlags(WorldFlags):
    dead: Annotated[
        bool, typer.Option("--dead", help="Its process is dead for certain: close the run without asking it.")
    ] = False
    abandon_journal: Annotated[
        bool, typer.Option("--abandon-journal", help="Give up paid answers that are not stored yet.")
    ] = False


@app.command("cancel", epilog="Example: catchup runs cancel 3f2a9c01b2")
@takes(CancelFlags)
def cancel(run: RunId, flags: CancelFlags) -> None:
    """Ask a running run to stop, or close one that has stopped."""

    async def do(place: Place) -> str:
        record = await find_run(place, run)
        if record.state in ("finished", "cancelled"):
            return f"run {record.run_id} is {record.state} already"
        if record.state == "stopped" or flags.dead:
            if record.unconfirmed and not flags.abandon_journal:
                raise Misconfigured(
                    f"run {record.run_id} may have up to {record.unconfirmed} paid answers "
                    f"(about ${record.unconfirmed_usd:.4f}) in its journal on {clean(record.home_host)}",
                    fix=f"store them: catchup runs resume {record.run_id}; or give them up with --abandon-journal",
                )
            await place.ledger.cancel_dead(record.run_id)
            return f"run {record.run_id} is cancelled; what it wrote stays written"
        await place.ledger.ask_cancel(record.run_id)
        return (
            f"run {record.run_id} on {clean(record.home_host)} is asked to stop and does so within seconds; "
            "if its process is dead, add --dead"
        )

    said = visit(flags, do, needs_ledger=True)
    if flags.json:
        write_json({"type": "cancel", "text": said})
    else:
        sys.stdout.write(said + "\n")


@dataclass(frozen=True, kw_only=True)
class PruneFlags(WorldFlags):
    older_than_days: Annotated[int, typer.Option("--older-than-days", min=1, help="Keep what is younger.")] = 90


@app.command("prune", epilog="Example: catchup runs prune --older-than-days 30")
@takes(PruneFlags)
def prune(flags: PruneFlags) -> None:
    """Delete old finished runs and batches from the ledger and their files; standing verdicts stay."""

    async def do(place: Place) -> dict[str, int]:
        from jobs.batching.folder import Folder
        from jobs.engine.state_dir import StateDir
        from queries.batch_ledger import BatchLedger

        desk, before = BatchLedger(place.road), time.time() - flags.older_than_days * 86_400
        is_open = {chunk.chunk for chunk in await desk.chunks(open_only=True, limit=100_000)}
        over = [run.run_id for run in await place.ledger.runs(1000) if run.state in ("finished", "cancelled")]
        journals = StateDir(place.settings.state_dir).forget(over)
        files = Folder(place.settings.state_dir).forget(before, is_open)
        batches = await desk.prune(flags.older_than_days)
        gone = await place.ledger.prune(flags.older_than_days)
        return {**gone, "journals": journals, "batches": batches, "result files": files}

    gone = visit(flags, do, needs_ledger=True)
    if flags.json:
        write_json({"type": "prune", **gone})
    else:
        sys.stdout.write(f"deleted: {reasons(sorted(gone.items())) or 'nothing'}\n")
