"""vectorize's own promises: only what changed is paid, flags are set right, chunks shrink, two runs and dry runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.chunking import Chunking
from jobs.engine.asking import Asking, Errand, Stopped
from jobs.engine.job import Ask, Bad, Good, Means
from jobs.engine.verdict import Exit
from jobs.vectorize import Vectorize
from queries.embed import EmbedAnswer
from queries.ledger import Ceilings
from queries.postgrest import PostgrestRoad
from queries.table import Condition, Slice
from tests.servers.bench import KEY
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, StartFaultProxy
from tests.servers.impaired import Impaired
from tests.servers.lite import StartPostgrest
from tests.servers.vector_bench import FLAG, IN_TENS, PINECONE_KEY, VectorBench, until
from tests.test_job_summaries_promises import all_text, everything, leaks


async def test_f49_a_second_run_straight_after_success_costs_nothing(everywhere: VectorBench) -> None:
    """G9: no call, no write, no request to the index that changes anything."""
    await everywhere.fill(120)
    assert (await everywhere.run()).books.wrote == 120
    versions = await everywhere.database.run("select id, xmin::text, ctid::text from videos order by id")
    requests = everywhere.pinecone.requests["upsert"]
    verdict = await everywhere.run()
    assert (verdict.exit, verdict.calls, verdict.books.selected) == (Exit.DONE, 0, 0)
    assert await everywhere.database.run("select id, xmin::text, ctid::text from videos order by id") == versions
    assert everywhere.pinecone.requests["upsert"] == requests
    await everywhere.check()


async def test_edited_text_is_embedded_again_and_unchanged_text_never(everywhere: VectorBench) -> None:
    """An edit is seen though its flag says done; a counter that moves beside the text is no edit."""
    await everywhere.fill(60)
    assert (await everywhere.run()).books.wrote == 60
    await everywhere.database.run("update videos set view_count = view_count + 1, title = title || '!'")
    assert (await everywhere.run()).calls == 0
    await everywhere.database.run("update videos set llm_summary = llm_summary || ' (edited)' where id like '%%7'")
    verdict = await everywhere.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 6), verdict
    paid = everywhere.embedded()
    assert {item for item, times in paid.items() if times == 2} == {f"v0000{n}7" for n in range(6)}
    assert (await everywhere.run()).calls == 0
    await everywhere.check()


async def test_another_host_is_told_of_rows_that_may_be_paid_and_of_the_price_of_rows(vectors: VectorBench) -> None:
    """A request holds ten rows: what its answer costs is not the price of each, and all of them may be out."""
    await vectors.fill(300)
    await vectors.database.run("create table told (rows integer, usd numeric)")
    await vectors.database.run(
        "create function tell() returns trigger language plpgsql as "
        "'begin insert into public.told values (new.unconfirmed, new.unconfirmed_usd); return new; end'"
    )
    await vectors.database.run(
        "create trigger t after update on catchup.checkpoints for each row execute function tell()"
    )
    verdict = await vectors.run(job=IN_TENS, concurrency=3)
    assert verdict.books.wrote == 300, verdict.headline
    told = await vectors.database.run("select rows, usd from told where rows > 0")
    assert told
    assert all(rows >= 3 * 10 for rows, _ in told)
    assert all(0.3 < float(usd) / rows / (verdict.money.actual_usd / 300) < 3 for rows, usd in told), (
        told,
        verdict.money.actual_usd,
    )


async def test_flags_that_lie_are_set_right_without_paying(vectors: VectorBench) -> None:
    """One operator had 120,000 vectors that the flags denied: nothing is asked, the flags are set again."""
    await vectors.fill(300)
    await vectors.run()
    await vectors.database.run(f"update videos set {FLAG} = false where right(id, 1) in ('1', '2', '3')")
    await vectors.database.run(f"update videos set {FLAG} = null where right(id, 1) = '4'")
    calls = vectors.fake.world.requests
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls, verdict.books.wrote) == (Exit.DONE, 0, 120), verdict
    assert vectors.fake.world.requests == calls
    await vectors.check()


async def test_a_flag_taken_back_together_with_its_vector_is_paid_again(vectors: VectorBench) -> None:
    """The ledger remembers the vector and the index does not have it: what is not seen is not kept."""
    await vectors.fill(60)
    await vectors.run()
    await vectors.database.run(f"update videos set {FLAG} = false")
    vectors.pinecone.space(vectors.embedding.namespace).forget(["v000007", "v000008"])
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 60)
    assert {item for item, times in vectors.embedded().items() if times > 1} == {"v000007", "v000008"}
    await vectors.check()


async def test_a_cell_that_names_the_model_says_it_also_where_nothing_was_asked(vectors: VectorBench) -> None:
    """A flag set right brings the other cells with it, with the same values."""
    await vectors.database.run("alter table videos add column embedded_by text, add column embedded_at timestamptz")
    spec = replace(vectors.target.spec, cells=(FLAG, "embedded_by", "embedded_at"))
    vectors.target = replace(
        vectors.target, spec=spec, cells={FLAG: "true", "embedded_by": "model", "embedded_at": "now"}
    )
    await vectors.migrate()
    await vectors.fill(30)
    await vectors.run()
    assert await vectors.database.run("select distinct embedded_by from videos") == [(vectors.target.model,)]
    await vectors.database.run(f"update videos set {FLAG} = false, embedded_by = null, embedded_at = null")
    assert (await vectors.run()).calls == 0
    assert await vectors.database.run("select distinct embedded_by from videos") == [(vectors.target.model,)]
    assert await vectors.database.run("select count(embedded_at) from videos") == [(30,)]


async def test_limit_counts_admitted_rows_to_the_row(vectors: VectorBench) -> None:
    """Not requests and not pages: skipped rows do not count, and the rest is said to be pending."""
    await vectors.fill(100)
    await vectors.database.run("update videos set llm_summary = ' ' where id <= 'v000010'")
    verdict = await vectors.run(limit=25)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.skipped)) == (Exit.DONE, 25, {"empty": 10})
    assert verdict.pending_beyond
    assert len(vectors.embedded()) == 25
    only = await vectors.run(where=(("channel_id", "c3"),))
    assert 0 < only.books.wrote < 20
    await vectors.check()


def chunked(vectors: VectorBench) -> None:
    """Segments of a jsonb column, thirty seconds and more a chunk."""
    chunking = Chunking(kind="segments", overlap_share=0.0, tokens_least=1)
    embedding = replace(vectors.embedding, chunking=chunking, vector_id="{key}#{n}", metadata={"title": "title"})
    pending = (Condition(FLAG, "is not true"), Condition("metadata", "is not null"))
    spec = replace(vectors.target.spec, read=("metadata",), pending=pending)
    vectors.target = replace(vectors.target, spec=spec, text=("metadata",), embedding=embedding)


async def say(vectors: VectorBench, key: str, chunks: int, what: str = "The crane lifts container") -> None:
    """A transcript of so many chunks: one segment of 40 s for each."""
    segments = [{"start": 40 * n, "duration": 40, "text": f"[[item:{key}-{n}]] {what} {n}."} for n in range(chunks)]
    await vectors.database.run(
        "insert into videos (id, title, channel_id, metadata) values (%s, 'Talk', 'c', %s::jsonb) "
        "on conflict (id) do update set metadata = excluded.metadata",
        [key, json.dumps(segments)],
    )


def ids(key: str, chunks: int) -> set[str]:
    return {f"{key}#{n}" for n in range(chunks)}


async def test_chunks_that_shrink_leave_no_stale_vector(vectors: VectorBench) -> None:
    """P8: 8 chunks become 3 and 3 remain, each with the vector of its new text; others keep theirs."""
    chunked(vectors)
    await say(vectors, "a", 8)
    await say(vectors, "b", 5)
    await say(vectors, "c", 1)
    assert (await vectors.run()).books.wrote == 3
    assert set(await vectors.stored()) == ids("a", 8) | ids("b", 5) | ids("c", 1)
    await say(vectors, "a", 3, "A ship leaves with container")
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1)
    stored = await vectors.stored()
    assert set(stored) == ids("a", 3) | ids("b", 5) | ids("c", 1)
    assert stored["a#2"] == vectors.vector_of("[[item:a-2]] A ship leaves with container 2.")
    kept = vectors.pinecone.vectors(vectors.embedding.namespace)["a#2"].metadata
    assert (kept["start_s"], kept["end_s"], kept["chunk"]) == (80, 120, 2)
    assert (await vectors.run()).calls == 0
    await say(vectors, "a", 6)
    assert (await vectors.run()).books.wrote == 1
    assert set(await vectors.stored()) == ids("a", 6) | ids("b", 5) | ids("c", 1)


async def test_stale_chunks_go_only_after_the_new_ones_are_seen(vectors: VectorBench) -> None:
    """A reader must find the old ones or the new ones: an index that fails between them is repaired by the next run."""
    chunked(vectors)
    await say(vectors, "a", 8)
    await vectors.run()
    await say(vectors, "a", 3, "A ship leaves with container")
    vectors.pinecone.script(rule("status", on={"item": "delete"}, status=503, body="<html>"))
    verdict = await vectors.run(max_outage_s=0.5)
    assert verdict.exit is Exit.BREAKER, verdict.headline
    assert set(await vectors.stored()) == ids("a", 8)
    calls = vectors.fake.world.requests
    vectors.pinecone.script()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(await vectors.stored()) == ids("a", 3)
    assert vectors.fake.world.requests == calls


@pytest.mark.parametrize("point", ["space.before", "space.put", "space.seen", "write.before", "write.sent"])
async def test_chunks_that_shrink_across_a_crash_are_right_after_the_next_run(
    impaired_vectors: Impaired, vectors: VectorBench, point: str
) -> None:
    """P8: killed between the new chunks and the end of the old ones, wherever: 3 remain, nothing paid twice."""
    (impaired_vectors.shell.directory / "catchup.toml").write_text(
        '[targets.summaries]\nread = ["metadata"]\ntext = ["metadata"]\nvector_id = "{key}#{n}"\n'
        f'metadata = {{ title = "title" }}\npending = ["{FLAG} is not true", "metadata is not null"]\n'
        '[targets.summaries.chunks]\nkind = "segments"\noverlap_share = 0.0\ntokens_least = 1\n'
    )
    await say(vectors, "a", 8)
    await say(vectors, "b", 2)
    ended = await impaired_vectors.run("")
    assert ended.code == 0, ended.out + ended.err
    assert set(await vectors.stored()) == ids("a", 8) | ids("b", 2)
    await say(vectors, "a", 3, "A ship leaves with container")
    killed = await impaired_vectors.run("", CATCHUP_FAULTS=f"{point}:1:kill")
    assert killed.code == -9, killed.out + killed.err
    assert (await impaired_vectors.run("")).code == 0
    stored = await vectors.stored()
    assert set(stored) == ids("a", 3) | ids("b", 2)
    assert stored["a#1"] == vectors.vector_of("[[item:a-1]] A ship leaves with container 1.")
    assert vectors.embedded()["a-1"] == 2
    assert vectors.fake.world.embed_calls == 3


async def test_f8_two_starts_at_once_pay_once(vectors: VectorBench, tmp_path: Path) -> None:
    """The second exits 11, says who is at work, and asks and stores nothing; slices run side by side."""
    vectors.fake.configure(latency=0.2)
    await vectors.fill(200)

    async def start() -> Any:
        await until(lambda: vectors.fake.world.requests >= 3)
        return await vectors.run(state_dir=tmp_path / "second")

    first, second = await asyncio.gather(vectors.run(job=IN_TENS, concurrency=2), start())
    assert (first.exit, first.books.wrote, second.exit, second.calls) == (Exit.DONE, 200, Exit.LEASE_HELD, 0)
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f8_slices_side_by_side_under_one_ceiling(vectors: VectorBench, tmp_path: Path) -> None:
    """Two runs into one namespace, one day's money: together never above it."""
    vectors.fake.configure(latency=0.02)
    await vectors.fill(600)
    halves, ceiling = (Slice(upto=("v000300",)), Slice(above=("v000300",))), 0.0002
    both = await asyncio.gather(
        *(
            vectors.run(job=IN_TENS, slice=half, state_dir=tmp_path / f"h{n}", ceilings=Ceilings(day_usd=ceiling))
            for n, half in enumerate(halves)
        )
    )
    assert {Exit.CEILING} <= {verdict.exit for verdict in both} <= {Exit.CEILING, Exit.DONE}
    assert sum(v.money.actual_usd + v.money.possibly_usd for v in both) <= ceiling
    assert vectors.fake.world.bill_usd <= ceiling
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@dataclass(frozen=True, slots=True)
class Forgetful(Vectorize):
    """A job with a planted bug: it takes the answer and says nothing about its rows."""

    def judge(self, ask: Ask, answer: EmbedAnswer, means: Means) -> list[Good | Bad]:
        del ask, answer, means
        return []


async def test_f48_texts_that_are_embedded_and_then_forgotten_are_exit_1(vectors: VectorBench) -> None:
    """A planted bug: the books say how many rows nobody can account for, and no success is claimed."""
    await vectors.fill(30)
    verdict = await vectors.run(job=Forgetful())
    assert (verdict.exit, verdict.books.balance(), verdict.books.wrote) == (Exit.UNEXPECTED, False, 0)
    assert "unaccounted" in verdict.headline


async def test_f48_pending_rows_and_not_one_embedding_is_exit_1(
    vectors: VectorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: every request ends before it is sent, booked as still to do. The sum is right, and it is no 0."""
    await vectors.fill(3)

    async def do_nothing(self: Asking, ask: Ask, errand: Errand) -> Sequence[Ask]:
        raise Stopped

    monkeypatch.setattr(Asking, "_ask", do_nothing)
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls, verdict.books.balance()) == (Exit.UNEXPECTED, 0, True)


@pytest.mark.parametrize(
    ("fault", "index_fault", "exits"),
    [
        (None, None, {0}),
        (Fault("catchup_page", "cut", times=2), None, {0}),
        (Fault("/", "answer", times=10_000, status=503, body=HTML, content_type="text/html"), None, {4, 5}),
        (None, rule("status", on={"nth": 1}, status=503, body="<html>"), {0}),
        (None, rule("status", status=503, body="<html>"), {4, 5}),
        (None, rule("status", status=401, body="Invalid API Key"), {10}),
        (None, rule("reset_before"), {4, 5}),
    ],
    ids=["no fault", "F15", "F16-all", "F40-once", "F40-all", "F40-401", "F40-reset"],
)
async def test_f50_a_dry_run_of_vectorize_only_reads_whatever_happens(
    vectors: VectorBench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    fault: Fault | None,
    index_fault: dict[str, Any] | None,
    exits: set[int],
) -> None:
    """GETs at the database, stats and lists at the index; no row, no file, no vector, no call."""
    await vectors.fill(40)
    server = await start_postgrest(vectors.database)
    proxy = await start_fault_proxy(server.url)
    if fault:
        proxy.inject(fault)
    vectors.pinecone.script(*([index_fault] if index_fault else []))
    before = await everything(vectors)
    verdict = await vectors.run(road=PostgrestRoad(proxy.url, server.secret_key), dry_run=True, max_outage_s=1.0)
    assert int(verdict.exit) in exits, verdict.headline
    assert {request.method for request in proxy.requests} == {"GET"}
    assert set(vectors.pinecone.requests) <= {"stats", "list", "describe_namespace", "fetch"}
    assert (await everything(vectors), vectors.fake.world.requests) == (before, 0)
    if index_fault is None and fault is None:
        plan = vectors.memory.plans[-1]
        real = await vectors.run()
        assert plan.pending_counted == real.books.wrote == 40
        assert plan.estimate_usd == pytest.approx(real.money.actual_usd, rel=0.25)


@pytest.mark.parametrize(
    ("script", "index_script"),
    [
        (rule("auth"), None),
        (rule("status", on={"nth": [2, 3]}, status=500, body=f"<html>Authorization: Bearer {KEY}</html>"), None),
        (rule("status", status=400, body={"error": {"message": f"bad key {KEY}", "code": "x"}}), None),
        (rule("malformed", on={"nth": [2, 3]}), None),
        (None, rule("status", on={"item": "upsert"}, status=401, body=f"Invalid API Key {PINECONE_KEY}")),
        (None, rule("status", on={"item": "upsert"}, status=500, body=f"<html>Api-Key: {PINECONE_KEY}</html>")),
        (None, rule("status", on={"item": "upsert"}, status=400, body=f"metadata of {PINECONE_KEY}")),
        (None, rule("reset", on={"item": "upsert"})),
        (None, None),
    ],
    ids=["401", "500 echo", "400 echo", "malformed", "index 401", "index 500", "index 400", "index reset", "no fault"],
)
async def test_g21_no_secret_of_vectorize_is_in_anything_we_say_or_keep(
    impaired_vectors: Impaired,
    vectors: VectorBench,
    script: dict[str, Any] | None,
    index_script: dict[str, Any] | None,
) -> None:
    """--verbose and --json, journal, state directory, ledger: neither service's key, also coded or cut."""
    await vectors.fill(12)
    vectors.fake.script(*([script] if script else []))
    vectors.pinecone.script(*([index_script] if index_script else []))
    shell = impaired_vectors.shell
    ended = [
        await shell.run("vectorize", "--verbose", CATCHUP_MAX_OUTAGE="1s"),
        await shell.run("vectorize", "--json", CATCHUP_MAX_OUTAGE="1s"),
        await shell.run("vectorize", "--dry-run", "--verbose"),
    ]
    assert {each.code for each in ended} <= {0, 3, 4, 5, 10}, ended[0].out + ended[0].err
    assert leaks(await all_text(vectors, ended), [KEY, PINECONE_KEY]) == []
