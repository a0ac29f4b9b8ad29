"""refresh-views: which videos are due, what an answer makes of each, and when it is due again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.engine.job import Ask, Bad, Good, Means, Skip
from jobs.engine.verdict import Exit
from jobs.refresh_views import JOB
from queries.table import Row, Slice
from queries.views_ledger import Pick
from queries.youtube import VideoCounts, ViewsAnswer, ViewsRequest
from tests.servers.bench import sums
from tests.servers.fake_script import rule
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.postgres import Database
from tests.servers.views_bench import ViewsBench
from tests.servers.views_shell import agree

ONE = "v0000000001"
LATE = "2026-03-03T10:00:00+00:00"


def row(key: str, **values: Any) -> Row:
    return Row((key, "2026-01-01 00:00:00+00"), "", {"today": "2026-03-02", "absent_on": None, **values}, {})


@pytest.mark.parametrize(
    ("values", "answer", "expected"),
    [
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, 7, 0, 2)}), "[7,0,2,null]"),
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, 0, None, None)}), "[0,null,null,null]"),
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, 2**62, 2**33, 1)}), f"[{2**62},{2**33},1,null]"),
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, 7, 0, 2)}, at=LATE), f'[7,0,2,"{LATE}"]'),
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, 7, 0, 2)}, at="2026-03-01T23:59:59+00:00"), "[7,0,2,null]"),
        ({}, ViewsAnswer({ONE: VideoCounts(ONE, None, 3, 2)}), "failed: no view count"),
        ({}, ViewsAnswer({}, {ONE: "no number"}), "failed: no number"),
        ({}, ViewsAnswer({}), "skipped: absent"),
        ({"absent_on": "2026-03-02"}, ViewsAnswer({}), "skipped: absent"),
        ({"absent_on": "2026-03-01"}, ViewsAnswer({}), "failed: unavailable"),
    ],
    ids=[
        "there",
        "hidden",
        "beyond 2^53",
        "told when",
        "told when nobody asked",
        "no views",
        "odd",
        "absent",
        "the same day",
        "a second day",
    ],
)
def test_a_video_is_what_was_told_of_it_and_absent_is_not_zero(
    values: dict[str, Any], answer: ViewsAnswer, expected: str
) -> None:
    """Nothing makes a number of what is not there; only a second absence, on another day, is a verdict."""
    means: Means = None  # type: ignore[assignment]  # this job asks for none
    (verdict,) = JOB.judge(Ask((row(ONE, **values),), ViewsRequest((ONE,)), 0, ""), answer, means)
    match verdict:
        case Good():
            assert verdict.text == expected
        case Bad():
            assert f"failed: {verdict.reason}" == expected
        case Skip():
            assert f"skipped: {verdict.reason}" == expected


@pytest.mark.parametrize("key", ["", "a,b", "dQw4w9WgXcQ dQ", "ä", "../videos"])
def test_what_is_no_id_of_a_video_is_not_asked(key: str) -> None:
    """A comma would make two ids of it; the forty-nine others of its request are asked."""
    asked = JOB.prepare(row(key), None)  # type: ignore[arg-type]  # this job asks for none
    assert isinstance(asked, Skip)
    assert asked.reason == "no YouTube id"


async def test_every_video_is_asked_once_in_as_few_calls_as_can_be(views: ViewsBench) -> None:
    """501 videos are eleven calls; straight after, none is due: F49's other half."""
    await views.fill(501)
    verdict = await views.run()
    assert (verdict.exit, sums(verdict), verdict.calls) == (Exit.DONE, (501, 0, 0, 0, 0, 0), 11), verdict
    assert views.fake.units == verdict.facts["units"] == 11
    assert verdict.facts["units_left"] == 10_000 - 11
    assert set(await views.snapshots()) == set(await views.own_counts())
    assert set(views.fake.asked.values()) == {1}
    await agree(views)


async def test_the_most_overdue_come_first_so_a_run_that_ends_early_did_the_right_ones(views: ViewsBench) -> None:
    """Never tracked: the oldest first. Then by the time since when each is due."""
    await views.fill(200)
    assert (await views.run(limit=50)).books.wrote == 50
    assert set(await views.snapshots()) == {f"v{n:010}" for n in range(151, 201)}
    await views.database.run(
        "update catchup.schedule set next_due = now() - interval '3 days' where video_id = %s", [ONE]
    )
    await views.database.run(
        "update catchup.schedule set next_due = now() where asked_at is null and video_id <> %s", [ONE]
    )
    await views.run(limit=1)
    assert ONE in await views.snapshots()
    await agree(views)


@pytest.mark.parametrize(
    ("age_days", "views_before", "tier"),
    [(1, 0, 0), (10, 0, 1), (10, 2_000_000, 0), (40, 0, 2), (200, 0, 3), (800, 0, 4), (800, 1_600_000, 2)],
)
async def test_tiers_follow_age_and_velocity(views: ViewsBench, age_days: int, views_before: int, tier: int) -> None:
    """Young or fast ones every twelve hours, old and slow ones every four weeks: before the first look and after it."""
    await views.fill(1, age_days=age_days)
    views.fake.counts[ONE] = {"viewCount": str(views_before)}
    await views.database.run("update videos set view_count = %s", [views_before])
    plan = (await views.run(dry_run=True)) and views.memory.plans[-1]
    assert plan.facts["due_by_tier"] == {str(tier): 1}
    assert (await views.run()).books.wrote == 1
    every = ["12 hours", "1 day", "3 days", "7 days", "28 days"][tier]
    ((found, right),) = await views.database.run(
        f"select tier, next_due - asked_at between interval '{every}' - interval '1 s' and interval '{every}' "
        "from catchup.schedule"
    )
    assert (found, right) == (tier, True)


async def test_the_rate_is_against_the_snapshot_before_and_a_day_has_one_snapshot(views: ViewsBench) -> None:
    """(now - then) / days, null without a then; again on the same day updates the day's own."""
    await views.fill(1)
    views.fake.counts[ONE] = {"viewCount": "1000"}
    await views.run()
    await views.pass_days(4)
    views.fake.counts[ONE] = {"viewCount": "3000"}
    await views.run(pick=Pick("all"))
    views.fake.counts[ONE] = {"viewCount": "5000"}
    await views.run(pick=Pick("all"))
    rows = await views.database.run(
        "select view_count, daily_views_rate::float8, days_since_published from view_snapshots order by snapshot_date"
    )
    assert rows == [(1000, None, 400), (5000, 1000.0, 400)]
    await agree(views)


async def test_f44_absent_videos_are_named_on_the_second_day_and_then_not_due(views: ViewsBench) -> None:
    """Y3: dropped from a shuffled page. First day: skipped. Another day: named, exit 3, once."""
    await views.fill(50)
    gone = {f"v{n:010}" for n in range(1, 8)}
    views.fake.gone = gone
    views.fake.script(rule("shuffle"))
    first = await views.run()
    assert (first.exit, first.books.wrote, dict(first.books.skipped)) == (Exit.DONE, 43, {"absent": 7})
    again = await views.run()
    assert (again.exit, again.calls) == (Exit.DONE, 0), "looked for tomorrow, not at once"
    await views.database.run("update catchup.schedule set next_due = now() where absent_on is not null")
    same_day = await views.run()
    assert (same_day.exit, dict(same_day.books.skipped)) == (Exit.DONE, {"absent": 7})
    await views.pass_days(1)
    second = await views.run()
    assert (second.exit, dict(second.books.failed)) == (Exit.SOME_NAMED, {"unavailable": 7})
    assert {named.key for named in second.named} == gone
    assert second.facts["unavailable"] == 7
    await views.pass_days(60)
    assert (await views.run()).books.wrote == 43
    ((head,),) = await views.database.run("select count(*) from catchup.schedule where next_due < now()")
    assert head == 0, "nor looked at before all others in every run from now on"
    back = gone.pop()
    views.fake.gone = gone
    retried = await views.run(retry_failed=True)
    assert (retried.books.wrote, dict(retried.books.failed)) == (1, {"unavailable": 6})
    ((marked,),) = await views.database.run("select count(*) from catchup.schedule where absent_on is not null")
    assert marked == 6
    assert not {key for key, counts in (await views.own_counts()).items() if counts[0] == 0}
    assert (await views.own_counts())[back][0]
    await agree(views)


async def test_f44_hidden_counts_stay_null_and_a_video_without_statistics_is_named(views: ViewsBench) -> None:
    """Y4: a hidden count is null in the snapshot and leaves the video's own alone; one odd item stops nobody else."""
    await views.fill(60)
    await views.database.run("update videos set like_count = 77, comment_count = 88")
    views.fake.counts = {
        "v0000000001": {"likeCount": None},
        "v0000000002": {"likeCount": None, "commentCount": None},
        "v0000000003": {"viewCount": None},
        "v0000000004": None,
    }
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, verdict.books.failed.total()) == (Exit.SOME_NAMED, 58, 2), verdict
    assert {named.key for named in verdict.named} == {"v0000000003", "v0000000004"}
    assert verdict.facts["hidden"] == 2
    own, stored = await views.own_counts(), await views.snapshots()
    assert stored["v0000000002"][1:] == (None, None)
    assert own["v0000000002"][1:] == (77, 88)
    assert own["v0000000003"] == (None, 77, 88)
    assert not {"v0000000003", "v0000000004"} & set(stored)
    assert (await views.run()).calls == 0, "moved on like any other"
    await agree(views)


async def test_f44_three_empty_answers_stop_the_run_and_no_video_is_marked(views: ViewsBench) -> None:
    """Y8: a key of the wrong project knows no video. Exit 5 after three calls, nothing marked; later all is done."""
    await views.fill(400)
    views.fake.script(rule("empty"))
    verdict = await views.run()
    assert (verdict.exit, verdict.calls, verdict.books.skipped.total()) == (Exit.BREAKER, 3, 0), verdict.headline
    assert await views.database.run("select 1 from catchup.schedule where absent_on is not null") == []
    views.fake.script()
    assert (await views.run()).books.wrote == 400
    await views.pass_days(40)
    views.fake.script(rule("empty"))
    later = await views.run()
    assert later.exit is Exit.BREAKER
    assert await views.database.run("select 1 from catchup.schedule where absent_on is not null") == []
    await agree(views)


async def test_a_deleted_channel_is_believed_because_others_are_still_there(views: ViewsBench) -> None:
    """A hundred and fifty neighbours are gone: whole pages are empty, and compared with videos that were there."""
    await views.fill(400)
    await views.run()
    await views.pass_days(40)
    views.fake.gone = {f"v{n:010}" for n in range(101, 301)}
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.skipped)) == (Exit.DONE, 200, {"absent": 200})
    assert verdict.calls <= 8 + 5
    await agree(views)


async def test_counts_that_fall_or_jump_are_stored_exactly_and_flagged(views: ViewsBench) -> None:
    """Y6: no count is clamped, whatever it does; the verdict and the ledger say which."""
    await views.fill(5)
    before = ["1000", "1000", "1000", str(2**31 + 5), "7"]
    after = ["900", "1000000", "1001", str(2**53 + 1), "6999"]
    for n, count in enumerate(before, start=1):
        views.fake.counts[f"v{n:010}"] = {"viewCount": count}
    await views.run()
    await views.pass_days(1)
    for n, count in enumerate(after, start=1):
        views.fake.counts[f"v{n:010}"] = {"viewCount": count}
    verdict = await views.run(pick=Pick("all"))
    assert verdict.exit is Exit.DONE
    assert (verdict.facts["fell"], verdict.facts["jumped"]) == (1, 2)
    flags = await views.database.run(
        "select video_id, kind, was::text, became::text from catchup.view_flags order by 1"
    )
    assert flags == [
        ("v0000000001", "fell", "1000", "900"),
        ("v0000000002", "jumped", "1000", "1000000"),
        ("v0000000004", "jumped", str(2**31 + 5), str(2**53 + 1)),
    ]
    assert [str((await views.snapshots())[f"v{n:010}"][0]) for n in range(1, 6)] == after
    await agree(views)


async def test_a_count_too_large_for_the_users_column_is_named_and_stops_nobody_else(views: ViewsBench) -> None:
    """An integer column holds 2^31 - 1: said in the plan, refused by name, and the others are written."""
    await views.database.run("alter table videos alter column view_count type integer")
    await views.fill(60)
    for n in range(1, 61):
        views.fake.counts[f"v{n:010}"] = {"viewCount": str(2**31 if n == 30 else n)}
    verdict = await views.run()
    assert (verdict.exit, verdict.books.wrote, verdict.books.failed.total()) == (Exit.SOME_NAMED, 59, 1), verdict
    assert [named.key for named in verdict.named] == ["v0000000030"]
    assert any("videos.view_count" in note for note in views.memory.plans[-1].notes)
    assert (await views.run()).calls == 0


@pytest.mark.parametrize(
    ("pick", "options", "expected"),
    [
        (Pick("stale", stale_s=3_600.0), {}, 0),
        (Pick("stale", stale_s=0.000_001), {}, 60),
        (Pick("all"), {}, 60),
        (Pick("all", tiers=(3,)), {}, 0),
        (Pick("all", tiers=(4,)), {}, 60),
        (Pick("all"), {"where": (("channel_id", "c1"),)}, 9),
        (Pick("all", slice=Slice(("v0000000010",), ("v0000000020",))), {}, 10),
    ],
    ids=["stale for an hour", "stale at once", "all", "another tier", "their tier", "a channel", "a slice"],
)
async def test_other_choices_than_what_is_due(
    views: ViewsBench, pick: Pick, options: dict[str, Any], expected: int
) -> None:
    """--stale, --all, --tier, --channel, --slice: each asks every video that it means, once."""
    await views.fill(60)
    views.fake.counts = {f"v{n:010}": {"viewCount": "400"} for n in range(1, 61)}
    await views.run()
    verdict = await views.run(pick=pick, slice=pick.slice, **options)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, expected), verdict.headline
    assert (await views.run()).calls == 0
    await agree(views)


async def test_priorities_of_the_application_say_when_and_are_moved_on(ranked: ViewsBench) -> None:
    """view_tracking_priority: what it says is due, in its tiers; new videos get a row; a second run asks nothing."""
    await ranked.fill(120)
    await ranked.database.run(
        "insert into view_tracking_priority select id, 0, now() - interval '1 day', now() + interval '1 hour', 0.5 "
        "from videos where id > 'v0000000100'"
    )
    verdict = await ranked.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 100), verdict
    ((n, rest),) = await ranked.database.run(
        "select count(*), count(*) filter (where next_track_date < now() + interval '6 days') "
        "from view_tracking_priority"
    )
    assert (n, rest) == (120, 20)
    assert (await ranked.run()).calls == 0
    await ranked.database.run("update view_tracking_priority set next_track_date = now() where priority_tier = 0")
    assert (await ranked.run()).books.wrote == 20
    assert (await ranked.run()).calls == 0
    await agree(ranked)


async def test_priorities_by_dates_alone_are_not_due_twice_a_day(ranked: ViewsBench) -> None:
    """A column of type date cannot say twelve hours: moved on to tomorrow at the earliest."""
    await ranked.database.run(
        "alter table view_tracking_priority alter column next_track_date type date, alter column last_tracked type date"
    )
    await ranked.fill(30, age_days=0)
    assert (await ranked.run()).books.wrote == 30
    assert (await ranked.run()).calls == 0
    assert (await ranked.run(pick=Pick("all"))).books.wrote == 30
    await agree(ranked)


async def test_a_dry_run_before_migrate_says_units_too(
    database: Database, fake_youtube: FakeYouTube, tmp_path: Path
) -> None:
    """Without our functions: the rows, what they cost at least, and no call."""
    views = ViewsBench(database, fake_youtube, tmp_path / "state")
    await database.load("videos.sql")
    await views.fill(101)
    verdict = await views.run(dry_run=True)
    plan = views.memory.plans[-1]
    assert (verdict.exit, plan.facts, fake_youtube.requests) == (Exit.DONE, {"units_needed": 3}, 0)
    assert "at least 3" in dict(plan.own)["units"]
