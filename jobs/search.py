"""The rows nearest to a text, asked with the model and in the place that the target's own runs use."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from jobs import content
from jobs.embedding import SNIPPET, Embedding
from jobs.engine.breaker import UpstreamDown
from jobs.engine.destination import place_of
from jobs.engine.insistence import Insistence
from jobs.engine.work import Work
from jobs.targets import Target
from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import ItemPermanent, Misconfigured
from queries.vector_column import column_facts, column_query
from queries.vectors import Match, Value, VectorSpace

_Answer = TypeVar("_Answer")
_PATIENCE_S = 20.0  # a person is waiting
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_OF_A_CHUNK = {"text": "text", "chunk": "integer", "start_s": "real", "end_s": "real"}
_TEXTS = ("summary", "text", "description")


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    top: int
    where: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Nearest:
    """`key` is the row's, `id` the vector's."""

    id: str
    key: str
    score: float
    title: str
    snippet: str
    metadata: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Findings:
    """`is_empty`: nothing has been stored there yet, so nothing was asked or paid."""

    place: str
    nearest: tuple[Nearest, ...] = ()
    is_empty: bool = False
    tokens_in: int = 0
    usd: float = 0.0


async def search(work: Work, question: Question) -> Findings:
    """One embedding and one query. `work.command` is the command that fills the place: errors name it.

    Refuses before it pays: vectors of another model than the question's can be compared with it, and mean nothing.
    """
    embedding = work.target.embedding
    if embedding is None:
        raise Misconfigured(f"target {work.target.name} has no vectors", fix="name a target of `catchup vectorize`")
    place = place_of(work, embedding)
    count = await _look_at_place(work, embedding)
    await _check_model(work, embedding, place, count)
    where = await _read_filter(work, embedding, question.where)
    if count == 0:
        return Findings(place, is_empty=True)
    request = EmbedRequest(work.model, (question.text,), embedding.dimensions)
    answer = cast(EmbedAnswer, await _insist(work, lambda: work.service.ask(request)))
    if answer.bad:
        raise ItemPermanent(f"this text has no vector: {answer.bad[0]}", reason="no vector", fix="use other words")
    matches = await _insist(work, lambda: _query(work, embedding, answer.vectors[0], question.top, where))
    nearest = tuple(_describe(match, embedding, work.target) for match in matches)
    return Findings(place, nearest, False, answer.tokens_in, work.price.worst_usd(answer.tokens_in, 0))


async def _insist(work: Work, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    try:
        return await Insistence("search", work.clock, _PATIENCE_S).insist(call)
    except UpstreamDown as down:
        raise down.last from down


async def _look_at_place(work: Work, embedding: Embedding) -> int | None:
    """How many vectors are there; of a column nobody counts them."""
    if work.space is None:
        spec = work.target.spec
        column = await _insist(work, lambda: column_facts(work.ledger.road, spec, spec.cells[0]))
        where, service, count, dimension = f"column {spec.cells[0]}", "database", None, column.dimension
    else:
        space: VectorSpace = work.space
        facts = await _insist(work, space.facts)
        if not facts.exists:
            what = "namespace" if facts.index_exists else "index"
            raise Misconfigured(
                f"{space.where}: there is no such {what}, so nothing was ever stored there",
                fix=f"correct its name, or fill it: {work.command} --create-{what}",
                service=space.name,
            )
        where, service, count, dimension = space.where, space.name, facts.count, facts.dimension
    if dimension not in (None, embedding.dimensions):
        raise Misconfigured(
            f"{where} holds {dimension} dimensions, target {work.target.name} asks with {embedding.dimensions}",
            fix="use the provider and model that it was filled with",
            service=service,
        )
    return count


async def _check_model(work: Work, embedding: Embedding, place: str, count: int | None) -> None:
    known = await _insist(work, lambda: work.ledger.places.find(place))
    if known is None:
        if count == 0:
            return
        raise Misconfigured(
            f"the ledger does not know which model the vectors in {place} are of",
            fix=f"a run says so before it stores anything: {work.command}",
        )
    if (known.model, known.dimensions) != (work.model, embedding.dimensions):
        ask = "--provider openai " if work.service.is_local else ""
        local = "" if work.service.is_local else ", or --provider local where that is the local model"
        raise Misconfigured(
            f"{place} holds vectors of {known.model} with {known.dimensions} dimensions, "
            f"and this search would ask with {work.model} and {embedding.dimensions}",
            fix=f"ask with theirs: {ask}--model {known.model}{local}",
        )


async def _query(
    work: Work, embedding: Embedding, vector: bytes, top: int, where: Mapping[str, tuple[str, Value]]
) -> list[Match]:
    if work.space is not None:
        return await work.space.query(vector, top, {name: value for name, (_, value) in where.items()})
    spec = work.target.spec
    show = tuple(dict.fromkeys((*embedding.metadata.values(), *work.target.text)))
    pairs = [(embedding.metadata.get(name, name), said) for name, (said, _) in where.items()]
    return await column_query(work.ledger.road, spec, spec.cells[0], vector, top=top, show=show, where=pairs)


async def _read_filter(
    work: Work, embedding: Embedding, where: Iterable[tuple[str, str]]
) -> dict[str, tuple[str, Value]]:
    """Each value as it was said and as it is stored: the column that it comes from says whether it is a number."""
    asked = dict(where)
    if not asked:
        return {}
    spec = work.target.spec
    columns = dict(embedding.metadata)
    if work.space is None:
        columns = {name: name for name in (*spec.key, *spec.read, *spec.beside, *spec.filters)} | columns
    own = _OF_A_CHUNK if work.space is not None and embedding.chunking.kind != "whole" else {}
    unknown = [name for name in asked if name not in columns and name not in own]
    if unknown:
        raise Misconfigured(
            f"--filter {unknown[0]}: target {work.target.name} keeps no such value beside its vectors",
            fix=f"it keeps {', '.join(sorted({*columns, *own})) or 'none'}",
        )
    facts = await _insist(work, lambda: work.ledger.facts(spec))
    types = {name: facts.columns[column].type for name, column in columns.items() if column in facts.columns} | own
    return {name: (said, _read_value(name, said, types.get(name, "text"))) for name, said in asked.items()}


def _read_value(name: str, said: str, type_: str) -> Value:
    if type_ == "boolean":
        if said.lower() not in ("true", "false"):
            raise Misconfigured(f"--filter {name}: {said!r} is not what is stored", fix="write true or false")
        return said.lower() == "true"
    if type_.startswith(_NUMBERS):
        try:
            number = float(said)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise Misconfigured(f"--filter {name}: {said!r} is no number, and {type_} is stored", fix="write a number")
        return int(said) if said.lstrip("+-").isdecimal() else number
    return content.clean(said)[:SNIPPET]


def _describe(match: Match, embedding: Embedding, target: Target) -> Nearest:
    """What a person recognises a row by. Values of a column are cut as those beside a vector are."""
    values = {name: content.clean(v)[:SNIPPET] if isinstance(v, str) else v for name, v in match.metadata.items()}
    if embedding.into == "column":
        names = {column: name for name, column in embedding.metadata.items()}
        values = {names.get(column, column): value for column, value in values.items()}
        key = match.id
    else:
        read = embedding.key_of(match.id, len(target.spec.key))
        key = match.id if read is None else ":".join(read)
    title = str(values.get("title", ""))
    told = next((name for name in (*_TEXTS, *target.text) if name != "title" and isinstance(values.get(name), str)), "")
    return Nearest(match.id, key, match.score, title, str(values.get(told, "")), values)
