"""catchup batches: what the ledger and the provider know of batches, and the few things that can be done to one."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from cli.flags import WorldFlags, option, takes
from cli.layout import Line, reasons
from cli.main import new_app
from cli.quantities import show_bytes, show_duration, show_time, show_usd
from cli.report import write_json
from cli.submit_batch import BatchFlags, run_batches
from cli.untrusted import clean
from cli.visit import Place, show, visit
from queries.batch_ledger import BatchLedger, Chunk
from queries.errors import Misconfigured

app = new_app("List, show, cancel and collect batches.")
ChunkId = Annotated[str, typer.Argument(metavar="BATCH", help="As `catchup batches list` names it, or its beginning.")]


@dataclass(frozen=True, kw_only=True)
class ListFlags(WorldFlags):
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20
    all: Annotated[bool, option("--all", help="Those that are collected too.")] = False


@app.command("list", epilog="Example: catchup batches list --all")
@takes(ListFlags)
def list_batches(flags: ListFlags) -> None:
    """List batches that are not collected yet, newest first. The states are those of the last visit."""

    async def read(place: Place) -> list[Chunk]:
        return await BatchLedger(place.road).chunks(open_only=not flags.all, limit=flags.limit)

    chunks = visit(flags, read, needs_ledger=True)
    if flags.json:
        for chunk in chunks:
            write_json({"type": "batch", **asdict(chunk)})
        return
    nothing = "no batches yet" if flags.all else "no batch is open; --all shows those that are collected"
    show([Line(chunk.chunk, _in_short(chunk)) for chunk in chunks] or [Line("", nothing)])


def _in_short(chunk: Chunk) -> str:
    state = clean(chunk.status, 20) or "not handed in"
    if not chunk.is_open:
        state = "closed"
    rows = f"{chunk.out:,} of {chunk.requests:,} rows out" if chunk.is_open else f"{chunk.requests:,} rows"
    age = f"{show_duration(chunk.age_s)} old"
    return f"{state:13} {chunk.target}  {rows}  {chunk.tokens:,} tokens  {age}  {clean(chunk.note, 60)}".rstrip()


@app.command("show", epilog="Example: catchup batches show 3f2a9c01b2-1")
@takes(WorldFlags)
def show_batch(batch: ChunkId, flags: WorldFlags) -> None:
    """Show one batch: its state, its files, its money and what became of its rows."""

    async def read(place: Place) -> Chunk:
        return await find_chunk(place, batch)

    chunk = visit(flags, read, needs_ledger=True)
    if flags.json:
        write_json({"type": "batch", **asdict(chunk)})
    else:
        show(_chunk_lines(chunk))


async def find_chunk(place: Place, wanted: str) -> Chunk:
    """By name or by an unmistakable beginning of it, or by the provider's own id."""
    if not wanted.strip():  # a shell's variable that is empty is not the only batch there is
        raise Misconfigured("no batch is named", fix="see `catchup batches list --all`")
    desk = BatchLedger(place.road)
    found = await desk.chunks(chunk=wanted)
    if not found:
        every = await desk.chunks(limit=1000)
        found = [each for each in every if each.chunk.startswith(wanted) or each.batch_id == wanted]
    if len(found) != 1:
        said = "several batches begin with" if found else "there is no batch"
        raise Misconfigured(f"{said} {clean(wanted, 40)}", fix="see `catchup batches list --all`")
    return found[0]


def _chunk_lines(chunk: Chunk) -> list[Line]:
    books = reasons(sorted(chunk.books.items())) or "nothing yet"
    balance = "" if chunk.is_balanced else "; THE BOOKS DO NOT BALANCE"
    lines = [
        Line("batch", f"{chunk.chunk} · {chunk.target} · {clean(chunk.model, 60)}"),
        Line("state", "closed" if not chunk.is_open else clean(chunk.status, 40) or "not handed in"),
        Line("made", f"{show_time(clean(chunk.made_at))}, {show_duration(chunk.age_s)} ago"),
        Line("at provider", clean(chunk.batch_id or "none yet", 80)),
        Line("file", f"{chunk.requests:,} requests, {chunk.tokens:,} tokens, {show_bytes(chunk.size_bytes)}"),
        Line("rows", f"{chunk.out:,} out; {books}{balance}", "" if chunk.is_balanced else "bad"),
        Line("held", f"{show_usd(chunk.reserved_usd)} at the worst"),
    ]
    lines += [
        Line(kind, clean(f"{facts.get('id', '')} {facts['sha256'][:16]}", 120))
        for kind, facts in chunk.files.items()
        if "sha256" in facts
    ]
    if chunk.note:
        lines.append(Line("note", clean(chunk.note, 200), "warn"))
    if chunk.is_open:
        lines.append(Line("next", shlex.join(["catchup", "batches", "collect", "--target", clean(chunk.target, 80)])))
    return lines


@dataclass(frozen=True, kw_only=True)
class CancelFlags(WorldFlags):
    abandon: Annotated[
        bool,
        option("--abandon", help="Give up what it may still bring: its rows are candidates again."),
    ] = False


@app.command("cancel", epilog="Example: catchup batches cancel 3f2a9c01b2-1")
@takes(CancelFlags)
def cancel(batch: ChunkId, flags: CancelFlags) -> None:
    """Ask the provider to cancel a batch; the next visit takes what was done and sends the rest again."""

    async def do(place: Place) -> str:
        chunk = await find_chunk(place, batch)
        if not chunk.is_open:
            return f"{chunk.chunk} is closed already"
        said = await _cancel_there(place, chunk, flags)
        if not flags.abandon:
            again = shlex.join(["catchup", "submit-batch", "--target", clean(chunk.target, 80)])
            does = "takes what was done" if "provider says" in said else "hands it in, unless --abandon gives it up"
            return f"{chunk.chunk}: {said}; `{again}` {does}"
        rows = await BatchLedger(place.road).abandon(chunk.chunk)
        owed = "" if chunk.create_age_s is None else f", {show_usd(chunk.reserved_usd)} stay booked as possibly billed"
        return f"{chunk.chunk}: {said}; given up: {rows:,} rows go again{owed}"

    said = visit(flags, do, needs_ledger=True)
    if flags.json:
        write_json({"type": "cancel", "text": said})
    else:
        sys.stdout.write(said + "\n")


async def _cancel_there(place: Place, chunk: Chunk, flags: CancelFlags) -> str:
    from jobs.batching.cancelling import cancel_there
    from queries.openai_batches import OpenAIBatches

    settings = place.settings
    if settings.openai_api_key is None:
        raise Misconfigured("OPENAI_API_KEY is not set", fix="set it in the environment or .env")
    hosts = {*settings.allow_hosts, *(flags.allow_host or ())}
    key = settings.openai_api_key.get_secret_value().strip()
    batches = OpenAIBatches(key, settings.openai_base_url, allow_hosts=hosts)
    try:
        return clean(await cancel_there(batches, chunk, abandon=flags.abandon), 80)
    finally:
        await batches.close()


@app.command("collect", epilog="Example: catchup batches collect")
@takes(BatchFlags)
def collect(flags: BatchFlags) -> None:
    """Take what is done and write it back, and hand nothing in."""
    command = shlex.join(["catchup", *sys.argv[1:]])
    raise typer.Exit(run_batches(flags, command, collect_only=True))
