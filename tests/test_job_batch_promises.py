"""submit-batch over days and by several hands: what is missing for a while, given up, limited, sliced, tidied away."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.batching import collecting
from jobs.batching.options import at_batch_price
from jobs.engine.verdict import Exit
from queries.openai_batches import OpenAIBatches
from queries.postgrest import PostgrestRoad
from queries.prices import load_price
from queries.table import Slice
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import judge
from tests.servers.bench import KEY, VIDEOS
from tests.servers.fake_batch_lies import Lie
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import Fault, StartFaultProxy
from tests.servers.impaired import Impaired
from tests.servers.lite import StartPostgrest
from tests.servers.shell import Shell

FULL = '{"error":{"code":"token_limit_exceeded","message":"Enqueued token limit reached. Limit: 9,000,000"}}'


def paid_once(bench: BatchBench) -> bool:
    return set(bench.paid().values()) == {1}


async def test_b10_a_file_that_is_missing_for_hours_is_waited_for_and_never_paid_again(batch_bench: BatchBench) -> None:
    """404 for a fresh file may pass: nothing is named, put back or sent again; and when it is there, all is written."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.script({"lie": {"content": "gone"}})
    for hours in (0.0, 12.0):
        await batch_bench.age(hours)
        early = await batch_bench.visit(tail_live=0)
        assert (early.exit, early.books.failed.total(), early.books.to_do) == (Exit.DONE, 0, 19)
        assert any("does not have its results at this moment" in note for note in early.notes)
    for file in batch_bench.fake.batches.files.values():
        file.lie = Lie()
    assert (await batch_bench.visit(tail_live=0)).books.wrote == 19
    assert paid_once(batch_bench)


async def test_b10_errors_that_are_lost_are_no_lost_results(batch_bench: BatchBench) -> None:
    """Nothing in the error file was paid: after the wait its rows go again, and nobody is told that they are lost."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": {"status_zero": 0.5}})
    world = batch_bench.fake.batches
    world.configure(working_s=600.0)
    await batch_bench.visit(tail_live=0)
    world.advance(700.0)
    (batch,) = world.batches.values()
    world.files[str(batch.error_file_id)].lie = Lie(content="gone")
    early = await batch_bench.visit(tail_live=0)
    assert (len(world.batches), early.books.to_do) == (1, 19 - early.books.wrote)
    await batch_bench.age(25.0)
    late = await batch_bench.visit(tail_live=0)
    assert (len(world.batches), late.books.failed.total()) == (2, 0)
    world.advance(700.0)
    await batch_bench.visit(tail_live=0)
    assert all((await batch_bench.cells()).values())
    assert paid_once(batch_bench)


async def test_b10_results_that_are_done_as_it_says_and_in_no_named_file_are_waited_for(
    batch_bench: BatchBench,
) -> None:
    """Completed, 19 of 19, and no file yet: nothing goes again before a day has passed."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit(tail_live=0)
    batch_bench.fake.batches.advance(700.0)
    (batch,) = batch_bench.fake.batches.batches.values()
    named, batch.output_file_id = batch.output_file_id, None
    early = await batch_bench.visit(tail_live=0)
    assert (early.books.wrote, early.books.to_do, len(batch_bench.fake.batches.batches)) == (0, 19, 1)
    batch.output_file_id = named
    assert (await batch_bench.visit(tail_live=0)).books.wrote == 19
    assert paid_once(batch_bench)


async def test_b11_lines_without_money_keep_no_paid_line_in_the_file(
    batch_bench: BatchBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are read at once, and first: every paid line behind them is stored before the run stops."""
    monkeypatch.setattr(collecting, "_ROWS_AT_ONCE", 4)
    await batch_bench.fill(30)
    batch_bench.fake.script(rule("quota", on={"item": "^v0000(0[2-9]|10)$"}))
    verdict = await batch_bench.visit(tail_live=0)
    assert (verdict.exit, verdict.books.wrote, verdict.books.failed.total()) == (Exit.STOPPED, 21, 0), verdict
    assert (await batch_bench.chunks())[0]["books"] == {"wrote": 20, "resubmitted: refused": 9}


async def test_a_limit_counts_what_is_out(batch_bench: BatchBench) -> None:
    """Cron with --limit 10 hands in ten rows, however often it comes while they are at the provider."""
    await batch_bench.fill(40)
    batch_bench.fake.batches.configure(working_s=10_000.0)
    for _ in range(3):
        assert (await batch_bench.visit(limit=10, tail_live=0)).exit is Exit.DONE
    assert sum(chunk["requests"] for chunk in await batch_bench.chunks()) == 9, "and the canary"


async def test_only_collecting_is_no_look_at_the_rows(batch_bench: BatchBench) -> None:
    """Rows are pending, no batch is out, and `batches collect` reads none of them: exit 0, nothing is handed in."""
    await batch_bench.fill(40)
    verdict = await batch_bench.visit(collect_only=True)
    assert (verdict.exit, batch_bench.fake.world.requests) == (Exit.DONE, 0), verdict.headline


async def test_b2_a_create_refused_for_room_is_not_repeated_after_a_kill(
    batch_bench: BatchBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> None:
    """Its rows are back and the process died before it could close the file: they go with the next one only."""
    await batch_bench.fill(20)
    server = await start_postgrest(batch_bench.database)
    database = await start_fault_proxy(server.url)
    provider = await start_fault_proxy(batch_bench.fake.url.removesuffix("/v1"))
    provider.inject(Fault("/v1/batches", "answer", status=429, body=FULL))
    database.inject(Fault("rpc/catchup_close_chunk", "reset", times=10_000))
    first = await batch_bench.visit(
        road=PostgrestRoad(database.url, server.secret_key),
        batches=OpenAIBatches(KEY, f"{provider.url}/v1"),
        max_outage_s=5.0,
        tail_live=0,
    )
    assert first.exit in (Exit.STOPPED, Exit.BREAKER), first
    assert [state for *_, state in await batch_bench.out()] == ["back"] * 19
    database.clear()
    verdict = await batch_bench.visit(road=PostgrestRoad(database.url, server.secret_key), tail_live=0)
    assert (await judge(batch_bench, [verdict])).broken() == {}
    assert paid_once(batch_bench)


async def test_a_batch_belongs_to_the_place_it_was_handed_in_at(
    batch_bench: BatchBench, start_fault_proxy: StartFaultProxy
) -> None:
    """Another OPENAI_BASE_URL knows nothing of it: exit 10 names both, and nothing is asked there."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit()
    calls = batch_bench.fake.world.requests
    elsewhere = await batch_bench.visit(place="http://127.0.0.1:9/v1")
    assert (elsewhere.exit, batch_bench.fake.world.requests) == (Exit.REFUSED, calls)
    assert "127.0.0.1:9" in elsewhere.headline
    batch_bench.fake.batches.advance(700.0)
    assert (await batch_bench.visit()).books.wrote == 19


async def test_rows_that_came_back_to_one_slice_are_left_there_by_the_other(
    batch_bench: BatchBench, tmp_path: Path
) -> None:
    """Two hosts, half of the keys each: neither sends nor forgets what came back to its neighbour."""
    await batch_bench.fill(40)
    world = batch_bench.fake.batches
    world.configure(working_s=600.0)
    world.script({"match": {"nth": 1}, "lie": {"ends": "expired", "share": 0.0}})
    upper, lower = Slice(above=("v000020",)), Slice(upto=("v000020",))
    await batch_bench.visit(slice=upper, tail_live=0)
    world.advance(100_000.0)
    await batch_bench.visit(slice=upper, tail_live=0, collect_only=True)
    assert [state for *_, state in await batch_bench.out()] == ["back"] * 19
    await batch_bench.visit(slice=lower, tail_live=0, state_dir=tmp_path / "other")
    assert [state for *_, state in await batch_bench.out()].count("back") == 19
    await batch_bench.visit(slice=upper, tail_live=0)
    world.advance(1_000.0)
    ends = [
        await batch_bench.visit(slice=upper, tail_live=0),
        await batch_bench.visit(slice=lower, tail_live=0, state_dir=tmp_path / "other"),
    ]
    assert [end.exit for end in ends] == [Exit.DONE, Exit.DONE]
    assert all((await batch_bench.cells()).values())
    assert paid_once(batch_bench)


async def test_a_result_file_that_was_damaged_here_is_asked_for_again(
    batch_bench: BatchBench, impaired: Impaired
) -> None:
    """Killed before the import, and half of the local file is lost: its hash says so, and nothing is paid again."""
    await batch_bench.fill(20)
    ended = await replace(impaired, job="submit-batch").run("", CATCHUP_FAULTS="batch.fetched:1:kill")
    assert ended.code == -9, ended.out + ended.err
    (path,) = (batch_bench.state_dir / "batches").glob("*.output.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    verdict = await batch_bench.visit(tail_live=0)
    assert (verdict.books.wrote, verdict.books.failed.total()) == (19, 0)
    assert paid_once(batch_bench)


async def test_b9_giving_up_a_batch_whose_id_was_lost_stops_it_at_the_provider(
    wired: Shell, batch_bench: BatchBench, impaired: Impaired
) -> None:
    """Killed before the id was saved: `cancel --abandon` finds it by what stands on it; an empty name is no batch."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=10_000.0)
    await replace(impaired, job="submit-batch").run("", CATCHUP_FAULTS="batch.created:1:kill")
    (chunk,) = await batch_bench.chunks()
    assert chunk["batch_id"] == ""
    await batch_bench.database.run("update catchup.leases set expires_at = now()")
    assert (await wired.run("batches", "cancel", "", "--abandon")).code == 10
    ended = await wired.run("batches", "cancel", chunk["chunk"], "--abandon")
    assert (ended.code, "cancelled" in ended.out, "19 rows go again" in ended.out) == (0, True, True), ended
    assert [batch.status for batch in batch_bench.fake.batches.batches.values()] == ["cancelled"]
    await batch_bench.visit(tail_live=0)
    assert [batch.status for batch in batch_bench.fake.batches.batches.values()] == ["cancelled", "in_progress"]
    assert [state for *_, state in await batch_bench.out()] == ["out"] * 19, "the very next visit hands them in again"


async def test_a_batch_that_was_not_made_yet_is_given_up_with_its_file(
    wired: Shell, batch_bench: BatchBench, impaired: Impaired
) -> None:
    """Nothing was asked for: the uploaded file goes, and no money stays booked."""
    await batch_bench.fill(20)
    await replace(impaired, job="submit-batch").run("", CATCHUP_FAULTS="batch.uploaded:1:kill")
    await batch_bench.database.run("update catchup.leases set expires_at = now()")
    (chunk,) = await batch_bench.chunks()
    waits = await wired.run("batches", "cancel", chunk["chunk"])
    assert "hands it in, unless --abandon" in waits.out, waits
    ended = await wired.run("batches", "cancel", chunk["chunk"], "--abandon")
    assert (ended.code, "possibly" in ended.out) == (0, False), ended
    assert [file.purpose for file in batch_bench.fake.batches.files.values()] == []
    money = await batch_bench.database.run("select sum(possibly_usd)::float8 from catchup.runs")
    assert money[0][0] == pytest.approx(0.0, abs=1e-9)


async def test_what_a_batch_holds_is_its_worst_case_and_no_more(batch_bench: BatchBench) -> None:
    """Tokens in as counted, tokens out as allowed: no row waits for money that nobody asks."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=600.0)
    await batch_bench.visit()
    (chunk,) = await batch_bench.chunks()
    worst = at_batch_price(load_price(VIDEOS.model)).worst_usd(chunk["tokens"], 19 * VIDEOS.max_completion_tokens)
    assert chunk["reserved_usd"] == pytest.approx(worst)


async def test_prune_takes_old_result_files_and_leaves_what_is_out(wired: Shell, batch_bench: BatchBench) -> None:
    """Texts stay no longer than an operator wants; a batch that is open keeps its rows, its file and its name."""
    await batch_bench.fill(20)
    assert (await batch_bench.visit(tail_live=0)).exit is Exit.DONE
    await batch_bench.fill(10, prefix="w")
    batch_bench.fake.batches.configure(working_s=10_000.0)
    await batch_bench.visit(tail_live=0)
    folder = batch_bench.state_dir / "batches"
    for path in folder.iterdir():
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    await batch_bench.age(40 * 24)
    before = {path.name for path in folder.iterdir()}
    ended = await wired.run("runs", "prune", "--older-than-days", "30", "--json")
    assert (ended.code, '"batches": 1' in ended.out, '"result files": 1' in ended.out) == (0, True, True), ended
    after = {path.name for path in folder.iterdir()}
    (left,) = await batch_bench.chunks()
    assert (left["is_open"], after, len(before - after)) == (True, {f"{left['chunk']}.jsonl"}, 1)
    assert len(await batch_bench.out()) == 9


async def test_a_write_looks_for_its_rows_by_index_however_many_are_out(batch_bench: BatchBench) -> None:
    """178,000 rows of another target may be out: no write of this one walks over them."""
    await batch_bench.fill(6)
    await batch_bench.database.run(
        "insert into catchup.batches (chunk, run_id, target, fingerprint, model, place, endpoint, requests, tokens, "
        "size_bytes, sha256) values ('o-1', 'o', 'other', 'f', 'm', 'p', 'e', 20000, 1, 1, '')"
    )
    await batch_bench.database.run(
        "insert into catchup.batch_rows (chunk, n, target, key, guard) select 'o-1', n, 'other', '[\"k' || n || '\"]', "
        "gen_random_uuid() from generate_series(1, 20000) n"
    )
    await batch_bench.database.run("analyze catchup.batch_rows")
    scans = "select seq_scan from pg_stat_user_tables where relid = 'catchup.batch_rows'::regclass"
    before = await batch_bench.database.run(scans)
    await batch_bench.run()
    assert await batch_bench.database.run(scans) == before
