"""Flags as conditions and proofs, and columns that are read beside a row without guarding it; over both roads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.targets import parse_condition
from queries.dsn import DsnRoad
from queries.errors import Misconfigured
from queries.ledger import Ledger
from queries.migrations import Registration, index_sql, worker_sql
from queries.table import Condition, Redo, TableSpec
from tests.servers.postgres import Database
from tests.servers.roads import World, batch_of, begin, filled, query_of

FLAGGED = Registration(
    "flagged",
    TableSpec(
        table="talks",
        key=("id",),
        read=("title",),
        cells=("has_vector",),
        pending=(Condition("has_vector", "is not true"), Condition("is_public", "is true")),
        beside=("views", "seen_at"),
    ),
)
_TALKS = """
create table public.talks (
    id int primary key, title text, views bigint, seen_at timestamptz, is_public boolean, has_vector boolean,
    secret text
);
insert into public.talks (id, title, views, is_public, has_vector) values
    (1, 'a', 10, true, null), (2, 'b', 20, true, false), (3, 'c', 30, true, true), (4, 'd', 40, false, false),
    (5, 'e', 50, null, null);
grant all on public.talks to service_role;
"""


async def talks(world: World) -> Ledger:
    await world.database.run(_TALKS)
    await world.database.migrate([FLAGGED])
    return await world.ledger()


async def test_a_flag_is_pending_while_it_is_false_or_null(world: World) -> None:
    """`is not true` keeps null and false, `is true` neither; page, count and peek agree."""
    ledger = await talks(world)
    assert [row.key for row in await ledger.page(query_of(FLAGGED))] == [("1",), ("2",)]
    assert await ledger.count_up_to(query_of(FLAGGED), 10) == 2
    peeked = await ledger.road.peek("talks", ("id",), key=("id",), conditions=FLAGGED.spec.pending, limit=9)
    assert [row["id"] for row in peeked] == [1, 2]


async def test_a_window_knows_the_columns_of_its_conditions(world: World) -> None:
    """Also those that are neither read nor written: a window of three keys holds the two candidates among them."""
    ledger = await talks(world)
    looked = await ledger.look(query_of(FLAGGED, in_window=True, limit=3, where=(("is_public", "true"),)))
    assert [row.key for row in looked.rows] == [("1",), ("2",)]


async def test_a_flag_is_set_under_its_old_value(world: World) -> None:
    """Null and false are both `was`; a flag somebody else set counts as wrote, since it says what we would say."""
    ledger = await talks(world)
    lease = await begin(ledger, FLAGGED)
    rows = await ledger.page(query_of(FLAGGED))
    assert [row.was for row in rows] == [{"has_vector": None}, {"has_vector": "false"}]
    await world.database.run("update talks set has_vector = true where id = 2")
    assert (await ledger.write(batch_of(FLAGGED, lease, [filled(row, "true") for row in rows]))).wrote == {0, 1}
    assert await ledger.page(query_of(FLAGGED)) == []


async def test_redo_of_a_flag_means_rows_where_it_is_true(world: World) -> None:
    """A flag that is false says as little as none: such a row is pending, and not done anew."""
    ledger = await talks(world)
    lease = await begin(ledger, FLAGGED)
    rows = await ledger.page(query_of(FLAGGED))
    await ledger.write(batch_of(FLAGGED, lease, [filled(row, "true") for row in rows], model="mini"))
    await world.database.run("update talks set has_vector = false where id = 1")
    redone = await ledger.page(query_of(FLAGGED, redo=Redo("model", "mini")))
    assert [row.key for row in redone] == [("2",)]


async def test_what_stands_beside_is_read_and_does_not_guard(world: World) -> None:
    """A view count moves while we work: the write goes through; an edited title still stops it."""
    ledger = await talks(world)
    lease = await begin(ledger, FLAGGED)
    rows = await ledger.page(query_of(FLAGGED))
    assert [dict(row.values) for row in rows] == [
        {"title": "a", "views": 10, "seen_at": None}, {"title": "b", "views": 20, "seen_at": None},
    ]  # fmt: skip
    await world.database.run("update talks set views = views + 1, seen_at = now()")
    await world.database.run("update talks set title = 'edited' where id = 2")
    written = await ledger.write(batch_of(FLAGGED, lease, [filled(row, "true") for row in rows]))
    assert (written.wrote, written.changed) == (frozenset({0}), {1: "edited"})


async def test_a_name_beside_that_does_not_exist_is_refused(world: World) -> None:
    """Looked up in the catalog like every other name."""
    ledger = await talks(world)
    with pytest.raises(Misconfigured, match="no column vews"):
        await ledger.page(replace(query_of(FLAGGED), spec=replace(FLAGGED.spec, beside=("vews",))))


async def test_least_privilege_reads_what_stands_beside(database: Database) -> None:
    """The worker may read the declared columns, these included, and no other."""
    await database.run(_TALKS)
    await database.migrate([FLAGGED], worker=True)
    road = DsnRoad(database.dsn_as("catchup_worker"))
    assert len(await Ledger(road).page(query_of(FLAGGED))) == 2
    assert '"views"' in worker_sql(FLAGGED.spec)
    with pytest.raises(Misconfigured):
        await road.peek("talks", ("secret",), key=("id",))
    await road.close()


async def test_the_suggested_index_knows_flags(database: Database) -> None:
    """Its predicate is `is not true`, word for word as the pages ask; the facts find it."""
    await database.run(_TALKS)
    await database.migrate([FLAGGED])
    suggestion = index_sql(FLAGGED)
    assert '"has_vector" is not true and "is_public" is true' in suggestion
    road = DsnRoad(database.dsn)
    assert not (await Ledger(road).facts(FLAGGED.spec)).pending_index
    await database.run(suggestion)
    assert (await Ledger(road).facts(FLAGGED.spec)).pending_index
    async with await database.connect() as connection:
        await connection.execute("set enable_seqscan = off")
        asked = "select 1 from talks t where t.has_vector is not true and t.is_public is true"
        plan = await (await connection.execute(f"explain {asked}".encode())).fetchall()
    assert any("talks_has_vector_pending" in line for (line,) in plan)
    await road.close()


CONDITIONS = [
    pytest.param("done is true", Condition("done", "is true"), id="true"),
    pytest.param(" done  IS NOT TRUE ", Condition("done", "is not true"), id="not-true"),
    pytest.param("done is not null", Condition("done", "is not null"), id="not-null"),
    pytest.param("kind = is true", Condition("kind", "=", "is true"), id="a-value-that-reads-like-one"),
]


@pytest.mark.parametrize(("text", "condition"), CONDITIONS)
def test_flags_are_understood_in_pending(text: str, condition: Condition) -> None:
    """The four that take no value, and values that look like them."""
    assert parse_condition(text) == condition


@pytest.mark.parametrize("text", ["done is true 1", "done is", "done is false", "done is not true or 1 = 1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    """Nothing is pasted into SQL."""
    with pytest.raises(Misconfigured):
        parse_condition(text)
