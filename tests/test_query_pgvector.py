"""A space of vectors in Postgres, over both roads: what is put is there, is found, is listed, is deleted."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence

import pytest

from queries.dsn import DsnRoad
from queries.errors import DataRejected, Misconfigured, StatementTimeout
from queries.pgvector_space import PgvectorSpace
from queries.postgrest import PostgrestRoad
from queries.road import BinaryRoad
from queries.vectors import SpaceFacts, VectorRecord
from tests.servers.postgres import Database
from tests.servers.roads import World

PLACES = [pytest.param("public", id="public"), pytest.param("Some where", id="a-schema-with-a-space")]


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


async def install(database: Database, schema: str = "extensions") -> None:
    """pgvector in any schema, as Supabase has it; not every server of the floor ships it."""
    if not await database.run("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("this server has no pgvector")
    await database.run(
        f'create schema if not exists "{schema}"; grant usage on schema "{schema}" to service_role; '
        f'create extension vector schema "{schema}"'
    )
    await database.migrate()


async def opened(world: World, dimension: int = 3, schema: str = "extensions") -> PgvectorSpace:
    """A space its owner made."""
    await install(world.database, schema)
    owner = DsnRoad(world.database.dsn)
    await PgvectorSpace(owner, "llm-summaries", model="mini", target="summaries").create(dimension, index=False)
    await owner.close()
    return PgvectorSpace(await world.road(), "llm-summaries")


def some(count: int, dimension: int = 3) -> list[VectorRecord]:
    return [VectorRecord(f"v{n:05}", packed(*range(n, n + dimension)), {"n": n}) for n in range(count)]


async def listed(pages: AsyncIterator[Sequence[str]]) -> list[str]:
    return [id_ async for page in pages for id_ in page]


async def test_what_was_put_comes_back_bit_for_bit(world: World) -> None:
    """The same float32 whichever road it took; metadata as it was; putting again overwrites and adds nothing."""
    space = await opened(world)
    odd = packed(0.1, -1e-30, 16_777_217.0)
    await space.put([VectorRecord("a", odd, {"title": 'q"\\ 🎬', "tags": ["x", "y"], "n": 7, "ok": True})])
    await space.put([VectorRecord("a", odd, {"title": "new"}), VectorRecord("b", packed(1, 2, 3))])
    kept = await world.database.run(
        "select id, embedding::real[], metadata from catchup." + (await space.column()).table + " order by id"
    )
    assert [(row[0], packed(*row[1]), row[2]) for row in kept] == [
        ("a", odd, {"title": "new"}),
        ("b", packed(1, 2, 3), {}),
    ]


async def test_facts_say_what_is_there(world: World) -> None:
    """Before and after it is made; count and a sample of the ids; the registry says whose it is."""
    space = await opened(world)
    assert await PgvectorSpace(await world.road(), "mistyped").facts() == SpaceFacts(True, False, None, 0, "cosine")
    assert await space.facts() == SpaceFacts(True, True, 3, 0, "cosine")
    await space.put(some(12))
    facts = await space.facts()
    assert (facts.dimension, facts.count, set(facts.sample) <= {r.id for r in some(12)}) == (3, 12, True)
    assert await world.database.run("select name, kind, model, target from catchup.spaces") == [
        ("llm-summaries", "vector", "mini", "summaries")
    ]


async def test_every_id_is_listed_once_and_a_row_cap_cuts_nothing(world: World) -> None:
    """By keyset, past PostgREST's cap of 1,000 rows; `seen` takes any number of ids."""
    space = await opened(world)
    records = some(5_200)
    await space.put(records)
    assert await listed(space.ids()) == [record.id for record in records]
    asked = [record.id for record in records[::2]] + ["absent"]
    assert await space.seen(asked) == {record.id for record in records[::2]}
    assert await space.seen([]) == frozenset()


async def test_delete_takes_exactly_these(world: World) -> None:
    """Those that are not there are no error, so it can be said again."""
    space = await opened(world)
    await space.put(some(5))
    for _ in range(2):
        await space.delete(["v00001", "v00003", "never"])
    assert await listed(space.ids()) == ["v00000", "v00002", "v00004"]


async def test_the_nearest_come_first_and_filters_compare_for_equality(world: World) -> None:
    """Score is the cosine; numbers, flags and texts are compared as what they are."""
    space = await opened(world)
    await space.put(
        [
            VectorRecord("same", packed(2, 0, 0), {"channel": "a", "n": 1, "live": True}),
            VectorRecord("near", packed(1, 1, 0), {"channel": "b'; --", "n": 1}),
            VectorRecord("far", packed(-1, 0, 0), {"channel": "a", "n": 2, "tags": ["x"]}),
        ]
    )
    found = await space.query(packed(1, 0, 0), 2, {})
    assert [(match.id, round(match.score, 4)) for match in found] == [("same", 1.0), ("near", 0.7071)]
    assert found[0].metadata == {"channel": "a", "n": 1, "live": True}
    for where, ids in (
        ({"channel": "a"}, ["same", "far"]),
        ({"channel": "b'; --", "n": 1}, ["near"]),
        ({"live": True}, ["same"]),
        ({"tags": ["x"]}, ["far"]),
        ({"n": "1"}, []),
    ):
        assert [match.id for match in await space.query(packed(1, 0, 0), 9, where)] == ids  # type: ignore[arg-type]


async def test_beyond_2000_dimensions_a_space_is_halfvec(world: World) -> None:
    """HNSW takes no longer vector; the answers are the same, in half the bytes."""
    space = await opened(world, dimension=3_072)
    await space.put([VectorRecord(str(n), packed(*(float(n == i % 4) for i in range(3_072)))) for n in range(4)])
    assert (await space.column()).kind == "halfvec"
    [match] = await space.query(packed(*(float(i % 4 == 2) for i in range(3_072))), 1, {})
    assert (match.id, round(match.score, 5)) == ("2", 1.0)


WRONG = [
    pytest.param(VectorRecord("x", packed(1, 2)), id="another-dimension"),
    pytest.param(VectorRecord("x", packed(1, float("nan"), 2)), id="not-a-number"),
    pytest.param(VectorRecord("x", packed(1, 2, float("inf"))), id="infinite"),
    pytest.param(VectorRecord("x", packed(1, 2, 3), {"t": "a\x00b"}), id="NUL-in-the-metadata"),
    pytest.param(VectorRecord("x", packed(1, 2, 3), {"t": "half \ud83d"}), id="lone-surrogate"),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_poison_record_is_refused_with_its_whole_request(world: World, wrong: VectorRecord) -> None:
    """The engine bisects on that; nothing is stored as something else."""
    space = await opened(world)
    with pytest.raises(DataRejected):
        await space.put([*some(2), wrong])
    assert await listed(space.ids()) == []


async def test_of_two_records_with_one_id_the_last_stays(world: World) -> None:
    """An upsert that meets its own row twice would be refused by Postgres."""
    space = await opened(world)
    await space.put([VectorRecord("a", packed(1, 1, 1), {"n": n}) for n in range(3)])
    assert (await space.query(packed(1, 1, 1), 9, {}))[0].metadata == {"n": 2}


async def test_a_mistyped_namespace_writes_nothing_and_makes_nothing(world: World) -> None:
    """P6: no space comes into being by a typo."""
    await opened(world)
    mistyped = PgvectorSpace(await world.road(), "llm-sumaries")
    for attempt in (mistyped.put(some(1)), mistyped.seen(["a"]), mistyped.query(packed(1, 1, 1), 1, {})):
        with pytest.raises(Misconfigured, match="no space llm-sumaries"):
            await attempt
    assert await world.database.run("select name from catchup.spaces") == [("llm-summaries",)]


async def test_without_the_extension_the_way_on_is_named(world: World) -> None:
    """Never created in silence; `migrate` itself does not need it."""
    await world.database.migrate()
    space = PgvectorSpace(await world.road(), "s")
    for attempt in (space.facts(), space.create(3, index=True), space.put(some(1))):
        with pytest.raises(Misconfigured) as refused:
            await attempt
        assert "create extension vector" in refused.value.fix or "no space" in refused.value.what


async def test_only_the_owner_makes_a_space_and_anybody_else_is_told_how(world: World) -> None:
    """The statement in the message is the whole of it: run by the owner, the space is there for every role."""
    await install(world.database)
    space = PgvectorSpace(await world.road("worker") if world.kind == "dsn" else await world.road(), "it's")
    with pytest.raises(Misconfigured, match="may not make") as refused:
        await space.create(3, index=True)
    await world.database.run(refused.value.fix.split(": ", 1)[1])
    await space.create(3, index=True)
    await space.put(some(3))
    assert len(await space.seen(["v00001"])) == 1
    await space.delete(["v00001"])
    assert await listed(space.ids()) == ["v00000", "v00002"]


async def test_making_a_space_again_is_harmless_and_never_of_another_dimension(database: Database) -> None:
    """A lost answer is asked for again; a model of another size is refused by name."""
    await install(database)
    road = DsnRoad(database.dsn)
    space = PgvectorSpace(road, "s")
    await space.create(3, index=True)
    await space.create(3, index=True)
    with pytest.raises(Misconfigured, match="has 3 dimensions, not 4"):
        await space.create(4, index=True)
    for name in ("", "ü", "x" * 129, "a\nb"):
        with pytest.raises(Misconfigured):
            PgvectorSpace(road, name)
    await road.close()


@pytest.mark.parametrize("schema", PLACES)
async def test_the_extension_may_live_anywhere(world: World, schema: str) -> None:
    """Types and operators come from the catalogs, never from a search_path."""
    space = await opened(world, schema=schema)
    await space.put(some(4))
    assert len(await space.query(packed(1, 1, 1), 9, {})) == 4
    assert (await space.column()).extension_schema == schema


async def test_another_role_reaches_no_space(world: World) -> None:
    """Row level security and revoked rights, also on a table made after `migrate` by default privileges."""
    await world.database.run("alter default privileges grant all on tables to anon, authenticated")
    space = await opened(world)
    await space.put(some(1))
    stranger = PgvectorSpace(await world.road("wrong"), "llm-summaries")
    with pytest.raises(Misconfigured):
        await stranger.seen(["v00000"])
    if world.kind == "postgrest":  # its stand-in grants at its start what it likes
        return
    rights = await world.database.run(
        "select relrowsecurity, has_table_privilege('nobody_special', oid, 'SELECT'), "
        "has_table_privilege('anon', oid, 'SELECT') from pg_class where relname like 'space\\_%' and relkind = 'r'"
    )
    assert rights == [(True, False, False)]


async def test_a_timeout_makes_the_next_attempt_smaller(world: World) -> None:
    """A table with its index is slow to fill: the same records go through in smaller requests."""
    space = await opened(world, dimension=512)
    table = (await space.column()).table
    await world.database.run(
        "create function slow() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(0.001); return new; end $$; "
        f"create trigger slow before insert on catchup.{table} for each row execute function slow(); "
        f"alter database {world.database.name} set statement_timeout = '400ms'"
    )
    impatient = PgvectorSpace(await world.road(), "llm-summaries")
    timeouts = 0
    while timeouts < 6:
        try:
            await impatient.put(some(900, 512))
        except StatementTimeout:
            timeouts += 1
        else:
            break
    assert 0 < timeouts < 6
    assert len(await listed(space.ids())) == 900


def test_only_the_dsn_road_takes_binary() -> None:
    """Over PostgREST there is nothing but text."""
    assert isinstance(DsnRoad("postgresql://x@127.0.0.1/x"), BinaryRoad)
    assert not isinstance(PostgrestRoad("http://127.0.0.1:1", "key"), BinaryRoad)
