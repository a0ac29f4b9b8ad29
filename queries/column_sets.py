"""Columns and indexes that a job needs in tables of the user's: added, compared and taken back without blocking them.

What needs a strong lock waits for it two seconds at a time: queued behind a long transaction, it would hold up the
whole application for as long as that takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from queries.column_statements import (
    ColumnSet,
    TableSet,
    add_columns,
    as_text,
    build_index,
    drop_columns,
    drop_index,
    kinds_of,
    mark_column,
    name_of,
    say_index,
    set_default,
)
from queries.errors import Misconfigured
from queries.postgres_errors import translate_connect, translate_psycopg

_LOCK_TIMEOUT = "2s"
_TRIES = 30
_PAUSE_S = 2.0
_HAS_INDEX = """
select exists (
    select 1 from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
    cross join lateral (
        select array_agg(a.attname::text) as names from unnest(i.indkey::smallint[]) with ordinality as u(attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum where u.n <= i.indnkeyatts) k
    where i.indrelid = to_regclass(%(table)s) and i.indisvalid and i.indpred is null and i.indexprs is null
      and cardinality(k.names) = cardinality(%(names)s::text[]) and k.names @> %(names)s::text[]
      and case when %(gin)s then m.amname = 'gin' else i.indisunique end)
"""
_Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Held:
    """A column with values in so many rows, which taking it away would lose."""

    table: str
    column: str
    rows: int


async def check(url: str, wanted: ColumnSet) -> tuple[str, ...]:
    """Every difference, in sentences; empty when all is there. Reads only."""
    async with _connected(url) as connection:
        return tuple([said for each in wanted.tables async for said in _differences(connection, each)])


async def apply(url: str, wanted: ColumnSet, pause: _Pause = asyncio.sleep) -> list[str]:
    """Adds what is missing and returns what was done; nothing that is there is changed."""
    done: list[str] = []
    async with _connected(url) as connection:
        for each in wanted.tables:
            found = await _columns(connection, each)
            _refuse_other_types(each, found)
            missing = [column for column in each.columns if column.name not in found]
            if missing:
                await _locked(
                    connection,
                    [add_columns(each, missing), *(mark_column(each, c, wanted.mark) for c in missing)],
                    pause,
                )
                done.append(f"{each.table}: {', '.join(column.name for column in missing)} added")
            unset = [c for c in each.columns if c.default and c.name in found and not found[c.name][1]]
            if unset:
                await _locked(connection, [set_default(each, column) for column in unset], pause)
                done.append(f"{each.table}: {', '.join(c.name for c in unset)} has its default now")
            for kind in kinds_of(each):
                if not await _has_index(connection, each, kind):
                    await _build(connection, each, kind)
                    done.append(f"{each.table}: {say_index(each, kind)} built")
        await connection.execute("notify pgrst, 'reload schema'")
    return done


async def find_held(url: str, wanted: ColumnSet) -> list[Held]:
    """What taking the set away would lose. A flag that is false holds nothing."""
    held = []
    async with _connected(url) as connection:
        for each in wanted.tables:
            for column in await _ours(connection, each, wanted.mark):
                is_flag = any(c.name == column and c.type == "boolean" for c in each.columns)
                test = sql.SQL("{} is true" if is_flag else "{} is not null").format(sql.Identifier(column))
                query = sql.SQL("select count(*) from {} where {}").format(name_of(each), test)
                row = await (await connection.execute(query)).fetchone()
                if row and row[0]:
                    held.append(Held(each.table, column, int(row[0])))
    return held


async def take_away(url: str, wanted: ColumnSet, pause: _Pause = asyncio.sleep) -> tuple[list[str], list[str]]:
    """Removes what the set added; returns that, and what was there before it and stays."""
    done: list[str] = []
    kept: list[str] = []
    async with _connected(url) as connection:
        for each in reversed(wanted.tables):
            ours = await _ours(connection, each, wanted.mark)
            there = await _columns(connection, each)
            for kind in kinds_of(each):
                await connection.execute(drop_index(each, kind).encode())
            if ours:
                await _locked(connection, [drop_columns(each, ours)], pause)
                done.append(f"{each.table}: {', '.join(ours)} removed")
            left = [c.name for c in each.columns if c.name in there and c.name not in ours]
            kept += [f"{each.table}: {', '.join(left)}"] if left else []
        await connection.execute("notify pgrst, 'reload schema'")
    return done, kept


async def _differences(connection: psycopg.AsyncConnection[Any], each: TableSet) -> AsyncIterator[str]:
    found = await _columns(connection, each)
    if not found:
        yield f"table {each.schema}.{each.table} does not exist"
        return
    for column in each.columns:
        if column.name not in found:
            yield f"{each.table} has no column {column.name} ({column.type})"
        elif found[column.name][0] != column.type:
            yield f"{each.table}.{column.name} is {found[column.name][0]}, and should be {column.type}"
        elif column.default and not found[column.name][1]:
            yield f"{each.table}.{column.name} has no default; it should be {column.default}"
    for kind in kinds_of(each):
        if not await _has_index(connection, each, kind):
            yield f"{each.table} has no {say_index(each, kind)}"


async def _columns(connection: psycopg.AsyncConnection[Any], each: TableSet) -> dict[str, tuple[str, bool]]:
    """Type of each column, and whether it has a default."""
    cursor = await connection.execute(
        "select attname, format_type(atttypid, atttypmod), atthasdef from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        (as_text(name_of(each)),),
    )
    return {str(name): (str(type_), bool(default)) for name, type_, default in await cursor.fetchall()}


async def _ours(connection: psycopg.AsyncConnection[Any], each: TableSet, mark: str) -> list[str]:
    cursor = await connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped "
        "and col_description(attrelid, attnum) = %s",
        (as_text(name_of(each)), mark),
    )
    found = {str(name) for (name,) in await cursor.fetchall()}
    return [column.name for column in each.columns if column.name in found]


def _refuse_other_types(each: TableSet, found: dict[str, tuple[str, bool]]) -> None:
    if not found:
        raise Misconfigured(
            f"table {each.schema}.{each.table} does not exist", fix="name your table in catchup.toml (docs/targets.md)"
        )
    wrong = [c for c in each.columns if c.name in found and found[c.name][0] != c.type]
    if wrong:
        said = "; ".join(f"{c.name} is {found[c.name][0]}, and should be {c.type}" for c in wrong)
        raise Misconfigured(
            f"{each.table}: {said}. Nothing was changed",
            fix="columns with values in them are never converted: rename them, or name others in catchup.toml",
        )


async def _locked(connection: psycopg.AsyncConnection[Any], statements: Sequence[str], pause: _Pause) -> None:
    """All of them in one short transaction, again and again until the lock is had within two seconds."""
    for tried in range(_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'".encode())
                for statement in statements:
                    await connection.execute(statement.encode())
        except psycopg.errors.LockNotAvailable as error:
            if tried == _TRIES - 1:
                raise Misconfigured(
                    "the table is locked by a long transaction, and waiting for it would have held up the application",
                    fix="look for it in pg_stat_activity, and run the same command again when it is over",
                    service="database",
                ) from error
            await pause(_PAUSE_S)
        else:
            return


async def _build(connection: psycopg.AsyncConnection[Any], each: TableSet, kind: str) -> None:
    """It waits for transactions that are older, and holds up nobody; what a broken attempt left is built anew."""
    await connection.execute(drop_index(each, kind).encode())
    try:
        await connection.execute(build_index(each, kind).encode())
    except psycopg.errors.UniqueViolation as error:
        await connection.execute(drop_index(each, kind).encode())
        raise Misconfigured(
            f"{each.table} has double rows: {error.diag.message_detail or ', '.join(each.unique)}",
            fix="remove them: a row is found by " + " and ".join(each.unique),
            service="database",
        ) from error


async def _has_index(connection: psycopg.AsyncConnection[Any], each: TableSet, kind: str) -> bool:
    """Under any name, as long as it is valid and serves the purpose."""
    is_gin = kind == "gin"
    asked = {"table": as_text(name_of(each)), "names": [each.gin] if is_gin else list(each.unique), "gin": is_gin}
    cursor = await connection.execute(_HAS_INDEX, asked)
    row = await cursor.fetchone()
    return bool(row and row[0])


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    try:
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=None, connect_timeout=10
        )
    except (psycopg.Error, OSError) as error:
        raise translate_connect(error) from error
    async with connection:
        try:
            yield connection
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error
