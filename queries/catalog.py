"""Which tables a database has that a target could be written for. One look at the catalogs, for `catchup init`."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from queries.postgres_errors import translate_connect, translate_psycopg

_LOOK = """
select n.nspname, c.relname, greatest(c.reltuples, 0)::bigint,
       (select array_agg(a.attname order by k.place) from pg_index i
          cross join lateral unnest(i.indkey::smallint[]) with ordinality as k(attnum, place)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
         where i.indrelid = c.oid and i.indisprimary),
       (select array_agg(a.attname order by a.attnum) from pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid in (25, 1043)),
       (select array_agg(a.attname order by a.attnum) from pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid = 25 and not a.attnotnull)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and has_table_privilege(c.oid, 'select')
   and n.nspname <> all (array['pg_catalog', 'information_schema', 'catchup', 'auth', 'storage', 'realtime', 'vault',
                               'extensions', 'graphql', 'supabase_functions', 'cron', 'net'])
 order by c.reltuples desc, c.relname limit 50
"""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table with a primary key and text; `empty_able` are text columns that may be null."""

    schema: str
    table: str
    estimated_rows: int
    key: tuple[str, ...]
    texts: tuple[str, ...]
    empty_able: tuple[str, ...]


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
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error
    found = [FoundTable(r[0], r[1], r[2], tuple(r[3] or ()), tuple(r[4] or ()), tuple(r[5] or ())) for r in rows]
    return [table for table in found if 1 <= len(table.key) <= 2 and table.texts and table.empty_able]
