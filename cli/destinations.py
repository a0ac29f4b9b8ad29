"""Where the vectors of a target go, as an operator reads it: for doctor and migrate."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.flags import VectorFlags
from cli.layout import Line
from cli.providers import choose_provider, choose_store, fit_to_provider, open_space
from cli.untrusted import clean
from cli.visit import Place
from queries.errors import CatchupError

if TYPE_CHECKING:
    from cli.flags import RunFlags
    from jobs.embedding import Embedding
    from jobs.engine.verdict import Verdict
    from jobs.engine.work import Work
    from jobs.targets import Target
    from queries.vector_column import VectorColumn


_MANY = 10_000  # vectors: from here on a search that reads all of them is felt


def as_run(place: Place, target: Target) -> Target:
    """The target as a run without flags takes it: with the embedded database nothing leaves the machine."""
    kind = place.choice.kind
    return fit_to_provider(choose_store(target, None, kind), choose_provider(None, kind))


def say_destination(target: Target) -> str:
    """Empty for a target that writes texts."""
    embedding = target.embedding
    if embedding is None:
        return ""
    match embedding.into:
        case "column":
            return f"column {target.spec.cells[0]} of the row itself"
        case "pgvector":
            return f"space {embedding.namespace or target.name} of this database (pgvector)"
        case _:
            return f"Pinecone index {embedding.index}, namespace {embedding.namespace or '__default__'}"


async def examine(place: Place, target: Target) -> list[Line]:
    """Where the vectors go, whether that can work, of which model they are, and the index that search wants."""
    target = as_run(place, target)
    embedding = target.embedding
    if embedding is None:
        return []
    asked = f"{target.model}, {embedding.dimensions} dimensions"
    lines = [Line(target.name, clean(f"vectors go to {say_destination(target)}: {asked}"))]
    try:
        lines += await _look(place, target, embedding)
    except CatchupError as error:
        lines.append(Line(target.name, clean(f"{error.what}; {error.fix}", 300), "bad"))
    return lines


async def _look(place: Place, target: Target, embedding: Embedding) -> list[Line]:
    from jobs.engine.destination import name_place

    if embedding.into == "column":
        found = await _look_at_column(place, target, embedding)
        return [*found, *await _look_at_model(place, target, embedding, name_place(None, target.spec))]
    if embedding.into == "pinecone":
        host = place.settings.pinecone_index_host
        if place.settings.pinecone_api_key is None:
            return [Line(target.name, "PINECONE_API_KEY is not set: this target cannot run", "bad")]
        by = f"at {host}" if host else "its host is asked for by the index's name (PINECONE_INDEX_HOST is not set)"
        lines = [Line(target.name, clean(f"a Pinecone key is set; {by}; a --dry-run asks Pinecone itself"))]
    else:
        lines = await _look_at_space(place, target, embedding)
    space = open_space(place.settings, target, place.road, ())
    if space is None:
        return lines
    try:
        return [*lines, *await _look_at_model(place, target, embedding, name_place(space, target.spec))]
    finally:
        await space.close()


async def _look_at_column(place: Place, target: Target, embedding: Embedding) -> list[Line]:
    from queries.vector_column import column_facts

    column = await column_facts(place.road, target.spec, target.spec.cells[0])
    if column.dimension not in (None, embedding.dimensions):
        said = f"column {column.column} holds {column.dimension} dimensions, the target makes {embedding.dimensions}"
        return [Line(target.name, clean(f"{said}; set its dimensions to the column's"), "bad")]
    return [_index_line(place, target, column)]


async def _look_at_space(place: Place, target: Target, embedding: Embedding) -> list[Line]:
    from queries.pgvector_space import PgvectorSpace

    space = PgvectorSpace(place.road, embedding.namespace or target.name)
    facts = await space.facts()
    if not facts.exists:
        command = f"catchup vectorize --target {target.name} --create-namespace"
        return [Line(target.name, f"the space is not there yet: `{command}` makes it", "dim")]
    if facts.dimension != embedding.dimensions:
        said = f"the space holds {facts.dimension} dimensions, the target makes {embedding.dimensions}"
        return [Line(target.name, f"{said}; name another namespace, or set its dimensions to the space's", "bad")]
    return [Line(target.name, f"~{facts.count:,} vectors there"), _index_line(place, target, await space.column())]


def _index_line(place: Place, target: Target, column: VectorColumn) -> Line:
    """Without it a search reads every vector: exact, and slow from some ten thousand on."""
    from queries.vector_index import sql_for

    if column.hnsw:
        return Line(target.name, "an HNSW index serves search")
    try:
        makes = sql_for(column).replace("\n", " ")
    except CatchupError as error:
        return Line(target.name, clean(f"no HNSW index, and none is possible: {error.what}", 300), "dim")
    # Over REST every statement ends after seconds.
    how = f"`catchup index {target.name}`" if place.dsn else f"over psql, {makes}"
    return Line(target.name, f"no HNSW index: search reads every vector. After the bulk load: {how}", "dim")


async def _look_at_model(place: Place, target: Target, embedding: Embedding, name: str) -> list[Line]:
    known = await place.ledger.places.find(name)
    if known is None:
        return [Line(target.name, "the ledger knows of no vectors there yet", "dim")]
    said = f"the ledger says: vectors of {known.model}, {known.dimensions} dimensions, first by {known.target}"
    if (known.model, known.dimensions) == (target.model, embedding.dimensions):
        return [Line(target.name, clean(said))]
    return [Line(target.name, clean(f"{said}; the target would add others and is refused"), "bad")]


async def hint_at_index(work: Work, flags: RunFlags, verdict: Verdict) -> Verdict:
    """After a load into Postgres: the index that search wants, where there is none and the vectors are many."""
    from jobs.engine.verdict import Exit
    from queries.road import BinaryRoad
    from queries.vector_index import sql_for

    embedding, is_full = work.target.embedding, verdict.exit in (Exit.DONE, Exit.SOME_NAMED)
    is_load = is_full and verdict.books.wrote and not verdict.pending_beyond
    if embedding is None or embedding.into == "pinecone" or not is_load:
        return verdict
    try:
        column, rows = await _count_vectors(work)
        if column.hnsw or max(rows, verdict.books.wrote) < _MANY:
            return verdict
        makes = sql_for(column)
    except CatchupError:
        return verdict  # none is possible, or nobody answers: the run is what this verdict is about
    said = f"search reads all ~{max(rows, verdict.books.wrote):,} vectors: there is no HNSW index over them yet"
    if not isinstance(work.ledger.road, BinaryRoad):  # over REST every statement ends after seconds
        return replace(verdict, notes=(*verdict.notes, f"{said}. Over psql, {makes}".replace("\n", " ")))
    words = ["catchup", "index", work.target.name]
    words += ["--store", flags.store] if isinstance(flags, VectorFlags) and flags.store else []
    words += ["--local" if flags.local else "--no-local"] if flags.local is not None else []
    command = shlex.join(words)
    notes = (*verdict.notes, f"{said}; `{command}` builds it beside the work")
    return replace(verdict, notes=notes, next_command=verdict.next_command or command)


async def _count_vectors(work: Work) -> tuple[VectorColumn, int]:
    from queries.pgvector_space import PgvectorSpace
    from queries.vector_column import column_facts

    if isinstance(work.space, PgvectorSpace):
        return await work.space.column(), (await work.space.facts()).count
    spec = work.target.spec
    facts = await work.ledger.facts(spec)
    return await column_facts(work.ledger.road, spec, spec.cells[0]), facts.estimated_rows
