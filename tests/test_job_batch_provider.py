"""submit-batch when the provider misbehaves: F27 to F39 of the fault matrix, and the B rows of UPSTREAMS.md."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.engine.verdict import Exit
from queries.errors import Misconfigured
from queries.openai_batches import OpenAIBatches
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import Findings, judge, run_seed, visit_until_done
from tests.servers.bench import KEY
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, StartFaultProxy

LIVE = {"tail_live": 0}


async def finish(bench: BatchBench, **options: Any) -> Findings:
    """Visits to the end, judged by the provider's records; nothing may be broken."""
    found = await judge(bench, await visit_until_done(bench, **{**LIVE, **options}))
    assert found.broken() == {}, [(v.exit, v.headline) for v in found.verdicts]
    return found


@pytest.mark.parametrize("seed", [201, 202, 203])
async def test_b6_a_lying_provider_leaves_no_row_unaccounted_for(batch_bench: BatchBench, seed: int) -> None:
    """Lines missing, doubled, shuffled, foreign, garbage; counts that lie; ids and files lost on the way.

    `make chaos ARGS="--job submit-batch --seeds 200"` is the whole of it."""
    assert (await run_seed(batch_bench, seed)).broken() == {}


@pytest.mark.parametrize("lie", [{}, {"counts": "rosy"}, {"counts": "wild", "empty_error_id": True}])
async def test_f36_a_batch_that_failed_line_by_line_is_no_success(batch_bench: BatchBench, lie: dict[str, Any]) -> None:
    """B5: completed, no output file, and its counts say what they like: every row is sent once more, then named."""
    await batch_bench.fill(10)
    batch_bench.fake.batches.script({"lie": {"all_failed": True, **lie}})
    verdicts = await visit_until_done(batch_bench, **LIVE)
    last = verdicts[-1]
    assert (last.exit, last.books.failed["no answer"], last.books.balance()) == (Exit.SOME_NAMED, 9, True)
    assert batch_bench.fake.batches.calls["create"] == 2, "once more, and not for ever"
    assert (await judge(batch_bench, verdicts)).broken() == {}


@pytest.mark.parametrize(
    "lie",
    [{"missing": 0.3}, {"doubled": 0.9}, {"shuffled": True}, {"status_zero": 0.4}, {"foreign": 9, "garbage": 4}],
    ids=lambda lie: next(iter(lie)),
)
async def test_f36_lines_missing_doubled_shuffled_or_foreign(batch_bench: BatchBench, lie: dict[str, Any]) -> None:
    """Rows are found by id: what is missing goes once more, nothing is counted twice, no stranger is believed."""
    await batch_bench.fill(30)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": lie})
    await finish(batch_bench)
    assert all((await batch_bench.cells()).values())
    assert set(batch_bench.paid().values()) == {1}


async def test_f37_an_expired_batch_gives_what_was_paid_and_the_rest_goes_again(batch_bench: BatchBench) -> None:
    """B8: at 37 % the day is over: 37 % are written, 63 % are sent again, and no line is paid for and thrown away."""
    await batch_bench.fill(101)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": {"ends": "expired", "share": 0.37}})
    await finish(batch_bench)
    assert (await batch_bench.chunks())[0]["books"] == {"wrote": 37, "resubmitted: expired": 63}
    assert all((await batch_bench.cells()).values())
    assert set(batch_bench.paid().values()) == {1}


async def test_f37_a_cancelled_batch_is_harvested(batch_bench: BatchBench) -> None:
    """Half-way: what was done by then is kept, the rest goes again."""
    await batch_bench.fill(41)
    world = batch_bench.fake.batches
    world.configure(working_s=1_000.0, cancelling_s=300.0)
    await batch_bench.visit(**LIVE)
    world.advance(500.0)
    (batch,) = world.batches.values()
    batch.cancel_at = world.now
    world.advance(400.0)
    await batch_bench.visit(**LIVE)
    wrote = (await batch_bench.chunks())[0]["books"]
    assert 15 <= wrote["wrote"] <= 25
    assert wrote["wrote"] + wrote["resubmitted: cancelled"] == 40
    await finish(batch_bench)
    assert set(batch_bench.paid().values()) == {1}


@pytest.mark.parametrize("state", ["validating", "in_progress", "somewhere_new"])
async def test_f37_a_stuck_batch_is_named_and_rescued_on_request(batch_bench: BatchBench, state: str) -> None:
    """B13: without progress for --stall it is said; --rescue cancels it, and its rows go another way, paid once."""
    await batch_bench.fill(20)
    world = batch_bench.fake.batches
    world.script({"match": {"nth": 1}, "lie": {"stuck": state}})
    await batch_bench.visit(**LIVE)
    quiet = await batch_bench.visit(**LIVE)
    assert not any("stalled" in note for note in quiet.notes)
    await batch_bench.age(7.0)
    told = await batch_bench.visit(**LIVE)
    assert any("stalled" in note and "--rescue" in note for note in told.notes)
    assert told.exit is Exit.DONE
    if state == "somewhere_new":
        assert any("a state we do not know" in note for note in told.notes)
    await batch_bench.visit(rescue=True, **LIVE)
    await finish(batch_bench, rescue=True)
    assert all((await batch_bench.cells()).values())
    assert set(batch_bench.paid().values()) == {1}


async def test_f35_a_refusal_for_room_puts_the_rows_back_unpaid(batch_bench: BatchBench) -> None:
    """B2: it arrives after create had succeeded; the limit is learned from its words, and kept with its age."""
    await batch_bench.fill(80)
    batch_bench.fake.batches.configure(enqueued_limit=5_000)
    await finish(batch_bench)
    learned = await batch_bench.database.run("select tokens from catchup.batch_limits")
    assert [tokens for (tokens,) in learned] == [5_000]
    assert [b.status for b in batch_bench.fake.batches.batches.values()].count("failed") == 1
    assert set(batch_bench.paid().values()) == {1}


@pytest.mark.parametrize(
    "lie",
    [
        {"upload": "lost"},
        {"upload": "unanswered"},
        {"upload": "failing"},
        {"create": "unanswered"},
        {"create": "failing"},
        {"create": "unanswered", "listed_after_s": 100.0},
    ],
    ids=lambda lie: "-".join(map(str, lie.values())),
)
async def test_f38_a_lost_answer_is_looked_for_before_anything_is_done_again(
    batch_bench: BatchBench, lie: dict[str, Any]
) -> None:
    """B9: one file and one batch a chunk, also where the batch is not in the list yet."""
    await batch_bench.fill(12)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": lie})
    await finish(batch_bench)
    chunks = [batch.metadata["catchup_chunk"] for batch in batch_bench.fake.batches.batches.values()]
    assert len(chunks) == len(set(chunks)) == 1
    assert set(batch_bench.paid().values()) == {1}


@pytest.mark.parametrize("yes", [False, True])
async def test_f39_results_the_provider_has_no_more_are_lost_by_name(batch_bench: BatchBench, yes: bool) -> None:
    """B10: never pending for ever, never silently paid again: only --yes sends them once more."""
    await batch_bench.fill(10)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": {"content": "gone"}})
    await batch_bench.visit(yes=yes, **LIVE)
    await batch_bench.age(25.0)
    verdict = await batch_bench.visit(yes=yes, **LIVE)
    paid = batch_bench.paid()
    if yes:
        assert verdict.books.failed.total() == 0
        verdicts = await visit_until_done(batch_bench, **LIVE)
        assert verdicts[-1].exit is Exit.DONE
        assert sorted(batch_bench.paid().values()) == [1, *[2] * 9]
        return
    assert (verdict.exit, verdict.books.failed["results lost"]) == (Exit.SOME_NAMED, 9)
    assert any("its results are lost" in note for note in verdict.notes)
    again = await batch_bench.visit(**LIVE)
    assert (again.books.selected, batch_bench.paid()) == (0, paid)


async def test_b12_faults_while_polling_send_nothing_again(batch_bench: BatchBench) -> None:
    """Half of the polls fail, one in ten with a 404: still one batch, and the gaps between polls are honest."""
    await batch_bench.fill(12)
    world = batch_bench.fake.batches
    world.configure(polls_fail=0.5, working_s=1_000.0)
    await finish(batch_bench, watch=True)
    assert len(world.batches) == 1


async def test_b12_watching_polls_no_oftener_than_every_half_minute(batch_bench: BatchBench) -> None:
    """An hour of watching is at most 120 polls a batch: a quarter of an hour has enough gaps to say so."""
    await batch_bench.fill(12)
    world = batch_bench.fake.batches
    world.configure(working_s=900.0)
    await finish(batch_bench, watch=True)
    gaps = [later - earlier for earlier, later in zip(world.polls[1:], world.polls[2:], strict=False)]
    assert len(gaps) > 10
    assert min(gaps) >= 29.0, gaps


@pytest.mark.parametrize(
    ("kind", "exit_", "named"),
    [
        ("quota", Exit.STOPPED, 0),
        ("auth", Exit.REFUSED, 0),
        ("too_long", Exit.SOME_NAMED, 3),
        ("filtered", Exit.SOME_NAMED, 3),
    ],
)
async def test_b11_a_line_is_judged_as_a_live_answer_is(
    batch_bench: BatchBench, kind: str, exit_: Exit, named: int
) -> None:
    """The same body gives the same verdict on both roads: the run's fault stops it, the row's is named."""
    await batch_bench.fill(20)
    batch_bench.fake.script(rule(kind, on={"item": "^v00000[789]$"}))
    verdict = await batch_bench.visit(**LIVE)
    assert (verdict.exit, verdict.books.failed.total()) == (exit_, named), verdict
    assert verdict.books.wrote == 17


@pytest.mark.parametrize("kind", ["refusal", "finish", "empty", "null_content", "malformed", "no_choices"])
async def test_f32_an_answer_that_is_none_is_stored_by_nobody(batch_bench: BatchBench, kind: str) -> None:
    """Refused, cut off, empty or malformed inside a 200 line: named, the rest is written, the bill is on the books."""
    await batch_bench.fill(20)
    batch_bench.fake.script(rule(kind, on={"item": "^v00000[789]$"}))
    verdicts = await visit_until_done(batch_bench, tail_live=0)
    cells = await batch_bench.cells()
    assert {key for key, text in cells.items() if not text} == {"v000007", "v000008", "v000009"}
    assert verdicts[-1].exit is Exit.SOME_NAMED
    bill = batch_bench.fake.world.bill_usd
    spent, possibly = (
        await batch_bench.database.run("select sum(spent_usd)::float8, sum(possibly_usd)::float8 from catchup.runs")
    )[0]
    assert spent - 1e-9 <= bill <= spent + possibly + 1e-9


async def test_f33_a_row_too_large_for_the_limit_blocks_no_other(batch_bench: BatchBench) -> None:
    """It is named with its size and the limit; everything else goes."""
    await batch_bench.fill(20)
    await batch_bench.database.run(
        "update videos set description = description || repeat(' harbour cranes', 4000) where id = 'v000012'"
    )
    verdicts = await visit_until_done(batch_bench, enqueued_limit=3_000, **LIVE)
    failed = [named for verdict in verdicts for named in verdict.named]
    assert [(named.key, named.reason) for named in failed] == [("v000012", "too large for a batch")]
    assert sum(bool(text) for text in (await batch_bench.cells()).values()) == 19


@pytest.mark.parametrize("kind", ["auth", "model_404", "unsupported"])
async def test_f31_a_wrong_key_or_model_stops_at_the_canary(batch_bench: BatchBench, kind: str) -> None:
    """One live row first: no file is uploaded that every line of would fail."""
    await batch_bench.fill(20)
    batch_bench.fake.script(rule(kind))
    verdict = await batch_bench.visit()
    assert (verdict.exit, batch_bench.fake.batches.calls, batch_bench.paid()) == (Exit.REFUSED, {}, {})


async def test_f31_a_file_that_is_refused_as_a_whole_stops_the_run(batch_bench: BatchBench) -> None:
    """Failed validation is nobody's row: all are back, nothing is paid, and the provider's words are said."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(requests_most=5)
    verdict = await batch_bench.visit()
    assert (verdict.exit, verdict.books.failed.total(), len(batch_bench.paid())) == (Exit.REFUSED, 0, 1)
    assert "max_requests_exceeded" in verdict.headline
    assert [state for *_, state in await batch_bench.out()] == ["back"] * 19


async def test_f28_no_money_left_stops_the_visit_and_blames_no_row(batch_bench: BatchBench) -> None:
    """Quota at the canary: exit 4, and nothing was handed in."""
    await batch_bench.fill(10)
    batch_bench.fake.script(rule("quota"))
    verdict = await batch_bench.visit()
    assert (verdict.exit, verdict.books.failed.total(), batch_bench.fake.batches.calls) == (Exit.STOPPED, 0, {})


@pytest.mark.parametrize("rpm", [900])
async def test_f27_the_live_part_keeps_to_the_pace(batch_bench: BatchBench, rpm: int) -> None:
    """A tail by the live road meets the same 429 as any live run, and fails no row."""
    await batch_bench.fill(40)
    batch_bench.fake.batches.script({"match": {"nth": 1}, "lie": {"ends": "expired", "share": 0.5}})
    batch_bench.fake.configure(rpm=rpm)
    found = await judge(batch_bench, await visit_until_done(batch_bench, tail_live=100))
    assert found.broken() == {}
    assert all((await batch_bench.cells()).values())


@pytest.mark.parametrize(("times", "exits"), [(2, (Exit.DONE,)), (10_000, (Exit.STOPPED, Exit.BREAKER))])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/content"])
async def test_f29_a_provider_that_fails_is_waited_for_and_sends_nothing_twice(
    batch_bench: BatchBench, start_fault_proxy: StartFaultProxy, path: str, times: int, exits: tuple[Exit, ...]
) -> None:
    """Now and then costs nothing; always is an outage, exit 4, and the next visit goes on from there."""
    await batch_bench.fill(12)
    proxy = await start_fault_proxy(batch_bench.fake.url.removesuffix("/v1"))
    proxy.inject(Fault(path, "answer", times=times, status=503, body=HTML, content_type="text/html"))
    verdict = await batch_bench.visit(batches=OpenAIBatches(KEY, f"{proxy.url}/v1"), max_outage_s=600.0, **LIVE)
    assert (verdict.exit in exits, verdict.books.failed.total()) == (True, 0), verdict
    await finish(batch_bench)
    assert len(batch_bench.fake.batches.batches) == 1
    assert set(batch_bench.paid().values()) == {1}


async def test_f30_what_was_billed_and_never_answered_stays_on_the_books(batch_bench: BatchBench) -> None:
    """Lines whose 200 nobody can read are billed: the ledger's interval holds the provider's bill."""
    await batch_bench.fill(40)
    batch_bench.fake.script(rule("malformed", on={"attempts": 1, "every": 4}))
    found = await judge(batch_bench, await visit_until_done(batch_bench, **LIVE))
    assert set(found.broken()) == {"paid_twice"}, "what nobody could read was asked again, and both are in the interval"
    assert all((await batch_bench.cells()).values())


async def test_the_local_provider_has_no_batches(batch_bench: BatchBench) -> None:
    """Exit 10 says which command does the same work."""
    from cli.submit_batch import open_batches  # noqa: PLC0415

    class Local:
        is_local = True

    class Work:
        service = Local()
        job = batch_bench

    batch_bench.name = "backfill-summaries"  # type: ignore[attr-defined]
    with pytest.raises(Misconfigured, match="no Batch API") as refused:
        open_batches(Work(), None, None, None)  # type: ignore[arg-type]
    assert "catchup backfill-summaries" in refused.value.fix
