"""The DSN road: psycopg 3 to any Postgres, a transaction pooler included, so no session state of any kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString
from weakref import WeakSet

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from queries.dsn_vectors import VectorArray, VectorArrayDumper, put_statement
from queries.errors import CatchupError, Misconfigured
from queries.postgres_errors import lost_answer, malformed_answer, translate_connect, translate_psycopg
from queries.road import VectorTable, as_argument
from queries.table import UNARY, Condition, Key
from queries.vectors import VectorRecord

_CONNECT_S = 10
# As one value of two megabytes a page cost the server 26 us a row instead of 20: it copied all of it several times
# (2026-11-21).
_ROWS = "select * from {}({}::text)"
# libpq reads what its buffer has room for, 16 kB, until one value was larger: then as much at a time. 27,000 wake-ups
# less were a tenth of the time of planning 178,000 rows (2026-11-21).
_MANY_ROWS = 500
_WIDEN = "select repeat(' ', 262144)"
_OPERATORS = {op: op for op in ("=", "<>", "<", ">", *UNARY)}


class DsnRoad:
    """A few connections, opened when needed and thrown away at the first doubt."""

    name = "dsn"

    def __init__(self, url: str, *, connections: int = 3, answer_s: float = 90.0) -> None:
        try:
            facts = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise Misconfigured(
                "DATABASE_URL is not a Postgres connection string",
                fix="postgresql://user:password@host:5432/database",
                service="database",
            ) from error
        self._url = url
        self._answer_s = answer_s
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._wide: WeakSet[psycopg.AsyncConnection[Any]] = WeakSet()
        self._places = asyncio.Semaphore(connections)
        host = facts.get("host") or "local socket"
        self.where = f"{'local socket' if str(host).startswith('/') else host}/{facts.get('dbname') or ''}"

    async def call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        async with self._connected(writing=True) as connection:
            # One statement in autocommit is one transaction and one round trip.
            cursor = await connection.execute(_call_sql(function), (as_argument(payload),))
            return _one_object(await cursor.fetchone(), function, writing=True)

    async def read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        async with self._connected(writing=False) as connection:
            cursor = await connection.execute(_reading_sql("select {}({}::text)", function, payload))
            cursor.nextset()
            return _one_object(await cursor.fetchone(), function, writing=False)

    async def read_rows(self, function: str, payload: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connected(writing=False) as connection:
            if payload.get("limit", 0) >= _MANY_ROWS and connection not in self._wide:
                self._wide.add(connection)
                await connection.execute(_WIDEN)
            cursor = await connection.execute(_reading_sql(_ROWS, function, payload))
            cursor.nextset()
            return await cursor.fetchall()

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
        query = _peek_sql(table, columns, key, conditions, above, limit, schema)
        async with self._connected(writing=False) as connection, connection.transaction():
            await connection.execute("set transaction read only")
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(query)
            return await cursor.fetchall()

    async def put_vectors(self, table: VectorTable, records: Sequence[VectorRecord]) -> int:
        """What catchup_space_put does, with the vectors in binary; returns how many rows the database took."""
        query, arguments = put_statement(table, records)
        async with self._connected(writing=True) as connection:
            cursor = connection.cursor()
            cursor.adapters.register_dumper(VectorArray, VectorArrayDumper)
            await cursor.execute(query, arguments)
            return cursor.rowcount

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    @asynccontextmanager
    async def _connected(self, *, writing: bool) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._places:
            connection = self._idle.pop() if self._idle else await self._connect()
            healthy = False
            try:
                async with asyncio.timeout(self._answer_s):
                    yield connection
                healthy = True
            except TimeoutError as error:
                raise lost_answer(f"silent for {self._answer_s:.0f} s", writing=writing) from error
            except psycopg.Error as error:
                healthy = not connection.closed and not connection.broken
                raise translate_psycopg(error, writing=writing) from error
            except CatchupError:
                healthy = not connection.closed
                raise
            finally:
                if healthy:
                    self._idle.append(connection)
                else:
                    await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        try:
            # No prepared statements: the next one may run on another server connection behind a transaction pooler.
            connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=_CONNECT_S,
                application_name="catchup",
            )
        except (psycopg.Error, OSError) as error:
            raise translate_connect(error) from error
        set_json_loads(_read_json, connection)
        return connection


def _read_json(said: str | bytes) -> Any:
    """A third of the standard library's time, which still reads what does not fit into a float."""
    try:
        return msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError):
        return json.loads(said)


def _call_sql(function: str) -> sql.Composed:
    return sql.SQL("select {}(%s::text)").format(sql.Identifier("public", function))


def _reading_sql(select: LiteralString, function: str, payload: Mapping[str, Any]) -> sql.Composed:
    """One message of two statements: one transaction, one round trip, and the database itself refuses a write."""
    said = sql.Literal(as_argument(payload))  # quoted by the connection that sends it
    return sql.SQL("set transaction read only; " + select).format(sql.Identifier("public", function), said)


def _one_object(row: Any, function: str, *, writing: bool) -> dict[str, Any]:
    if row is None or not isinstance(row[0], dict):
        raise malformed_answer(function, writing=writing)
    return row[0]


def _peek_sql(
    table: str,
    columns: tuple[str, ...],
    key: tuple[str, ...],
    conditions: tuple[Condition, ...],
    above: Key | None,
    limit: int,
    schema: str,
) -> sql.Composed:
    """Values stand as untyped literals, so that Postgres reads them in the column's own type."""
    parts: list[sql.Composable] = [sql.SQL("true")]
    for condition in conditions:
        column = sql.Identifier(condition.column)
        value = sql.SQL("") if condition.op in UNARY else _literal(condition.value)
        parts.append(sql.SQL("{} " + _OPERATORS[condition.op] + " {}").format(column, value))
    if above is not None:
        left = sql.SQL(", ").join(map(sql.Identifier, key))
        right = sql.SQL(", ").join(map(_literal, above))
        parts.append(sql.SQL("({}) > ({})").format(left, right))
    return sql.SQL("select {} from {} where {} order by {} limit {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(schema, table),
        sql.SQL(" and ").join(parts),
        sql.SQL(", ").join(map(sql.Identifier, key)),
        sql.Literal(limit),
    )


def _literal(value: str | None) -> sql.Composable:
    return sql.Literal(value)
