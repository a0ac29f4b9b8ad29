"""A page that comes row by row is the same page as the one that comes as one value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from queries.errors import Misconfigured, Transient
from queries.ledger import Ledger
from queries.page_rows import parse_page_rows
from queries.table import Page, PageQuery, Redo, Row, TableSpec
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database
from tests.servers.roads import SCENES, VIDEOS, World, query_of, simple_spec, things_of

TYPES = (
    "id bigint primary key, n numeric, d double precision, at timestamptz, day date, flag boolean, j jsonb, js json, "
    "words text[], u uuid, raw bytea, v varchar(20)"
)
COLUMNS = ("n", "d", "at", "day", "flag", "j", "js", "words", "u", "raw", "v", "body")
ROWS = (
    "insert into things values "
    "(9007199254740993, 12345678901234567890.123, 0.1, '2026-02-20 10:00:00.5+02', '2026-02-20', true, "
    """'{"a": [1, null, "x y"]}', '{"a" : 1}', '{a,"b c",null}', '00000000-0000-0000-0000-000000000001', """
    """'\\x00ff', 'short', E'quote " tab \\t line \\n back \\\\ 😀', null), """
    "(2, 'NaN', 'Infinity', 'infinity', null, null, null, null, '{}', null, null, '', '', null), "
    "(3, null, -0.0, null, null, false, '[]', 'null', null, null, '', null, null, null)"
)


@pytest.fixture
async def world(database: Database, start_postgrest: StartPostgrest) -> AsyncIterator[World]:
    """The road of rows alone: over the other one both are the same call."""
    made = World("dsn", database, start_postgrest)
    yield made
    await made.close()


async def both(ledger: Ledger, query: PageQuery) -> tuple[list[Row], list[Row]]:
    return await walk(ledger.look, query), await walk(ledger.look_quickly, query)


async def walk(look: Any, query: PageQuery) -> list[Row]:
    rows: list[Row] = []
    while (page := await look(query)).last is not None:
        rows += page.rows
        query = replace(query, above=page.last)
    return rows


def told(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(r.key, r.guard, dict(r.values), dict(r.was), r.joined, r.known, r.is_due) for r in rows]


async def test_values_of_every_type_are_the_same(world: World) -> None:
    """Numbers, times, JSON, arrays, nothing and nasty text: the guard and each value agree."""
    spec = simple_spec(("id",), COLUMNS)
    ledger = await world.things(TYPES, spec, ROWS)
    slow, quick = await both(ledger, query_of(things_of(spec), limit=2))
    assert told(quick) == told(slow)
    assert len(quick) == 3


async def test_keys_of_two_columns_are_the_same(world: World) -> None:
    """And in the same order, page by page, also with the characters by which this road parts its columns."""
    spec = simple_spec(("a", "b"))
    ledger = await world.things(
        "a uuid, b text, primary key (a, b)", spec,
        "insert into things select md5((i / 9)::text)::uuid, 'x,\")' || chr(31) || chr(30) || i, chr(30) || i "
        "from generate_series(1, 40) i",
    )  # fmt: skip
    slow, quick = await both(ledger, query_of(things_of(spec), limit=7))
    assert told(quick) == told(slow)
    assert len(quick) == 40


@pytest.mark.parametrize(
    "change",
    [
        {}, {"with_known": True}, {"where": (("channel_id", "c1"),)}, {"redo": Redo("any")}, {"retry_failed": True},
        {"in_window": True},
    ],
    ids=["plain", "known", "where", "redo", "retry", "window"],
)  # fmt: skip
async def test_candidates_are_the_same(world: World, change: dict[str, Any]) -> None:
    """Whatever makes a row a candidate makes it one here."""
    ledger = await world.videos(30)
    slow, quick = await both(ledger, query_of(VIDEOS, limit=10, **change))
    assert told(quick) == told(slow)
    assert len(quick) >= 10


async def test_joined_rows_are_the_same(world: World) -> None:
    """A row of several other rows has them, in order."""
    await world.database.load("scenes.sql")
    await world.database.migrate([SCENES])
    ledger = await world.ledger()
    slow, quick = await both(ledger, query_of(SCENES, limit=10))
    assert told(quick) == told(slow)


async def test_a_column_that_is_not_there_is_named(world: World) -> None:
    """A refusal comes as a value on this road too."""
    ledger = await world.videos(1)
    wrong = replace(VIDEOS.spec, read=("title", "no_such_column"))
    with pytest.raises(Misconfigured, match="no_such_column"):
        await ledger.look_quickly(replace(query_of(VIDEOS), spec=wrong))


async def test_the_servers_time_is_told(world: World) -> None:
    """The share of the database's time is reckoned by what it says, not by how long we read."""
    ledger = await world.videos(30)
    await ledger.look_quickly(query_of(VIDEOS))
    took_s = ledger.take_took_s()
    assert took_s is not None
    assert 0 < took_s < 60


@pytest.mark.parametrize(
    "row",
    [
        ("7", "g", "{}", "{}", None, None, False, 0.1),
        ('["a", "b"]', "g", "{}", "{}", None, None, False, 0.1),
        ('["a"]', None, "{}", "{}", None, None, False, 0.1),
        ('["a"]', "g", None, "{}", None, None, False, 0.1),
        ('["a"]', "g", "{}", "[]", None, None, False, 0.1),
        ('["a"]', "g", "{}", "{}", None, None),
    ],
    ids=["key", "key-length", "guard", "values", "was", "columns"],
)
def test_a_row_of_another_shape_is_not_believed(row: tuple[Any, ...]) -> None:
    """Nothing that only looks like a page is worked on."""
    spec = TableSpec("things", ("id",), ("body",), ("summary",), ())
    with pytest.raises((ValueError, TypeError)):
        parse_page_rows([row], spec)


async def test_a_malformed_page_is_passing() -> None:
    """It is asked for again, as every malformed answer of a read."""

    class Odd:
        async def read_rows(self, function: str, payload: Any) -> list[tuple[Any, ...]]:
            return [(1, 2)]

    with pytest.raises(Transient):
        await Ledger(Odd()).look_quickly(query_of(VIDEOS))  # type: ignore[arg-type]


async def test_the_end_is_an_empty_page(world: World) -> None:
    """No rows, and no key to go on from."""
    ledger = await world.videos(0)
    assert await ledger.look_quickly(query_of(VIDEOS)) == Page([], None)
