"""One namespace of a Pinecone index as a VectorSpace, over Pinecone's own asyncio client and, for upserts, gRPC.

Readers of Pinecone see a write late. The answer to a write names its place in the namespace's log, and the answer to a
query how far the log is visible (docs.pinecone.io, check data freshness, read 2026-11-21), so `seen` need not fetch
every vector back: the log tells that a request is visible, and one id of it, fetched, that the log tells the truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from pinecone import AsyncIndex, ServerlessSpec
from pinecone.models.vectors.responses import ListResponse, QueryResponse

from queries.errors import Misconfigured
from queries.pinecone_bodies import Packed
from queries.pinecone_client import PineconeClient, all_of, unless
from queries.pinecone_errors import ALREADY_THERE, INDEX_ABSENT, NAMESPACE_ABSENT, SERVICE, malformed
from queries.pinecone_hosts import check_names
from queries.pinecone_records import is_id
from queries.pinecone_upserts import Upserts
from queries.vectors import Match, SpaceFacts, Value, VectorRecord

PAGE = 100
"""Ids a page of the list: the most the API gives."""
SAMPLE = 20
FETCH_MOST = 100
URL_MOST = 6_000
"""Bytes of ids in the URL of a fetch, which is a GET; servers and proxies stop at 8 kB."""
DELETE_MOST = 1_000
REMEMBERED = 100_000
INDEX_READY_S = 300

_DEFAULT = "__default__"
_ABSENT = frozenset({INDEX_ABSENT, NAMESPACE_ABSENT})


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """One acknowledged request: its place in the log, and an id by which it can be found. All its ids share it."""

    lsn: int
    witness: str


class PineconeSpace:
    """`put`, `seen` and `delete` may be repeated; nothing here repeats anything by itself."""

    name = "pinecone"

    def __init__(
        self,
        api_key: str,
        *,
        index_host: str | None,
        index: str,
        namespace: str,
        allow_hosts: Collection[str] = (),
        timeout_s: float = 30.0,
        controller_host: str | None = None,
        over_grpc: bool = True,
    ) -> None:
        check_names(index, namespace)
        self.where = f"index {index}, namespace {namespace or _DEFAULT}"
        self._index_name, self._namespace = index, "" if namespace == _DEFAULT else namespace
        self._client = PineconeClient(
            api_key,
            index=index,
            index_host=index_host,
            controller_host=controller_host,
            allow_hosts=allow_hosts,
            timeout_s=timeout_s,
        )
        self._upserts = Upserts(self._client, self._namespace, self._remember, over_grpc=over_grpc)
        self._metric = ""
        self._written: dict[str, _Written] = {}
        self._visible = -1
        self._probe = b""

    @property
    def note(self) -> str:
        return self._upserts.note

    async def facts(self) -> SpaceFacts:
        try:
            index = await self._client.index()
            stats = await self._client.ask(index.describe_index_stats)
        except Misconfigured as absent:
            if absent.code != INDEX_ABSENT:
                raise
            return SpaceFacts(index_exists=False, exists=False, dimension=None, count=0, metric="")
        self._metric = stats.metric or self._metric or "unknown"
        told = stats.namespaces.get(self._namespace or _DEFAULT) or stats.namespaces.get(self._namespace)
        return SpaceFacts(
            index_exists=True,
            # The default namespace is always there; one that was made and holds nothing yet may not be counted.
            exists=not self._namespace or told is not None or await self._is_made(index),
            dimension=stats.dimension,
            count=told.vector_count if told else 0,
            metric=self._metric,
            sample=await self._sample(index) if told and told.vector_count else (),
        )

    async def create(self, dimension: int, *, index: bool) -> None:
        """An index made here is serverless, on aws in us-east-1, by cosine; who wants another makes it beforehand."""
        if index:
            await self._create_index(dimension)
        if self._namespace:
            made = await self._client.index()
            # Where there is no such endpoint the first upsert makes the namespace, as it did before 2025.
            await unless(
                _ABSENT | {ALREADY_THERE},
                self._client.ask(lambda: made.create_namespace(name=self._namespace)),
            )

    async def put(self, records: Sequence[VectorRecord]) -> None:
        await self._upserts.put(records)

    async def seen(self, ids: Sequence[str]) -> frozenset[str]:
        wanted = {each: self._written.get(each) for each in ids if is_id(each)}
        marks = {written for written in wanted.values() if written is not None}
        await self._look_how_far(marks)
        due = {written for written in marks if written.lsn <= self._visible}
        witnesses = await self._fetch(written.witness for written in due)
        proven = {written for written in due if written.witness in witnesses}
        late = marks - due if self._visible >= 0 else frozenset()
        found = {each for each, written in wanted.items() if written in proven}
        # No log position, or one whose witness is missing: only looking for each of them tells.
        found |= await self._fetch(each for each, at in wanted.items() if at not in proven and at not in late)
        for each in found:
            if self._written.get(each) is wanted[each]:  # not when it was written again meanwhile
                self._written.pop(each, None)
        return frozenset(found)

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        index = await self._client.index()
        token: str | None = None
        while True:
            page = await unless({NAMESPACE_ABSENT}, self._list(index, PAGE, token))
            if page is None:
                return
            found = [each.id for each in page.vectors if each.id is not None]
            if found:
                yield found
            following = page.pagination.next if page.pagination else None
            if not following:
                return
            if following == token:
                raise malformed("its list of ids leads to the same page again")
            token = following

    async def delete(self, ids: Sequence[str]) -> None:
        index = await self._client.index()
        there = [each for each in dict.fromkeys(ids) if is_id(each)]
        for each in there:
            self._written.pop(each, None)

        async def drop(some: list[str]) -> None:
            # Of a namespace that is not there Pinecone says 404; then its vectors are not there either.
            deleting = self._client.ask(lambda: index.delete(ids=some, namespace=self._namespace))
            await unless({NAMESPACE_ABSENT}, deleting)

        await all_of(drop(there[at : at + DELETE_MOST]) for at in range(0, len(there), DELETE_MOST))

    async def query(self, vector: bytes, top: int, where: Mapping[str, Value]) -> list[Match]:
        if not self._metric:
            await self.facts()
        # Of a distance the smaller is the nearer.
        sign = -1.0 if self._metric == "euclidean" else 1.0
        equal = {name: {"$in" if isinstance(value, list) else "$eq": value} for name, value in where.items()}
        found = await self._query(vector, top, equal, with_metadata=True)
        return [Match(each.id, sign * each.score, each.metadata or {}) for each in found.matches]

    async def close(self) -> None:
        await self._upserts.close()
        await self._client.close()

    async def _create_index(self, dimension: int) -> None:
        if self._client.host is not None:
            what = "PINECONE_INDEX_HOST names an index that exists; a new one gets an address of its own."
            raise Misconfigured(what, service=SERVICE, fix="Leave PINECONE_INDEX_HOST out with --create-index.")
        controller, spec = self._client.controller(), ServerlessSpec(cloud="aws", region="us-east-1")
        making = self._client.ask(
            lambda: controller.create_index(self._index_name, spec, dimension, "cosine", timeout=INDEX_READY_S),
            wait_s=INDEX_READY_S,
        )
        await unless({ALREADY_THERE}, making)

    async def _is_made(self, index: AsyncIndex) -> bool:
        described = self._client.ask(lambda: index.describe_namespace(name=self._namespace))
        return await unless(_ABSENT, described) is not None

    async def _list(self, index: AsyncIndex, limit: int, token: str | None) -> ListResponse:
        return await self._client.ask(
            lambda: index.list_paginated(limit=limit, pagination_token=token, namespace=self._namespace)
        )

    async def _sample(self, index: AsyncIndex) -> tuple[str, ...]:
        page = await self._list(index, SAMPLE, None)
        return tuple(each.id for each in page.vectors if each.id is not None)

    def _remember(self, packed: Packed, lsn: int | None) -> None:
        self._probe = packed.vector
        if lsn is None:
            for each in packed.ids:
                self._written.pop(each, None)
            return
        self._written.update(dict.fromkeys(packed.ids, _Written(lsn, packed.ids[0])))
        while len(self._written) > REMEMBERED:  # what is forgotten is fetched instead
            del self._written[next(iter(self._written))]

    async def _look_how_far(self, marks: Iterable[_Written]) -> None:
        """A query, of all reads, tells how far the log is visible; none is asked when that is known already."""
        if self._probe and any(written.lsn > self._visible for written in marks):
            info = (await self._query(self._probe, 1, {}, with_metadata=False)).response_info
            told = info.lsn_reconciled if info else None
            self._visible = -1 if told is None else max(self._visible, told)

    async def _query(self, vector: bytes, top: int, where: Mapping[str, Any], *, with_metadata: bool) -> QueryResponse:
        index, values = await self._client.index(), np.frombuffer(vector, "<f4").tolist()
        return await self._client.ask(
            lambda: index.query(
                vector=values,
                top_k=top,
                namespace=self._namespace,
                filter=where or None,
                include_metadata=with_metadata,
            )
        )

    async def _fetch(self, ids: Iterable[str]) -> set[str]:
        index = await self._client.index()

        async def look(some: list[str]) -> set[str]:
            fetching = self._client.ask(lambda: index.fetch(ids=some, namespace=self._namespace))
            found = await unless({NAMESPACE_ABSENT}, fetching)
            return set(found.vectors) if found else set()

        return set().union(*await all_of(look(some) for some in _by_url(dict.fromkeys(ids))))


def _by_url(ids: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for each in ids:
        cost = len("&ids=") + len(quote(each, safe=""))
        if some and (len(some) == FETCH_MOST or size + cost > URL_MOST):
            yield some
            some, size = [], 0
        some.append(each)
        size += cost
    if some:
        yield some
