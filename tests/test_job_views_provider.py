"""refresh-views when YouTube misbehaves: its quota, its pace, what it leaves out, and the road to it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import date, datetime
from typing import Any

import pytest

from jobs.engine.clock import Clock
from jobs.engine.verdict import Exit
from jobs.metered_views import say_reset
from queries.quota import Units
from tests.servers.fake_script import rule
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.views_bench import YOUTUBE_KEY, ViewsBench
from tests.servers.views_shell import until
from tests.servers.virtual_clock import FastClock


async def test_a_whole_table_is_tracked_in_whole_calls(views: ViewsBench) -> None:
    """1,001 videos are 21 calls and 21 units, and every video has its snapshot and its own counts."""
    await views.fill(1_001)
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1_001)
    assert (views.fake.requests, views.fake.units, len(views.fake.asked)) == (21, 21, 1_001)
    told = {id_: views.fake.statistics(id_) for id_ in await views.own_counts()}
    wanted = {id_: tuple(int(each[n]) for n in COUNTED) for id_, each in told.items() if each}
    assert await views.own_counts() == wanted
    assert await views.snapshots() == wanted
    await views.check()


COUNTED = ("viewCount", "likeCount", "commentCount")
AFTER_MIDNIGHT = (
    "create or replace function catchup.quota_clock() returns timestamptz language sql volatile "
    "set search_path = '' as $$ select clock_timestamp() + interval '25 hours' $$"
)


@pytest.mark.parametrize("kind", ["quota", "daily", "quota_rpc"])
async def test_f43_after_quota_exceeded_nothing_is_asked_before_the_reset(views: ViewsBench, kind: str) -> None:
    """Exit 4 with the time of the reset; the next command makes no call at all; after midnight Pacific it goes on."""
    await views.fill(1_000)
    views.fake.script(rule(kind, on={"after": 6}))
    verdict = await views.run(concurrency=4)
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.STOPPED, 0)
    assert "resets at" in verdict.headline
    assert views.fake.requests <= 6 + 4
    asked = views.fake.requests
    views.fake.script()
    again = await views.run()
    assert (again.exit, views.fake.requests) == (Exit.STOPPED, asked)
    assert "resets at" in again.headline
    await views.database.run(AFTER_MIDNIGHT)
    later = await views.run()
    assert later.exit is Exit.DONE
    assert len(await views.snapshots()) == 1_000
    assert max(views.fake.asked.values()) <= 2
    await views.check()


async def test_f43_the_quota_of_the_operator_is_never_passed(views: ViewsBench) -> None:
    """12 units less 3 for the application are nine calls, over two runs; then exit 4 without a tenth."""
    await views.fill(1_000)
    first = await views.run(quota=12, reserve=3, limit=200)
    assert (first.exit, views.fake.requests) == (Exit.DONE, 4)
    verdict = await views.run(quota=12, reserve=3)
    assert (verdict.exit, views.fake.requests) == (Exit.STOPPED, 9)
    assert "9 of 12 units are booked, and 3 are the application's: today's quota is used up" in verdict.headline
    assert len(await views.snapshots()) == 450
    assert verdict.facts["units_left"] == 0
    await views.check()


@pytest.mark.parametrize(
    ("resets_at", "zone", "said"),
    [
        ("2026-03-08T08:00:00Z", "Europe/Berlin", "2026-03-08 09:00 CET (midnight Pacific)"),
        ("2026-03-09T07:00:00Z", "Europe/Berlin", "2026-03-09 08:00 CET (midnight Pacific)"),
        ("2026-11-01T07:00:00Z", "America/Los_Angeles", "2026-11-01 00:00 PDT (midnight Pacific)"),
        ("2026-11-02T08:00:00Z", "America/Los_Angeles", "2026-11-02 00:00 PST (midnight Pacific)"),
        ("2026-11-02T08:00:00Z", "Asia/Kathmandu", "2026-11-02 13:45 +0545 (midnight Pacific)"),
        ("2026-11-02T08:15:00Z", "UTC", "2026-11-02 08:15 UTC (a quarter past midnight Pacific)"),
    ],
)
def test_f43_the_reset_is_told_in_the_operators_own_time(
    monkeypatch: pytest.MonkeyPatch, resets_at: str, zone: str, said: str
) -> None:
    """Around both changes of the clock, there and here."""
    units = Units(0, 0, date(2026, 11, 1), datetime.fromisoformat(resets_at), 0.0, True, 0, 0)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert say_reset(units) == said
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_f43_units_that_were_not_spent_are_free_for_the_next_run(views: ViewsBench) -> None:
    """Lumps are larger than what a short run needs; what is over comes back with its end."""
    await views.fill(300)
    await views.run()
    assert await views.database.run("select booked from catchup.quota") == [(6,)]
    await views.check()


async def test_f9_after_a_sleep_over_midnight_every_call_is_booked_in_the_new_day(views: ViewsBench) -> None:
    """Also the call that was admitted and waited for its turn when the lid was closed."""

    class Lid(Clock):
        slept_s = 0.0

        def lasting(self) -> float:
            return super().lasting() + self.slept_s

    clock = Lid()
    await views.fill(400)

    async def sleep() -> int:
        await until(lambda: views.fake.requests >= 4)
        await views.database.run(AFTER_MIDNIGHT)
        clock.slept_s = 90_000.0
        return views.fake.requests

    verdict, before = await asyncio.gather(views.run(clock=clock, concurrency=3, max_per_min=240), sleep())
    assert (verdict.exit, verdict.books.wrote, views.fake.requests) == (Exit.DONE, 400, 8)
    assert await views.database.run("select booked from catchup.quota order by day") == [(before,), (8 - before,)]
    await views.check()


@pytest.mark.parametrize("kind", ["rate", "rate_rpc"])
async def test_f43_a_pace_limit_slows_down_and_fails_no_video(views: ViewsBench, kind: str) -> None:
    """Every third call is refused for its pace: all are tracked, and each is asked again."""
    await views.fill(1_000)
    views.fake.script(rule(kind, on={"every": 3}))
    verdict = await views.run(clock=FastClock())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1_000)
    assert verdict.throttled >= 8
    await views.check()


async def test_f44_a_video_that_comes_back_is_not_unavailable(views: ViewsBench) -> None:
    """Absent, there, absent: two absences on end make it unavailable, not two ever."""
    await views.fill(3)
    for gone in ({"v0000000001"}, set(), {"v0000000001"}):
        views.fake.gone = gone
        verdict = await views.run()
        assert (verdict.exit, verdict.books.failed.total()) == (Exit.DONE, 0)
        await views.pass_days(1)


async def test_f44_a_service_that_knows_no_video_at_all_is_not_believed(views: ViewsBench) -> None:
    """200 with no items, again and again: exit 5 within a few calls, and nobody is declared dead."""
    await views.fill(1_000)
    views.fake.script(rule("empty", on={"after": 3}))
    verdict = await views.run(concurrency=1, clock=FastClock())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.BREAKER, 0)
    assert verdict.books.skipped["absent"] == 0
    assert views.fake.requests <= 3 + 6
    assert await views.database.run("select count(*) from catchup.schedule where absent_on is not null") == [(0,)]
    await views.check()


ODD: list[Any] = [
    pytest.param({"statistics": {"viewCount": "1e3"}}, "views no whole number", id="no digits"),
    pytest.param({"statistics": {"viewCount": str(2**64 - 1)}}, "views beyond 64 bits", id="beyond bigint"),
    pytest.param({"statistics": "7"}, "statistics unreadable", id="another shape"),
    pytest.param({"statistics": None}, "no view count", id="no statistics"),
]


@pytest.mark.parametrize(("item", "reason"), ODD)
async def test_one_odd_item_is_named_and_never_stops_the_others(
    views: ViewsBench, item: dict[str, Any], reason: str
) -> None:
    """It keeps its counts, gets no snapshot and no zero; the forty-nine beside it are tracked."""
    await views.fill(50)
    views.fake.script(rule("change", item=item, at=9))
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 49, {reason: 1})
    (named,) = verdict.named
    assert (await views.own_counts())[named.key] == (None, None, None)
    assert named.key not in await views.snapshots()
    await views.check()


async def test_strangers_in_an_answer_are_nobodys_counts(views: ViewsBench) -> None:
    """Items that were not asked for change nothing, and what is missing beside them is not absent."""
    await views.fill(50)
    stranger = {"id": "stranger", "statistics": {"viewCount": "1"}}
    views.fake.script(rule("add", items=[stranger]))
    views.fake.gone = {"v0000000007"}
    verdict = await views.run()
    assert (verdict.books.wrote, verdict.books.skipped["absent"]) == (49, 0)
    assert "stranger" not in await views.snapshots()
    assert (await views.own_counts())["v0000000007"] == (None, None, None)


async def test_f11_five_minutes_without_network_fail_no_video(views: ViewsBench) -> None:
    """YouTube is away in the middle of a run and comes back: everything is tracked, and no unit is spent on it."""
    await views.fill(2_000)
    views.fake.configure(latency=0.02)
    running = asyncio.create_task(views.run(clock=FastClock(), max_outage_s=900.0, concurrency=4))
    while views.fake.requests < 8:
        await asyncio.sleep(0.01)
    await views.fake.__aexit__()
    await asyncio.sleep(3.0)
    await views.fake.__aenter__()
    verdict = await running
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 2_000)
    assert verdict.seconds > 300


async def test_f11_an_outage_longer_than_allowed_is_exit_4_and_goes_on_later(views: ViewsBench) -> None:
    """Nobody listens: no video is blamed, and the same command does the rest."""
    await views.fill(500)
    await views.fake.__aexit__()
    verdict = await views.run(clock=FastClock(), max_outage_s=60.0)
    assert (verdict.exit, verdict.books.failed.total(), verdict.books.wrote) == (Exit.STOPPED, 0, 0)
    await views.fake.__aenter__()
    assert (await views.run()).exit is Exit.DONE
    assert len(await views.snapshots()) == 500


async def test_f12_sockets_that_hang_for_a_while_are_waited_out(views: ViewsBench) -> None:
    """Some calls are accepted and never answered: they are given up, booked, and made again."""
    await views.fill(1_000)
    views.fake.script(rule("hang", on={"share": 0.2, "attempts": 1}))
    verdict = await views.run(timeout_s=1.0, concurrency=4)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1_000)
    assert views.fake.requests > 20
    await views.check()


async def test_f12_a_youtube_that_accepts_and_never_answers_is_noticed(views: ViewsBench) -> None:
    """All hang: the run ends by itself within its limit of an outage, and no video is blamed."""
    await views.fill(500)
    views.fake.script(rule("hang"))
    verdict = await views.run(timeout_s=0.2, clock=FastClock(), max_outage_s=120.0)
    assert verdict.exit in (Exit.STOPPED, Exit.BREAKER)
    assert (verdict.books.failed.total(), verdict.books.wrote) == (0, 0)
    assert views.fake.requests <= 50
    await views.check()


BROKEN: list[Any] = [
    pytest.param(rule("raw", on={"share": 0.2}, status=200), id="a captive portal"),
    pytest.param(rule("cut_json", on={"share": 0.2}), id="cut JSON"),
    pytest.param(rule("close", on={"share": 0.2}), id="closed without an answer"),
    pytest.param(rule("raw", on={"share": 0.2}, status=502), id="a gateway's page"),
]


@pytest.mark.parametrize("action", BROKEN)
async def test_f16_answers_that_are_none_cost_units_and_no_video(views: ViewsBench, action: dict[str, Any]) -> None:
    """One in five is broken: every video is tracked, and nothing of a broken answer is stored."""
    await views.fill(1_000)
    views.fake.script(action)
    verdict = await views.run(clock=FastClock())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1_000)
    assert views.fake.requests <= 20 * 2
    await views.check()


async def test_f16_a_youtube_that_is_down_costs_at_most_fifty_calls(views: ViewsBench) -> None:
    """Every answer is a gateway's page: exit 5, nobody blamed, and the rest is done later."""
    await views.fill(3_000)
    views.fake.script(rule("raw", on={"after": 3}, status=503))
    verdict = await views.run(max_outage_s=1.0)
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.BREAKER, 0)
    assert views.fake.requests <= 50
    views.fake.script()
    assert (await views.run()).exit is Exit.DONE
    assert len(await views.snapshots()) == 3_000
    await views.check()


@pytest.mark.parametrize("kind", ["key_invalid", "not_configured", "forbidden"])
async def test_f22_a_key_that_is_refused_costs_one_call_and_blames_nobody(views: ViewsBench, kind: str) -> None:
    """Exit 10 at the first answer, with what to look at."""
    await views.fill(500)
    views.fake.script(rule(kind))
    verdict = await views.run()
    assert (verdict.exit, verdict.books.failed.total(), views.fake.requests) == (Exit.REFUSED, 0, 1)
    assert "YOUTUBE_API_KEY" in verdict.fix
    await views.check()


async def test_f22_a_key_revoked_in_the_middle_stops_the_run(views: ViewsBench) -> None:
    """At most what was in flight is asked after the first such answer; what was answered is stored."""
    await views.fill(1_000)
    views.fake.script(rule("key_invalid", on={"after": 8}))
    verdict = await views.run(concurrency=4)
    assert (verdict.exit, verdict.books.failed.total(), verdict.books.wrote) == (Exit.REFUSED, 0, 400)
    assert views.fake.requests <= 8 + 4
    await views.check()


async def test_f26_a_redirect_is_refused_and_the_key_does_not_follow(views: ViewsBench) -> None:
    """Exit 10 with the first call; where it leads nobody connects to."""
    await views.fill(100)
    async with FakeYouTube() as elsewhere:
        views.fake.script(rule("raw", status=302, body="", headers={"Location": f"{elsewhere.url}/youtube/v3/videos"}))
        verdict = await views.run()
        assert (verdict.exit, views.fake.requests, elsewhere.connections) == (Exit.REFUSED, 1, 0)
    await views.check()


async def test_one_id_that_youtube_refuses_is_found_by_halving(views: ViewsBench) -> None:
    """400 for a whole page because of one of them: the other forty-nine are tracked, and that one is named."""
    await views.fill(50)
    views.fake.script(rule("bad_id", on={"item": "v0000000013"}))
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, verdict.books.failed.total()) == (Exit.SOME_NAMED, 49, 1)
    assert [each.key for each in verdict.named] == ["v0000000013"]
    await views.check()


@pytest.mark.parametrize("kind", ["quota", "key_invalid", "rate", "bad_id", "close", "raw"])
async def test_the_key_is_in_nothing_we_say_or_keep(
    views: ViewsBench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Whatever the service does, at DEBUG level of every logger: not in words, logs, files or the ledger."""
    await views.fill(120)
    echo = {"body": {"error": {"message": f"API key {YOUTUBE_KEY} is bad", "code": 500}}, "status": 500}
    views.fake.script(rule(kind, on={"nth": 2}, **(echo if kind == "raw" else {})))
    with caplog.at_level(logging.DEBUG):
        verdict = await views.run(clock=FastClock())
    files = "".join(each.read_text("latin-1") for each in views.state_dir.rglob("*") if each.is_file())
    ledger = ""
    for table in ("runs", "verdicts", "writes", "quota", "quota_lumps", "schedule"):
        ledger += str(await views.database.run(f"select * from catchup.{table}"))
    said = f"{verdict} {verdict.as_json()} {views.memory} {caplog.text} {''.join(capfd.readouterr())}"
    assert YOUTUBE_KEY not in said + files + ledger
    assert "s3ntinel" not in said + files + ledger


async def test_one_empty_answer_makes_nobody_absent(views: ViewsBench) -> None:
    """The service knew nothing once and everything a moment later: all are tracked, the last three of the page too."""
    await views.fill(100)
    await views.run()
    await views.pass_days(40)
    views.fake.script(rule("empty", on={"nth": [views.fake.requests + 1, views.fake.requests + 2]}))
    verdict = await views.run(clock=FastClock(), concurrency=1)
    assert (verdict.exit, verdict.books.wrote, verdict.books.skipped.total()) == (Exit.DONE, 100, 0)
    assert await views.database.run("select video_id from catchup.schedule where absent_on is not null") == []
    await views.check()
