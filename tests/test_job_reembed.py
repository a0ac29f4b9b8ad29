"""A target filled beside the one it is to replace: own lease, own ledger, and nothing of the old one is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from jobs.chunking import Chunking
from jobs.engine import plan
from jobs.engine.clock import Clock
from jobs.engine.options import Options
from jobs.engine.verdict import Exit, Verdict
from jobs.engine.work import Work
from jobs.reembed import Beside, Into, count_difference, fill_beside
from jobs.targets import Target
from jobs.vectorize import JOB
from queries.dsn import DsnRoad
from queries.errors import Misconfigured
from queries.ledger import Ledger
from queries.openai_embed import OpenAIEmbed
from queries.prices import load_price
from queries.table import Redo
from queries.tokens import TokenCounter
from tests.servers.bench import KEY
from tests.servers.impaired import Impaired
from tests.servers.vector_bench import FLAG, IN_TENS, VectorBench, until

INTO = Into("new", "text-embedding-3-large")
LARGE = ("--target", "summaries", "--reembed", "--into", "new", "--model", "text-embedding-3-large")


def filling(target: Target) -> dict[str, Any]:
    """What the command line says of a run of --reembed."""
    return {
        "target": target,
        "redo": Redo("unmade", target.model, target.prompt_hash),
        "edited_if_small": False,
        "create_namespace": True,
    }


async def fill_new(bench: VectorBench, into: Into = INTO, **more: Any) -> Verdict:
    return await bench.run(**filling(fill_beside(bench.target, into)), **more)


@asynccontextmanager
async def beside(bench: VectorBench, into: Into = INTO) -> AsyncIterator[Beside]:
    target, road = fill_beside(bench.target, into), DsnRoad(bench.database.dsn)
    space, left = bench.open_space(road, target), bench.open_space(road, bench.target)
    assert space is not None
    assert left is not None
    made = Work(
        JOB, target, Ledger(road), OpenAIEmbed(KEY, bench.fake.url), TokenCounter(target.model, bench.vocabularies),
        load_price(target.model), target.model, bench.state_dir, Options(db_load=1.0), bench.memory, "", Clock(), space,
    )  # fmt: skip
    try:
        yield Beside(made, left)
    finally:
        await made.service.close()
        await space.close()
        await left.close()
        await road.close()


async def rows_of(bench: VectorBench) -> list[tuple[Any, ...]]:
    return await bench.database.run("select xmin::text, * from videos order by id")


def at(bench: VectorBench, into: Into = INTO) -> VectorBench:
    """The bench as it looks after the switch: what is stored and expected is the new target's."""
    target = fill_beside(bench.target, into)
    return replace(bench, target=replace(target, spec=bench.target.spec, cells=bench.target.cells))


@pytest.mark.parametrize("store", ["pinecone", "pgvector"])
async def test_nothing_of_the_old_place_is_touched(vectors: VectorBench, store: Any) -> None:
    """No row is updated, no old vector changes; in the new place every row has the right one that should have one."""
    await vectors.keep_in(store)
    await vectors.fill(120)
    await vectors.run(limit=70)
    await vectors.database.run("update videos set llm_summary = '' where id = 'v000002'")
    old, rows = await vectors.stored(), await rows_of(vectors)
    verdict = await fill_new(vectors, job=IN_TENS)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.skipped)) == (Exit.DONE, 119, {"empty": 1}), verdict
    assert (await vectors.stored(), await rows_of(vectors)) == (old, rows)
    new = at(vectors)
    assert await new.stored() == {id_: vector for id_, vector in (await new.expected()).items() if id_ != "v000002"}
    assert (await fill_new(vectors)).calls == 0
    async with beside(vectors) as both:
        found = await both.find_difference()
    assert (count_difference(found), found.good, found.not_wanted) == (0, 119, {"empty": 1})


async def test_the_old_target_goes_on_meanwhile(vectors: VectorBench) -> None:
    """Two leases, two ledgers: what one has done is not done for the other."""
    await vectors.fill(40)
    await fill_new(vectors, limit=20)
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 40)
    verdict = await fill_new(vectors)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 20)
    await vectors.check()


async def test_edited_rows_are_made_again_and_lose_their_last_chunks(vectors: VectorBench) -> None:
    """The ledger of the new place remembers how many vectors a row has there."""
    chunks = replace(vectors.embedding, chunking=Chunking("sentences", tokens_most=32), vector_id="{key}#{n}")
    vectors.target = replace(vectors.target, embedding=chunks)
    long = " ".join(f"Sentence number {n} says something about the old harbour and its cranes." for n in range(6))
    await vectors.fill(5, text=long)
    assert (await fill_new(vectors)).books.wrote == 5
    stored = await at(vectors).stored()
    await vectors.database.run("update videos set llm_summary = 'Short now.' where id = 'v000003'")
    verdict = await fill_new(vectors)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1)
    gone = {id_ for id_ in stored if id_.startswith("v000003#") and id_ != "v000003#0"}
    assert set(stored) - set(await at(vectors).stored()) == gone != set()


async def test_rows_that_change_while_they_are_embedded_are_named_and_made_again(vectors: VectorBench) -> None:
    """The guard holds without a cell: no record says that a vector is of a text which is gone."""
    await vectors.fill(30)
    vectors.fake.configure(latency=0.4)
    run = asyncio.create_task(fill_new(vectors))
    await until(lambda: vectors.fake.world.requests >= 2)  # the canary, and all the others in one
    await vectors.database.run("update videos set llm_summary = llm_summary || ' (edited)' where id = 'v000011'")
    await vectors.database.run("delete from videos where id = 'v000012'")
    verdict = await run
    named = {(row.key, row.state, row.reason) for row in verdict.named}
    assert named == {("v000011", "changed", "edited"), ("v000012", "gone", "gone")}
    assert (verdict.exit, verdict.books.wrote, verdict.books.balance()) == (Exit.SOME_NAMED, 28, True)
    assert (await fill_new(vectors)).books.wrote == 1
    async with beside(vectors) as both:
        found = await both.find_difference()
    assert (count_difference(found), found.orphans) == (0, [])


@pytest.mark.parametrize("point", ["answer.received:2", "space.put:1", "space.seen:1", "write.sent:2", "exit.report:1"])
async def test_killed_and_again_every_row_is_paid_once(
    vectors: VectorBench, impaired_vectors: Impaired, point: str
) -> None:
    """What was answered is in the journal; the same command stores it and asks for the rest."""
    await vectors.fill(60)
    await vectors.run()
    small = "from jobs import vectorize; from jobs.engine.job import Packing\n"
    small += "from dataclasses import replace; vectorize.JOB = replace(vectorize.JOB, packing=Packing(10, 240_000))\n"
    words = (*LARGE, "--yes", "--db-load", "100%", "--concurrency", "2")
    killed = await impaired_vectors.run(small, *words, CATCHUP_FAULTS=f"{point}:kill")
    assert killed.code == -9, killed.out + killed.err
    ended = await impaired_vectors.run(small, *words)
    assert ended.code == 0, ended.out + ended.err
    new = at(vectors)
    assert await new.stored() == await new.expected()
    in_flight = 20 if point.startswith("answer") else 0
    again = sum(times - 2 for times in vectors.embedded().values())
    assert 0 <= again <= in_flight, vectors.embedded()
    async with beside(vectors) as both:
        assert count_difference(await both.find_difference()) == 0


async def test_a_stopped_run_is_resumed_by_its_id(vectors: VectorBench, impaired_vectors: Impaired) -> None:
    """The run knows what it was filling."""
    await vectors.fill(30)
    killed = await impaired_vectors.run("", *LARGE, "--yes", CATCHUP_FAULTS="space.put:1:kill")
    assert killed.code == -9, killed.out + killed.err
    ((run_id,),) = await vectors.database.run("select run_id from catchup.runs where target = 'summaries@new'")
    ended = await impaired_vectors.shell.run("runs", "resume", run_id)
    assert ended.code == 0, ended.out + ended.err
    assert len(await at(vectors).stored()) == 30


async def test_an_index_of_other_dimensions_is_refused_unpaid(vectors: VectorBench) -> None:
    """An index of Pinecone has one dimension for all of its namespaces."""
    await vectors.fill(5)
    verdict = await fill_new(vectors, Into("new", "text-embedding-3-large", 256))
    assert (verdict.exit, verdict.calls, "holds 512" in verdict.headline) == (Exit.REFUSED, 0, True), verdict
    assert vectors.fake.world.requests == 0


@pytest.mark.parametrize("whose", ["nobody's", "another target's", "its own of another model"])
async def test_a_place_that_is_not_ours_is_refused_unpaid(vectors: VectorBench, whose: str) -> None:
    """Vectors of two makings can be stored side by side, and never compared."""
    await vectors.fill(5)
    other = fill_beside(vectors.target, Into("new"))
    if whose != "its own of another model":
        other = replace(vectors.target, name="titles", embedding=other.embedding)
        await vectors.database.migrate([vectors.target, other])
    assert (await vectors.run(**filling(other) | {"redo": None})).books.wrote == 5
    if whose == "nobody's":
        await vectors.database.run("delete from catchup.places")
    requests = vectors.fake.world.requests
    verdict = await fill_new(vectors)
    assert (verdict.exit, verdict.calls) == (Exit.REFUSED, 0), verdict
    assert vectors.fake.world.requests == requests


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(
            "insert into catchup.leases values ('dead', 'summaries', 1, null, null, '{}', now() + interval '9 s')",
            id="a lease",
        ),
        pytest.param(
            "insert into catchup.runs (run_id, job, target, fingerprint, state, home) "
            "values ('dead', 'vectorize', 'summaries', '', 'stopped', '{}')",
            id="an unfinished run",
        ),
    ],
)
async def test_nothing_is_switched_beside_a_run(vectors: VectorBench, busy: str) -> None:
    """What it has paid for would go to the wrong place."""
    await vectors.fill(5)
    await fill_new(vectors)
    await vectors.database.run(busy)
    async with beside(vectors) as both:
        with pytest.raises(Misconfigured, match="nothing was switched") as refusal:
            await both.switch()
    assert "dead" in refusal.value.fix
    assert await vectors.database.run("select target from catchup.targets") == [("summaries@new",)]


async def test_a_switch_is_asked_for_twice_and_done_once(vectors: VectorBench) -> None:
    """An answer that was lost is asked for again; both ledgers are kept, each under the name of its place."""
    await vectors.fill(20)
    await vectors.run()
    await fill_new(vectors)
    async with beside(vectors) as both:
        assert [await both.switch(), await both.switch()] == [True, False]
        assert await both.is_switched()
    kept = await vectors.database.run(
        "select target, count(*), min(model) from catchup.provenance join catchup.targets using (target_no) "
        "join catchup.sources using (source_no) group by 1 order by 1"
    )
    assert kept == [
        ("summaries", 20, "text-embedding-3-large"),
        ("summaries@llm-summaries", 20, "text-embedding-3-small"),
    ]


async def test_a_target_that_never_ran_is_switched_too(vectors: VectorBench) -> None:
    """Its vectors were somebody else's work: the ledger has nothing of the old place to keep."""
    await vectors.fill(5)
    await fill_new(vectors)
    async with beside(vectors) as both:
        assert await both.switch()
    assert await vectors.database.run("select target from catchup.targets") == [("summaries",)]
    assert await vectors.database.run("select target, model from catchup.places") == [("summaries", INTO.model)]


async def test_flags_denied_before_the_switch_are_set_without_paying(vectors: VectorBench) -> None:
    """A row that the old place never had is there in the new one: it is only marked."""
    await vectors.fill(50)
    await vectors.run(limit=30)
    await fill_new(vectors)
    async with beside(vectors) as both:
        await both.switch()
    new, requests = at(vectors), vectors.fake.world.requests
    new.target = replace(new.target, name="summaries", replaces=None)
    verdict = await new.run()
    assert (verdict.exit, verdict.books.wrote, vectors.fake.world.requests) == (Exit.DONE, 20, requests), verdict
    assert await vectors.database.run(f"select count(*) from videos where {FLAG}") == [(50,)]


async def test_the_old_place_is_closed_to_whoever_did_not_hear_of_the_switch(vectors: VectorBench) -> None:
    """A machine with the old file would go on filling what nobody looks at."""
    await vectors.fill(5)
    await vectors.run()
    await fill_new(vectors)
    async with beside(vectors) as both:
        await both.switch()
    await vectors.fill(5, prefix="w")
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls, "by hand" in verdict.headline) == (Exit.REFUSED, 0, True), verdict


async def test_a_plan_finds_the_few_rows_that_are_left(vectors: VectorBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window by window: no statement walks the table, and the sample begins where the first of them is."""
    await vectors.fill(300)
    await fill_new(vectors)
    await vectors.database.run("update videos set llm_summary = 'New' where id in ('v000255', 'v000290')")
    monkeypatch.setattr(plan, "_WINDOW", 50)
    await fill_new(vectors, dry_run=True)
    shown = vectors.memory.plans[-1]
    assert (shown.pending_counted, shown.pending_is_floor, shown.sampled_rows) == (2, False, 2)
    assert (shown.cells, shown.rewrite_bytes) == ((), 0)


async def test_triggers_of_the_table_are_no_matter(vectors: VectorBench) -> None:
    """Nothing is written there, so none of them fires."""
    await vectors.fill(5)
    await vectors.database.run(
        "create function loud() returns trigger language plpgsql as 'begin raise exception ''no''; end'; "
        "create trigger loud before update on videos for each row execute function loud()"
    )
    verdict = await fill_new(vectors)
    assert (verdict.exit, vectors.memory.plans[-1].triggers) == (Exit.DONE, ())
