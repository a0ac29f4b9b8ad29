"""vectorize when time, the network, a signal or the screen play tricks: F3, F9 to F13 of the fault matrix."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from jobs.engine import lease
from jobs.engine.verdict import Exit
from queries.ledger import Ceilings
from queries.pinecone_space import PineconeSpace
from queries.postgrest import PostgrestRoad
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import Fault, StartFaultProxy
from tests.servers.impaired import Impaired
from tests.servers.lite import StartPostgrest
from tests.servers.vector_bench import IN_TENS, PINECONE_KEY, VectorBench, until
from tests.servers.virtual_clock import FastClock
from tests.test_job_summaries_texts import MEMORY_MOST_MB, SAY_PEAK, StaleRoad
from tests.test_job_summaries_time import MAD_CLOCK, JumpingClock

SMALL_PACKS = (
    "from jobs import vectorize; from jobs.engine.job import Packing\n"
    "vectorize.JOB = vectorize.Vectorize(packing=Packing(5, 240_000))\n"
)


@pytest.mark.parametrize("after", [2, 6, 15])
async def test_f3_after_a_signal_no_text_is_sent_and_what_is_paid_is_stored(vectors: VectorBench, after: int) -> None:
    """What is out may come back, is put and marked; the rest is still to do, and the sum is what was selected."""
    vectors.fake.configure(latency=0.1)
    await vectors.fill(400)

    async def stop() -> int:
        await until(lambda: vectors.fake.world.requests >= after)
        assert vectors.running is not None
        assert vectors.running.session is not None
        vectors.running.ask_stop(Exit.SIGINT, "interrupted")
        return vectors.running.session.settling.tally.calls

    verdict, sent_then = await asyncio.gather(vectors.run(job=IN_TENS, concurrency=3), stop())
    assert verdict.exit is Exit.SIGINT
    assert vectors.fake.world.requests == verdict.calls == sent_then
    assert verdict.books.wrote == len(vectors.embedded()) == len(await vectors.flagged())
    await vectors.check()
    assert (await vectors.run()).books.wrote == 400 - verdict.books.wrote
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f3_a_signal_while_readers_are_behind_costs_nothing_later(vectors: VectorBench) -> None:
    """Put and not yet seen when the time is up: in the journal, no flag; the next run marks them without paying."""
    await vectors.fill(300)

    async def stop() -> float:
        await until(lambda: vectors.fake.world.requests >= 2)
        vectors.pinecone.configure(lag_s=30.0)
        await until(lambda: vectors.fake.world.requests >= 6)
        assert vectors.running is not None
        vectors.running.ask_stop(Exit.SIGTERM, "terminated")
        return time.monotonic()

    vectors.fake.configure(latency=0.1)
    verdict, asked_at = await asyncio.gather(vectors.run(job=IN_TENS, concurrency=2), stop())
    assert time.monotonic() - asked_at < 7.5
    assert verdict.exit is Exit.SIGTERM
    await vectors.check(complete=False)
    vectors.pinecone.configure(lag_s=0.0)
    vectors.pinecone.settle()
    vectors.fake.configure(latency=0.0)
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str)
async def test_f3_the_command_stopped_by_a_signal_goes_on_with_the_same_words(
    impaired_vectors: Impaired, vectors: VectorBench, number: int, code: int
) -> None:
    """Exit 130 or 143 within seconds; the same command completes, and pays for nothing twice."""
    await vectors.fill(200)
    vectors.fake.configure(latency=0.2)
    child = await impaired_vectors.start(SMALL_PACKS, "--concurrency", "2")
    await until(lambda: vectors.fake.world.requests >= 4)
    child.send_signal(number)
    out, err = await asyncio.wait_for(child.communicate(), 8)
    assert child.returncode == code, out + err
    vectors.fake.configure(latency=0.0)
    ended = await impaired_vectors.run("")
    assert ended.code == 0, ended.out + ended.err
    assert set(vectors.embedded().values()) == {1}
    vectors.calls_of_others = vectors.fake.world.requests
    await vectors.check()


async def test_f3_a_second_signal_ends_vectorize_at_once_and_corrupts_nothing(
    impaired_vectors: Impaired, vectors: VectorBench
) -> None:
    """What was out may have been billed, and is paid again: no more than that."""
    await vectors.fill(60)
    vectors.fake.configure(latency=3.0)
    child = await impaired_vectors.start("")
    await until(lambda: vectors.fake.world.requests >= 1)
    child.send_signal(signal.SIGINT)
    await asyncio.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(child.wait(), 1.5) == 130
    vectors.fake.configure(latency=0.0)
    assert (await impaired_vectors.run("")).code == 0
    vectors.calls_of_others = vectors.fake.world.requests
    await vectors.check()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_f9_a_mad_wall_clock_changes_no_vector(
    impaired_vectors: Impaired, vectors: VectorBench, zone: str
) -> None:
    """±1 day at every look, a ceiling of the day: same vectors, same money."""
    await vectors.fill(30)
    ended = await impaired_vectors.run(MAD_CLOCK, "--max-cost", "1", TZ=zone, CATCHUP_MAX_COST_DAY="1")
    assert ended.code == 0, ended.out + ended.err
    assert set(vectors.embedded().values()) == {1}
    vectors.calls_of_others = vectors.fake.world.requests
    await vectors.check()


async def test_f9_a_days_budget_of_embeddings_does_not_come_back_with_the_clock(vectors: VectorBench) -> None:
    """The clock was ahead when the money was spent; set right, it opens no second budget."""
    await vectors.fill(5)
    await vectors.database.run(
        "insert into catchup.budget values ('day', date_trunc('day', now()) + interval '1 day', 0.5)"
    )
    verdict = await vectors.run(ceilings=Ceilings(day_usd=0.5))
    assert (verdict.exit, verdict.calls) == (Exit.CEILING, 0)


async def test_f9_ninety_seconds_of_sleep_send_no_text_before_the_lease_is_confirmed(
    vectors: VectorBench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silence until a beat is answered; then the rest, and nothing twice."""
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    vectors.fake.configure(latency=0.1)
    await vectors.fill(500)
    server = await start_postgrest(vectors.database)
    proxy = await start_fault_proxy(server.url)
    clock = JumpingClock()

    async def sleep() -> tuple[int, int]:
        await until(lambda: vectors.fake.world.requests >= 8)
        proxy.inject(Fault("catchup_beat", "reset", times=10_000))
        clock.jumped_s = 90.0
        await asyncio.sleep(0.4)
        before = vectors.fake.world.requests
        await asyncio.sleep(0.8)
        after = vectors.fake.world.requests
        proxy.clear()
        return before, after

    road = PostgrestRoad(proxy.url, server.secret_key)
    verdict, (before, after) = await asyncio.gather(
        vectors.run(road=road, job=IN_TENS, clock=clock, concurrency=2, max_outage_s=300.0), sleep()
    )
    assert before == after < 50
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 500), verdict.headline
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize(
    ("redirected", "env"),
    [
        pytest.param("| head -n 1", {}, id="head"),
        pytest.param(">&- 2>&-", {}, id="no output at all"),
        pytest.param("> /dev/full", {}, id="disk full"),
        pytest.param("", {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, id="posix locale"),
    ],
)
async def test_f10_no_screen_keeps_a_vector_from_its_place(
    impaired_vectors: Impaired, vectors: VectorBench, redirected: str, env: dict[str, str]
) -> None:
    """Whatever becomes of the output: the same vectors, and the run's own exit code."""
    await vectors.fill(12)
    await vectors.database.run("update videos set title = E'Ünï→ \\x1b[2J[/b]' || title")
    shell = impaired_vectors.shell
    shell.env |= env
    ended = await shell.run_shell(f"{{ catchup vectorize; echo $? > code; }} {redirected}")
    assert (shell.directory / "code").read_text().strip() == "0", ended
    vectors.calls_of_others = vectors.fake.world.requests
    await vectors.check()


@pytest.mark.parametrize("what", ["provider", "index", "database"])
async def test_f11_five_minutes_without_network_cost_no_vector(
    vectors: VectorBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy, what: str
) -> None:
    """At a hundred times the speed: everything waits, comes back, and is done; not one row is blamed."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(500)
    server = await start_postgrest(vectors.database)
    proxy = await start_fault_proxy(server.url)

    async def unplug() -> None:
        await until(lambda: vectors.fake.world.requests >= 8)
        if what == "database":
            proxy.inject(Fault("/", "reset", times=1_000_000))
        else:
            await (vectors.fake if what == "provider" else vectors.pinecone).__aexit__()
        await asyncio.sleep(300 / FastClock.speed)
        proxy.clear()
        if what != "database":
            await (vectors.fake if what == "provider" else vectors.pinecone).__aenter__()

    road = PostgrestRoad(proxy.url, server.secret_key)
    verdict, _ = await asyncio.gather(
        vectors.run(road=road, job=IN_TENS, clock=FastClock(), concurrency=2, max_outage_s=900.0), unplug()
    )
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.DONE, 500, {}), verdict.headline
    assert sum(vectors.embedded().values()) - 500 <= 2 * 10, "more than was out when the cable was pulled"
    assert await vectors.stored() == await vectors.expected()


async def test_f11_an_index_away_for_longer_than_allowed_is_an_outage_and_is_resumed(vectors: VectorBench) -> None:
    """Exit 4, no row blamed, nothing more paid meanwhile; then the same command goes on from the journal."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(600)

    async def unplug() -> None:
        await until(lambda: vectors.fake.world.requests >= 8)
        await vectors.pinecone.__aexit__()

    verdict, _ = await asyncio.gather(
        vectors.run(job=IN_TENS, clock=FastClock(), concurrency=2, max_outage_s=60.0), unplug()
    )
    assert (verdict.exit, dict(verdict.books.failed)) == (Exit.STOPPED, {}), verdict.headline
    assert len(vectors.embedded()) < 600
    await vectors.pinecone.__aenter__()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f12_provider_sockets_that_hang_are_waited_out_or_noticed(vectors: VectorBench) -> None:
    """Eight requests accepted and never answered, then all is well: every row done, what it may have cost booked."""
    await vectors.fill(200)
    vectors.fake.script(rule("hang", on={"after": 4, "until": 12}))
    verdict = await vectors.run(job=IN_TENS, timeout_s=0.3, clock=FastClock(), max_outage_s=900.0, concurrency=4)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 200), verdict.headline
    assert verdict.money.possibly_usd > 0
    await vectors.check()


async def test_f12_an_index_that_accepts_and_never_answers_is_noticed(vectors: VectorBench) -> None:
    """Upserts hang: the run ends by itself, nothing more is paid, and what was paid is stored later."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(500)
    vectors.pinecone.script(rule("ignore", on={"item": "upsert", "after": 1}))
    space = PineconeSpace(
        PINECONE_KEY,
        index_host=vectors.pinecone.url,
        index=vectors.embedding.index,
        namespace=vectors.embedding.namespace,
        timeout_s=0.3,
    )
    verdict = await vectors.run(space=space, job=IN_TENS, max_outage_s=1.0, concurrency=2)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED), verdict.headline
    assert verdict.books.failed.total() == 0
    await vectors.check(complete=False)
    vectors.pinecone.script()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["run", "dry run"])
async def test_f13_memory_of_vectorize_stays_bounded_whatever_the_rows_weigh(
    impaired_vectors: Impaired, vectors: VectorBench, words: tuple[str, ...]
) -> None:
    """A hundred texts of 200 kB, in pieces of their own: below 400 MB."""
    (impaired_vectors.shell.directory / "catchup.toml").write_text(
        '[targets.summaries]\nchunks = { kind = "fixed", tokens_most = 2000 }\n'
    )
    await vectors.fill(100)
    await vectors.database.run(
        "update videos set llm_summary = llm_summary || repeat(' The crane of the old port lifts ' || id || '.', 4500)"
    )
    ended = await impaired_vectors.run(SAY_PEAK, *words, CATCHUP_DB_LOAD="100%")
    assert ended.code == 0, ended.out + ended.err
    peak_mb = int((impaired_vectors.shell.directory / "peak").read_text()) / 1024
    print(f"peak {peak_mb:.0f} MB over 20 MB of text")
    assert peak_mb < MEMORY_MOST_MB
    assert len(await vectors.stored()) == (0 if words else sum(vectors.embedded().values()))


async def test_f24_a_stale_replica_embeds_no_text_twice(vectors: VectorBench) -> None:
    """Pages come from a copy that sees none of our flags: each row is paid once and marked once."""
    await vectors.fill(150)
    copy = f"{vectors.database.name}_replica"
    vectors.database.server.run(f"create database {copy} template {vectors.database.name}")
    try:
        road = StaleRoad(vectors.database.dsn, vectors.database.server.dsn(copy))
        verdict = await vectors.run(road=road, job=IN_TENS)
    finally:
        vectors.database.server.run(f"drop database {copy} with (force)")
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()
