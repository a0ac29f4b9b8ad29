"""Reading, over both roads: keys of every type, pages that lose and repeat nothing, and what makes a candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from queries.errors import CatchupError, Misconfigured
from queries.ledger import Ledger, RowVerdict
from queries.table import Condition, Joined, Key, PageQuery, Redo, Slice
from tests.servers.roads import SCENES, VIDEOS, World, batch_of, begin, filled, query_of, simple_spec, things_of

KEYS = [
    pytest.param("id text primary key", ("id",), "chr(64 + i % 57) || i", id="text"),
    pytest.param("id bigint primary key", ("id",), "9007199254740990 + i", id="bigint-beyond-2^53"),
    pytest.param("id integer primary key", ("id",), "i * 7 - 100", id="integer-sorts-by-number"),
    pytest.param("id uuid primary key", ("id",), "md5(i::text)::uuid", id="uuid"),
    pytest.param("id date primary key", ("id",), "'2026-02-20'::date + i", id="date"),
    pytest.param("a text, b integer, primary key (a, b)", ("a", "b"), "'g' || i % 3, i", id="two-columns-with-ties"),
    pytest.param(
        "a uuid, b text, primary key (a, b)", ("a", "b"), "md5((i / 9)::text)::uuid, 'x,\")' || i", id="uuid-and-text"
    ),
]


async def walk(ledger: Ledger, query: PageQuery) -> list[Key]:
    """Pages until one is empty, as the engine does."""
    keys: list[Key] = []
    while rows := await ledger.page(query):
        keys += [row.key for row in rows]
        query = replace(query, above=rows[-1].key)
    return keys


@pytest.mark.parametrize(("columns", "key", "values"), KEYS)
async def test_pages_read_every_row_once_in_the_keys_own_order(
    world: World, columns: str, key: tuple[str, ...], values: str
) -> None:
    """A key is compared in its column's type, so the walk is the table's own order and ends at `upper`."""
    spec = simple_spec(key)
    ledger = await world.things(columns, spec, f"insert into things select {values}, 'b' from generate_series(1, 40) i")
    keys = await walk(ledger, query_of(things_of(spec), limit=7))
    texts = ", ".join(f"{column}::text" for column in key)
    assert keys == await world.database.run(
        f"select {texts} from things t order by {', '.join(f't.{column}' for column in key)}"
    )
    assert await ledger.upper(spec, Slice()) == keys[-1]
    assert await ledger.upper(spec, Slice(upto=keys[20])) == keys[20]
    assert await walk(ledger, query_of(things_of(spec), above=keys[4], upto=keys[20], limit=6)) == keys[5:21]


async def test_a_types_own_operators_are_found_in_other_schemas(world: World) -> None:
    """citext and its like: with an empty search_path a bare `>` would be text's and disagree with the order."""
    await world.database.run(
        "create schema extensions; grant usage on schema extensions to service_role; "
        + "".join(
            f"create operator extensions.{op} (leftarg = uuid, rightarg = uuid, function = pg_catalog.uuid_{name}); "
            for op, name in ((">", "gt"), (">=", "ge"), ("<=", "le"), ("<", "lt"), ("=", "eq"))
        )
    )
    spec = simple_spec(("a", "b"))
    rows = "insert into things select md5((i / 9)::text)::uuid, i from generate_series(1, 40) i"
    ledger = await world.things("a uuid, b integer, primary key (a, b)", spec, rows)
    sql = await world.database.run("select catchup.operator_for('uuid', '>')")
    assert sql == [("operator(extensions.>)",)]
    keys = await walk(ledger, query_of(things_of(spec), limit=7))
    assert keys == await world.database.run("select a::text, b::text from things t order by t.a, t.b")


async def test_incident_1_rows_marked_during_the_walk_skip_and_repeat_nothing(world: World) -> None:
    """DOMAIN.md incident 1: the filter shrinks, rows come and go; each row present throughout is read once."""
    ledger = await world.videos(30)
    query = query_of(VIDEOS, limit=7)
    seen: list[Key] = []
    while rows := await ledger.page(query):
        seen += [row.key for row in rows]
        last = rows[-1].key[0]
        await world.database.run("update videos set llm_summary = 's' where id <= %s", (last,))
        await world.database.run("insert into videos (id, title, channel_id) values (%s, 't', 'c')", (f"a{len(seen)}",))
        await world.database.run("delete from videos where id = %s", (f"v{len(seen) + 3:04}",))
        query = replace(query, above=rows[-1].key)
    assert len(seen) == len(set(seen))
    deleted = {f"v{n + 3:04}" for n in (7, 14, 21)}
    assert {key[0] for key in seen} >= {f"v{i:04}" for i in range(1, 31)} - deleted - {"v0028"}


async def test_the_row_cap_does_not_cut_a_page(world: World) -> None:
    """S1: PostgREST caps rows at 1,000 and says nothing; one jsonb value is not subject to it."""
    ledger = await world.videos(2_500)
    assert len(await ledger.page(query_of(VIDEOS, limit=2_000))) == 2_000
    assert await ledger.count_up_to(query_of(VIDEOS), 1_501) == 1_501
    assert await ledger.count_up_to(query_of(VIDEOS), 10_000) == 2_500


async def test_many_keys_are_read_back_without_a_long_url(world: World) -> None:
    """S3: gateways refuse a URL of 8 kB, so keys travel in chunks."""
    ledger = await world.videos(1_200)
    keys: list[Key] = [(f"v{i:04}",) for i in range(1, 1_301)]
    found = await ledger.read_back(VIDEOS.spec, keys)
    assert len(found) == 1_200
    assert found[("v0007",)] == dict.fromkeys(VIDEOS.spec.cells)


async def test_where_and_pending_compare_in_the_columns_type(world: World) -> None:
    """An enum, a uuid and a text: values are cast inwards, never the column outwards."""
    await world.database.load("scenes.sql")
    await world.database.migrate([SCENES])
    owner = "00000000-0000-0000-0000-00000000000a"
    await world.database.run(
        "insert into videos (owner_id, storage_path, status) "
        "select (case when i < 3 then %s else gen_random_uuid()::text end)::uuid, 'p', "
        "(array['READY', 'PENDING'])[1 + i %% 2]::video_status from generate_series(0, 9) i",
        (owner,),
    )
    ledger = await world.ledger()
    assert len(await ledger.page(query_of(SCENES))) == 5
    assert len(await ledger.page(query_of(SCENES, where=(("owner_id", owner.upper()),)))) == 2


async def test_joined_rows_come_in_order_and_belong_to_the_guard(world: World) -> None:
    """An edited scene changes the video's guard; updated_at, which our own jobs move, does not."""
    await world.database.load("scenes.sql")
    await world.database.migrate([SCENES])
    await world.database.run(
        "insert into videos (owner_id, storage_path, status) values (gen_random_uuid(), 'p', 'READY')"
    )
    await world.database.run(
        "insert into video_scenes (video_id, index, visual_summary) select id, i, 'scene ' || i from videos, "
        "unnest(array[10, 2, 1]) i"
    )
    ledger = await world.ledger()
    [row] = await ledger.page(query_of(SCENES))
    assert [scene["visual_summary"] for scene in row.joined] == ["scene 1", "scene 2", "scene 10"]
    await world.database.run("update videos set error_message = 'touched'")
    [same] = await ledger.page(query_of(SCENES))
    assert same.guard == row.guard
    await world.database.run("update video_scenes set visual_summary = 'cut' where index = 2")
    [edited] = await ledger.page(query_of(SCENES))
    assert edited.guard != row.guard


async def test_a_standing_verdict_excludes_its_row_until_something_changes(world: World) -> None:
    """DECISIONS 19: text, prompt or model must change, or --retry-failed; else cron's 50 are the same 50 for ever."""
    ledger = await world.videos(3)
    lease = await begin(ledger, VIDEOS)
    rows = await ledger.page(query_of(VIDEOS))
    verdicts = [RowVerdict(row.key, row.guard, "skipped", "too_short", "3 words") for row in rows[:2]]
    await ledger.write(batch_of(VIDEOS, lease, [], verdicts=verdicts))
    assert [row.key for row in await ledger.page(query_of(VIDEOS))] == [("v0003",)]
    assert len(await ledger.page(query_of(VIDEOS, retry_failed=True))) == 3
    assert len(await ledger.page(query_of(VIDEOS, fingerprint="another prompt"))) == 3
    await world.database.run("update videos set title = 'longer' where id = 'v0001'")
    assert [row.key for row in await ledger.page(query_of(VIDEOS))] == [("v0001",), ("v0003",)]
    assert await ledger.standing(VIDEOS.name, query_of(VIDEOS).fingerprint) == {"too_short": 2}
    assert await ledger.named(lease.run_id) == verdicts


async def test_redo_finds_rows_by_what_wrote_them(world: World) -> None:
    """By model (provenance or the cell that holds it), by prompt, or because the text was edited since."""
    ledger = await world.videos(4)
    lease = await begin(ledger, VIDEOS)
    rows = await ledger.page(query_of(VIDEOS))
    await ledger.write(batch_of(VIDEOS, lease, [filled(r, "s") for r in rows[:2]], model="mini", prompt_hash="p1"))
    await world.database.run("update videos set llm_summary = 's', llm_summary_model = 'mini' where id = 'v0003'")
    await world.database.run("update videos set title = 'edited' where id = 'v0002'")

    async def redone(redo: Redo) -> list[str]:
        return [row.key[0] for row in await ledger.page(query_of(VIDEOS, redo=redo))]

    assert await redone(Redo("model", "mini")) == ["v0001", "v0002"]
    assert await redone(Redo("model", "mini", cell="llm_summary_model")) == ["v0001", "v0002", "v0003"]
    assert await redone(Redo("prompt", "p1")) == ["v0001", "v0002"]
    assert await redone(Redo("prompt", "p2")) == []
    assert await redone(Redo("edited")) == ["v0002"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"table": "videos; drop table videos"}, id="statement-in-the-table"),
        pytest.param({"table": 'videos"'}, id="quote-in-the-table"),
        pytest.param({"read": ("title", "password) from pg_authid --")}, id="statement-in-a-column"),
        pytest.param({"table": "vidoes"}, id="misspelt-table"),
        pytest.param({"cells": ("llm_sumary",)}, id="misspelt-cell"),
        pytest.param({"pending": (Condition("nope", "is null"),)}, id="misspelt-condition"),
        pytest.param({"joined": Joined("scenes", "id", ("a",), "b")}, id="missing-joined-table"),
        pytest.param({"schema": "nowhere"}, id="missing-schema"),
    ],
)
async def test_a_name_that_does_not_exist_is_refused_before_anything_runs(
    world: World, wrong: dict[str, object]
) -> None:
    """X7: names are looked up in the catalog and quoted; a hostile one is just a name that is not there."""
    ledger = await world.videos(2)
    spec = replace(VIDEOS.spec, **wrong)
    with pytest.raises(Misconfigured, match=r"does not exist|no column"):
        await ledger.page(replace(query_of(VIDEOS), spec=spec))
    assert await world.database.run("select count(*) from videos") == [(2,)]


@pytest.mark.parametrize("hostile", ["'; drop table videos; --", "\\", "%I$1", "a,b)", 'x"y', "ünï 🎬"])
async def test_hostile_values_are_only_values(world: World, hostile: str) -> None:
    """Filters and keys are literals of their column's type, on every road and in `peek` too."""
    ledger = await world.videos(1)
    await world.database.run("insert into videos (id, title, channel_id) values (%s, 't', %s)", (hostile, hostile))
    assert [row.key for row in await ledger.page(query_of(VIDEOS, where=(("channel_id", hostile),)))] == [(hostile,)]
    assert list(await ledger.read_back(VIDEOS.spec, [(hostile,)])) == [(hostile,)]
    conditions = (Condition("channel_id", "=", hostile),)
    assert await ledger.road.peek("videos", ("id",), key=("id",), conditions=conditions) == [{"id": hostile}]


async def test_peek_pages_by_a_key_of_two_columns(world: World) -> None:
    """DECISIONS 13: a >= x and (a > x or b > y), from typed values; needs none of our functions.

    No double quote in the key: lite 0.10 does not undo `\\"` inside `or`; PostgREST does ("reserved characters").
    """
    values = "'g,)' || i % 3, i, 'b', case when i % 5 = 0 then 's' end"
    rows = f"insert into things select {values} from generate_series(1, 30) i"
    ledger = await world.things("a text, b integer, primary key (a, b)", simple_spec(("a", "b")), rows)
    seen: list[tuple[str, int]] = []
    pending = (
        Condition("summary", "is null"),
        Condition("b", ">", "1"),
        Condition("b", "<", "30"),
        Condition("b", "<>", "7"),
    )
    above: Key | None = None
    while found := await ledger.road.peek(
        "things", ("a", "b"), key=("a", "b"), conditions=pending, above=above, limit=4
    ):
        seen += [(row["a"], row["b"]) for row in found]
        above = (seen[-1][0], str(seen[-1][1]))
    expected = "select a, b from things where summary is null and b > 1 and b < 30 and b <> 7 order by a, b"
    assert seen == await world.database.run(expected)
    filled_rows = await ledger.road.peek(
        "things", ("b",), key=("a", "b"), conditions=(Condition("summary", "is not null"),)
    )
    assert len(filled_rows) == 1


async def test_the_reading_road_cannot_write(world: World) -> None:
    """DECISIONS 14: GET there, READ ONLY here; a function that writes is refused by the database itself."""
    ledger = await world.videos(1)
    with pytest.raises(CatchupError) as refused:
        await ledger.road.read("catchup_ask_cancel", {"run_id": "x"})
    assert isinstance(refused.value, Misconfigured)
    assert await world.database.run("select count(*) from catchup.runs") == [(0,)]
