"""The PostgREST road: the supabase client over an HTTP client of our own that neither retries nor follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from queries.errors import CatchupError, Misconfigured
from queries.postgres_errors import (
    Refusal,
    lost_answer,
    malformed_answer,
    translate_postgrest,
    unreachable,
)
from queries.road import as_argument
from queries.table import UNARY, Condition, Key

if TYPE_CHECKING:
    from supabase import AsyncClient

HOME_DOMAINS = (".supabase.co",)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Supabase's API ends a statement after 60 s at the latest, so a longer silence is a lost connection.
_TIMEOUT = httpx.Timeout(75.0, connect=10.0, pool=30.0)
_LIMITS = httpx.Limits(max_connections=4, max_keepalive_connections=4)
# Gateways in front of PostgREST refuse a URL of about 8 kB (nginx, Kong).
_LONGEST_URL_VALUE = 6_000


@dataclass(slots=True)
class _Seen:
    """What the client library does not pass on of the answer to one request."""

    status: int = 0
    retry_after_s: float | None = None


# One request at a time in a task, so the hook can hand the answer's head to the call that waits for it.
_seen: ContextVar[_Seen] = ContextVar("seen")


class PostgrestRoad:
    """Supabase's own road. The key goes to this one host and nowhere else."""

    name = "postgrest"

    def __init__(self, url: str, key: str, *, allow_hosts: tuple[str, ...] = ()) -> None:
        check_home(url, allow_hosts)
        self._url = url
        self._key = key
        self._client: AsyncClient | None = None
        self._http = httpx.AsyncClient(
            follow_redirects=False, timeout=_TIMEOUT, limits=_LIMITS, event_hooks={"response": [_note_answer]}
        )
        self.where = str(urlsplit(url).hostname)

    async def call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        client = await self._connected()
        request = client.rpc(function, {"p": as_argument(payload)})
        return _one_object(await _attempt(request.execute, writing=True), function, writing=True)

    async def read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """By GET, which PostgREST runs READ ONLY; or by POST if too long for a URL: a STABLE function cannot write."""
        client = await self._connected()
        asked = as_argument(payload)
        request = client.rpc(function, {"p": asked}, get=len(quote(asked)) <= _LONGEST_URL_VALUE)
        return _one_object(await _attempt(request.execute, writing=False), function, writing=False)

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
        client = await self._connected()
        query: Any = client.schema(schema).table(table).select(*columns)
        for condition in conditions:
            query = _add_condition(query, condition)
        if above is not None:
            query = _add_above(query, key, above)
        for column in key:
            query = query.order(column)
        answer = await _attempt(query.limit(limit).execute, writing=False)
        rows = answer.data
        if not isinstance(rows, list) or not all(isinstance(r, dict) and set(columns) <= set(r) for r in rows):
            raise malformed_answer(table, writing=False)
        return rows

    async def close(self) -> None:
        await self._http.aclose()

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            # Importing supabase takes half a second: only when it is used.
            from supabase import AsyncClientOptions, SupabaseException, acreate_client  # noqa: PLC0415

            options = AsyncClientOptions(
                auto_refresh_token=False,
                persist_session=False,
                postgrest_client_retry=False,
                httpx_client=self._http,
            )
            try:
                self._client = await acreate_client(self._url, self._key, options)
            except SupabaseException as error:
                raise Misconfigured(
                    "SUPABASE_URL or SUPABASE_SERVICE_ROLE_KEY is not usable",
                    fix="copy both from the project's settings",
                    service="database",
                ) from error
        return self._client


def check_home(url: str, allow_hosts: tuple[str, ...] = ()) -> None:
    """A key is sent over https to a known host, or to this machine; anything else must be allowed by name."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK and parts.scheme in ("http", "https"):
        return
    if parts.scheme != "https" or not host:
        raise Misconfigured(
            f"SUPABASE_URL must be https, not {parts.scheme or 'nothing'}",
            fix="https://<project>.supabase.co; plain http is for this machine only",
            service="database",
        )
    if not host.endswith(HOME_DOMAINS) and host not in allow_hosts:
        raise Misconfigured(
            f"{host} is no host of Supabase's", fix=f"if it is yours, add --allow-host {host}", service="database"
        )


def _add_condition(query: Any, condition: Condition) -> Any:
    if condition.op in UNARY:
        column = query.not_ if " not " in condition.op else query
        return column.is_(condition.column, condition.op.rsplit(" ", 1)[1])
    compare = {"=": query.eq, "<>": query.neq, "<": query.lt, ">": query.gt}[condition.op]
    return compare(condition.column, condition.value)


def _add_above(query: Any, key: tuple[str, ...], above: Key) -> Any:
    """Two columns: a >= x and (a > x or b > y). The values are quoted here, since `or` takes raw text."""
    if len(key) == 1:
        return query.gt(key[0], above[0])
    (a, b), (x, y) = key, above
    return query.gte(a, x).or_(f"{a}.gt.{_quoted(x)},{b}.gt.{_quoted(y)}")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def _note_answer(response: httpx.Response) -> None:
    seen = _seen.get(None)
    if seen is not None:
        seen.status = response.status_code
        seen.retry_after_s = _seconds(response.headers.get("retry-after"))


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


async def _attempt(execute: Callable[[], Awaitable[Any]], *, writing: bool) -> Any:
    """One attempt, and every way it can fail in our own words."""
    from postgrest.exceptions import APIError  # noqa: PLC0415  # as slow as supabase
    from pydantic import ValidationError  # noqa: PLC0415

    seen = _Seen()
    token = _seen.set(seen)
    try:
        return await execute()
    except APIError as error:
        raise _translate(error, seen, writing=writing) from error
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise unreachable(type(error).__name__) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise Misconfigured(
            f"the request could not be built ({type(error).__name__})", fix="check SUPABASE_URL and the key"
        ) from error
    except httpx.HTTPError as error:
        raise lost_answer(type(error).__name__, writing=writing) from error
    except (ValidationError, ValueError) as error:
        raise malformed_answer("a request", writing=writing) from error
    finally:
        _seen.reset(token)


def _translate(error: Any, seen: _Seen, *, writing: bool) -> CatchupError:
    code = str(error.code or "")
    if 200 <= seen.status < 300:  # a success whose body was not JSON
        return malformed_answer("a request", writing=writing)
    is_json = code != str(seen.status)
    refusal = Refusal(
        status=seen.status,
        code=code if is_json else "",
        message=str(error.message or ""),
        details=error.details if isinstance(error.details, str) and is_json else "",
        retry_after_s=seen.retry_after_s,
        is_json=is_json,
    )
    return translate_postgrest(refusal, writing=writing)


def _one_object(answer: Any, function: str, *, writing: bool) -> dict[str, Any]:
    data = answer.data
    if not isinstance(data, dict):
        raise malformed_answer(function, writing=writing)
    return data
