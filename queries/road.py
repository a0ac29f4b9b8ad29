"""The narrow interface behind which both roads to Postgres lie: PostgREST and DSN."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import orjson

from queries.table import Condition, Key
from queries.vectors import VectorRecord


def as_argument(payload: Mapping[str, Any]) -> str:
    """The one text argument: a JSON array around the object, in ASCII, so that no text can break the transport.

    The array keeps `@supabase/lite` 0.10 from parsing, in a GET, whatever stands between braces.
    """
    try:
        said = orjson.dumps([payload])
    except TypeError:  # a lone surrogate, or a number beyond 64 bits
        return json.dumps([payload])
    return said.decode() if said.isascii() else json.dumps([payload])


@dataclass(frozen=True, slots=True)
class VectorTable:
    """The table of a space, and the number of the type `vector`, which a binary array of them must name."""

    schema: str
    table: str
    extension_schema: str
    vector_oid: int


class Road(Protocol):
    """One attempt each; raises only what queries.errors names. Neither retries nor follows redirects.

    Our functions take one text argument (JSON) and return one jsonb object: jsonb arguments arrive
    double-encoded through some PostgREST stand-ins, and a single value is not subject to the row cap.
    """

    name: str
    where: str  # host and database for messages; never a secret

    async def call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Calls a function that may write (POST there, one transaction here)."""
        ...

    async def read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Calls a STABLE function (GET there, a READ ONLY transaction here)."""
        ...

    async def peek(
        self,
        table: str,
        columns: tuple[str, ...],
        *,
        key: tuple[str, ...],
        conditions: tuple[Condition, ...] = (),
        above: Key | None = None,
        limit: int = 1,
        schema: str = "public",
    ) -> list[dict[str, Any]]:
        """A plain SELECT in key order that needs none of our functions (before `migrate`, and for probing names)."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class BinaryRoad(Protocol):
    """A road on which vectors travel as they lie in memory: an eighth of the server's time of reading them as text."""

    async def put_vectors(self, table: VectorTable, records: Sequence[VectorRecord]) -> int: ...


@runtime_checkable
class RowsRoad(Protocol):
    """A road that need not put a page into one value: its rows come as they are, each column a text."""

    async def read_rows(self, function: str, payload: Mapping[str, Any]) -> list[tuple[Any, ...]]: ...
