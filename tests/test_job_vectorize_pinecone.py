"""vectorize when the place for the vectors misbehaves: the rows of the fault matrix that Pinecone causes, P1 to P8."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from typing import Any

import pytest

from jobs.embedding import Embedding
from jobs.engine.verdict import Exit
from queries.pinecone_space import PineconeSpace
from queries.table import Key
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_pinecone_world import Refused
from tests.servers.fake_script import rule
from tests.servers.vector_bench import IN_TENS, PINECONE_KEY, VectorBench, until
from tests.servers.virtual_clock import FastClock

UPSERT = {"item": "upsert"}
POISON = "Metadata value must be a string, number, boolean or list of strings, got '{}' for field 'title'"


class Twins(Embedding):
    """Two rows have one id, as in a journal of before ids were made distinct."""

    def id_of(self, key: Key, number: int) -> str:
        return super().id_of(("v000011",) if key == ("v000012",) else key, number)


@pytest.fixture(params=["grpc", "rest"])
async def each_road(request: Any, fake_pinecone: FakePinecone) -> AsyncIterator[None]:
    """Upserts over gRPC, and over REST where the index speaks no gRPC."""
    fake_pinecone.configure(grpc="on" if request.param == "grpc" else "off")
    yield
    assert (fake_pinecone.grpc_upserts > 0) == (request.param == "grpc")


by_each_road = pytest.mark.usefixtures("each_road")


def with_embedding(vectors: VectorBench, **changes: Any) -> None:
    vectors.target = replace(vectors.target, embedding=replace(vectors.embedding, **changes))


@by_each_road
@pytest.mark.parametrize(
    "fault",
    [
        rule("throttle", on={**UPSERT, "every": 2}),
        rule("status", on={**UPSERT, "every": 2}, status=503, body="<html>busy</html>"),
        rule("status", on={**UPSERT, "nth": [2, 3, 4]}, status=502, body="<html>"),
        rule("reset", on={**UPSERT, "every": 3}),
        rule("reset_before", on={**UPSERT, "every": 3}),
        rule("half_body", on={**UPSERT, "every": 3}),
        rule("malformed", on={**UPSERT, "every": 3}),
        rule("malformed", on={**UPSERT, "every": 3}, body="<html>ok</html>"),
        rule("partial", on={**UPSERT, "nth": [2, 3]}, short=3),
        rule("status", on={"item": "fetch|query", "every": 2}, status=500, body="oops"),
        rule("malformed", on={"item": "fetch|query", "every": 3}),
        rule("reset", on={"item": "stats", "nth": 1}),
    ],
    ids=[
        "P1-429", "503", "502-in-a-row", "reset-after", "reset-before", "half", "cut-json", "html-200", "P2-short",
        "look-500", "look-cut", "stats-reset",
    ],
)  # fmt: skip
async def test_f40_a_passing_fault_of_the_index_costs_nothing_but_time(
    vectors: VectorBench, fault: dict[str, Any]
) -> None:
    """Every vector is there, seen and marked; each text paid once; count sent is count taken, or it did not happen."""
    await vectors.fill(400)
    vectors.pinecone.script(fault)
    verdict = await vectors.run(job=IN_TENS, clock=FastClock(), max_outage_s=900.0)
    assert (verdict.exit, verdict.books.wrote, verdict.money.possibly_usd) == (Exit.DONE, 400, 0.0), verdict
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@by_each_road
async def test_g14_a_wait_the_index_asks_for_is_never_shortened(
    vectors: VectorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured at the server: between a 429 and the next upsert lie the two seconds it asked for."""
    arrived: list[float] = []
    take = FakePinecone._store

    def note(*request: Any) -> Any:
        arrived.append(time.monotonic())
        return take(*request)

    monkeypatch.setattr(FakePinecone, "_store", note)
    await vectors.fill(30)
    vectors.pinecone.script(rule("throttle", on={**UPSERT, "nth": 2}, retry_after=2))
    verdict = await vectors.run(max_outage_s=1.0)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 30), verdict.headline
    assert arrived[1] - arrived[0] >= 2.0
    await vectors.check()


@by_each_road
@pytest.mark.parametrize(
    ("fault", "exit_"),
    [
        (rule("status", on={**UPSERT, "after": 1}, status=401, body="Invalid API Key"), Exit.REFUSED),
        (rule("status", on={**UPSERT, "after": 1}, status=403, body="Forbidden"), Exit.REFUSED),
        (rule("month", on={**UPSERT, "after": 1}), Exit.STOPPED),
        (rule("status", on={"item": "upsert|fetch|query", "after": 1}, status=503, body="<html>"), Exit.BREAKER),
        (rule("reset_before", on={"item": "upsert|fetch|query", "after": 2}), Exit.BREAKER),
        (rule("throttle", on={**UPSERT, "after": 1}, retry_after=1), Exit.BREAKER),
    ],
    ids=["401-all", "403-all", "P1-month", "503-all", "reset-all", "429-for-ever"],
)
async def test_f40_an_index_that_refuses_from_now_on_stops_the_run_and_loses_no_paid_vector(
    vectors: VectorBench, fault: dict[str, Any], exit_: Exit
) -> None:
    """No row is blamed and no further text is paid for; the next run stores what is in the journal, unpaid."""
    vectors.fake.configure(latency=0.05)
    await vectors.fill(800)
    vectors.pinecone.script(fault)
    verdict = await vectors.run(job=IN_TENS, max_outage_s=1.0, concurrency=2)
    assert (verdict.exit, verdict.books.failed.total()) == (exit_, 0), verdict.headline
    assert 0 < verdict.books.wrote < 200
    assert verdict.in_journal > 0
    paid = dict(vectors.embedded())
    assert len(paid) < 400
    await vectors.check(complete=False)
    vectors.pinecone.script()
    again = await vectors.run()
    assert (again.exit, again.recovered) == (Exit.DONE, verdict.in_journal), again.headline
    assert set(vectors.embedded().values()) == {1}
    assert len(await vectors.stored()) == 800
    await vectors.check()


async def test_f22_a_pinecone_key_revoked_before_the_run_costs_nothing(vectors: VectorBench) -> None:
    """Exit 10 in preflight, and the key is in no word of it though the service repeats it."""
    await vectors.fill(20)
    vectors.pinecone.configure(key="pcsk_another_one")
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0)
    assert "PINECONE_API_KEY" in verdict.fix
    await vectors.check()


@pytest.mark.parametrize("status", [302, 307])
async def test_f26_an_index_that_redirects_is_refused_and_the_key_follows_nowhere(
    vectors: VectorBench, status: int
) -> None:
    """Not one request reaches the other host."""
    await vectors.fill(20)
    vectors.pinecone.script(rule("redirect", location=f"{vectors.fake.url}/steal", status=status))
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0), verdict.headline
    await vectors.check()


async def test_f41_an_index_of_the_wrong_dimension_is_refused_unpaid(vectors: VectorBench) -> None:
    """P5: 1,536 there, 512 here: both numbers are said, nothing is embedded and nothing stored."""
    await vectors.fill(20)
    vectors.pinecone.configure(dimension=1536)
    vectors.pinecone.reset()
    vectors.pinecone.space(vectors.embedding.namespace)
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0)
    assert "1536" in verdict.headline
    assert "512" in verdict.headline
    assert vectors.pinecone.requests["upsert"] == 0
    await vectors.check()


async def test_f41_a_mistyped_namespace_is_refused_and_not_created(vectors: VectorBench) -> None:
    """P6: an upsert would make it; --create-namespace is how that is meant."""
    await vectors.fill(20)
    with_embedding(vectors, namespace="llm-sumaries")
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0)
    assert "--create-namespace" in verdict.fix
    assert "llm-sumaries" not in vectors.pinecone.indexes[vectors.embedding.index].namespaces
    assert (await vectors.run(dry_run=True)).exit is Exit.REFUSED
    assert (await vectors.run(create_namespace=True)).books.wrote == 20
    await vectors.check()


async def test_f41_a_mistyped_index_is_refused_unpaid(vectors: VectorBench) -> None:
    """404 of the control plane: exit 10, the name, and no index made."""
    await vectors.fill(20)
    given = {"index_host": None, "index": "youtube-titels", "namespace": "llm-summaries"}
    space = PineconeSpace(PINECONE_KEY, **given, controller_host=vectors.pinecone.url)  # type: ignore[arg-type]
    verdict = await vectors.run(space=space)
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, 0), verdict.headline
    assert "youtube-titels" in verdict.headline
    assert vectors.pinecone.requests["create_index"] == 0


async def test_f41_ids_of_another_scheme_are_refused_unpaid(vectors: VectorBench) -> None:
    """DECISIONS 30: 176,929 vectors under somebody's own scheme; ours beside them would be all of them again."""
    await vectors.fill(20)
    assert (await vectors.run(limit=5)).books.wrote == 5
    with_embedding(vectors, vector_id="video:{key}")
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.embed_calls) == (Exit.REFUSED, 2), verdict.headline
    assert "another scheme" in verdict.headline


async def test_f41_quoted_ids_in_a_place_the_ledger_does_not_know_are_ours(vectors: VectorBench) -> None:
    """A table of keys that are no ASCII: the row is found by what was quoted, and the place is taken over."""
    for key in ("é/ü", "日本"):
        await vectors.database.run(
            "insert into videos (id, title, channel_id, llm_summary) values (%s, 't', 'c', %s)",
            [key, f"[[item:{key}]] a talk about the cranes of the harbour"],
        )
    assert (await vectors.run()).books.wrote == 2
    await vectors.database.run("delete from catchup.places")
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls) == (Exit.DONE, 0), verdict.headline
    await vectors.check()


async def test_f41_another_model_in_the_same_namespace_is_refused_unpaid(vectors: VectorBench) -> None:
    """The model belongs to the namespace, whatever its length."""
    await vectors.fill(20)
    await vectors.run(limit=5)
    calls = vectors.fake.world.requests
    verdict = await vectors.run(target=replace(vectors.target, model="text-embedding-3-large"))
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, calls), verdict.headline
    assert "text-embedding-3-small" in verdict.headline


@pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry"])
async def test_f41_a_place_of_another_target_is_refused_unpaid(vectors: VectorBench, dry_run: bool) -> None:
    """Of one model too: both would write the same ids, and each would call the other's vectors its own."""
    await vectors.fill(20)
    await vectors.run(limit=5)
    calls, stored = vectors.fake.world.requests, await vectors.stored()
    other = replace(vectors.target, name="other")
    await vectors.database.migrate([vectors.target, other])
    verdict = await vectors.run(target=other, dry_run=dry_run)
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, calls), verdict.headline
    assert f"is for vectors of target {vectors.target.name}" in verdict.headline
    assert await vectors.stored() == stored
    assert (await vectors.run()).books.wrote == 15
    await vectors.check()


async def test_f41_a_place_that_is_ours_stays_so_when_its_lowest_rows_are_deleted(vectors: VectorBench) -> None:
    """All ids of the sample are of deleted rows, but of our form; a place that nobody claimed would be refused."""
    await vectors.fill(300)
    assert (await vectors.run(limit=200)).books.wrote == 200
    stray = {f"v{n:06}" for n in range(1, 151)}
    await vectors.database.run("delete from videos where id <= 'v000150'")
    assert (await vectors.run(dry_run=True)).exit is Exit.DONE
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 100), verdict.headline
    await vectors.check(stray=stray)
    await vectors.database.run("delete from catchup.places")
    assert "another scheme" in (await vectors.run()).headline


async def test_a_run_whose_vectors_did_not_go_over_grpc_says_why(vectors: VectorBench) -> None:
    """A proxy in between costs every run its attempt: nobody would look for it."""
    await vectors.fill(20)
    vectors.pinecone.configure(grpc="off")
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 20), verdict.headline
    assert [note for note in verdict.notes if "PINECONE_GRPC=off" in note]


@by_each_road
@pytest.mark.parametrize("lsn", ["on", "old", "off"])
async def test_f42_readers_a_minute_behind_are_waited_for(vectors: VectorBench, lsn: str) -> None:
    """P7: no flag before its vector is seen, nothing put or paid twice, no false alarm."""
    clock = FastClock()
    vectors.pinecone.clock = clock.now
    vectors.pinecone.configure(lag_s=60.0, lsn=lsn)
    await vectors.fill(300)
    early: list[set[str]] = []

    async def watch() -> None:
        await until(lambda: vectors.fake.world.embed_calls >= 2)
        while len(vectors.pinecone.vectors(vectors.embedding.namespace)) < 300:
            marked, there = await vectors.flagged(), set(vectors.pinecone.vectors(vectors.embedding.namespace))
            early.append(marked - there)
            await asyncio.sleep(0.05)

    verdict, _ = await asyncio.gather(vectors.run(clock=clock), watch())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 300), verdict.headline
    assert early
    assert not any(early), "marked before it could be seen"
    # gRPC that tells no place in the log is left with its first record, which REST stores again
    assert vectors.pinecone.records_written == 300 + (vectors.pinecone.grpc_upserts if lsn == "off" else 0)
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@by_each_road
async def test_f42_a_service_that_takes_vectors_and_never_shows_them_is_stopped_by_the_canary(
    vectors: VectorBench,
) -> None:
    """P2: acknowledged, and no reader ever finds it: one paid row, no flag, exit 10; later stored without paying."""
    await vectors.fill(50)
    vectors.pinecone.script(rule("swallow", on=UPSERT))
    verdict = await vectors.run(clock=FastClock())
    assert (verdict.exit, sum(vectors.embedded().values()), await vectors.flagged()) == (Exit.REFUSED, 1, set())
    assert "shows none of them" in verdict.headline
    await vectors.check(complete=False)
    vectors.pinecone.script()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@by_each_road
async def test_f42_a_vector_lost_on_its_way_is_put_again(vectors: VectorBench) -> None:
    """One request of many is acknowledged and swallowed: after half of the patience it is sent again, and seen."""
    vectors.pinecone.configure(lsn="off")
    await vectors.fill(120)
    vectors.pinecone.script(rule("swallow", on={**UPSERT, "nth": 2}))
    verdict = await vectors.run(clock=FastClock())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120), verdict
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@by_each_road
async def test_p2_one_poisonous_record_of_five_hundred_blames_its_own_row_only(
    vectors: VectorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinecone refuses the whole request for one record: halved down to it, and the others are there."""
    await vectors.fill(501)
    take = FakePinecone._store

    def refuse(fake: FakePinecone, index: Any, body: bytes, *how: Any) -> Any:
        if b"v000321" in body:
            raise Refused(POISON)
        return take(fake, index, body, *how)

    monkeypatch.setattr(FakePinecone, "_store", refuse)
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 500, {"metadata": 1})
    assert [named.key for named in verdict.named] == ["v000321"]
    assert set(vectors.embedded().values()) == {1}
    assert vectors.pinecone.requests["upsert"] <= 1 + 2 * 11
    await vectors.check()
    assert (await vectors.run()).calls == 0


async def test_two_rows_with_one_id_never_overwrite_each_other_and_stop_nobody(vectors: VectorBench) -> None:
    """The second is failed by name; the run and the next one go on."""
    await vectors.fill(30)
    given = {each.name: getattr(vectors.embedding, each.name) for each in fields(vectors.embedding)}
    target = replace(vectors.target, embedding=Twins(**given))
    verdict = await vectors.run(target=target)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (
        Exit.SOME_NAMED,
        29,
        {"same id as another row": 1},
    ), verdict.headline
    assert [named.key for named in verdict.named] == ["v000012"]
    again = await vectors.run(target=target)
    assert (again.calls, again.in_journal) == (0, 0), again.headline
    assert (await vectors.run(retry_failed=True)).exit is Exit.DONE
    await vectors.check()


@by_each_road
async def test_p3_large_metadata_is_trimmed_nulls_are_dropped_and_nothing_is_refused_for_its_size(
    vectors: VectorBench,
) -> None:
    """Forty kilobytes a record, two megabytes a request: no 400 and no 413."""
    await vectors.fill(300)
    await vectors.database.run("update videos set channel_name = null, view_count = null where right(id, 1) = '3'")
    await vectors.database.run("update videos set title = repeat('🎬', 30000) where right(id, 1) in ('4', '5', '6')")
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 300), verdict
    assert set(vectors.pinecone.statuses) == {200}
    await vectors.check()


async def test_p4_keys_that_are_no_ascii_or_too_long_for_an_id(vectors: VectorBench) -> None:
    """Quoted, the same every time; what does not fit into 512 characters is skipped by name, before it is paid."""
    await vectors.fill(5)
    for key in ("é/ü", "日本", "a b", "x" * 512, "y" * 513, "é" * 100):
        await vectors.database.run(
            "insert into videos (id, title, channel_id, llm_summary) values (%s, 't', 'c', %s)",
            [key, f"[[item:{key}]] a talk about the cranes of the harbour"],
        )
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.skipped)) == (Exit.DONE, 9, {"id too long": 2})
    await vectors.check()
    assert (await vectors.run()).calls == 0


@by_each_road
async def test_a_refusal_that_meets_every_record_alike_stops_the_run_and_blames_few(vectors: VectorBench) -> None:
    """From one moment on every upsert is refused with 400: no row of a table is to blame for that."""
    await vectors.fill(600)
    vectors.pinecone.script(rule("status", on={**UPSERT, "after": 1}, status=400, body={"code": 3, "message": POISON}))
    verdict = await vectors.run()
    assert verdict.exit is Exit.REFUSED, verdict.headline
    assert verdict.books.failed.total() < 20
    await vectors.check(complete=False)
    vectors.pinecone.script()
    assert (await vectors.run(retry_failed=True)).exit is Exit.DONE
    assert len(await vectors.stored()) == 600
    await vectors.check()
