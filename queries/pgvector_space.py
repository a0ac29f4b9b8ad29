"""A space of vectors in the user's own Postgres: one table of ours for each namespace, over either road."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from queries.errors import Misconfigured, StatementTimeout, UnknownOutcome
from queries.road import BinaryRoad, Road, VectorTable
from queries.vector_column import VectorColumn, as_text, believed, expected, parse_column
from queries.vectors import Match, SpaceFacts, Value, VectorRecord

NAME = re.compile(r"[\x20-\x7e]{1,128}")
# HNSW takes at most 2,000 dimensions of a vector and 4,000 of a halfvec (pgvector 0.8.6, 2026-11-21).
VECTOR_MOST, INDEXED_MOST = 2_000, 4_000
_REQUEST_BYTES = 2_000_000
_SMALLEST_REQUEST = 50_000
_RECORDS, _IDS, _PAGE = 1_000, 1_000, 5_000
_AT_ONCE = 3
_Part = TypeVar("_Part")
_Gave = TypeVar("_Gave")


class PgvectorSpace:
    """`model` and `target` are noted with a space that is made, so that the database itself says whose it is."""

    name = "pgvector"
    note = ""

    def __init__(self, road: Road, namespace: str, *, model: str = "", target: str = "") -> None:
        if not NAME.fullmatch(namespace):
            raise Misconfigured(
                f"{namespace!r} cannot name a space", fix="use 1 to 128 printable ASCII characters", service="database"
            )
        self._road = road
        self._namespace = namespace
        self._made_by = {"model": model, "target": target}
        self._table: VectorTable | None = None
        self._request_bytes = _REQUEST_BYTES
        self.where = f"{road.where} {namespace}"

    async def facts(self) -> SpaceFacts:
        """The extension is the index: without it nothing else is asked. The count is exact up to 10,000 rows."""
        answer = await self._facts()
        if answer["exists"] is not True:
            return SpaceFacts(True, False, None, 0, "cosine")
        return believed("catchup_space_facts", answer, _parse_facts, writing=False)

    async def column(self) -> VectorColumn:
        """Where the vectors lie, for the index that is built after a bulk load."""
        answer = await self._facts()
        if answer["exists"] is not True:
            raise self._missing()
        return believed("catchup_space_facts", answer, parse_column, writing=False)

    async def create(self, dimension: int, *, index: bool) -> None:
        """`index` changes nothing: the database is there, and HNSW is built after the bulk load, by itself."""
        kind = "vector" if dimension <= VECTOR_MOST else "halfvec"
        asked = {"name": self._namespace, "dimension": dimension, "kind": kind, **self._made_by}
        answer = expected(await self._road.call("catchup_space_create", asked))
        if "not_owner" in answer:
            raise Misconfigured(
                f"role {answer['not_owner']} may not make the table of space {self._namespace}",
                fix=f"run this as the owner (DATABASE_URL, or Supabase's SQL editor): {answer.get('sql')}",
                service="database",
            )

    async def put(self, records: Sequence[VectorRecord]) -> None:
        """In order of the ids, so that two writers never wait for each other in a ring; of two with one id the last."""
        last = {record.id: record for record in records}
        chosen = [last[id_] for id_ in sorted(last)]
        if isinstance(self._road, BinaryRoad):
            road, table = self._road, await self._place()
            parts = list(_pieces(chosen, _binary_bytes, self._request_bytes))
            await self._put_all(lambda part: road.put_vectors(table, part), parts)
        else:
            parts = list(_pieces(chosen, _text_bytes, self._request_bytes))
            await self._put_all(self._put_as_text, parts)

    async def seen(self, ids: Sequence[str]) -> frozenset[str]:
        async def look(part: Sequence[str]) -> list[str]:
            answer = self._known(await self._road.read("catchup_space_seen", self._asked(ids=part)))
            return believed("catchup_space_seen", answer, _parse_ids, writing=False)

        parts = [ids[n : n + _IDS] for n in range(0, len(ids), _IDS)]
        return frozenset(id_ for found in await _each(look, parts) for id_ in found)

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        above = ""
        while True:
            answer = self._known(await self._road.read("catchup_space_ids", self._asked(above=above, limit=_PAGE)))
            page = believed("catchup_space_ids", answer, _parse_ids, writing=False)
            if not page:
                return
            yield page
            above = page[-1]

    async def delete(self, ids: Sequence[str]) -> None:
        async def remove(part: Sequence[str]) -> None:
            self._known(await self._road.call("catchup_space_delete", self._asked(ids=part)))

        ordered = sorted(set(ids))
        await _each(remove, [ordered[n : n + _IDS] for n in range(0, len(ordered), _IDS)])

    async def query(self, vector: bytes, top: int, where: Mapping[str, Value]) -> list[Match]:
        asked = self._asked(vector=as_text(vector), top=top, where=dict(where))
        answer = self._known(await self._road.read("catchup_space_query", asked))
        return believed("catchup_space_query", answer, _parse_matches, writing=False)

    async def close(self) -> None:
        """The road is its maker's to close: the ledger travels on it too."""

    async def _facts(self) -> dict[str, Any]:
        answer = expected(await self._road.read("catchup_space_facts", self._asked()))
        believed("catchup_space_facts", answer, lambda facts: facts["exists"], writing=False)
        return answer

    async def _place(self) -> VectorTable:
        if self._table is None:
            answer = await self._facts()
            if answer["exists"] is not True:
                raise self._missing()
            self._table = believed("catchup_space_facts", answer, _parse_table, writing=False)
        return self._table

    async def _put_all(
        self, put: Callable[[Sequence[VectorRecord]], Awaitable[int]], parts: Sequence[Sequence[VectorRecord]]
    ) -> None:
        try:
            took = await _each(put, parts)
        except StatementTimeout:
            # A table that has its HNSW index takes milliseconds a row: the next attempt comes in smaller requests.
            self._request_bytes = max(_SMALLEST_REQUEST, self._request_bytes // 2)
            raise
        sent = [len(part) for part in parts]
        if took != sent:
            raise UnknownOutcome(f"sent {sum(sent)} vectors, the database took {sum(took)}", service="database")

    async def _put_as_text(self, part: Sequence[VectorRecord]) -> int:
        records = [[record.id, as_text(record.values), dict(record.metadata)] for record in part]
        answer = self._known(await self._road.call("catchup_space_put", self._asked(records=records)))
        return believed("catchup_space_put", answer, lambda written: int(written["took"]), writing=True)

    def _asked(self, **more: Any) -> dict[str, Any]:
        return {"name": self._namespace, **more}

    def _known(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "no_space" in answer:
            raise self._missing()
        return expected(answer)

    def _missing(self) -> Misconfigured:
        return Misconfigured(
            f"there is no space {self._namespace} in this database",
            fix="check its name; --create-namespace makes it",
            service="database",
        )


def _binary_bytes(record: VectorRecord) -> int:
    return len(record.values) + len(record.id) + len(str(record.metadata))


def _text_bytes(record: VectorRecord) -> int:
    """A float32 is about thirteen characters as text."""
    return len(record.values) * 13 // 4 + len(record.id) + len(str(record.metadata))


def _pieces(
    records: Sequence[VectorRecord], weigh: Callable[[VectorRecord], int], most: int
) -> Iterator[Sequence[VectorRecord]]:
    """As many as weigh no more than `most` together, at least one."""
    start = weight = 0
    for n, record in enumerate(records):
        more = weigh(record)
        if n > start and (weight + more > most or n - start >= _RECORDS):
            yield records[start:n]
            start, weight = n, 0
        weight += more
    if start < len(records):
        yield records[start:]


async def _each(do: Callable[[_Part], Awaitable[_Gave]], parts: Sequence[_Part]) -> list[_Gave]:
    """A few at a time, all to their end; then the first fault, if there was one."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(part: _Part) -> _Gave:
        async with places:
            return await do(part)

    outcomes = await asyncio.gather(*(one(part) for part in parts), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _parse_facts(answer: Mapping[str, Any]) -> SpaceFacts:
    sample = tuple(map(str, answer["sample"]))
    return SpaceFacts(True, True, int(answer["dimension"]), int(answer["count"]), str(answer["metric"]), sample)


def _parse_table(answer: Mapping[str, Any]) -> VectorTable:
    place = parse_column(answer)
    return VectorTable(place.schema, place.table, place.extension_schema, int(answer["vector_oid"]))


def _parse_ids(answer: Mapping[str, Any]) -> list[str]:
    ids = answer["ids"]
    if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
        raise TypeError("not ids")
    return ids


def _parse_matches(answer: Mapping[str, Any]) -> list[Match]:
    return [Match(str(match["id"]), float(match["score"]), dict(match["metadata"])) for match in answer["matches"]]
