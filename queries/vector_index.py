"""The HNSW index over a vector column: long DDL, so on a connection of its own, or as text for a person to run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from queries.errors import Misconfigured
from queries.postgres_errors import translate_connect, translate_psycopg
from queries.vector_column import VectorColumn

# pgvector 0.8.6: "column cannot have more than 2000 dimensions for hnsw index", 4,000 for halfvec (2026-11-21).
_MOST = {"vector": 2_000, "halfvec": 4_000}
_BYTES = {"vector": 4, "halfvec": 2}
# Neighbour lists and pointers of the graph while it is built, with m = 16 as pgvector has it.
_GRAPH_BYTES = 1_000
_TRANSACTION_POOLER = "6543"  # Supabase's port; a session setting does not outlive one statement there


@dataclass(frozen=True, slots=True)
class Built:
    """`notes` say what an operator should know, such as that the graph did not fit into the server's memory setting."""

    index: str
    rows: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Leftover:
    index: str
    valid: bool
    in_progress: bool


def sql_for(column: VectorColumn) -> str:
    """What `build` runs, for a person at psql: it cannot stand in a transaction, so no SQL editor that opens one."""
    check(column)
    return f"set statement_timeout = 0;\n{_text(_create_sql(column))}"


def refusal(column: VectorColumn, why: str) -> Misconfigured:
    return Misconfigured(
        f"the HNSW index on {column.schema}.{column.table} needs a direct connection: {why}",
        fix=f"set DATABASE_URL to the database itself, or run over psql: {sql_for(column)}",
        service="database",
    )


def check(column: VectorColumn) -> None:
    """What HNSW cannot index is known before an hour is spent on it."""
    if column.dimension is None:
        raise Misconfigured(
            f"column {column.column} of {column.schema}.{column.table} has no fixed dimension, which HNSW needs",
            fix=f"alter table … alter column {column.column} type {column.kind}(N)",
            service="database",
        )
    if column.dimension > _MOST[column.kind]:
        raise Misconfigured(
            f"HNSW takes {_MOST[column.kind]:,} dimensions of a {column.kind}, the column has {column.dimension:,}",
            fix="use fewer dimensions, or halfvec; search stays exact without the index",
            service="database",
        )


async def build(url: str, column: VectorColumn, *, memory_mb: int | None = None) -> Built:
    """Without a lock that writers feel. Again is harmless: a valid index stays, what a broken build left is replaced.

    The server's maintenance_work_mem is its operator's promise about memory that is free; only `memory_mb` exceeds it.
    """
    check(column)
    if str(conninfo_to_dict(url).get("port") or "") == _TRANSACTION_POOLER:
        raise refusal(column, "this is a transaction pooler")
    heard: list[str] = []
    async with await _connect(url) as connection:
        connection.add_notice_handler(lambda said: heard.append(str(said.message_primary)))
        started = time.monotonic()
        try:
            await connection.execute("set statement_timeout = 0")
            if memory_mb is not None:
                await connection.execute(sql.SQL("set maintenance_work_mem = {}").format(sql.Literal(f"{memory_mb}MB")))
            rows, has_mb = await _measure(connection, column)
            found = await _find(connection, column)
            if found is None or not found.valid:
                await _make(connection, column, found)
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error
    name = found.index if found and found.valid else _name(column)
    return Built(name, rows, time.monotonic() - started, _notes(column, rows, has_mb, heard))


async def _make(connection: psycopg.AsyncConnection[Any], column: VectorColumn, found: _Leftover | None) -> None:
    if found is not None:
        if found.in_progress:
            raise Misconfigured(
                f"index {found.index} is being built at this moment", fix="wait for it", service="database"
            )
        # A build that was broken off leaves an index that is kept up and never used; `if not exists` would keep it.
        await connection.execute(
            sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(column.schema, found.index))
        )
    await connection.execute(_create_sql(column))


async def _find(connection: psycopg.AsyncConnection[Any], column: VectorColumn) -> _Leftover | None:
    """Any valid HNSW index on the column, else a broken one that bears our name."""
    cursor = await connection.execute(
        "select c.relname, i.indisvalid, exists (select 1 from pg_stat_progress_create_index p "
        "where p.index_relid = c.oid) "
        "from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam "
        "join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] "
        "where i.indrelid = %s::regclass and m.amname = 'hnsw' and a.attname = %s and i.indpred is null "
        "and (i.indisvalid or c.relname = %s) order by i.indisvalid desc limit 1",
        (_text(sql.Identifier(column.schema, column.table)), column.column, _name(column)),
    )
    row = await cursor.fetchone()
    return _Leftover(str(row[0]), row[1] is True, row[2] is True) if row else None


async def _measure(connection: psycopg.AsyncConnection[Any], column: VectorColumn) -> tuple[int, int]:
    """The planner's estimate of the rows (never an exact count), and maintenance_work_mem in MB."""
    cursor = await connection.execute(
        "select greatest(c.reltuples, 0)::bigint, "
        "(select setting::bigint / 1024 from pg_settings where name = 'maintenance_work_mem') "
        "from pg_class c where c.oid = %s::regclass",
        (_text(sql.Identifier(column.schema, column.table)),),
    )
    row = await cursor.fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _notes(column: VectorColumn, rows: int, has_mb: int, heard: list[str]) -> tuple[str, ...]:
    each = (column.dimension or 0) * _BYTES[column.kind] + _GRAPH_BYTES
    needs_mb = rows * each // 1_048_576 + 1
    notes = [said for said in heard if "hnsw graph" in said]
    if needs_mb > has_mb:
        notes.append(
            f"the graph of about {rows:,} rows takes about {needs_mb:,} MB and maintenance_work_mem is {has_mb:,} MB: "
            "the build is slower beyond it; raise the setting if the server has that much memory free"
        )
    return tuple(notes)


def _create_sql(column: VectorColumn) -> sql.Composed:
    return sql.SQL("create index concurrently if not exists {} on {} using hnsw ({} {});").format(
        sql.Identifier(_name(column)),
        sql.Identifier(column.schema, column.table),
        sql.Identifier(column.column),
        sql.Identifier(column.extension_schema, f"{column.kind}_cosine_ops"),
    )


def _name(column: VectorColumn) -> str:
    return f"{column.table[:40]}_{column.column[:16]}_hnsw"


async def _connect(url: str) -> psycopg.AsyncConnection[Any]:
    try:
        return await psycopg.AsyncConnection.connect(
            # A build says nothing for an hour; what stands between would take the silence for the end.
            url, autocommit=True, prepare_threshold=None, connect_timeout=10, keepalives_idle=30, keepalives_interval=10
        )  # fmt: skip
    except (psycopg.Error, OSError) as error:
        raise translate_connect(error) from error


def _text(part: sql.Composable) -> str:
    return part.as_string(None)
