"""Which tables a database has that a target could be written for. One look at the catalogs, for `catchup init`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql

from queries.postgres_errors import translate_connect, translate_psycopg

_LOOK = """
select n.nspname, c.relname, greatest(c.reltuples, 0)::bigint,
       (select array_agg(a.attname order by k.place) from pg_index i
          cross join lateral unnest(i.indkey::smallint[]) with ordinality as k(attnum, place)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
         where i.indrelid = c.oid and i.indisprimary),
       (select jsonb_agg(jsonb_build_array(a.attname, t.typname, not a.attnotnull, a.atttypmod) order by a.attnum)
          from pg_attribute a join pg_type t on t.oid = a.atttypid
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           and t.typname in ('text', 'varchar', 'bool', 'jsonb', 'vector', 'halfvec'))
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and has_table_privilege(c.oid, 'select')
   and n.nspname <> all (array['pg_catalog', 'information_schema', 'catchup', 'auth', 'storage', 'realtime', 'vault',
                               'extensions', 'graphql', 'supabase_functions', 'cron', 'net'])
 order by c.reltuples desc, c.relname limit 50
"""
_SAMPLE_ROWS = 300
_SAMPLE_TABLES = 6
_TEXTS = ("text", "varchar")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one column in a sample: how many rows had a text, and its bytes."""

    rows: int
    mean: int
    most: int


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table with a primary key and text; `empty_able` are text columns that may be null.

    `documents` are its jsonb columns, `vectors` its vector columns with their dimensions (None: any). `lengths` are
    known of the largest tables only.
    """

    schema: str
    table: str
    estimated_rows: int
    key: tuple[str, ...]
    texts: tuple[str, ...]
    empty_able: tuple[str, ...]
    flags: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    vectors: tuple[tuple[str, int | None], ...] = ()
    lengths: Mapping[str, Lengths] = field(default_factory=dict)


async def list_tables(url: str) -> list[FoundTable]:
    """Largest first; tables without a key of one or two columns or without text are left out."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=None, connect_timeout=10
        )
    except (psycopg.Error, OSError) as error:
        raise translate_connect(error) from error
    async with connection:
        try:
            async with connection.transaction():
                await connection.execute("set transaction read only")
                rows = await (await connection.execute(_LOOK)).fetchall()
            found = [
                table for table in map(_parse, rows) if 1 <= len(table.key) <= 2 and (table.texts or table.documents)
            ]
            sampled = [await _sample(connection, table) for table in found[:_SAMPLE_TABLES]]
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error
    return [*sampled, *found[_SAMPLE_TABLES:]]


def _parse(row: Sequence[Any]) -> FoundTable:
    columns = row[4] or ()

    def named(*kinds: str) -> tuple[str, ...]:
        return tuple(name for name, kind, _, _ in columns if kind in kinds)

    return FoundTable(
        row[0],
        row[1],
        row[2],
        tuple(row[3] or ()),
        named(*_TEXTS),
        tuple(name for name, kind, may_be_null, _ in columns if kind == "text" and may_be_null),
        named("bool"),
        named("jsonb"),
        tuple((name, size if size > 0 else None) for name, kind, _, size in columns if kind in ("vector", "halfvec")),
    )


async def _sample(connection: psycopg.AsyncConnection[Any], table: FoundTable) -> FoundTable:
    """The first few hundred rows as they lie. In bytes: those are known of a long value without fetching it."""
    if not table.texts:
        return table
    names = [sql.Identifier(name) for name in table.texts]
    each = [
        sql.SQL("count({0}), avg(octet_length({0}))::bigint, max(octet_length({0}))").format(name) for name in names
    ]
    asked = sql.SQL("select {} from (select {} from {} limit {}) s").format(
        sql.SQL(", ").join(each), sql.SQL(", ").join(names), sql.Identifier(table.schema, table.table), _SAMPLE_ROWS
    )
    try:
        async with connection.transaction():
            await connection.execute("set transaction read only")
            await connection.execute("set local statement_timeout = '5s'")
            row = await (await connection.execute(asked)).fetchone()
    except psycopg.errors.QueryCanceled:
        return table  # a table this slow goes without advice
    facts = row or ()
    lengths = {
        name: Lengths(int(facts[3 * n]), int(facts[3 * n + 1]), int(facts[3 * n + 2]))
        for n, name in enumerate(table.texts)
        if facts and facts[3 * n]
    }
    return replace(table, lengths=lengths)
