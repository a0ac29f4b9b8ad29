"""catchup migrate --set: columns added without holding anybody up, compared, and taken away where they are ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from queries.column_sets import apply, check, find_held, take_away
from queries.column_statements import Column, ColumnSet, TableSet, down_statements, up_statements
from queries.errors import Misconfigured
from tests.servers.postgres import Database

SET = ColumnSet(
    "rich-semantics",
    (
        TableSet(
            "public",
            "shots",
            (Column("caption", "text"), Column("names", "text[]"), Column("tags", "text[]")),
            gin="tags",
            unique=("film_id", "index"),
        ),
        TableSet("public", "films", (Column("summary", "text"), Column("is_rich", "boolean", "false"))),
    ),
)
TABLES = (
    "create table films (id int primary key, title text); "
    "insert into films select n, 'f' from generate_series(1, 5) n; "
    "create table shots (id int primary key, film_id int, index int); "
    "insert into shots select n, n / 3, n % 3 from generate_series(0, 14) n"
)


@pytest.fixture
async def tables(database: Database) -> Database:
    await database.run(TABLES)
    return database


async def test_up_check_down_and_up_again(tables: Database) -> None:
    """Each is repeatable, and what was there is untouched."""
    missing = await check(tables.dsn, SET)
    assert "shots has no column caption (text)" in missing
    assert "shots has no GIN index on tags" in missing
    assert "shots has no unique index on (film_id, index)" in missing
    assert "films has no column is_rich (boolean)" in missing
    assert len(missing) == 7
    assert await apply(tables.dsn, SET) == [
        "shots: caption, names, tags added",
        "shots: unique index on (film_id, index) built",
        "shots: GIN index on tags built",
        "films: summary, is_rich added",
    ]
    assert await check(tables.dsn, SET) == ()
    assert await apply(tables.dsn, SET) == []
    assert await tables.run("select count(*) from films where is_rich is false") == [(5,)]
    done, kept = await take_away(tables.dsn, SET)
    assert (done, kept) == (["films: summary, is_rich removed", "shots: caption, names, tags removed"], [])
    assert len(await check(tables.dsn, SET)) == 7
    assert await take_away(tables.dsn, SET) == ([], [])
    await apply(tables.dsn, SET)
    assert await check(tables.dsn, SET) == ()


async def test_down_says_what_it_would_lose(tables: Database) -> None:
    """A flag that is false holds nothing."""
    await apply(tables.dsn, SET)
    assert await find_held(tables.dsn, SET) == []
    await tables.run("update shots set caption = 'x' where id < 4; update films set is_rich = true where id = 1")
    assert [(held.column, held.rows) for held in await find_held(tables.dsn, SET)] == [("caption", 4), ("is_rich", 1)]


async def test_down_leaves_what_was_there_before(tables: Database) -> None:
    """Of the columns and of the indexes."""
    await tables.run("alter table films add summary text; create unique index mine on shots (film_id, index)")
    await apply(tables.dsn, SET)
    assert await tables.run("select count(*) from pg_indexes where indexname like 'shots_catchup%'") == [(1,)]
    await tables.run("update films set summary = 'mine'")
    assert await find_held(tables.dsn, SET) == []
    _, kept = await take_away(tables.dsn, SET)
    assert kept == ["films: summary"]
    assert await tables.run("select count(*) from films where summary = 'mine'") == [(5,)]
    assert await tables.run("select count(*) from pg_indexes where indexname = 'mine'") == [(1,)]


async def test_a_column_of_another_type_is_named_and_never_converted(tables: Database) -> None:
    """Neither by --check nor by the migration."""
    await tables.run("alter table shots add names jsonb")
    assert "shots.names is jsonb, and should be text[]" in await check(tables.dsn, SET)
    with pytest.raises(Misconfigured, match="names is jsonb"):
        await apply(tables.dsn, SET)
    assert "shots has no column caption (text)" in await check(tables.dsn, SET)


async def test_a_default_that_is_missing_is_set_and_no_row_is_rewritten(tables: Database) -> None:
    """Rows of before stay null, which says as little as false."""
    await tables.run("alter table films add is_rich boolean")
    assert "films.is_rich has no default; it should be false" in await check(tables.dsn, SET)
    await apply(tables.dsn, SET)
    assert await tables.run("select count(*) from films where is_rich is null") == [(5,)]


async def test_double_rows_are_named_and_no_broken_index_is_left(tables: Database) -> None:
    """With one of them; removed, the same command goes on."""
    await tables.run("update shots set index = 0 where id in (0, 1)")
    with pytest.raises(Misconfigured, match="double rows"):
        await apply(tables.dsn, SET)
    assert await tables.run("select count(*) from pg_index where not indisvalid") == [(0,)]
    await tables.run("delete from shots where id = 1")
    await apply(tables.dsn, SET)
    assert await check(tables.dsn, SET) == ()


async def test_a_long_transaction_is_waited_for_without_holding_up_others(tables: Database) -> None:
    """ALTER TABLE gives way after two seconds, so a read that comes after it gets through; then it is tried again."""
    holder: Any = await tables.connect()
    tried: list[float] = []
    try:
        await holder.execute("begin")
        await holder.execute("select * from shots limit 1")

        async def pause(seconds: float) -> None:
            tried.append(seconds)
            async with asyncio.timeout(1):
                await tables.run("select count(*) from shots")  # nobody stands in its way now
            if len(tried) == 2:
                await holder.execute("commit")

        await apply(tables.dsn, SET, pause)
    finally:
        await holder.close()
    assert len(tried) == 2
    assert await check(tables.dsn, SET) == ()


async def test_a_transaction_that_does_not_end_is_refused_in_the_end(
    tables: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With where to look for it."""
    monkeypatch.setattr("queries.column_sets._TRIES", 2)
    monkeypatch.setattr("queries.column_sets._LOCK_TIMEOUT", "50ms")
    holder: Any = await tables.connect()

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    try:
        await holder.execute("begin")
        await holder.execute("select * from shots limit 1")
        with pytest.raises(Misconfigured, match="long transaction"):
            await apply(tables.dsn, SET, pause)
    finally:
        await holder.close()


async def test_what_is_printed_does_the_same(tables: Database) -> None:
    """Statement by statement, up and down, and twice."""
    for _ in range(2):
        for statement in up_statements(SET):
            await tables.run(statement)
    assert await check(tables.dsn, SET) == ()
    for _ in range(2):
        for statement in down_statements(SET):
            await tables.run(statement)
    assert len(await check(tables.dsn, SET)) == 7


async def test_hostile_names_are_only_names(database: Database) -> None:
    """Identifiers are quoted, wherever they come from."""
    odd = ColumnSet("x", (TableSet("public", 'od"d; drop', (Column('a"b', "text"),)),))
    await database.run('create table "od""d; drop" (id int)')
    await apply(database.dsn, odd)
    assert await check(database.dsn, odd) == ()
