"""refresh-views when the database misbehaves or is not as it should be, over both roads."""

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
from queries.table import ViewTables
from queries.views_ledger import Pick
from tests.servers.bench import sums
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.lite import StartPostgrest
from tests.servers.views_bench import ViewsBench
from tests.servers.views_shell import age_journal, agree, until
from tests.test_job_vectorize_database import EXPIRED, POOL, TIMEOUT

WRITE, PAGE, SEED = "rpc/catchup_views_write", "rpc/catchup_views_due", "rpc/catchup_views_seed"
Proxied = tuple[ViewsBench, FaultProxy, Callable[[], Road]]


@pytest.fixture
async def proxied(views: ViewsBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy) -> Proxied:
    """The PostgREST road with a proxy on it that can do what gateways do."""
    server = await start_postgrest(views.database)
    proxy = await start_fault_proxy(server.url)
    return views, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


@pytest.mark.parametrize("is_ranked", [False, True], ids=["own schedule", "priorities"])
async def test_a_plain_run_over_either_road_is_the_same(
    views: ViewsBench, start_postgrest: StartPostgrest, is_ranked: bool
) -> None:
    """Half over a DSN, half over PostgREST: the same snapshots, and run again nothing is asked."""
    if is_ranked:
        await views.database.load("priorities.sql")
        await views.migrate()
    await views.fill(300)
    assert (await views.run(limit=150)).books.wrote == 150
    server = await start_postgrest(views.database)
    verdict = await views.run(road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150), verdict
    assert (await views.run(road=PostgrestRoad(server.url, server.secret_key))).calls == 0
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 300)


TEXT = {"body": "upstream connect error", "content_type": "text/plain"}
GATEWAY = {"body": HTML, "content_type": "text/html"}


@pytest.mark.parametrize(
    "faults",
    [
        (
            Fault(PAGE, "answer", nth=2, times=2, **TEXT),
            Fault(WRITE, "answer", nth=1, times=2, **TEXT),
            Fault(SEED, "lost", nth=1, times=1),
        ),
        (
            Fault(PAGE, "cut", nth=2, times=2),
            Fault(WRITE, "cut", nth=1, times=2),
            Fault("catchup_quota_take", "lost", nth=2),
        ),
        (
            Fault(PAGE, "answer", nth=1, times=3, status=522, **GATEWAY),
            Fault(WRITE, "answer", nth=2, times=2, status=502, **GATEWAY),
        ),
        (
            Fault(SEED, "answer", nth=1, times=2, status=500, body=TIMEOUT),
            Fault(PAGE, "answer", nth=4, times=2, status=500, body=TIMEOUT),
            Fault(WRITE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
        ),
        (Fault(WRITE, "answer", nth=2, times=2, status=504, body=POOL, headers=(("Retry-After", "1"),)),),
        (Fault(WRITE, "lost", nth=2, times=1),),
    ],
    ids=["F15 text", "F15 cut", "F16 gateways", "F17 timeouts", "F18 pool", "F15 lost"],
)
async def test_a_passing_fault_of_the_database_costs_no_video_and_no_second_call(
    proxied: Proxied, faults: tuple[Fault, ...]
) -> None:
    """Nothing is booked as changed because an answer was lost; each video is asked once and has its snapshot."""
    views, proxy, road = proxied
    await views.fill(300)
    for fault in faults:
        proxy.inject(fault)
    verdict = await views.run(road=road(), max_outage_s=30.0)
    assert (verdict.exit, sums(verdict)) == (Exit.DONE, (300, 0, 0, 0, 0, 0)), verdict
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 300)


async def test_f16_a_database_that_stays_down_keeps_what_was_told(proxied: Proxied) -> None:
    """What was asked and not stored is in the journal: the next run stores it, with its day, and asks for the rest."""
    views, proxy, road = proxied
    views.fake.configure(latency=0.2)
    await views.fill(1_000)
    views.fake.counts = {f"v{n:010}": {"viewCount": "400"} for n in range(1, 1_001)}
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=521, body=HTML, content_type="text/html"))
    verdict = await views.run(road=road(), max_outage_s=1.0, concurrency=2)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED), verdict.headline
    assert views.fake.requests < 20
    proxy.clear()
    age_journal(views, 2)
    again = await views.run(road=road())
    assert (again.exit, again.recovered > 0) == (Exit.DONE, True), again.headline
    assert set(views.fake.asked.values()) == {1}
    days = dict(
        await views.database.run(
            "select (now() at time zone 'UTC')::date - s.snapshot_date, count(*) from view_snapshots s join "
            "catchup.schedule d using (video_id) where d.next_due::date = s.snapshot_date + 28 group by 1"
        )
    )
    assert days == {2: again.recovered, 0: 1_000 - again.recovered}
    await agree(views, 1_000 - again.recovered)


async def test_f17_real_timeouts_make_pages_and_writes_smaller(views: ViewsBench) -> None:
    """The server ends every statement after a time that a large page does not meet."""
    await views.fill(700)
    await views.database.run(
        "create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.001); "
        "return new; end $$; create trigger slow before update on videos for each row execute function public.slow()"
    )
    road = DsnRoad(f"{views.database.dsn}?options=-c%20statement_timeout%3D150")
    verdict = await views.run(road=road, max_outage_s=30.0)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 700), verdict.headline
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 700)


@pytest.mark.parametrize("kind", ["dsn", "postgrest"])
async def test_f19_a_role_that_may_not_write_costs_at_most_one_call(
    views: ViewsBench, start_postgrest: StartPostgrest, kind: str
) -> None:
    """Row level security or a key without rights: refused with the reason, no snapshot and nothing moved on."""
    await views.fill(120)
    await views.database.run("alter table videos enable row level security; grant all on videos to anon")
    server = await start_postgrest(views.database) if kind == "postgrest" else None
    road: Any = PostgrestRoad(server.url, server.publishable_key) if server else None
    verdict = await views.run(road=road or DsnRoad(views.database.dsn_as("nobody_special")))
    assert verdict.exit is Exit.REFUSED, verdict.headline
    assert views.fake.requests <= 1
    assert await views.snapshots() == {}


async def test_f19_updates_that_do_nothing_are_noticed_with_the_first_page(views: ViewsBench) -> None:
    """A rule swallows them: one call, exit 10, no snapshot is left behind and every video is still due."""
    await views.fill(120)
    await views.database.run(
        "create function public.swallow() returns trigger language plpgsql as $$ begin return null; end $$; "
        "create trigger swallow before update on videos for each row execute function public.swallow()"
    )
    verdict = await views.run()
    assert (verdict.exit, views.fake.requests) == (Exit.REFUSED, 1), verdict.headline
    assert await views.snapshots() == {}
    await views.database.run("drop trigger swallow on videos")
    assert (await views.run()).books.wrote >= 120 - 50


async def test_the_least_privileged_role_can_do_all_of_it(ranked: ViewsBench) -> None:
    """catchup_worker sets the counts and keeps the rows that are the target's own: enough, and no more."""
    await ranked.database.migrate([ranked.target], worker=True)
    await ranked.fill(120)
    verdict = await ranked.run(road=DsnRoad(ranked.database.dsn_as("catchup_worker")))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120), verdict
    assert verdict.cells_enforced_by.startswith("the database")
    await agree(ranked, 120)


async def test_a_table_that_is_not_registered_is_never_written(views: ViewsBench) -> None:
    """The owner registers tables with `migrate`; without that nothing is asked, let alone inserted."""
    await views.fill(10)
    await views.database.run("delete from catchup.owned")
    verdict = await views.run()
    assert (verdict.exit, views.fake.requests) == (Exit.REFUSED, 0)
    assert "view_snapshots" in verdict.headline
    assert "catchup migrate" in verdict.fix


@pytest.mark.parametrize(
    "change",
    [
        "alter table videos drop column view_count",
        "alter table videos drop column published_at",
        "drop table view_snapshots",
        "alter table view_snapshots drop column view_count",
        "alter table view_snapshots drop constraint view_snapshots_video_id_snapshot_date_key",
        "create table view_tracking_priority (video_id text, priority_tier integer, next_track_date timestamptz)",
    ],
)
async def test_f20_a_table_that_does_not_fit_is_refused_before_anything_is_asked(
    views: ViewsBench, change: str
) -> None:
    """A column, a table or a unique key is missing: named, exit 10, no call."""
    await views.fill(5)
    await views.database.run(change)
    verdict = await views.run()
    assert (verdict.exit, views.fake.requests) == (Exit.REFUSED, 0), verdict.headline


async def test_f20_a_not_null_column_of_the_snapshots_is_named_before_anything_is_asked(views: ViewsBench) -> None:
    """A column that we know nothing of and that must have a value: no call, nothing half written."""
    await views.fill(120)
    await views.database.run("alter table view_snapshots add column source text not null")
    verdict = await views.run()
    assert (verdict.exit, views.fake.requests) == (Exit.REFUSED, 0), verdict.headline
    assert "source" in verdict.headline
    assert all(counts[0] is None for counts in (await views.own_counts()).values())
    await views.database.run("alter table view_snapshots alter column source set default 'youtube'")
    assert (await views.run()).books.wrote == 120
    await agree(views, 120)


async def test_f21_a_column_renamed_in_the_middle_stops_the_run_and_blames_no_video(views: ViewsBench) -> None:
    """Put right, the same command stores what it had been told and goes on."""
    views.fake.configure(latency=0.05)
    await views.fill(600)

    async def rename() -> None:
        await until(lambda: views.fake.requests >= 4)
        await views.database.run("alter table videos rename column view_count to views")

    verdict, _ = await asyncio.gather(views.run(concurrency=2), rename())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0), verdict.headline
    await views.database.run("alter table videos rename column views to view_count")
    assert (await views.run()).exit is Exit.DONE
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 600)


async def test_f22_a_database_key_that_expires_in_the_middle(proxied: Proxied) -> None:
    """401 at the third write: exit 10, no video blamed, what was told is stored by the next run."""
    views, proxy, road = proxied
    views.fake.configure(latency=0.03)
    await views.fill(600)
    proxy.inject(Fault(WRITE, "answer", nth=3, times=10_000, status=401, body=EXPIRED))
    verdict = await views.run(road=road(), concurrency=2)
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0), verdict.headline
    proxy.clear()
    again = await views.run(road=road())
    assert (again.exit, again.books.wrote + verdict.books.wrote) == (Exit.DONE, 600)
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 600)


async def test_f23_videos_edited_deleted_or_counted_by_others_meanwhile(views: ViewsBench) -> None:
    """Their own counts stay what others made of them; the measured ones are in the snapshot; all are named, exit 3."""
    views.fake.configure(latency=0.4)
    await views.fill(60)
    await views.run(limit=1)

    async def meddle() -> None:
        await until(lambda: views.fake.requests >= 2 and views.fake.open > 0)
        await views.database.run("update videos set view_count = 5 where id like '%%7'")
        await views.database.run("update videos set published_at = published_at - interval '1 day' where id like '%%3'")
        await views.database.run("delete from videos where id like '%%5'")

    verdict, _ = await asyncio.gather(views.run(), meddle())
    assert (verdict.exit, verdict.books.changed, verdict.books.gone) == (Exit.SOME_NAMED, 12, 6), verdict
    assert {named.reason for named in verdict.named} == {"edited", "filled", "gone"}
    own, stored = await views.own_counts(), await views.snapshots()
    assert {own[f"v00000000{n}7"] for n in range(6)} == {(5, None, None)}
    assert len(stored) == 60 - 6
    assert all(key in own for key in stored)
    assert (await views.run()).calls == 0, "each has its next time"


@pytest.mark.parametrize("max_rows", [1, 20, 1_000])
async def test_f24_a_row_cap_below_the_page_leaves_no_video_out(
    views: ViewsBench, start_postgrest: StartPostgrest, max_rows: int
) -> None:
    """The server cuts every list and says nothing: one value is no list. Many videos are due at the same moment."""
    await views.fill(260)
    await views.database.run("update videos set published_at = '2026-01-01'")
    server = await start_postgrest(views.database, max_rows=max_rows)
    verdict = await views.run(road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote, verdict.calls) == (Exit.DONE, 260, 6)
    await agree(views, 260)


@pytest.mark.parametrize("status", [302, 307])
async def test_f26_a_database_that_redirects_is_refused_before_a_unit_is_spent(
    proxied: Proxied, start_fault_proxy: StartFaultProxy, status: int
) -> None:
    """Not one request reaches the other host."""
    views, proxy, road = proxied
    await views.fill(10)
    elsewhere = await start_fault_proxy(views.fake.url)
    proxy.inject(Fault(PAGE, "answer", times=100, status=status, headers=(("Location", f"{elsewhere.url}/x"),)))
    verdict = await views.run(road=road())
    assert (verdict.exit, elsewhere.requests, views.fake.requests) == (Exit.REFUSED, [], 0)


@pytest.mark.parametrize("name", ["../../auth/v1/admin", "videos; drop table videos", "", "a b", "x" * 64])
async def test_f26_hostile_names_of_tables_are_refused_before_any_request(views: ViewsBench, name: str) -> None:
    """Snapshots and priorities have plain names like everything else."""
    from jobs.targets import check_names  # noqa: PLC0415
    from queries.errors import Misconfigured  # noqa: PLC0415

    with pytest.raises(Misconfigured):
        check_names(replace(views.target, views=ViewTables(snapshots=name)))


async def test_videos_that_are_deleted_leave_nothing_that_is_due(views: ViewsBench) -> None:
    """A schedule without its video is no work: a later run neither asks for it nor stumbles over it."""
    await views.fill(60)
    await views.run()
    await views.database.run("delete from videos where id <= 'v0000000030'")
    await views.pass_days(40)
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, verdict.calls) == (Exit.DONE, 30, 1)
    assert (await views.run(pick=Pick("all"))).books.wrote == 30
    await views.check()
