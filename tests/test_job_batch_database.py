"""submit-batch when the database misbehaves: F15 to F26 of the fault matrix, over both roads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.engine.verdict import Exit
from queries.postgrest import PostgrestRoad
from queries.road import Road
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import judge, visit_until_done
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.lite import StartPostgrest

WRITE, PAGE, CLAIM, NOTE = "rpc/catchup_write", "rpc/catchup_page", "rpc/catchup_claim_rows", "rpc/catchup_note_chunk"
OUT = "rpc/catchup_batch_page"
TIMEOUT = '{"code":"57014","message":"canceling statement due to statement timeout","details":null,"hint":null}'
POOL = '{"code":"PGRST003","message":"Timed out acquiring connection from connection pool.","details":null,"hint":null}'
EXPIRED = '{"code":"PGRST303","message":"JWT expired","details":null,"hint":null}'
Proxied = tuple[BatchBench, FaultProxy, Callable[[], Road]]


@pytest.fixture
async def proxied(
    batch_bench: BatchBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> Proxied:
    """The PostgREST road with a proxy on it that can do what gateways do."""
    server = await start_postgrest(batch_bench.database)
    proxy = await start_fault_proxy(server.url)
    return batch_bench, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


async def is_right(bench: BatchBench, rows: int) -> bool:
    cells = await bench.cells()
    return len(cells) == rows and all(cells.values()) and set(bench.paid().values()) == {1}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PAGE, "answer", nth=2, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(PAGE, "cut", times=2),
        Fault(CLAIM, "lost"),
        Fault(NOTE, "lost", nth=2, times=2),
        Fault(OUT, "answer", times=2, status=522, body=HTML, content_type="text/html"),
        Fault(WRITE, "lost", nth=2, times=1),
        Fault("rpc/catchup_close_chunk", "lost"),
        Fault("rpc/catchup_put_back", "lost"),
        Fault("rpc/catchup_open_chunk", "answer", status=502, body=HTML, content_type="text/html"),
        Fault(WRITE, "answer", nth=2, times=2, status=504, body=POOL, headers=(("Retry-After", "1"),)),
        Fault(OUT, "answer", times=2, status=504, body=POOL),
        Fault(PAGE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
        Fault(WRITE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
    ],
    ids=[
        "F15-page-text", "F15-page-cut", "F15-claim-lost", "F15-note-lost", "F16-out-522", "F15-write-lost",
        "F15-close-lost", "F15-put-back-lost", "F16-open-502", "F18-write-pool", "F18-out-pool", "F17-page",
        "F17-write",
    ],
)  # fmt: skip
async def test_a_passing_fault_of_the_database_leaves_every_row_written_and_paid_once(
    proxied: Proxied, fault: Fault
) -> None:
    """Each step of the ledger may be asked for again: no row in two batches, none lost, none booked twice."""
    bench, proxy, road = proxied
    await bench.fill(60)
    bench.fake.batches.script({"match": {"nth": 1}, "lie": {"ends": "expired", "share": 0.5}})
    proxy.inject(fault)
    verdict = await bench.visit(road=road(), requests_most=25, tail_live=0)
    assert (verdict.exit, verdict.books.wrote, verdict.books.balance()) == (Exit.DONE, 60, True), verdict
    assert await is_right(bench, 60)
    assert (await judge(bench, [verdict])).broken() == {}


async def test_f16_a_database_that_stays_down_after_the_batch_was_made_loses_nothing(proxied: Proxied) -> None:
    """The id of the batch could not be saved: it is found by what stands on it, and collected once."""
    bench, proxy, road = proxied
    await bench.fill(20)
    proxy.inject(Fault(NOTE, "answer", nth=4, times=10_000, status=521, body=HTML, content_type="text/html"))
    verdict = await bench.visit(road=road(), max_outage_s=5.0)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED)
    proxy.clear()
    assert (await bench.visit(road=road())).exit is Exit.DONE
    assert len(bench.fake.batches.batches) == 1
    assert await is_right(bench, 20)


async def test_f22_a_key_that_expires_while_results_are_written(proxied: Proxied) -> None:
    """401 in the middle of the import: exit 10, no row blamed; what was paid is in the file, and stored next time."""
    bench, proxy, road = proxied
    await bench.fill(30)
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=401, body=EXPIRED))
    verdict = await bench.visit(road=road())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    proxy.clear()
    assert (await bench.visit(road=road())).exit is Exit.DONE
    assert await is_right(bench, 30)


@pytest.mark.parametrize("status", [302, 307])
async def test_f26_a_database_that_redirects_is_refused_unpaid(
    proxied: Proxied, start_fault_proxy: StartFaultProxy, status: int
) -> None:
    """Nothing reaches the other host, no file is uploaded."""
    bench, proxy, road = proxied
    await bench.fill(10)
    elsewhere = await start_fault_proxy(bench.fake.url)
    proxy.inject(Fault(PAGE, "answer", times=100, status=status, headers=(("Location", f"{elsewhere.url}/x"),)))
    verdict = await bench.visit(road=road())
    assert (verdict.exit, elsewhere.requests, bench.fake.world.requests) == (Exit.REFUSED, [], 0)


async def test_f24_a_row_cap_below_the_page_leaves_no_row_out(
    batch_bench: BatchBench, start_postgrest: StartPostgrest
) -> None:
    """The server cuts every list at 20 rows and says nothing."""
    await batch_bench.fill(90)
    server = await start_postgrest(batch_bench.database, max_rows=20)
    verdict = await batch_bench.visit(road=PostgrestRoad(server.url, server.secret_key), requests_most=40)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 90)
    assert await is_right(batch_bench, 90)


async def test_f19_a_database_that_undoes_the_write_stops_after_the_canary(batch_bench: BatchBench) -> None:
    """A trigger that keeps the old row: one live row is paid, and no file is handed in."""
    await batch_bench.fill(20)
    await batch_bench.database.run(
        "create function keep() returns trigger language plpgsql as $$ begin return old; end $$; "
        "create trigger keep before update on videos for each row execute function keep()"
    )
    verdict = await batch_bench.visit()
    assert (verdict.exit, len(batch_bench.paid()), batch_bench.fake.batches.calls) == (Exit.REFUSED, 1, {})


@pytest.mark.parametrize("sql", ["alter table videos drop column llm_summary_model", "drop table videos cascade"])
async def test_f20_a_table_that_does_not_fit_is_refused_unpaid(batch_bench: BatchBench, sql: str) -> None:
    """Column or table missing: exit 10 before anything is asked or uploaded."""
    await batch_bench.fill(3)
    await batch_bench.database.run(sql)
    verdict = await batch_bench.visit()
    assert (verdict.exit, batch_bench.fake.world.requests) == (Exit.REFUSED, 0)


async def test_f21_a_column_renamed_while_the_batch_is_out_blames_no_row(batch_bench: BatchBench) -> None:
    """The visit stops with exit 10; the paid answers wait in the file until the column is back."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit()
    batch_bench.fake.batches.advance(700.0)
    await batch_bench.database.run("alter table videos rename column llm_summary to other_name")
    verdict = await batch_bench.visit()
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    await batch_bench.database.run("alter table videos rename column other_name to llm_summary")
    assert (await batch_bench.visit()).exit is Exit.DONE
    assert await is_right(batch_bench, 20)


async def test_f23_rows_edited_deleted_or_filled_while_they_are_out(batch_bench: BatchBench) -> None:
    """Newer data is never overwritten: they are named, their money is booked, the rest is written."""
    await batch_bench.fill(40)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit(tail_live=0)
    run = batch_bench.database.run
    await run("update videos set description = description || ' edited' where id in ('v000010', 'v000011')")
    await run("delete from videos where id = 'v000012'")
    await run("update videos set llm_summary = 'by hand' where id = 'v000013'")
    batch_bench.fake.batches.advance(700.0)
    verdict = await batch_bench.visit(tail_live=0)
    assert (verdict.exit, verdict.books.changed, verdict.books.gone, verdict.books.wrote) == (Exit.SOME_NAMED, 3, 1, 35)
    cells = await batch_bench.cells()
    assert cells["v000013"] == "by hand"
    assert cells["v000010"] is cells["v000011"] is None
    rows = await run("select spent_usd::float8 from catchup.runs")
    assert rows[0][0] == pytest.approx(batch_bench.fake.world.bill_usd)
    again = await visit_until_done(batch_bench, tail_live=0)
    assert again[-1].exit is Exit.DONE
    assert (await batch_bench.cells())["v000010"]


async def test_f25_hostile_texts_come_back_contained(batch_bench: BatchBench) -> None:
    """NUL, surrogates, markup and escapes in an answer's text: cleaned or named, and nothing else is changed."""
    await batch_bench.fill(20)
    batch_bench.fake.script(
        rule("hostile", on={"item": "^v00000[5-9]$"}), rule("obedient", on={"item": "^v00001[0-2]$"})
    )
    verdict = await batch_bench.visit(tail_live=0)
    assert verdict.exit in (Exit.DONE, Exit.SOME_NAMED)
    assert verdict.books.balance()
    texts = " ".join(filter(None, (await batch_bench.cells()).values()))
    assert not any(odd in texts for odd in ("\x00", "\x1b", "<script", "evil.example", "\u202e"))
    titles = await batch_bench.database.run("select title from videos")
    assert all(title.startswith("Talk number") for (title,) in titles)


async def test_both_roads_collect_what_the_other_one_handed_in(
    batch_bench: BatchBench, start_postgrest: StartPostgrest
) -> None:
    """Handed in over PostgREST from one host, collected over a DSN on another, where none of the files are."""
    await batch_bench.fill(25)
    batch_bench.fake.batches.configure(working_s=600.0)
    server = await start_postgrest(batch_bench.database)
    first: dict[str, Any] = {"road": PostgrestRoad(server.url, server.secret_key)}
    assert (await batch_bench.visit(**first)).books.to_do == 24
    batch_bench.fake.batches.advance(700.0)
    elsewhere = batch_bench.state_dir.with_name("elsewhere")
    verdict = await batch_bench.visit(state_dir=elsewhere)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 24)
    assert await is_right(batch_bench, 25)
