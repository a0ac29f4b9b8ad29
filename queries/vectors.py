"""The one dialect for a place where vectors are kept by id: a namespace of Pinecone, or a table of pgvector."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from queries.record import record

Value = str | int | float | bool | list[str]


@record(frozen=True, slots=True)
class VectorRecord:
    """`values` is little-endian float32. Nulls never stand in the metadata."""

    id: str
    values: bytes
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """What a space says of itself before anything is paid. `sample` is a few of its ids, in no order."""

    index_exists: bool
    exists: bool
    dimension: int | None
    count: int
    metric: str
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """`score`: the larger the nearer."""

    id: str
    score: float
    metadata: Mapping[str, Value]


class VectorSpace(Protocol):
    """One namespace. Every method is one attempt that may be repeated, and raises only what queries.errors names.

    Where a call needs several requests (packing, paging, a thousand ids each) it makes them all, a few at a time.
    """

    name: str  # "pinecone" or "pgvector"
    where: str  # index and namespace for messages; never a key

    @property
    def note(self) -> str:
        """What an operator should know about what it did so far; as a rule nothing."""
        ...

    async def facts(self) -> SpaceFacts: ...

    async def create(self, dimension: int, *, index: bool) -> None:
        """Makes the namespace, and the index (or table) under it if `index`."""
        ...

    async def put(self, records: Sequence[VectorRecord]) -> None:
        """All of them were acknowledged when it returns: the count sent is the count the service says it took."""
        ...

    async def seen(self, ids: Sequence[str]) -> frozenset[str]:
        """Those of the ids that a reader finds now."""
        ...

    def ids(self) -> AsyncIterator[Sequence[str]]:
        """Every id of the namespace, page by page."""
        ...

    async def delete(self, ids: Sequence[str]) -> None:
        """Those that are not there are no error."""
        ...

    async def query(self, vector: bytes, top: int, where: Mapping[str, Value]) -> list[Match]:
        """Nearest first. `where` compares metadata for equality."""
        ...

    async def close(self) -> None: ...
