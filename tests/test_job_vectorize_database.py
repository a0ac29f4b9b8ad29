"""vectorize when the database misbehaves: the rows of the fault matrix that it causes, over both roads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.postgrest import PostgrestRoad
from queries.road import Road
from tests.servers.bench import sums
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.lite import StartPostgrest
from tests.servers.vector_bench import FLAG, IN_TENS, VectorBench, until

WRITE, PAGE = "rpc/catchup_write", "rpc/catchup_page"
TIMEOUT = '{"code":"57014","message":"canceling statement due to statement timeout","details":null,"hint":null}'
POOL = '{"code":"PGRST003","message":"Timed out acquiring connection from connection pool.","details":null,"hint":null}'
EXPIRED = '{"code":"PGRST303","message":"JWT expired","details":null,"hint":null}'
Proxied = tuple[VectorBench, FaultProxy, Callable[[], Road]]


@pytest.fixture
async def proxied(vectors: VectorBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy) -> Proxied:
    """The PostgREST road with a proxy on it that can do what gateways do."""
    server = await start_postgrest(vectors.database)
    proxy = await start_fault_proxy(server.url)
    return vectors, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


async def test_a_plain_run_over_either_road_and_into_each_place_is_the_same(
    everywhere: VectorBench, start_postgrest: StartPostgrest
) -> None:
    """Half over a DSN, half over PostgREST: same vectors to the bit, and run again nothing is paid."""
    await everywhere.fill(240)
    assert (await everywhere.run(limit=120)).books.wrote == 120
    server = await start_postgrest(everywhere.database)
    verdict = await everywhere.run(road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120), verdict
    assert len(await everywhere.stored()) == 240
    assert (await everywhere.run(road=PostgrestRoad(server.url, server.secret_key))).calls == 0
    assert set(everywhere.embedded().values()) == {1}
    await everywhere.check()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PAGE, "answer", nth=2, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(PAGE, "cut", nth=2, times=2),
        Fault(PAGE, "answer", nth=1, times=3, status=522, body=HTML, content_type="text/html"),
        Fault(WRITE, "answer", nth=1, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(WRITE, "cut", nth=1, times=2),
        Fault(WRITE, "lost", nth=2, times=1),
        Fault(WRITE, "answer", nth=2, times=2, status=502, body=HTML, content_type="text/html"),
        Fault(WRITE, "answer", nth=2, times=2, status=504, body=POOL, headers=(("Retry-After", "1"),)),
        Fault(PAGE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
        Fault(WRITE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
        Fault("catchup_claim_place", "lost", nth=1),
    ],
    ids=[
        "F15-page-text", "F15-page-cut", "F16-page-522", "F15-write-text", "F15-write-cut", "F15-write-lost",
        "F16-write-502", "F18-pool", "F17-page", "F17-write", "lost-claim",
    ],
)  # fmt: skip
async def test_a_passing_fault_of_the_database_leaves_every_vector_marked_and_paid_once(
    proxied: Proxied, fault: Fault
) -> None:
    """Nothing is booked as changed because an answer was lost, and no flag lies in either direction."""
    vectors, proxy, road = proxied
    await vectors.fill(300)
    proxy.inject(fault)
    verdict = await vectors.run(road=road(), job=IN_TENS, max_outage_s=30.0)
    assert (verdict.exit, sums(verdict)) == (Exit.DONE, (300, 0, 0, 0, 0, 0)), verdict
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f16_a_database_that_stays_down_after_the_vectors_were_put_loses_nothing(proxied: Proxied) -> None:
    """The vectors are in the index, no flag is set; the next run puts the journal's again and marks them, unpaid."""
    vectors, proxy, road = proxied
    vectors.fake.configure(latency=0.05)
    await vectors.fill(800)
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=521, body=HTML, content_type="text/html"))
    verdict = await vectors.run(road=road(), job=IN_TENS, max_outage_s=1.0, concurrency=2)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED)
    assert len(vectors.embedded()) < 800
    await vectors.check(complete=False)
    proxy.clear()
    again = await vectors.run(road=road())
    assert again.exit is Exit.DONE, again.headline
    assert again.recovered > 0
    assert set(vectors.embedded().values()) == {1}
    assert len(await vectors.stored()) == 800
    await vectors.check()


@pytest.mark.parametrize("status", [302, 307])
async def test_f26_a_database_that_redirects_is_refused_before_a_text_is_embedded(
    proxied: Proxied, start_fault_proxy: StartFaultProxy, status: int
) -> None:
    """Not one request reaches the other host, and nothing is paid or stored."""
    vectors, proxy, road = proxied
    await vectors.fill(10)
    elsewhere = await start_fault_proxy(vectors.fake.url)
    proxy.inject(Fault(PAGE, "answer", times=100, status=status, headers=(("Location", f"{elsewhere.url}/x"),)))
    verdict = await vectors.run(road=road())
    assert (verdict.exit, elsewhere.requests, vectors.fake.world.requests) == (Exit.REFUSED, [], 0)
    await vectors.check()


async def test_f22_a_database_key_that_expires_while_vectors_are_on_their_way(proxied: Proxied) -> None:
    """401 at the third write: exit 10, no row blamed, what was paid is stored and marked by the next run."""
    vectors, proxy, road = proxied
    vectors.fake.configure(latency=0.05)
    await vectors.fill(600)
    proxy.inject(Fault(WRITE, "answer", nth=3, times=10_000, status=401, body=EXPIRED))
    verdict = await vectors.run(road=road(), job=IN_TENS, concurrency=2)
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    await vectors.check(complete=False)
    proxy.clear()
    again = await vectors.run(road=road())
    assert (again.exit, again.books.wrote + verdict.books.wrote) == (Exit.DONE, 600)
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f24_a_row_cap_below_the_page_leaves_no_row_without_its_vector(
    vectors: VectorBench, start_postgrest: StartPostgrest
) -> None:
    """The server cuts every list at 20 rows and says nothing."""
    await vectors.fill(150)
    server = await start_postgrest(vectors.database, max_rows=20)
    verdict = await vectors.run(road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)
    await vectors.check()


@pytest.mark.parametrize("kind", ["dsn", "postgrest"])
async def test_f19_a_role_that_may_not_mark_rows_costs_at_most_one_embedding(
    vectors: VectorBench, start_postgrest: StartPostgrest, kind: str
) -> None:
    """Row level security or a key without rights: refused with the reason, and not a page of orphans in the index."""
    await vectors.fill(20)
    await vectors.database.run("alter table videos enable row level security; grant all on videos to anon")
    server = await start_postgrest(vectors.database) if kind == "postgrest" else None
    road: Any = PostgrestRoad(server.url, server.publishable_key) if server else None
    verdict = await vectors.run(road=road or DsnRoad(vectors.database.dsn_as("nobody_special")))
    assert verdict.exit is Exit.REFUSED, verdict.headline
    assert sum(vectors.embedded().values()) <= 1
    assert len(await vectors.stored()) <= 1
    assert await vectors.flagged() == set()


async def test_f19_a_trigger_that_undoes_the_flag_stops_after_one_embedding(everywhere: VectorBench) -> None:
    """Confirmed as written, and reading it back shows nothing: G2's canary."""
    await everywhere.fill(10)
    cell = everywhere.target.spec.cells[0]
    await everywhere.database.run(
        "create function public.undo() returns trigger language plpgsql as "
        f"$$ begin new.{cell} := null; return new; end $$; "
        "create trigger undo before update on videos for each row execute function public.undo()"
    )
    verdict = await everywhere.run()
    assert (verdict.exit, sum(everywhere.embedded().values())) == (Exit.REFUSED, 1), verdict.headline


async def test_the_least_privileged_role_can_do_all_of_it(vectors: VectorBench) -> None:
    """catchup_worker reads and sets the flag: enough, and the verdict says that the database holds it to that."""
    await vectors.database.migrate([vectors.target], worker=True)
    await vectors.fill(40)
    verdict = await vectors.run(road=DsnRoad(vectors.database.dsn_as("catchup_worker")))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 40), verdict
    assert verdict.cells_enforced_by.startswith("the database")
    await vectors.check()


@pytest.mark.parametrize("column", [FLAG, "llm_summary", "channel_name"])
async def test_f20_a_table_without_the_column_is_refused_unpaid(vectors: VectorBench, column: str) -> None:
    """The flag, the text, or what is kept beside the vector: named, exit 10, nothing embedded and nothing stored."""
    await vectors.fill(5)
    await vectors.database.run(f"alter table videos drop column {column}")
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0)
    assert column in verdict.headline
    assert vectors.pinecone.requests["upsert"] == 0


@pytest.mark.parametrize("type_", ["text", "extensions.vector(384)", "real[]"])
async def test_f20_a_vector_column_of_another_type_or_length_is_refused_unpaid(
    vectors: VectorBench, type_: str
) -> None:
    """DOMAIN's job postings: what the column is and what the target makes are both said."""
    await vectors.keep_in("column")
    await vectors.fill(5)
    (cell,) = vectors.target.spec.cells
    await vectors.database.run(f"alter table videos drop column {cell}; alter table videos add column {cell} {type_}")
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0), verdict.headline
    assert cell in verdict.headline


async def test_f20_not_null_columns_are_no_obstacle_to_a_flag(everywhere: VectorBench) -> None:
    """Nothing is inserted into the table, whatever the place of the vectors."""
    await everywhere.fill(5)
    await everywhere.database.run(
        "alter table videos add column owner uuid not null default gen_random_uuid(); "
        "alter table videos alter column owner drop default"
    )
    assert (await everywhere.run()).books.wrote == 5
    await everywhere.check()


async def test_f21_a_flag_renamed_in_the_middle_stops_the_run_and_blames_no_row(vectors: VectorBench) -> None:
    """One cause, one report; put right, the same command marks what is in the index already, unpaid."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(800)

    async def rename() -> None:
        await until(lambda: vectors.fake.world.requests >= 8)
        await vectors.database.run(f"alter table videos rename column {FLAG} to synced")

    verdict, _ = await asyncio.gather(vectors.run(job=IN_TENS, concurrency=2), rename())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    await vectors.database.run(f"alter table videos rename column synced to {FLAG}")
    await vectors.check(complete=False)
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f21_an_index_that_is_replaced_in_the_middle_stops_the_run(vectors: VectorBench) -> None:
    """Another dimension from one moment on: exit 10, no row blamed."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(800)

    async def replace_index() -> None:
        await until(lambda: vectors.fake.world.requests >= 8)
        vectors.pinecone.indexes[vectors.embedding.index].dimension = 384

    verdict, _ = await asyncio.gather(vectors.run(job=IN_TENS, concurrency=2), replace_index())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0), verdict.headline
    await vectors.check(complete=False)


async def test_f23_rows_edited_deleted_or_marked_by_others_while_their_text_is_out(vectors: VectorBench) -> None:
    """No flag on an edited text; what others marked stays; the vector of a deleted row goes. Later all is right."""
    vectors.fake.configure(latency=0.4)
    await vectors.fill(60)
    await vectors.run(limit=1)

    async def meddle() -> None:
        await until(lambda: vectors.fake.world.requests >= 2 and vectors.fake.world.open > 0)
        undone = f"{FLAG} is not true"
        await vectors.database.run(
            f"update videos set llm_summary = llm_summary || ' (edited)' where id like '%%3' and {undone}"
        )
        await vectors.database.run(f"delete from videos where id like '%%5' and {undone}")

    verdict, _ = await asyncio.gather(vectors.run(), meddle())
    assert (verdict.exit, verdict.books.changed, verdict.books.gone) == (Exit.SOME_NAMED, 6, 6), verdict
    assert {named.reason for named in verdict.named} == {"edited", "gone"}
    await vectors.check(stray={f"v0000{n}3" for n in range(6)})
    again = await vectors.run()
    assert (again.exit, again.books.wrote) == (Exit.DONE, 6)
    await vectors.check()


async def test_f23_a_column_is_never_filled_over_somebody_elses_vector(vectors: VectorBench) -> None:
    """Rows filled or edited while the model works are named and left as they are."""
    await vectors.keep_in("column")
    vectors.fake.configure(latency=0.4)
    await vectors.fill(60)
    await vectors.run(limit=1)
    (cell,) = vectors.target.spec.cells
    ours = "'[" + ",".join(["0.5"] * vectors.embedding.dimensions) + "]'"

    async def meddle() -> None:
        await until(lambda: vectors.fake.world.requests >= 2 and vectors.fake.world.open > 0)
        await vectors.database.run(f"update videos set {cell} = {ours} where id like '%%7'")
        await vectors.database.run("update videos set llm_summary = llm_summary || '!' where id like '%%3'")

    verdict, _ = await asyncio.gather(vectors.run(), meddle())
    assert (verdict.exit, verdict.books.changed) == (Exit.SOME_NAMED, 12), verdict
    stored = await vectors.stored()
    assert len({stored[f"v0000{n}7"] for n in range(6)}) == 1
    assert not any(id_.endswith("3") for id_ in stored)


async def test_f48_no_pending_row_is_zero_and_says_so(vectors: VectorBench) -> None:
    """Nothing to embed is exit 0, or 9 where the operator wants to know."""
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.selected, verdict.calls) == (Exit.DONE, 0, 0)
    assert (await vectors.run(error_on_nothing=True)).exit is Exit.NOTHING_TO_DO


async def test_keys_of_two_columns_and_of_numbers_have_their_ids(vectors: VectorBench) -> None:
    """The id of a row is its key, whatever its type: deterministic, so that again is an overwrite."""
    await vectors.database.run(
        "create table parts (video text, part bigint, body text, done boolean, primary key (video, part)); "
        "insert into parts select 'v' || n % 9, n, 'Part ' || n || ' of the port', null from generate_series(1, 99) n"
    )
    spec = replace(
        vectors.target.spec, table="parts", key=("video", "part"), read=("body",), cells=("done",), filters=(),
        beside=(), pending=(replace(vectors.target.spec.pending[0], column="done"),),
    )  # fmt: skip
    parts = replace(
        vectors.target, name="parts", spec=spec, cells={"done": "true"}, text=("body",),
        embedding=replace(vectors.embedding, metadata={}),
    )  # fmt: skip
    await vectors.database.migrate([parts])
    verdict = await vectors.run(target=parts)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 99), verdict
    rows = await vectors.database.run("select video || ':' || part, body from parts where done")
    assert await vectors.stored() == {key: vectors.vector_of(body) for key, body in rows}
    assert (await vectors.run(target=parts)).calls == 0
