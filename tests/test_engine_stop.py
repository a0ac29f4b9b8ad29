"""Stopping: after the first word nothing new is paid, and the books still balance."""

from __future__ import annotations

import asyncio

import pytest

from jobs.engine.verdict import Exit
from tests.servers.bench import Bench, sums


@pytest.mark.parametrize("after", [1, 7, 30, 90])
async def test_after_the_first_signal_no_paid_request_starts(bench: Bench, after: int) -> None:
    """What is out may come back; everything else is still to do, and the sum is what was selected."""
    bench.fake.configure(latency=0.05)
    await bench.fill(300)

    async def signal() -> int:
        while bench.fake.world.requests < after:
            await asyncio.sleep(0.001)
        assert bench.running is not None
        assert bench.running.session is not None
        bench.running.ask_stop(Exit.SIGINT, "interrupted")
        return bench.running.session.settling.tally.calls

    verdict, sent_then = await asyncio.gather(bench.run(), signal())
    assert verdict.exit is Exit.SIGINT
    assert bench.fake.world.requests == verdict.calls == sent_then
    assert verdict.books.balance()
    assert sum(1 for text in (await bench.cells()).values() if text) == verdict.books.wrote == bench.fake.world.requests
    assert (await bench.run()).books.wrote == 300 - verdict.books.wrote
    assert set(bench.paid().values()) == {1}


async def test_calls_that_do_not_come_back_within_the_grace_are_booked_as_possibly_billed(bench: Bench) -> None:
    """An abandoned call may cost money: the ledger says so."""
    await bench.fill(2_000)

    async def signal() -> None:
        while bench.fake.world.requests < 5:
            await asyncio.sleep(0.001)
        bench.fake.configure(latency=30.0)
        while bench.fake.world.open < 5:
            await asyncio.sleep(0.01)
        assert bench.running is not None
        bench.running.ask_stop(Exit.SIGTERM, "terminated")

    started = asyncio.get_running_loop().time()
    verdict, _ = await asyncio.gather(bench.run(grace_s=0.3, concurrency=5, timeout_s=60.0), signal())
    assert asyncio.get_running_loop().time() - started < 7
    assert verdict.exit is Exit.SIGTERM
    assert verdict.money.possibly_usd > 0
    assert sum(sums(verdict)) == verdict.books.selected


async def test_the_runtime_limit_stops_by_itself_and_says_there_is_more(bench: Bench) -> None:
    """Cron's hard end never comes as a surprise: exit 4, resumable."""
    bench.fake.configure(latency=0.2)
    await bench.fill(400)
    verdict = await bench.run(max_runtime_s=1.0, concurrency=8)
    assert (verdict.exit, verdict.books.balance()) == (Exit.STOPPED, True)
    assert verdict.next_command == "catchup backfill-summaries"
    bench.fake.configure(latency=0.0)
    assert (await bench.run()).exit is Exit.DONE
    assert set(bench.paid().values()) == {1}


async def test_a_stopped_run_keeps_which_rows_are_done_but_none_of_their_texts(bench: Bench) -> None:
    """The journal holds answers only as long as somebody may need them."""
    bench.fake.configure(latency=0.1)
    await bench.fill(400)
    verdict = await bench.run(max_runtime_s=0.8, concurrency=8)
    assert verdict.exit is Exit.STOPPED
    kept = b"".join(path.read_bytes() for path in (bench.state_dir / "journals").iterdir())
    done = [key for key, text in (await bench.cells()).items() if text]
    assert all(key.encode() in kept for key in done)
    assert not any(text and text.encode()[:30] in kept for text in (await bench.cells()).values())
    assert (await bench.run()).exit is Exit.DONE
    assert list((bench.state_dir / "journals").iterdir()) == []


async def test_what_could_not_be_stored_in_time_is_said_and_costs_nothing_later(bench: Bench) -> None:
    """Ctrl-C while the database is locked: the verdict names the rows that wait, the next run stores them unpaid."""
    bench.fake.configure(latency=0.01)
    await bench.fill(300)

    async def lock_and_signal() -> None:
        while bench.fake.world.requests < 30:
            await asyncio.sleep(0.001)
        async with await bench.database.connect() as connection, connection.transaction():
            await connection.execute("lock table videos in exclusive mode")
            await asyncio.sleep(0.2)
            assert bench.running is not None
            bench.running.ask_stop(Exit.SIGINT, "interrupted")
            await asyncio.sleep(2.5)

    verdict, _ = await asyncio.gather(bench.run(concurrency=8), lock_and_signal())
    assert verdict.exit is Exit.SIGINT
    assert verdict.in_journal > 0
    assert f"{verdict.in_journal} finished rows wait in the journal" in verdict.notes[-1]
    assert verdict.books.balance()
    again = await bench.run()
    assert (again.exit, again.recovered) == (Exit.DONE, verdict.in_journal)
    assert set(bench.paid().values()) == {1}


async def test_a_limit_counts_over_the_sessions_of_one_run(bench: Bench) -> None:
    """--limit 60, interrupted, the same command again: sixty rows in all."""
    bench.fake.configure(latency=0.05)
    await bench.fill(300)
    first = await bench.run(limit=60, max_runtime_s=0.5, concurrency=4)
    assert first.exit is Exit.STOPPED
    second = await bench.run(limit=60)
    assert (second.exit, first.books.wrote + second.books.wrote) == (Exit.DONE, 60)


async def test_a_limit_that_the_stopped_run_has_passed_is_not_silently_nothing(bench: Bench) -> None:
    """A smaller --limit ends that run and says so; the same command again does as many as it says."""
    bench.fake.configure(latency=0.05)
    await bench.fill(300)
    first = await bench.run(max_runtime_s=0.5, concurrency=4)
    assert (first.exit, first.books.wrote > 2) == (Exit.STOPPED, True)
    second = await bench.run(limit=2)
    assert (second.exit, second.books.wrote, second.pending_beyond) == (Exit.DONE, 0, True)
    assert any("the same command begins another" in note for note in second.notes)
    third = await bench.run(limit=2)
    assert (third.exit, third.books.wrote) == (Exit.DONE, 2)
