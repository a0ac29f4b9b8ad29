"""What went wrong at the research app of DOMAIN.md (1), each incident that concerns views as a test by its number."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime

import pytest

from jobs.engine.asking import Asking, Errand, Stopped
from jobs.engine.job import Ask
from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.postgrest import PostgrestRoad
from queries.quota import Quota
from queries.table import Page, PageQuery, Slice
from queries.views_ledger import Pick, ViewsLedger
from tests.servers.fault_proxy import StartFaultProxy
from tests.servers.impaired import Impaired
from tests.servers.lite import StartPostgrest
from tests.servers.shell import ROOT
from tests.servers.views_bench import ViewsBench
from tests.servers.views_shell import agree, until

SQL = "\n".join((ROOT / f"queries/sql/{name}.sql").read_text() for name in ("031_views", "032_rollups"))


async def test_incident_5_tracking_stays_within_its_share_of_the_database(views: ViewsBench) -> None:
    """2,800 disk operations a second stopped theirs. Pages of keys, and no more than the share of the time."""
    await views.fill(2_000)
    started = time.monotonic()
    verdict = await views.run(db_load=0.2)
    took = time.monotonic() - started
    assert views.running is not None
    busy = views.running._database._load.busy_s
    print(f"{busy:.2f} s of {took:.2f} s")
    assert verdict.books.wrote == 2_000
    assert busy <= 0.2 * took + 0.4
    assert not re.search(r"\boffset\b", SQL, re.IGNORECASE)


async def test_incident_6_a_run_that_completed_with_no_call_is_exit_1(
    views: ViewsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs "completed" with 0 API calls. Planted: every request ends before it is sent; the sum is right."""
    await views.fill(60)

    async def do_nothing(self: Asking, ask: Ask, errand: Errand) -> list[Ask]:
        raise Stopped

    monkeypatch.setattr(Asking, "_ask", do_nothing)
    verdict = await views.run()
    assert (verdict.exit, verdict.calls, views.fake.requests) == (Exit.UNEXPECTED, 0, 0)


async def test_incident_6_a_run_that_is_shown_none_of_what_the_plan_counted_is_exit_1(
    views: ViewsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: pages are empty, so that there is nothing to call for; that is no "nothing to do"."""
    await views.fill(60)

    async def see_nothing(self: ViewsLedger, query: PageQuery) -> Page:
        return Page([], None)

    monkeypatch.setattr(ViewsLedger, "look_quickly", see_nothing)
    verdict = await views.run()
    assert (verdict.exit, verdict.books.selected, views.fake.requests) == (Exit.UNEXPECTED, 0, 0)
    assert "60 rows" in verdict.headline


@pytest.mark.parametrize("cap", [32, 1_000])
async def test_incident_6_the_servers_row_cap_is_not_the_end(
    views: ViewsBench, start_postgrest: StartPostgrest, cap: int
) -> None:
    """One stopped at 32,000 of 178,000, one at 1,000: all that are due are asked, whatever the server cuts."""
    await views.fill(1_101 if cap == 1_000 else 200)
    server = await start_postgrest(views.database, max_rows=cap)
    verdict = await views.run(road=PostgrestRoad(server.url, server.secret_key))
    due = await views.database.run("select count(*) from catchup.schedule where asked_at is null")
    assert (verdict.exit, due) == (Exit.DONE, [(0,)])
    assert verdict.calls == views.fake.requests == -(-verdict.books.wrote // 50)
    await agree(views)


async def test_incident_6_a_run_that_was_cut_off_goes_on_and_asks_nothing_again(
    views: ViewsBench, impaired_views: Impaired
) -> None:
    """Killed in the middle: the same command tracks the rest."""
    await views.fill(600)
    views.fake.configure(latency=0.1)
    ended = await impaired_views.run("", "--yes", "--concurrency", "2", CATCHUP_FAULTS="write.sent:2:kill")
    assert ended.code == -9, ended.out + ended.err
    views.fake.configure(latency=0.0)
    again = await impaired_views.run("", "--yes")
    assert again.code == 0, again.out + again.err
    assert len(await views.snapshots()) == 600
    assert sum(times > 1 for times in views.fake.asked.values()) <= 2 * 50, "more than was in flight"
    await agree(views, 600)


async def test_incident_8_all_asks_first_and_a_stop_from_elsewhere_is_obeyed(views: ViewsBench) -> None:
    """One click on "update all" started 184,053 updates: refused without a yes, and cancelled within a write."""
    await views.fill(1_200)
    await views.run()
    refused = await views.run(pick=Pick("all"), yes=False)
    assert (refused.exit, len(views.memory.asked)) == (Exit.REFUSED, 1)
    assert views.fake.requests == 24
    views.fake.configure(latency=0.2)

    async def cancel() -> None:
        await until(lambda: views.fake.requests >= 24 + 4)
        await views.database.run("update catchup.runs set cancel_asked = true")

    verdict, _ = await asyncio.gather(views.run(pick=Pick("all"), concurrency=1), cancel())
    assert verdict.exit is Exit.STOPPED
    assert views.fake.requests < 24 + 24
    await views.check()


async def test_incident_9_nobody_counts_the_table_and_watching_costs_nothing(
    views: ViewsBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> None:
    """Polled exact counts were the biggest load on the database: the plan's figures are from a sample, and say so."""
    await views.fill(3_000)
    server = await start_postgrest(views.database)
    proxy = await start_fault_proxy(server.url)
    verdict = await views.run(road=PostgrestRoad(proxy.url, server.secret_key), dry_run=True)
    assert verdict.exit is Exit.DONE
    assert len(proxy.requests) < 20
    assert not any("count=exact" in request.headers.get("Prefer", "") for request in proxy.requests)
    assert "tablesample" in SQL
    before = len(proxy.requests)
    assert views.running is not None
    for _ in range(1_000):
        views.running.snapshot()
    assert len(proxy.requests) == before


@pytest.mark.parametrize(
    ("at", "hours", "day"),
    [
        ("2026-03-08 07:59:59+00", 0.0, "2026-03-07"),
        ("2026-03-08 08:00:00+00", 23.0, "2026-03-08"),
        ("2026-03-09 06:59:59+00", 0.0, "2026-03-08"),
        ("2026-11-01 07:00:00+00", 25.0, "2026-11-01"),
        ("2026-11-02 07:59:59+00", 0.0, "2026-11-01"),
        ("2026-11-02 08:00:00+00", 24.0, "2026-11-02"),
    ],
    ids=[
        "before spring",
        "a day of 23 hours",
        "its last second",
        "a day of 25 hours",
        "its last second ",
        "after autumn",
    ],
)
async def test_f9_the_day_turns_at_midnight_pacific_also_where_clocks_change(
    views: ViewsBench, at: str, hours: float, day: str
) -> None:
    """A run on the day of either change stops at the quota, and names the moment at which that very day ends."""
    await views.database.run(
        "create or replace function catchup.quota_clock() returns timestamptz language sql volatile "
        "set search_path = '' "
        f"as $$ select timestamptz '{at}' $$"
    )
    await views.fill(200)
    verdict = await views.run(quota=2)
    assert (verdict.exit, verdict.calls, verdict.books.wrote) == (Exit.STOPPED, 2, 100), verdict.headline
    road = DsnRoad(views.database.dsn)
    units = await Quota(road, limit=2, reserve=0).used()
    await road.close()
    assert units is not None
    assert (units.left, str(units.day)) == (0, day)
    assert units.resets_in_s == pytest.approx(hours * 3_600, abs=1) if hours else units.resets_in_s <= 1
    assert units.resets_at.astimezone(UTC) == datetime.fromisoformat(verdict.facts["resets_at"])
    assert f"{units.resets_at.astimezone():%Y-%m-%d %H:%M}" in verdict.headline
    assert (await views.run(quota=2)).calls == 0


async def test_f8_two_runs_over_disjoint_slices_share_one_quota_and_no_video(views: ViewsBench) -> None:
    """Side by side: each asks its own, the sum of their units is one day's, and neither passes it."""
    views.fake.configure(latency=0.05)
    await views.fill(400)
    low, high = Slice(None, ("v0000000200",)), Slice(("v0000000200",), None)
    both = await asyncio.gather(views.run(slice=low, quota=6), views.run(slice=high, quota=6))
    assert {verdict.exit for verdict in both} <= {Exit.DONE, Exit.STOPPED}
    assert views.fake.units == 6
    assert set(views.fake.asked.values()) == {1}
    rest = [await views.run(slice=slice_, quota=100) for slice_ in (low, high)]
    assert [verdict.exit for verdict in rest] == [Exit.DONE, Exit.DONE]
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 400)


async def test_f8_a_second_run_over_the_same_videos_is_exit_11(views: ViewsBench) -> None:
    """It asks nothing, takes no unit, and says who is at work."""
    views.fake.configure(latency=0.2)
    await views.fill(300)

    async def second() -> Exit:
        await until(lambda: views.fake.requests >= 1)
        return (await views.run()).exit

    first, refused = await asyncio.gather(views.run(concurrency=2), second())
    assert (first.exit, refused) == (Exit.DONE, Exit.LEASE_HELD)
    assert views.fake.requests == 6
    await agree(views, 300)
