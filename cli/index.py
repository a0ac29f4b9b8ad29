"""catchup index: the HNSW index over a target's vectors in Postgres, built after a bulk load and beside the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import WorldFlags, takes
from cli.layout import Line
from cli.main import new_app
from cli.quantities import show_duration
from cli.report import write_json
from cli.untrusted import clean
from cli.visit import Place, show, visit
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.targets import Target
    from queries.vector_column import VectorColumn
    from queries.vector_index import Built

app = new_app("Build the HNSW index that makes search over pgvector fast.")


@dataclass(frozen=True, kw_only=True)
class IndexFlags(WorldFlags):
    memory: Annotated[
        int | None,
        typer.Option(min=16, metavar="MB", help="maintenance_work_mem for this build, if the server has it."),
    ] = None
    store: Annotated[
        str | None, typer.Option(metavar="pgvector", help="Where the vectors are, instead of what the target says.")
    ] = None
    print: Annotated[bool, typer.Option("--print", help="Print the SQL and build nothing.")] = False


@app.command("index", epilog="Example: catchup index job-postings --print")
@takes(IndexFlags)
def index(
    flags: IndexFlags,
    name: Annotated[str | None, typer.Argument(metavar="TARGET", help="Picked by the columns if left out.")] = None,
) -> None:
    """Build the HNSW index over a target's vectors in Postgres, without locking anybody out.

    Best after the load: with the index in place every new vector costs several times as much. Needs a direct DSN."""
    target, text, built = visit(flags, lambda place: _build(place, flags, name), needs_ledger=True)
    if flags.json:
        facts = {"rows": built.rows, "seconds": built.seconds, "notes": built.notes} if built else {}
        write_json(
            {"type": "index", "target": target.name, "sql": text, "index": built.index if built else "", **facts}
        )
        return
    if built is None:
        typer.echo(text)
        return
    of = f" over ~{built.rows:,} vectors" if built.rows > 0 else ""
    lines = [Line("index", f"{built.index}: built{of} in {show_duration(built.seconds)}", "good")]
    show([*lines, *(Line("note", clean(note, 400), "warn") for note in built.notes)])


async def _build(place: Place, flags: IndexFlags, name: str | None) -> tuple[Target, str, Built | None]:
    from cli.choices import pick_target
    from cli.providers import choose_provider, choose_store, fit_to_provider
    from jobs.registry import load_job
    from queries.vector_index import build, refusal, sql_for

    picked = await pick_target(load_job("vectorize"), place.settings, name, place.road)
    target = choose_store(picked, flags.store, place.choice.kind)
    target = fit_to_provider(target, choose_provider(None, place.choice.kind))
    column = await _find_column(place, target)
    text = sql_for(column)
    if flags.print or column.hnsw:
        return target, "-- it is there already\n" + text if column.hnsw else text, None
    if not place.dsn:
        raise refusal(column, "over REST every statement ends after seconds, and this one takes minutes")
    return target, text, await build(place.dsn, column, memory_mb=flags.memory)


async def _find_column(place: Place, target: Target) -> VectorColumn:
    from queries.pgvector_space import PgvectorSpace
    from queries.vector_column import column_facts

    embedding = target.embedding
    if embedding is None or embedding.into == "pinecone":
        raise Misconfigured(
            f"target {target.name} keeps its vectors in Pinecone, which has an index of its own",
            fix="name a target whose vectors are in Postgres",
        )
    if embedding.into == "column":
        return await column_facts(place.road, target.spec, target.spec.cells[0])
    return await PgvectorSpace(place.road, embedding.namespace or target.name).column()
