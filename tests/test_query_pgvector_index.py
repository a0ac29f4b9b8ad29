"""The HNSW index: built beside the work, never twice, never left broken; and a search that uses it loses nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
import pytest

from queries.dsn import DsnRoad
from queries.errors import Misconfigured
from queries.pgvector_space import PgvectorSpace
from queries.road import as_argument
from queries.vector_column import VectorColumn, as_text
from queries.vector_index import build, sql_for
from queries.vectors import VectorRecord
from tests.servers.postgres import Database
from tests.servers.roads import World
from tests.test_query_pgvector import install, opened, packed

PLAIN = VectorColumn("public", "jobs", "embedding", "vector", 1_536, "extensions", False)


@pytest.fixture
async def space(database: Database) -> AsyncIterator[PgvectorSpace]:
    """400 directions in 8 dimensions, every twentieth marked."""
    await install(database)
    road = DsnRoad(database.dsn)
    made = PgvectorSpace(road, "s")
    await made.create(8, index=False)
    await made.put(scattered(400))
    yield made
    await road.close()


def scattered(count: int) -> list[VectorRecord]:
    chance = random.Random(4)
    return [
        VectorRecord(f"v{n:04}", packed(*(chance.gauss(0, 1) for _ in range(8))), {"marked": n % 20 == 0})
        for n in range(count)
    ]


async def valid(database: Database) -> list[tuple[str, bool]]:
    return await database.run(
        "select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
        "where c.relname like '%%hnsw' and %s", (True,)
    )  # type: ignore[return-value]  # fmt: skip


async def test_it_is_built_once_and_found(database: Database, space: PgvectorSpace) -> None:
    """Again is harmless, and says which index is there."""
    first = await build(database.dsn, await space.column())
    assert (await space.column()).hnsw
    again = await build(database.dsn, await space.column())
    assert first.index == again.index
    assert await valid(database) == [(first.index, True)]


async def test_the_servers_time_limit_does_not_end_it(database: Database, space: PgvectorSpace) -> None:
    """A limit meant for questions would leave an invalid index behind."""
    await space.put(scattered(3_000))
    limited = f"{database.dsn}?options=-c%20statement_timeout%3D20ms"
    async with await psycopg.AsyncConnection.connect(limited, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute(sql_for(await space.column()).splitlines()[1].encode())
    await build(limited, await space.column())
    assert [is_valid for _, is_valid in await valid(database)] == [True]


async def test_what_a_broken_build_left_is_replaced(database: Database, space: PgvectorSpace) -> None:
    """`if not exists` alone would keep the invalid index: paid for at every write, used by no search."""
    built = await build(database.dsn, await space.column())
    await database.run(f"update pg_index set indisvalid = false where indexrelid = 'catchup.{built.index}'::regclass")
    assert not (await space.column()).hnsw
    await build(database.dsn, await space.column())
    assert await valid(database) == [(built.index, True)]


async def test_two_do_not_build_it_at_once(database: Database, space: PgvectorSpace) -> None:
    """The second is told; it does not drop what the first is building."""
    column = await space.column()
    async with await database.connect() as writer:
        async with writer.transaction():
            await writer.execute(f"delete from catchup.{column.table} where id = 'v0001'".encode())
            first = asyncio.create_task(build(database.dsn, column))
            while not await database.run("select 1 from pg_stat_progress_create_index where index_relid <> 0"):
                await asyncio.sleep(0.02)
            with pytest.raises(Misconfigured, match="being built"):
                await build(database.dsn, column)
        await first
    assert [is_valid for _, is_valid in await valid(database)] == [True]


async def test_writers_do_not_wait_for_it(database: Database, space: PgvectorSpace) -> None:
    """Concurrently: a put goes through while the build waits for somebody else's transaction."""
    column = await space.column()
    async with await database.connect() as reader:
        async with reader.transaction():
            await reader.execute(f"lock table catchup.{column.table} in row exclusive mode".encode())
            building = asyncio.create_task(build(database.dsn, column))
            while not await database.run("select 1 from pg_stat_progress_create_index"):
                await asyncio.sleep(0.02)
            async with asyncio.timeout(5):
                await space.put([VectorRecord("new", packed(*range(1, 9)))])
        await building
    [found] = await space.query(packed(*range(1, 9)), 1, {})
    assert found.id == "new"


async def test_a_graph_beyond_the_servers_memory_is_said(database: Database, space: PgvectorSpace) -> None:
    """The setting is the operator's; we exceed it only when told to."""
    column = await space.column()
    await database.run(f"update pg_class set reltuples = 3e6 where oid = 'catchup.{column.table}'::regclass")
    [note] = (await build(database.dsn, column)).notes
    assert "3,000,000 rows" in note
    assert "maintenance_work_mem is 64 MB" in note
    await database.run(f"update pg_class set reltuples = 3e4 where oid = 'catchup.{column.table}'::regclass")
    assert (await build(database.dsn, column, memory_mb=80)).notes == ()


async def test_a_transaction_pooler_is_refused_with_the_statement(database: Database) -> None:
    """DECISIONS 30: exit 10 with the SQL, since session settings do not hold there."""
    with pytest.raises(Misconfigured, match="transaction pooler") as refused:
        await build("postgresql://x@db.example:6543/postgres", PLAIN)
    assert sql_for(PLAIN) in refused.value.fix


UNFIT = [
    pytest.param({"dimension": None}, "no fixed dimension", id="any-dimension"),
    pytest.param({"dimension": 3_072}, "2,000 dimensions of a vector", id="vector-too-long"),
    pytest.param({"dimension": 4_001, "kind": "halfvec"}, "4,000 dimensions of a halfvec", id="halfvec-too-long"),
]


@pytest.mark.parametrize(("changes", "words"), UNFIT)
def test_what_hnsw_cannot_index_is_refused_first(changes: dict[str, object], words: str) -> None:
    """Before a connection is made."""
    with pytest.raises(Misconfigured, match=words):
        sql_for(replace(PLAIN, **changes))  # type: ignore[arg-type]


async def test_what_is_printed_is_what_runs(database: Database, space: PgvectorSpace) -> None:
    """Names are quoted; the statements run one by one, as psql does it."""
    column = await space.column()
    async with await database.connect() as connection:
        for statement in sql_for(column).splitlines():
            await connection.execute(statement.encode())
    assert (await space.column()).hnsw
    assert '"a""b"' in sql_for(replace(PLAIN, table='a"b'))


async def test_a_search_by_the_index_returns_as_many_as_are_asked_for(world: World) -> None:
    """HNSW looks at 40 candidates by default: 150 would come back as 40, and a filter would leave two."""
    await world.database.run(f"alter database {world.database.name} set enable_seqscan = off")
    found = await opened(world, dimension=8)
    await found.put(scattered(400))
    exact = await found.query(packed(*range(1, 9)), 150, {})
    await build(world.database.dsn, await found.column())
    by_index = await found.query(packed(*range(1, 9)), 150, {})
    assert len({match.id for match in by_index} & {match.id for match in exact}) >= 148
    assert len(by_index) == 150
    assert len(await found.query(packed(*range(1, 9)), 20, {"marked": True})) == 20


async def test_the_index_serves_the_search(database: Database, space: PgvectorSpace) -> None:
    """The function's own statement, planned with the query's vector in place."""
    built = await build(database.dsn, await space.column())
    asked = as_argument({"name": "s", "vector": as_text(packed(*range(1, 9))), "top": 5, "where": {"marked": True}})
    async with await database.connect() as connection:
        await connection.execute("set enable_seqscan = off")
        await connection.execute("select public.catchup_space_query(%s)", (asked,))
        await connection.execute("select pg_stat_force_next_flush()")
    scans = await database.run(f"select idx_scan from pg_stat_user_indexes where indexrelname = '{built.index}'")
    assert scans == [(1,)]
