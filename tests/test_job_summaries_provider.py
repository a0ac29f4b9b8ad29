"""backfill-summaries when the provider misbehaves: the rows of the fault matrix that OpenAI causes."""

from __future__ import annotations

import pytest

from jobs.engine.verdict import Exit
from queries.ledger import Ceilings
from tests.servers.bench import KEY, Bench, sums
from tests.servers.fake_script import rule


async def test_f27_rate_limits_fail_no_row_and_spend_no_retry(bench: Bench) -> None:
    """A third of all requests refused for pace: every row is written, every 429 is booked as free."""
    await bench.fill(60)
    refusal = {
        "error": {
            "message": "Rate limit reached. Please try again in 20ms.",
            "type": "requests",
            "code": "rate_limit_exceeded",
        }
    }
    bench.fake.script(rule("status", on={"every": 3}, status=429, body=refusal, headers={"retry-after-ms": "20"}))
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote, verdict.money.possibly_usd) == (Exit.DONE, 60, 0.0)
    assert verdict.throttled > 10
    assert verdict.calls == bench.fake.world.requests


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    ],
)
async def test_f28_out_of_money_stops_at_once_and_blames_no_row(bench: Bench, code: str) -> None:
    """At most what was in flight is asked after the first such answer; exit 4, resumable."""
    await bench.fill(200)
    body = {"error": {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": code}}
    bench.fake.script(rule("status", on={"after": 40}, status=429, body=body))
    verdict = await bench.run(concurrency=8)
    assert (verdict.exit, sum(verdict.books.failed.values())) == (Exit.STOPPED, 0)
    assert bench.fake.world.requests <= 40 + 8
    assert verdict.books.wrote == 40
    assert "quota" in verdict.headline
    bench.fake.script()
    assert (await bench.run()).exit is Exit.DONE
    assert set(bench.paid().values()) == {1}


async def test_f29_one_fault_in_five_reaches_no_row(bench: Bench) -> None:
    """Twenty per cent of 500s: all rows written, amplification at most 1.35."""
    await bench.fill(300)
    bench.fake.script(rule("status", on={"share": 0.2}, status=500, body="<html>oops</html>"))
    verdict = await bench.run(concurrency=64)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 300)
    assert bench.fake.world.requests <= 300 * 1.35


async def test_f29_a_dead_provider_costs_at_most_fifty_calls(bench: Bench) -> None:
    """All calls answered 503 with HTML: the breaker ends it, exit 5, no row is blamed."""
    await bench.fill(500)
    bench.fake.script(rule("status", status=503, body="<html>Service Unavailable</html>"))
    verdict = await bench.run(max_outage_s=1.0)
    assert verdict.exit is Exit.BREAKER
    assert bench.fake.world.requests <= 50
    assert not verdict.books.failed
    assert sum(bench.paid().values()) == 0


async def test_f30_an_answer_lost_after_billing_stays_on_the_books(bench: Bench) -> None:
    """The ledger's interval always contains the provider's bill."""
    await bench.fill(60)
    bench.fake.script(rule("hang", on={"share": 0.1, "attempts": 1}))
    verdict = await bench.run(timeout_s=0.4, concurrency=32)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 60)
    booked = (await bench.database.run("select spent_usd, possibly_usd from catchup.runs"))[0]
    assert float(booked[1]) > 0
    low, high = float(booked[0]), float(booked[0]) + float(booked[1])
    assert low - 1e-6 <= verdict.money.actual_usd <= high + 1e-6
    assert sum(bench.paid().values()) > 60


@pytest.mark.parametrize("kind", ["auth", "model_404", "unsupported"])
async def test_f31_a_wrong_key_model_or_parameter_is_refused_after_one_call(bench: Bench, kind: str) -> None:
    """Exit 10, nothing paid, and the key is in no word of it."""
    await bench.fill(20)
    bench.fake.script(rule(kind))
    verdict = await bench.run()
    assert (verdict.exit, sum(bench.paid().values())) == (Exit.REFUSED, 0)
    # an older server is asked once more with the older name of the length limit
    assert bench.fake.world.requests == verdict.calls == (2 if kind == "unsupported" else 1)
    assert not verdict.books.failed
    assert KEY not in str(verdict.as_json())


async def test_f31_a_key_revoked_in_the_middle_stops_the_run(bench: Bench) -> None:
    """At most what was in flight is asked after the first 401."""
    await bench.fill(200)
    bench.fake.script(rule("auth", on={"after": 50}))
    verdict = await bench.run(concurrency=6)
    assert (verdict.exit, verdict.books.wrote, sum(verdict.books.failed.values())) == (Exit.REFUSED, 50, 0)
    assert bench.fake.world.requests <= 56


@pytest.mark.parametrize(
    ("kind", "action", "reason"),
    [
        ("finish", {"reason": "length"}, "cut off by its length limit"),
        ("finish", {"reason": "content_filter"}, "content filter"),
        ("refusal", {}, "refusal"),
        ("answer", {"text": "I'm sorry, but I can't assist with that request."}, "refusal"),
        ("null_content", {}, "empty answer"),
        ("empty", {}, "empty answer"),
        ("echo", {}, "echo"),
        ("filtered", {}, "content_filter"),
    ],
    ids=["length", "filter", "refusal", "sorry", "null", "empty", "echo", "flagged"],
)
async def test_f32_what_is_no_summary_is_named_and_never_written(
    bench: Bench, kind: str, action: dict[str, str], reason: str
) -> None:
    """Four rows of thirty get such an answer: they alone are named, exit 3, and they do not come back by themselves."""
    await bench.fill(30)
    bench.fake.script(rule(kind, on={"item": r"^v00000[2345]$"}, **action))
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote, sum(verdict.books.failed.values())) == (Exit.SOME_NAMED, 26, 4)
    assert all(reason in named.reason for named in verdict.named), verdict.named
    cells = await bench.cells()
    assert [key for key, text in cells.items() if text is None] == [f"v00000{n}" for n in (2, 3, 4, 5)]
    again = await bench.run()
    assert (again.exit, again.calls) == (Exit.DONE, 0)


@pytest.mark.parametrize("kind", ["html200", "malformed", "no_choices", "error200", "half_body", "wrong_types"])
async def test_f32_a_malformed_200_is_never_stored_and_may_have_cost_money(bench: Bench, kind: str) -> None:
    """Tried again, at most three times in all; what it may have cost is booked."""
    await bench.fill(20)
    bench.fake.script(rule(kind, on={"item": r"^v000007$"}), rule(kind, on={"item": r"^v000009$", "attempts": 1}))
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 19, {"no answer": 1})
    assert bench.fake.world.attempts["v000007"] == 3
    assert verdict.money.possibly_usd > 0


async def test_f32_the_same_sentence_for_many_rows_is_not_written(bench: Bench) -> None:
    """A provider stuck on one sentence: nothing of it stays in the table, and the run ends saying so."""
    await bench.fill(200)
    bench.fake.script(rule("same", on={"items_after": 10}))
    verdict = await bench.run(concurrency=4)
    assert verdict.exit is Exit.BREAKER
    assert "same" in verdict.headline
    texts = [text for text in (await bench.cells()).values() if text]
    assert len(texts) == len(set(texts)) == verdict.books.wrote == 10
    assert verdict.books.balance()


async def test_f33_a_row_too_large_for_the_tier_is_named_after_one_call(bench: Bench) -> None:
    """It can never succeed; the others do."""
    bench.fake.configure(rpm=60_000, tpm=60_000)
    await bench.fill(5)
    await bench.fill(1, prefix="w", text="word " * 50_000)
    verdict = await bench.run()
    assert dict(verdict.books.failed) == {"too_large_for_tier": 1}
    assert bench.fake.world.requests == verdict.calls
    assert verdict.books.wrote == 5


async def test_f25_hostile_answers_are_cleaned_and_change_nothing_but_the_cell(bench: Bench) -> None:
    """NUL, ESC, bidi, surrogates and markup do not reach the table; the other columns stay as they were."""
    await bench.fill(10)
    bench.fake.script(rule("hostile"))
    before = await bench.database.run("select id, title, description, view_count from videos order by id")
    verdict = await bench.run()
    assert verdict.exit in (Exit.DONE, Exit.SOME_NAMED, Exit.REFUSED, Exit.BREAKER)
    assert await bench.database.run("select id, title, description, view_count from videos order by id") == before
    for text in (await bench.cells()).values():
        assert text is None or not set(text) & {"\x00", "\x1b", "\u202e", "\u2066", "\ud800"}
        assert text is None or "<script>" not in text


async def test_f14_the_ceiling_is_never_passed_and_ends_with_exit_8(bench: Bench) -> None:
    """The worst case of what is sent stays below it; the rest is done when it is raised."""
    await bench.fill(200)
    verdict = await bench.run(ceilings=Ceilings(run_usd=0.004), concurrency=16)
    assert verdict.exit is Exit.CEILING
    assert verdict.money.actual_usd + verdict.money.possibly_usd <= 0.004
    assert 0 < verdict.books.wrote < 200
    assert (await bench.run()).exit is Exit.DONE
    assert set(bench.paid().values()) == {1}


async def test_f12_a_provider_that_accepts_and_never_answers_is_noticed(bench: Bench) -> None:
    """All sockets hang: the run ends by itself, with everything it may have cost on the books."""
    await bench.fill(30)
    bench.fake.script(rule("hang"))
    verdict = await bench.run(timeout_s=0.2, max_outage_s=1.0)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED, Exit.REFUSED)
    assert verdict.money.possibly_usd > 0
    assert verdict.books.balance()


async def test_every_request_at_the_server_is_an_attempt_on_our_books(bench: Bench) -> None:
    """One owner of retries: the SDK adds none."""
    await bench.fill(80)
    bench.fake.script(
        rule("status", on={"share": 0.1}, status=502, body="<html>"),
        rule(
            "status",
            on={"share": 0.1},
            status=429,
            body={"error": {"message": "x", "code": "rate_limit_exceeded"}},
            headers={"retry-after-ms": "5"},
        ),
    )
    verdict = await bench.run()
    calls = (await bench.database.run("select calls from catchup.runs"))[0][0]
    assert bench.fake.world.requests == verdict.calls == calls
    assert sum(sums(verdict)) == verdict.books.selected


async def test_a_refusal_that_meets_every_row_alike_stops_the_run(bench: Bench) -> None:
    """A 400 nobody has seen before is taken for the row's own; twenty of them in a row are not."""
    await bench.fill(300)
    odd = {"error": {"message": "Something new is wrong here.", "type": "invalid_request_error", "code": "brand_new"}}
    bench.fake.script(rule("status", on={"after": 30}, status=400, body=odd))
    verdict = await bench.run(concurrency=4)
    assert verdict.exit is Exit.REFUSED
    assert "20 rows in a row" in verdict.headline
    assert verdict.books.wrote == 30
    assert bench.fake.world.requests <= 30 + 20 + 4


async def test_output_that_the_server_does_not_count_is_counted_for_it(bench: Bench) -> None:
    """A server without `usage` is not free of charge: ceilings would hold nothing."""
    bench.fake.configure(no_usage=True)
    await bench.fill(10)
    verdict = await bench.run()
    assert verdict.books.wrote == 10
    tokens = sum(len(text or "") for text in (await bench.cells()).values()) / 8
    assert verdict.money.actual_usd > tokens * 0.60 / 1e6
