"""Writing, over both roads: only the declared cell, only if the row is as it was read, all of a page or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from queries.errors import DataRejected, Fenced, Misconfigured, StatementTimeout
from queries.ledger import Ledger, RowVerdict, Spend, WriteRow
from queries.migrations import Registration
from queries.table import Slice, TableSpec
from tests.servers.roads import (
    ELSEWHERE,
    SCENES,
    VIDEOS,
    World,
    batch_of,
    begin,
    filled,
    query_of,
    simple_spec,
    things_of,
)


async def summaries(world: World) -> dict[str, str | None]:
    return dict(await world.database.run("select id, llm_summary from videos order by id"))


async def test_a_page_is_written_with_its_checkpoint_and_its_money(world: World) -> None:
    """Cells, verdicts, books, spend, checkpoint and the bound of unconfirmed items become true together."""
    ledger = await world.videos(3)
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    rows = await ledger.page(query_of(VIDEOS))
    written = await ledger.write(
        batch_of(
            VIDEOS,
            lease,
            [filled(r, f"s {r.key[0]}", llm_summary_generated_at="now", llm_summary_model="m") for r in rows[:2]],
            verdicts=[RowVerdict(rows[2].key, rows[2].guard, "failed", "refused", "no")],
            books={"failed": 1},
            checkpoint=rows[2].key,
            spend=Spend(3, 30, 20, 0.5, 0.25),
            unconfirmed=7,
            unconfirmed_usd=0.07,
        )
    )
    assert (written.wrote, written.changed, written.gone) == (frozenset({0, 1}), {}, frozenset())
    assert await summaries(world) == {"v0001": "s v0001", "v0002": "s v0002", "v0003": None}
    stored = await world.database.run(
        "select llm_summary_model, llm_summary_generated_at > now() - interval '1 min' from videos"
    )
    assert stored.count(("m", True)) == 2
    run = await ledger.run("run-a")
    assert run is not None
    assert dict(run.books) == {"wrote": 2, "failed": 1, "changed": 0, "gone": 0}
    assert (run.checkpoint, run.calls, run.spent_usd, run.possibly_usd) == (("v0003",), 3, 0.5, 0.25)
    assert (run.unconfirmed, run.unconfirmed_usd) == (7, 0.07)


async def test_newer_data_is_never_overwritten(world: World) -> None:
    """G10: filled by another, text edited, deleted, or already ours: each is told apart, none is overwritten."""
    ledger = await world.videos(5)
    lease = await begin(ledger, VIDEOS)
    rows = await ledger.page(query_of(VIDEOS))
    await world.database.run("update videos set llm_summary = 'theirs' where id = 'v0001'")
    await world.database.run("update videos set title = 'edited' where id = 'v0002'")
    await world.database.run("delete from videos where id = 'v0003'")
    await world.database.run("update videos set llm_summary = 'ours' where id = 'v0004'")
    written = await ledger.write(batch_of(VIDEOS, lease, [filled(row, "ours") for row in rows]))
    assert written.wrote == {3, 4}
    assert written.changed == {0: "filled", 1: "edited"}
    assert written.gone == {2}
    assert await summaries(world) == {"v0001": "theirs", "v0002": None, "v0004": "ours", "v0005": "ours"}


async def test_a_trigger_that_keeps_the_row_is_not_a_write(world: World) -> None:
    """A BEFORE trigger that returns nothing answers like success everywhere else."""
    ledger = await world.videos(1)
    await world.database.run(
        "create function keep() returns trigger language plpgsql as $$ begin return null; end $$; "
        "create trigger keep before update on videos for each row execute function keep()"
    )
    lease = await begin(ledger, VIDEOS)
    [row] = await ledger.page(query_of(VIDEOS))
    written = await ledger.write(batch_of(VIDEOS, lease, [filled(row, "s")]))
    assert (written.wrote, written.changed) == (frozenset(), {0: "kept"})


async def test_the_guard_is_checked_again_after_waiting_for_a_lock(world: World) -> None:
    """DECISIONS 8: an edit that commits while our UPDATE waits for it must win (READ COMMITTED re-checks the WHERE)."""
    ledger = await world.videos(1)
    lease = await begin(ledger, VIDEOS)
    [row] = await ledger.page(query_of(VIDEOS))
    async with await world.database.connect() as editor:
        async with editor.transaction():
            await editor.execute("update videos set title = 'edited meanwhile'")
            writing = asyncio.create_task(ledger.write(batch_of(VIDEOS, lease, [filled(row, "s")])))
            await blocked(world)
        written = await writing
    assert (written.wrote, written.changed) == (frozenset(), {0: "edited"})


async def test_a_write_id_counts_once(world: World) -> None:
    """DECISIONS 7: a lost answer is asked for again; the second time returns what the first one did."""
    ledger = await world.videos(2)
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    rows = await ledger.page(query_of(VIDEOS))
    batch = batch_of(VIDEOS, lease, [filled(row, "s") for row in rows], books={"skipped": 1}, spend=Spend(2, 1, 1, 0.1))
    first = await ledger.write(batch)
    await world.database.run("update videos set llm_summary = null where id = 'v0001'")
    assert await ledger.write(batch) == first
    assert await summaries(world) == {"v0001": None, "v0002": "s"}
    run = await ledger.run("run-a")
    assert run is not None
    assert (run.books["wrote"], run.books["skipped"], run.calls, run.spent_usd) == (2, 1, 2, 0.1)


async def test_a_write_id_sent_twice_at_once_counts_once(world: World) -> None:
    """The first answer may be late rather than lost: both get the same outcome."""
    ledger = await world.videos(20)
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    batch = batch_of(VIDEOS, lease, [filled(row, "s") for row in await ledger.page(query_of(VIDEOS))])
    outcomes = await asyncio.gather(*(ledger.write(batch) for _ in range(4)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    run = await ledger.run("run-a")
    assert run is not None
    assert run.books["wrote"] == 20


async def test_a_zombie_cannot_write(world: World) -> None:
    """A holder that was taken over is fenced, whatever it believes, and changes nothing."""
    ledger = await world.videos(2)
    old = await begin(ledger, VIDEOS, run_id="run-a")
    await world.database.run("update catchup.leases set expires_at = now() - interval '1 s'")
    rows = await ledger.page(query_of(VIDEOS))
    assert not await ledger.beat(old)
    await world.database.run("update catchup.leases set expires_at = now() - interval '1 s'")
    new = await ledger.take_lease(target=VIDEOS.name, spec=VIDEOS.spec, slice_=Slice(), run_id="run-a", home=ELSEWHERE)
    assert new.generation == old.generation + 1
    with pytest.raises(Fenced):
        await ledger.write(batch_of(VIDEOS, old, [filled(rows[0], "zombie")]))
    with pytest.raises(Fenced):
        await ledger.beat(old)
    with pytest.raises(Fenced):
        await ledger.close_run(run_id="run-a", generation=old.generation, state="finished", stop_reason="")
    assert set((await summaries(world)).values()) == {None}
    assert (await ledger.write(batch_of(VIDEOS, new, [filled(rows[0], "s")]))).wrote == {0}


async def test_only_registered_cells_are_written(world: World) -> None:
    """G11: any other cell is refused before anything happens, also when the role could change it."""
    ledger = await world.videos(1)
    lease = await begin(ledger, VIDEOS)
    [row] = await ledger.page(query_of(VIDEOS))
    for batch in (
        batch_of(VIDEOS, lease, [filled(row, "s", title="changed")]),
        replace(batch_of(VIDEOS, lease, [filled(row, "s")]), target="another-target"),
    ):
        with pytest.raises(Misconfigured, match="may not write"):
            await ledger.write(batch)
    assert await world.database.run("select title, llm_summary from videos") == [("title 1", None)]


POISON = [
    pytest.param("a\x00b", id="NUL"),
    pytest.param("half \ud83d of a pair", id="lone-surrogate"),
    pytest.param("x" * 300, id="check-constraint"),
    pytest.param(None, id="not-null"),
]


@pytest.mark.parametrize("poison", POISON)
async def test_one_poison_row_is_told_and_nothing_of_its_page_is_written(world: World, poison: str | None) -> None:
    """DECISIONS 9: the page rolls back whole, checkpoint and money included; the client bisects."""
    spec = replace(simple_spec(("id",)), pending=())
    rows_sql = "insert into things select i, 'b', '' from generate_series(1, 3) i"
    ledger = await world.things("id bigint primary key", spec, rows_sql)
    await world.database.run("alter table things alter summary set not null, add check (length(summary) < 200)")
    lease = await begin(ledger, things_of(spec), run_id="run-a")
    rows = await ledger.page(query_of(things_of(spec)))
    texts: list[str | None] = ["good", poison, "good"]
    batch = batch_of(
        things_of(spec), lease, [filled(r, t) for r, t in zip(rows, texts, strict=True)], checkpoint=rows[2].key,
        spend=Spend(1, 1, 1, 1.0),
    )  # fmt: skip
    with pytest.raises(DataRejected) as refused:
        await ledger.write(batch)
    assert refused.value.reason == "refused_by_database"
    assert "xxxx" not in str(refused.value) + refused.value.words
    assert await world.database.run("select distinct summary from things") == [("",)]
    run = await ledger.run("run-a")
    assert run is not None
    assert (run.checkpoint, run.spent_usd) == (None, 0)
    alone = replace(batch, write_id="alone", rows=[batch.rows[0], batch.rows[2]])
    assert (await ledger.write(alone)).wrote == {0, 1}


TEXTS = [
    "'; drop table videos; --",
    'say "hi"',
    "back\\slash",
    "%s %I $1 {}",
    "zwei\nZeilen\t",
    "ünï 🎬 \u202e",
    " ",
    "",
]


async def test_every_other_text_is_stored_exactly(world: World) -> None:
    """S17: quoting, format marks, emoji and direction marks arrive as they were sent."""
    ledger = await world.videos(len(TEXTS))
    lease = await begin(ledger, VIDEOS)
    rows = await ledger.page(query_of(VIDEOS))
    written = await ledger.write(batch_of(VIDEOS, lease, [filled(r, t) for r, t in zip(rows, TEXTS, strict=True)]))
    assert len(written.wrote) == len(TEXTS)
    assert list((await summaries(world)).values()) == TEXTS
    back = await ledger.read_back(VIDEOS.spec, [row.key for row in rows])
    assert [cells["llm_summary"] for cells in back.values()] == TEXTS


async def test_cells_of_every_type_are_cast_from_text(world: World) -> None:
    """Arrays, jsonb, numbers, times and enums: one text in, the column's type stored, the same text read back."""
    spec = TableSpec("typed", ("id",), (), ("tags", "facts", "score", "at", "state", "short"), ())
    await world.database.run(
        "create type mood as enum ('up', 'down'); create table typed (id int primary key, tags text[], facts jsonb, "
        "score numeric(30, 3), at timestamptz, state mood, short varchar(5)); grant all on typed to service_role; "
        "insert into typed (id) values (1), (2)"
    )
    target = Registration("typed", spec)
    await world.database.migrate([target])
    ledger = await world.ledger()
    lease = await begin(ledger, target)
    rows = await ledger.page(query_of(target))
    cells: dict[str, str | None] = {
        "tags": '{a,"b c"}', "facts": '{"a": [1, null]}', "score": "12345678901234567890.123",
        "at": "2026-11-21 05:00:00+00", "state": "up", "short": None,
    }  # fmt: skip
    row = WriteRow(rows[0].key, rows[0].guard, rows[0].was, cells)
    assert (await ledger.write(batch_of(target, lease, [row]))).wrote == {0}
    assert await ledger.read_back(spec, [rows[0].key]) == {("1",): cells}
    too_long = WriteRow(rows[1].key, rows[1].guard, rows[1].was, {**cells, "short": "longer than five"})
    with pytest.raises(DataRejected):  # a cast would cut it in silence
        await ledger.write(batch_of(target, lease, [too_long]))


async def test_a_key_that_is_not_unique_rolls_back(world: World) -> None:
    """S7: a write can never touch two rows for one key."""
    spec = simple_spec(("id",))
    ledger = await world.things(
        "id bigint primary key", spec, "insert into things values (1, 'b', null), (2, 'b', null)"
    )
    lease = await begin(ledger, things_of(spec))
    rows = await ledger.page(query_of(things_of(spec)))
    await world.database.run("alter table things drop constraint things_pkey; update things set id = 1")
    with pytest.raises(Misconfigured, match="not unique"):
        await ledger.write(batch_of(things_of(spec), lease, [filled(rows[0], "s")]))
    assert await world.database.run("select distinct summary from things") == [(None,)]


async def test_a_statement_timeout_is_one_and_writes_nothing(world: World) -> None:
    """S4: 57014 asks for smaller pieces; the server's own limit is respected on both roads."""
    ledger = await world.videos(1)
    lease = await begin(ledger, VIDEOS)
    [row] = await ledger.page(query_of(VIDEOS))
    await world.database.run(f"alter database {world.database.name} set statement_timeout = '300ms'")
    impatient = Ledger(await world.road())
    async with await world.database.connect() as other:
        await other.execute("set statement_timeout = 0")
        async with other.transaction():
            await other.execute("select 1 from videos for update")
            with pytest.raises(StatementTimeout):
                await impatient.write(batch_of(VIDEOS, lease, [filled(row, "s")]))
    assert await summaries(world) == {"v0001": None}


async def test_heartbeats_do_not_wait_behind_a_page_write(world: World) -> None:
    """DECISIONS 24: lease, checkpoint and budget are separate rows; a takeover does wait until the page is through."""
    ledger = await world.videos(1)
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    [row] = await ledger.page(query_of(VIDEOS))
    async with await world.database.connect() as other:
        async with other.transaction():
            await other.execute("select 1 from videos for update")
            writing = asyncio.create_task(ledger.write(batch_of(VIDEOS, lease, [filled(row, "s")])))
            await blocked(world)
            async with asyncio.timeout(2):
                assert not await ledger.beat(lease)
            await world.database.run("update catchup.leases set expires_at = now() - interval '1 s'")
            taking = asyncio.create_task(begin(ledger, VIDEOS, run_id="run-b", home=ELSEWHERE))
            await blocked(world, 2)
            assert not taking.done()
        assert (await writing).wrote == {0}
        assert (await taking).generation == lease.generation + 1


async def test_a_role_that_row_level_security_blinds_confirms_nothing(world: World) -> None:
    """S6, DOMAIN (5): the wrong role updates 0 rows and says nothing; here it shows in the facts and in the write."""
    await world.database.load("scenes.sql")
    await world.database.migrate([SCENES])
    await world.database.run(
        "insert into videos (owner_id, storage_path, status) values (gen_random_uuid(), 'p', 'READY')"
    )
    owner = await world.ledger()
    [row] = await owner.page(query_of(SCENES))
    await world.database.run("grant select, update on videos, video_scenes to catchup_worker")
    blind = await blinded(world)
    facts = await blind.facts(SCENES.spec)
    assert facts.row_security
    assert not facts.bypasses_row_security
    assert not facts.has_update_policy
    lease = await begin(blind, SCENES)
    assert await blind.page(query_of(SCENES)) == []
    assert (await blind.write(batch_of(SCENES, lease, [filled(row, "s")]))).gone == {0}
    assert await world.database.run("select video_summary from videos") == [(None,)]


async def test_a_wrong_key_may_not_even_ask(world: World) -> None:
    """EXECUTE is revoked from everybody but two roles: a publishable key costs no paid call."""
    await world.videos(1)
    wrong = await world.ledger("wrong")
    for question in (wrong.hello(VIDEOS.spec, VIDEOS.name), wrong.page(query_of(VIDEOS)), wrong.runs()):
        with pytest.raises(Misconfigured):
            await question


async def test_scenes_of_domain_5_are_written_by_the_owner(world: World) -> None:
    """uuid keys, an enum in `pending`, a trigger that moves updated_at, and row level security on."""
    await world.database.load("scenes.sql")
    await world.database.migrate([SCENES])
    await world.database.run(
        "insert into videos (owner_id, storage_path, status) "
        "select gen_random_uuid(), 'p', 'READY' from generate_series(1, 5)"
    )
    ledger = await world.ledger()
    facts = await ledger.facts(SCENES.spec)
    assert (facts.triggers, facts.row_security, facts.bypasses_row_security) == (("videos_touch",), True, True)
    lease = await begin(ledger, SCENES)
    rows = await ledger.page(query_of(SCENES))
    assert len((await ledger.write(batch_of(SCENES, lease, [filled(r, "s") for r in rows]))).wrote) == 5
    assert await ledger.page(query_of(SCENES)) == []


async def blinded(world: World) -> Ledger:
    """The same road as a role that is neither owner nor exempt from row level security."""
    if world.kind == "dsn":
        return await world.ledger("worker")
    await world.database.run("alter role service_role nobypassrls")
    return await world.ledger()


async def blocked(world: World, sessions: int = 1) -> None:
    """Waits until so many sessions of this database wait for a lock."""
    for _ in range(200):
        [(waiting,)] = await world.database.run(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        if waiting >= sessions:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits")
