"""vectorize when the provider misbehaves: the faults that OpenAI causes, with one request for many rows."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from jobs.engine.job import Packing
from jobs.engine.verdict import Exit
from jobs.vectorize import Vectorize
from queries.ledger import Ceilings
from tests.servers.attacks import ATTACKS
from tests.servers.fake_script import rule
from tests.servers.hostile import TITLES
from tests.servers.vector_bench import IN_TENS, VectorBench
from tests.servers.virtual_clock import FastClock

PACE = {"error": {"message": "Rate limit reached. Please try again in 20ms.", "code": "rate_limit_exceeded"}}


async def test_f27_requests_refused_for_pace_fail_no_row_and_cost_nothing(vectors: VectorBench) -> None:
    """A third of all requests are answered 429: every row gets its vector, every refusal is booked as free."""
    await vectors.fill(300)
    vectors.fake.script(rule("status", on={"every": 3}, status=429, body=PACE, headers={"retry-after-ms": "20"}))
    verdict = await vectors.run(job=IN_TENS)
    assert (verdict.exit, verdict.books.wrote, verdict.money.possibly_usd) == (Exit.DONE, 300, 0.0)
    assert verdict.throttled > 10
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize("limit", [{"rpm": 3_000}, {"rpm": 60_000, "tpm": 600_000}], ids=["requests", "tokens"])
async def test_f27_a_real_limit_is_learned_and_kept(vectors: VectorBench, limit: dict[str, int]) -> None:
    """Few refusals: the pace follows the headers, of requests and of tokens alike."""
    vectors.fake.configure(**limit)
    await vectors.fill(600, text="tells how the cranes of the old port were built and moved " * 6)
    verdict = await vectors.run(job=IN_TENS)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 600)
    assert verdict.throttled <= 5
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize("code", ["insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded"])
async def test_f28_an_empty_account_stops_the_embedding_and_blames_no_row(vectors: VectorBench, code: str) -> None:
    """At most what was in flight is asked after the first such answer; exit 4; later the rest, and nothing twice."""
    await vectors.fill(600)
    body = {"error": {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": code}}
    vectors.fake.script(rule("status", on={"after": 20}, status=429, body=body))
    verdict = await vectors.run(job=IN_TENS, concurrency=6)
    assert (verdict.exit, verdict.books.failed.total(), verdict.books.wrote) == (Exit.STOPPED, 0, 191)
    assert "quota" in verdict.headline
    assert vectors.fake.world.requests <= 20 + 6
    await vectors.check()
    vectors.fake.script()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    assert len(await vectors.stored()) == 600
    await vectors.check()


async def test_f29_one_failed_request_in_five_reaches_no_row(vectors: VectorBench) -> None:
    """Twenty per cent of 500s: all vectors are there, and no request was asked in pieces for it."""
    await vectors.fill(800)
    vectors.fake.script(rule("status", on={"share": 0.2}, status=500, body="<html>oops</html>"))
    verdict = await vectors.run(job=IN_TENS, clock=FastClock())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 800)
    assert vectors.fake.world.requests <= 81 * 1.5
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f29_a_provider_that_is_down_costs_at_most_fifty_requests(vectors: VectorBench) -> None:
    """All answered 503 with HTML: the breaker ends it, exit 5, no row is blamed, nothing is stored."""
    await vectors.fill(500)
    vectors.fake.script(rule("status", on={"after": 3}, status=503, body="<html>Service Unavailable</html>"))
    verdict = await vectors.run(job=IN_TENS, max_outage_s=1.0)
    assert verdict.exit is Exit.BREAKER
    assert vectors.fake.world.requests <= 50
    assert (verdict.books.failed.total(), verdict.books.wrote) == (0, 21)
    await vectors.check()
    vectors.fake.script()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f30_vectors_lost_after_billing_stay_on_the_books(vectors: VectorBench) -> None:
    """Some requests are billed and never answered: the ledger's interval contains the provider's bill."""
    await vectors.fill(300)
    vectors.fake.script(rule("hang", on={"share": 0.15, "attempts": 1}))
    verdict = await vectors.run(job=IN_TENS, timeout_s=0.4)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 300)
    low, possibly = map(float, (await vectors.database.run("select spent_usd, possibly_usd from catchup.runs"))[0])
    assert possibly > 0
    assert low - 1e-9 <= vectors.fake.world.bill_usd <= low + possibly + 1e-9
    assert max(vectors.embedded().values()) > 1
    await vectors.check()


@pytest.mark.parametrize("kind", ["auth", "model_404"])
async def test_f31_a_wrong_key_or_model_costs_no_embedding(vectors: VectorBench, kind: str) -> None:
    """Exit 10 after one request, nothing paid, no row blamed."""
    await vectors.fill(20)
    vectors.fake.script(rule(kind))
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.failed.total(), vectors.embedded()) == (Exit.REFUSED, 0, {})
    assert vectors.fake.world.requests == 1
    await vectors.check()


async def test_f31_a_dimension_the_model_does_not_give_is_refused_unpaid(vectors: VectorBench) -> None:
    """The index holds 2,000 and the model gives at most 1,536: the service's 400 stops the run at its first row."""
    vectors.target = replace(vectors.target, embedding=replace(vectors.embedding, dimensions=2_000))
    vectors.pinecone.configure(dimension=2_000)
    vectors.pinecone.reset()
    vectors.pinecone.space(vectors.embedding.namespace)
    await vectors.fill(20)
    verdict = await vectors.run()
    assert (verdict.exit, vectors.embedded(), vectors.fake.world.requests) == (Exit.REFUSED, {}, 1)
    assert "2000 dimensions" in verdict.headline
    await vectors.check()


async def test_f31_a_model_that_gives_another_length_is_stopped_by_the_canary(vectors: VectorBench) -> None:
    """A compatible server whose vectors have 256 numbers whatever is asked for: one paid row, nothing stored."""
    await vectors.fill(200)
    vectors.fake.script(rule("wrong_dimension", dimensions=256))
    verdict = await vectors.run()
    assert (verdict.exit, sum(vectors.embedded().values())) == (Exit.REFUSED, 1)
    assert "256 dimensions" in verdict.headline
    assert await vectors.stored() == {}
    await vectors.check()


async def test_f31_a_key_revoked_between_two_requests_stops_the_run(vectors: VectorBench) -> None:
    """At most what was in flight is asked after the first 401; what was answered is stored and marked."""
    await vectors.fill(500)
    vectors.fake.script(rule("auth", on={"after": 10}))
    verdict = await vectors.run(job=IN_TENS, concurrency=4)
    assert (verdict.exit, verdict.books.wrote, verdict.books.failed.total()) == (Exit.REFUSED, 91, 0)
    assert vectors.fake.world.requests <= 10 + 4
    await vectors.check()


async def test_f33_one_poisonous_text_of_five_hundred_blames_its_own_row_only(vectors: VectorBench) -> None:
    """A request of five hundred is refused: halved down to the text, which alone is named; all others paid once."""
    await vectors.fill(501)
    vectors.fake.script(rule("filtered", on={"item": r"^v000257$"}))
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (
        Exit.SOME_NAMED,
        500,
        {"content_filter": 1},
    )
    assert [named.key for named in verdict.named] == ["v000257"]
    assert set(vectors.embedded().values()) == {1}
    assert vectors.fake.world.requests <= 1 + 2 * 10
    await vectors.check()
    again = await vectors.run()
    assert (again.exit, again.calls) == (Exit.DONE, 0)


async def test_f33_a_request_of_too_many_tokens_is_halved_and_no_row_is_blamed(vectors: VectorBench) -> None:
    """The server counts more tokens than we did: its 400 costs nothing, and the halves fit."""
    vectors.fake.configure(embed_tokens_most=2_000)
    await vectors.fill(400)
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 400)
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f33_a_pack_too_large_for_the_tier_is_halved_and_no_row_is_blamed(vectors: VectorBench) -> None:
    """Limit 30,000, requested 41,000: only what is above the limit alone would be named."""
    await vectors.fill(500)
    said = "Request too large for text-embedding-3-small on tokens per min (TPM): Limit 30000, Requested 41000."
    body = {"error": {"message": said, "type": "tokens", "code": "rate_limit_exceeded"}}
    vectors.fake.script(rule("status", on={"item": r"(?:v\d+\n){60}"}, status=429, body=body))
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote, verdict.throttled) == (Exit.DONE, 500, 0), verdict
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize("template", ["{key}", "{key}#{n}"])
async def test_f33_a_text_longer_than_the_model_reads_blocks_no_other(vectors: VectorBench, template: str) -> None:
    """O11: none of the texts around 8,191 tokens is refused; what needs more ids than there are is skipped, named."""
    vectors.target = replace(vectors.target, embedding=replace(vectors.embedding, vector_id=template))
    await vectors.fill(40)
    await vectors.database.run(
        "update videos set llm_summary = llm_summary || repeat(' abc', 7000 + 60 * right(id, 3)::int)"
    )
    verdict = await vectors.run()
    assert (verdict.exit, 400 in vectors.fake.world.statuses) == (Exit.DONE, False), verdict
    if template == "{key}":
        assert 10 < verdict.books.skipped["too long"] == 40 - verdict.books.wrote < 30
        await vectors.check()
        assert (await vectors.run()).calls == 0
    else:
        assert verdict.books.wrote == 40
        assert len(await vectors.stored()) > 50


@pytest.mark.parametrize(
    "kind", ["shuffle", "drop_one", "double_one", "empty_data", "null_one", "garbled_one", "nan_one", "inf_one",
             "zero_one", "short_one"],
)  # fmt: skip
async def test_f34_a_spoilt_answer_pairs_no_vector_wrongly(vectors: VectorBench, kind: str) -> None:
    """O12: shuffled, short, null, NaN, zero or cut vectors: asked again, all rows done, nothing wrong stored."""
    await vectors.fill(300)
    vectors.fake.script(rule(kind, on={"share": 0.5, "attempts": 1}, at=4))
    verdict = await vectors.run(job=IN_TENS, clock=FastClock())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 300), verdict
    if kind == "shuffle":
        assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("null_one", "no_vector"), ("nan_one", "not_finite"), ("zero_one", "all_zero"), ("short_one", "wrong_dimension")],
)
async def test_f34_a_text_that_never_gets_a_vector_is_named_alone(vectors: VectorBench, kind: str, reason: str) -> None:
    """Twice asked, the second time by itself; its neighbours in the request are not paid again."""
    await vectors.fill(200)
    vectors.fake.script(rule(kind, on={"item": r"^v000(123|077)$"}))
    verdict = await vectors.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 198, {reason: 2})
    assert {named.key for named in verdict.named} == {"v000123", "v000077"}
    paid = vectors.embedded()
    assert (paid.pop("v000123"), paid.pop("v000077"), set(paid.values())) == (2, 2, {1})
    await vectors.check()


@pytest.mark.parametrize("kind", ["html200", "malformed", "error200", "half_body", "wrong_types"])
async def test_f34_a_200_that_is_no_answer_stores_nothing_and_may_have_cost_money(
    vectors: VectorBench, kind: str
) -> None:
    """O8: repeated, and halved when it stays so: the one text that always gets it is named, the rest is done."""
    await vectors.fill(160)
    vectors.fake.script(rule(kind, on={"item": r"^v000044$"}), rule(kind, on={"share": 0.2, "attempts": 1}))
    verdict = await vectors.run(job=IN_TENS, clock=FastClock())
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 159, {"no answer": 1})
    assert [named.key for named in verdict.named] == ["v000044"]
    assert verdict.money.possibly_usd > 0
    await vectors.check()


async def test_f34_a_provider_stuck_on_one_vector_is_stopped(vectors: VectorBench) -> None:
    """From one moment on NaN for every text: the run ends saying so, and what was good stays."""
    await vectors.fill(500)
    vectors.fake.script(rule("nan_one", on={"after": 3, "item": r"v"}))
    job = Vectorize(packing=Packing(50, 240_000))
    verdict = await vectors.run(job=job, concurrency=2)
    assert (verdict.exit, verdict.books.wrote) == (Exit.BREAKER, 101), verdict.headline
    assert vectors.fake.world.requests <= 3 + 2
    await vectors.check()


async def test_f14_the_worst_case_of_packed_requests_never_passes_the_ceiling(vectors: VectorBench) -> None:
    """Exit 8 with what was affordable done; the rest when the ceiling is raised, and nothing twice."""
    await vectors.fill(600)
    ceiling = 0.00015
    verdict = await vectors.run(job=IN_TENS, ceilings=Ceilings(run_usd=ceiling))
    assert verdict.exit is Exit.CEILING, verdict.headline
    assert verdict.money.actual_usd + verdict.money.possibly_usd <= ceiling
    assert vectors.fake.world.bill_usd <= ceiling
    assert 50 < verdict.books.wrote < 600
    await vectors.check()
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f14_a_request_dearer_than_what_is_left_goes_in_smaller_pieces(vectors: VectorBench) -> None:
    """One request would hold all 600 rows: a ceiling for a third of them still pays for about a third."""
    await vectors.fill(600)
    ceiling = 0.0002
    verdict = await vectors.run(ceilings=Ceilings(run_usd=ceiling))
    assert verdict.exit is Exit.CEILING, verdict.headline
    assert verdict.money.actual_usd + verdict.money.possibly_usd <= ceiling
    assert verdict.books.wrote > 60
    await vectors.check()


async def test_f14_max_runtime_ends_a_vectorize_in_time_and_the_rest_is_done_later(vectors: VectorBench) -> None:
    """Exit 4, resumable, nothing paid twice."""
    vectors.fake.configure(latency=0.2)
    await vectors.fill(400)
    verdict = await vectors.run(job=IN_TENS, max_runtime_s=1.0, concurrency=2)
    assert (verdict.exit, verdict.next_command) == (Exit.STOPPED, "catchup vectorize")
    await vectors.check()
    vectors.fake.configure(latency=0.0)
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


async def test_f25_hostile_texts_are_embedded_cleaned_and_change_nothing_else(vectors: VectorBench) -> None:
    """Control characters, markup and orders are only text: cleaned, embedded, stored beside the vector."""
    await vectors.fill(1)
    texts = [*ATTACKS, *TITLES]
    storable = [t.encode("utf-8", "ignore").decode().replace("\x00", "") for t in texts]
    for n, text in enumerate(storable):
        await vectors.database.run(
            "insert into videos (id, title, channel_id, llm_summary) values (%s, %s, 'c', %s)",
            [f"x{n:05d}", text, text],
        )
    before = await vectors.database.run("select id, title, llm_summary from videos order by id")
    verdict = await vectors.run()
    assert verdict.exit is Exit.DONE, verdict
    assert verdict.books.wrote + verdict.books.skipped.total() == len(texts) + 1
    assert set(verdict.books.skipped) <= {"empty", "binary", "too long"}
    assert await vectors.database.run("select id, title, llm_summary from videos order by id") == before
    unsafe = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
    assert not any(unsafe.search(text) for body in vectors.fake.bodies for text in body["input"])
    kept = vectors.pinecone.vectors(vectors.embedding.namespace)
    assert not any(unsafe.search(str(value)) for each in kept.values() for value in each.metadata.values())


async def test_o7_every_request_at_both_services_is_an_attempt_of_ours(vectors: VectorBench) -> None:
    """One owner of retries: what the SDKs send is what is booked, though one in four fails."""
    await vectors.fill(300)
    vectors.fake.script(
        rule("status", on={"share": 0.15}, status=502, body="<html>"),
        rule("status", on={"share": 0.1}, status=429, body=PACE, headers={"retry-after-ms": "5"}),
    )
    vectors.pinecone.script(rule("status", on={"item": "upsert", "every": 4}, status=503, body="<html>"))
    verdict = await vectors.run(job=IN_TENS)
    assert (verdict.exit, verdict.calls) == (Exit.DONE, vectors.fake.world.requests)
    await vectors.check()


async def test_calls_out_when_the_grace_ends_are_booked_as_possibly_billed(vectors: VectorBench) -> None:
    """F3: an abandoned request for many texts may cost all of them: the ledger says so."""
    await vectors.fill(500)

    async def signal() -> None:
        while vectors.fake.world.requests < 5:
            await asyncio.sleep(0.001)
        vectors.fake.configure(latency=30.0)
        while vectors.fake.world.open < 3:
            await asyncio.sleep(0.01)
        assert vectors.running is not None
        vectors.running.ask_stop(Exit.SIGTERM, "terminated")

    verdict, _ = await asyncio.gather(vectors.run(job=IN_TENS, grace_s=0.3, concurrency=3, timeout_s=60.0), signal())
    assert verdict.exit is Exit.SIGTERM
    assert verdict.money.possibly_usd > 0
    assert vectors.fake.world.bill_usd <= verdict.money.actual_usd + verdict.money.possibly_usd + 1e-9
    await vectors.check()
