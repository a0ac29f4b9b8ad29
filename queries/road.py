"""The narrow interface behind which both roads to Postgres lie: PostgREST and DSN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from queries.table import Condition, Key


def as_argument(payload: Mapping[str, Any]) -> str:
    """The one text argument: a JSON array around the object, in ASCII, so that no text can break the transport.

    The array keeps `@supabase/lite` 0.10 from parsing, in a GET, whatever stands between braces.
    """
    return json.dumps([payload])


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
