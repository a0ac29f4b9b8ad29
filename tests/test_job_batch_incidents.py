"""What went wrong with batches in the system of DOMAIN.md (1), each incident as a test that bears its number."""

from __future__ import annotations

import json
from collections import Counter

from jobs.engine.verdict import Exit
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import items_of, judge, visit_until_done


def ids_and_items(bench: BatchBench) -> list[tuple[str, str]]:
    """Every line of every input file the provider was given: its id, and the row it is about."""
    return [pair for batch in bench.fake.batches.batches.values() for pair in items_of(bench, batch).items()]


async def test_incident_1_no_id_and_no_row_stands_in_two_files(batch_bench: BatchBench) -> None:
    """Six files were refused for duplicate ids, after paging had repeated rows: ids are unique by construction.

    Rows are edited, added and deleted between the visits, and the filter shrinks all the time."""
    await batch_bench.fill(60)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit(requests_most=9, enqueued_limit=10**9)
    await batch_bench.fill(10, prefix="a")
    await batch_bench.database.run("update videos set title = title || '!' where id like '%%5'")
    await batch_bench.database.run("delete from videos where id like 'v%%7'")
    verdicts = await visit_until_done(batch_bench, requests_most=9, tail_live=0, enqueued_limit=10**9)
    pairs = ids_and_items(batch_bench)
    assert len(pairs) >= 50
    assert len({custom_id for custom_id, _ in pairs}) == len(pairs)
    edited = {item for item, times in Counter(item for _, item in pairs).items() if times > 1}
    assert all(item.endswith("5") for item in edited), "only a row whose text changed may be asked about again"
    assert {batch.status for batch in batch_bench.fake.batches.batches.values()} == {"completed"}
    assert all(verdict.books.balance() for verdict in verdicts)


async def test_incident_2_a_full_queue_is_waited_for(batch_bench: BatchBench) -> None:
    """Enqueued token limit reached: at most one batch is refused for it, no row is lost, none is paid twice.

    Each file alone nearly fills the limit, and only what is validating counts."""
    await batch_bench.fill(120)
    batch_bench.fake.batches.configure(enqueued_limit=2_500, validating_s=40.0, working_s=80.0)
    verdicts = await visit_until_done(batch_bench, watch=True)
    batches = list(batch_bench.fake.batches.batches.values())
    refused = [batch for batch in batches if batch.status == "failed"]
    assert len(refused) <= 1
    assert len(batches) > 5
    assert batch_bench.fake.batches.enqueued_peak <= 2_500
    assert all((await batch_bench.cells()).values())
    assert (await judge(batch_bench, verdicts)).broken() == {}


async def test_incident_2_a_queue_that_counts_what_is_in_progress_too(batch_bench: BatchBench) -> None:
    """The other way of counting is learned from that one refusal, and remembered by the next run."""
    await batch_bench.fill(60)
    world = batch_bench.fake.batches
    world.configure(enqueued_limit=2_500, counts_in_progress=True, validating_s=40.0, working_s=80.0)
    await visit_until_done(batch_bench, watch=True)
    await batch_bench.fill(60, prefix="w")
    await visit_until_done(batch_bench, watch=True)
    assert len([batch for batch in world.batches.values() if batch.status == "failed"]) == 1
    assert all((await batch_bench.cells()).values())
    assert set(batch_bench.paid().values()) == {1}


async def test_incident_2_other_peoples_batches_take_room_too(batch_bench: BatchBench) -> None:
    """They are seen through the list: nothing is handed in where it would be refused, and the visit says why."""
    await batch_bench.fill(50)
    batch_bench.fake.batches.configure(enqueued_limit=20_000)
    stranger = batch_bench.fake.batches.add_foreign(18_000)
    other = batch_bench.fake.batches.add_foreign(1_000)
    first = await batch_bench.visit(enqueued_limit=20_000)
    assert (first.exit, first.books.wrote, batch_bench.fake.batches.calls.get("create", 0)) == (Exit.DONE, 0, 0)
    assert "wait for room" in first.headline
    stranger.status = other.status = "completed"
    assert (await batch_bench.visit(enqueued_limit=20_000)).books.wrote == 50


async def test_incident_11_a_row_that_is_out_is_handed_in_by_nobody_else(batch_bench: BatchBench) -> None:
    """26,000 rows were in two batches at once: a row in an open batch is no candidate, for batches or the live road."""
    await batch_bench.fill(40)
    batch_bench.fake.batches.configure(working_s=3_600.0)
    await batch_bench.visit()
    out = await batch_bench.out()
    assert len(out) == 39
    live = await batch_bench.run()
    assert (live.exit, live.books.selected, live.calls) == (Exit.DONE, 0, 0)
    again = await batch_bench.visit(fresh=True)
    assert (again.exit, again.books.wrote) == (Exit.DONE, 0)
    assert batch_bench.fake.batches.calls["create"] == 1
    assert [json.loads(key) for _, _, key, _ in await batch_bench.out()] == [json.loads(key) for _, _, key, _ in out]
    batch_bench.fake.batches.advance(4_000.0)
    assert (await batch_bench.visit()).books.wrote == 39
    assert set(batch_bench.paid().values()) == {1}
