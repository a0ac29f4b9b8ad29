"""What went wrong at the systems of DOMAIN.md, each incident that concerns summaries as a test by its number."""

from __future__ import annotations

import asyncio
import inspect
import re
import time

import pytest

from jobs.engine.verdict import Exit
from queries.postgrest import PostgrestRoad
from tests.servers.bench import Bench
from tests.servers.fault_proxy import StartFaultProxy
from tests.servers.lite import StartPostgrest
from tests.servers.shell import ROOT

SQL = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "queries/sql").glob("*.sql"))
    if not path.name.startswith("03")  # snapshots of views are rows of a target's own, and inserting them is right
)


async def test_incident_1_a_filter_that_shrinks_while_it_is_paged_skips_and_repeats_nothing(bench: Bench) -> None:
    """Offset paging did both. Every row that stays eligible is asked once, though each write shrinks the set."""
    await bench.fill(400)

    async def shrink_and_grow() -> None:
        kinds = ["ferry", "steamer", "barge", "trawler", "clipper", "dredger", "tanker", "cutter", "sloop", "galley"]
        by_hand = "update videos set llm_summary = 'by hand' where llm_summary is null and id like"
        for n, kind in enumerate(kinds):
            await bench.database.run(f"{by_hand} '%%{n}7'")
            await bench.fill(3, prefix=f"a{n}", text=f"tells how the {kind} of the old port was built, sold and sunk")
            await asyncio.sleep(0.03)

    bench.fake.configure(latency=0.02)
    verdict, _ = await asyncio.gather(bench.run(concurrency=16), shrink_and_grow())
    assert verdict.exit in (Exit.DONE, Exit.SOME_NAMED)
    assert set(bench.paid().values()) == {1}
    assert (await bench.run()).exit is Exit.DONE
    assert all((await bench.cells()).values())
    assert set(bench.paid().values()) == {1}
    assert not re.search(r"\boffset\b", SQL, re.IGNORECASE)


async def test_incident_3_the_pace_reaches_the_providers_limit_without_being_told(bench: Bench) -> None:
    """A first worker did 28 rows a minute against a limit of 500. Here: nine tenths of the limit, and few refusals."""
    per_s = 60
    bench.fake.configure(rpm=per_s * 60, latency=0.1)
    await bench.fill(per_s * 5)
    started = time.monotonic()
    verdict = await bench.run()
    took = time.monotonic() - started
    answered = sorted(at for at, _, status in bench.fake.world.log if status == 200)
    steady = [at for at in answered if at >= answered[0] + 1.5]
    pace = (len(steady) - 1) / (steady[-1] - steady[0])
    print(f"{pace:.1f} of {per_s} a second, {took:.1f} s in all, {verdict.throttled} throttled")
    assert verdict.books.wrote == per_s * 5
    assert pace >= 0.9 * per_s
    assert verdict.throttled <= per_s * 5 * 0.05


async def test_incident_4_a_not_null_column_is_never_met_because_nothing_is_inserted(bench: Bench) -> None:
    """Upserts to fill one column wrote nothing for hours while the log said success: any INSERT here is an error."""
    await bench.fill(20)
    await bench.database.run(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'an insert'; end $$; "
        "create trigger refuse before insert or delete on videos for each row execute function public.refuse()"
    )
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 20), verdict.headline
    written = re.findall(r"insert into (?!catchup\.)\S+", SQL)
    assert written == []


async def test_incident_5_reading_stays_within_its_share_of_the_database(bench: Bench) -> None:
    """2,800 disk operations a second stopped theirs. --db-load is the share of the time with a request of ours open."""
    await bench.fill(600)
    started = time.monotonic()
    verdict = await bench.run(db_load=0.1)
    took = time.monotonic() - started
    assert bench.running is not None
    busy = bench.running._database._load.busy_s
    print(f"{busy:.2f} s of {took:.2f} s")
    assert verdict.books.wrote == 600
    assert busy <= 0.1 * took + 0.3


@pytest.mark.parametrize("cap", [32, 1000])
async def test_incident_6_a_run_that_says_done_has_done_all_and_not_a_page(
    bench: Bench, start_postgrest: StartPostgrest, cap: int
) -> None:
    """One "completed" with 0 calls, one stopped at 32,000 of 178,000, one at 1,000: the server's cap was the end."""
    await bench.fill(1_100 if cap == 1000 else 200)
    server = await start_postgrest(bench.database, max_rows=cap)
    verdict = await bench.run(road=PostgrestRoad(server.url, server.secret_key))
    left = await bench.database.run("select count(*) from videos where llm_summary is null")
    assert (verdict.exit, left) == (Exit.DONE, [(0,)])
    assert verdict.calls == verdict.books.wrote == bench.fake.world.requests


async def test_incident_8_a_large_run_asks_first_and_a_stop_from_elsewhere_is_obeyed(bench: Bench) -> None:
    """One click started 184,053 updates: refused without a yes, and cancelled within a write."""
    bench.fake.configure(latency=0.05)
    await bench.fill(1_100)
    refused = await bench.run(yes=False)
    assert (refused.exit, bench.fake.world.requests, len(bench.memory.asked)) == (Exit.REFUSED, 0, 1)

    async def cancel() -> int:
        while bench.fake.world.requests < 40:
            await asyncio.sleep(0.01)
        await bench.database.run("update catchup.runs set cancel_asked = true")
        return bench.fake.world.requests

    verdict, at_cancel = await asyncio.gather(bench.run(concurrency=8), cancel())
    assert verdict.exit is Exit.STOPPED
    assert bench.fake.world.requests < at_cancel + 600
    assert verdict.books.wrote == sum(1 for text in (await bench.cells()).values() if text)


async def test_incident_9_watching_a_run_costs_the_database_nothing_and_nobody_counts_the_table(
    bench: Bench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> None:
    """A dashboard that polled exact counts was the biggest load: a snapshot is ours alone, a count has an end."""
    bench.fake.configure(latency=0.05)
    await bench.fill(100)
    server = await start_postgrest(bench.database)
    proxy = await start_fault_proxy(server.url)

    async def watch() -> int:
        while bench.fake.world.requests < 20:
            await asyncio.sleep(0.005)
        before = len(proxy.requests)
        assert bench.running is not None
        for _ in range(1_000):
            bench.running.snapshot()
        return len(proxy.requests) - before

    verdict, asked = await asyncio.gather(
        bench.run(road=PostgrestRoad(proxy.url, server.secret_key), concurrency=4), watch()
    )
    assert (verdict.exit, asked) == (Exit.DONE, 0)
    assert not any("count=exact" in request.headers.get("Prefer", "") for request in proxy.requests)
    counts = [line for line in SQL.splitlines() if "count(*)" in line and "%s t" in line]
    assert counts
    assert all("limit %s" in line for line in counts)


async def test_incident_10_a_finished_table_whose_text_moved_away_asks_before_it_pays(bench: Bench) -> None:
    """`llm_summary is null` became true for all 1,118,401 rows: ten times what was done last time is a question."""
    await bench.fill(30)
    assert (await bench.run(yes=False)).books.wrote == 30
    await bench.fill(400, prefix="w")
    await bench.database.run("update videos set llm_summary = null")
    calls = bench.fake.world.requests
    verdict = await bench.run(yes=False)
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, calls)
    assert "10 times the 30 rows" in bench.memory.asked[-1]


async def test_incident_job_board_what_is_reported_as_written_is_what_the_table_has(bench: Bench) -> None:
    """The queue said 10,772 completed, the table had 7,051: our number is recounted where the rows are."""
    await bench.fill(120)
    await bench.database.run("update videos set title = 'x', description = 'short' where id <= 'v000010'")
    bench.fake.configure(latency=0.02)

    async def meddle() -> None:
        while bench.fake.world.requests < 30:
            await asyncio.sleep(0.005)
        await bench.database.run("delete from videos where id like '%%9' and llm_summary is null")

    verdict, _ = await asyncio.gather(bench.run(concurrency=8), meddle())
    recount = await bench.database.run("select count(*) from videos where llm_summary is not null")
    booked = await bench.database.run("select (books->>'wrote')::int from catchup.runs")
    provenance = await bench.database.run("select count(*) from catchup.provenance")
    assert recount == booked == provenance == [(verdict.books.wrote,)]
    assert verdict.books.balance()


def test_every_incident_of_this_job_has_its_test() -> None:
    """Domain numbers 1, 3, 4, 5, 6, 8, 9 and 10; 2 and 11 belong to batches, 7 to vectors."""
    names = " ".join(name for name, value in globals().items() if inspect.iscoroutinefunction(value))
    assert {int(n) for n in re.findall(r"test_incident_(\d+)_", names)} == {1, 3, 4, 5, 6, 8, 9, 10}


async def test_a_quiet_night_does_not_stop_cron(bench: Bench) -> None:
    """One row last time, fifty now: ten times as many, and no blast; an explicit --limit is consent as well."""
    await bench.fill(1)
    await bench.run(yes=False, limit=50)
    await bench.fill(90, prefix="w")
    assert (await bench.run(yes=False)).books.wrote == 90
    await bench.fill(950, prefix="x")
    assert (await bench.run(yes=False, limit=50)).books.wrote == 50
