"""The units of a day are one pot for all runs: booked before the call, never passed, turned at midnight Pacific."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import pytest

from queries.dsn import DsnRoad
from queries.quota import Quota
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database
from tests.servers.roads import World

TABLE = (
    "create table public.youtube_quota_usage (date date primary key, quota_used integer, quota_limit integer);"
    "grant all on public.youtube_quota_usage to service_role"
)


@pytest.fixture
async def place(database: Database, start_postgrest: StartPostgrest) -> AsyncIterator[World]:
    """The direct road alone, where what is tested is in the SQL."""
    made = World("dsn", database, start_postgrest)
    yield made
    await made.close()


async def set_clock(database: Database, at: str) -> None:
    """The database's clock, where the quota reads it."""
    await database.run(
        "create or replace function catchup.quota_clock() returns timestamptz language sql volatile "
        f"set search_path = '' as $$ select '{at}'::timestamptz $$"
    )


async def begun(world: World, at: str = "2026-11-21T12:00:00Z", before: str = "") -> World:
    if before:
        await world.database.run(before)
    await world.database.migrate([])
    await set_clock(world.database, at)
    return world


async def quota_of(world: World, limit: int = 10_000, reserve: int = 0) -> Quota:
    return Quota(await world.road(), limit=limit, reserve=reserve, run_id="run-1")


async def test_what_is_taken_is_booked_and_a_lump_is_a_hundredth_of_the_limit(world: World) -> None:
    """Two processes draw from one pot, each at most one per cent at a time."""
    await begun(world)
    one, two = await quota_of(world), await quota_of(world)
    first, second = await one.take(5_000), await two.take(7)
    assert (first.granted, first.left, first.booked) == (100, 9_900, 100)
    assert (second.granted, second.left, second.day) == (7, 9_893, date(2026, 11, 21))
    told = await one.used()
    assert told is not None
    assert (told.left, told.granted, told.is_closed) == (9_893, 0, False)


async def test_a_tiny_limit_is_granted_by_the_unit_and_never_passed(place: World) -> None:
    """A limit of three is three calls; the fourth is refused, with the time of the reset."""
    await begun(place)
    quota = await quota_of(place, limit=5, reserve=2)
    assert [(await quota.take(9)).granted for _ in range(5)] == [1, 1, 1, 0, 0]
    refused = await quota.take(1)
    assert (refused.left, refused.is_closed) == (0, False)
    assert refused.resets_at == datetime(2026, 11, 22, 8, tzinfo=UTC)


async def test_many_takers_at_once_never_pass_the_limit(database: Database) -> None:
    """The sum of all grants is the limit exactly, whoever asks in whatever order."""
    await database.migrate([])
    roads = [DsnRoad(database.dsn, connections=4) for _ in range(2)]
    hands = [Quota(road, limit=1_000, reserve=63) for road in roads for _ in range(4)]
    grants = await asyncio.gather(*(hand.take(9) for hand in hands for _ in range(20)))
    assert sum(each.granted for each in grants) == 937
    assert min(each.left for each in grants) == 0
    for road in roads:
        await road.close()


async def test_what_was_not_spent_comes_back_once(world: World) -> None:
    """Giving back may be repeated, and never frees what another process holds."""
    await begun(world)
    one, two = await quota_of(world), await quota_of(world)
    day = (await one.take(100)).day
    await one.take(100)
    await two.take(100)
    assert [await one.give_back(day, 130), await one.give_back(day, 130)] == [70, 0]
    told = await two.used()
    assert told is not None
    assert told.booked == 230
    assert await one.give_back(day, 500) == 0


async def test_a_process_that_died_gives_nothing_back(place: World) -> None:
    """Its lump stays booked: the next process of the same run has a hand of its own."""
    await begun(place)
    dead = await quota_of(place)
    day = (await dead.take(100)).day
    heir = await quota_of(place)
    await heir.take(10)
    assert await heir.give_back(day, 0) == 10
    told = await heir.used()
    assert told is not None
    assert told.booked == 100


async def test_after_the_services_own_refusal_nothing_is_granted_before_the_reset(world: World) -> None:
    """quotaExceeded closes the day for everyone, however much was left by our own count."""
    await begun(world)
    one, two = await quota_of(world), await quota_of(world)
    taken = await one.take(5)
    closed = await one.close_day(taken.day)
    assert (closed.is_closed, closed.left, closed.resets_in_s) == (True, 0, 20 * 3600)
    refused = await two.take(5)
    assert (refused.granted, refused.is_closed) == (0, True)
    await set_clock(world.database, "2026-11-22T07:59:59Z")
    assert (await two.take(5)).granted == 0
    await set_clock(world.database, "2026-11-22T08:00:00Z")
    again = await two.take(5)
    assert (again.granted, again.left, again.is_closed) == (5, 9_995, False)


async def test_a_refusal_at_midnight_may_still_mean_yesterday(place: World) -> None:
    """The service's day need not turn in the same second as ours: a new day is not lost to that."""
    await begun(place, "2026-11-22T08:00:02Z")
    quota = await quota_of(place)
    taken = await quota.take(5)
    assert (await quota.close_day(taken.day)).resets_at == datetime(2026, 11, 22, 8, 15, tzinfo=UTC)
    await set_clock(place.database, "2026-11-22T08:15:01Z")
    taken = await quota.take(5)
    assert taken.granted == 5
    assert (await quota.close_day(taken.day)).resets_at == datetime(2026, 11, 23, 8, tzinfo=UTC)


async def test_a_refusal_of_yesterdays_call_does_not_close_today(place: World) -> None:
    """The day that is closed is the one the call was booked in."""
    await begun(place, "2026-11-22T07:59:59Z")
    quota = await quota_of(place)
    taken = await quota.take(5)
    await set_clock(place.database, "2026-11-22T08:00:01Z")
    now = await quota.close_day(taken.day)
    assert (now.day, now.is_closed) == (date(2026, 11, 22), False)
    assert (await quota.take(5)).granted == 5


@pytest.mark.parametrize(
    ("at", "day", "resets_at", "hours"),
    [
        pytest.param("2026-03-08T07:59:59Z", "2026-03-07", "2026-03-08T08:00:00Z", None, id="last second before"),
        pytest.param("2026-03-08T08:00:00Z", "2026-03-08", "2026-03-09T07:00:00Z", 23, id="spring has 23 hours"),
        pytest.param("2026-03-09T06:59:59Z", "2026-03-08", "2026-03-09T07:00:00Z", None, id="still the short day"),
        pytest.param("2026-03-09T07:00:00Z", "2026-03-09", "2026-03-10T07:00:00Z", 24, id="after spring"),
        pytest.param("2026-11-01T06:59:59Z", "2026-10-31", "2026-11-01T07:00:00Z", None, id="the day before autumn"),
        pytest.param("2026-11-01T07:00:00Z", "2026-11-01", "2026-11-02T08:00:00Z", 25, id="autumn has 25 hours"),
        pytest.param("2026-11-02T07:30:00Z", "2026-11-01", "2026-11-02T08:00:00Z", None, id="the 25th hour"),
        pytest.param("2026-11-02T08:00:00Z", "2026-11-02", "2026-11-03T08:00:00Z", 24, id="after autumn"),
        pytest.param("2026-12-31T23:30:00Z", "2026-12-31", "2027-01-01T08:00:00Z", None, id="the year"),
    ],
)
async def test_the_day_turns_at_midnight_pacific(
    database: Database, at: str, day: str, resets_at: str, hours: int | None
) -> None:
    """Days of 23 and 25 hours are whole days, whatever time zone the session has."""
    await database.migrate([])
    await database.run(f"alter database {database.name} set timezone = 'Asia/Kathmandu'")
    await set_clock(database, at)
    road = DsnRoad(database.dsn)
    taken = await Quota(road, limit=10_000, reserve=0).take(1)
    assert (taken.day.isoformat(), taken.resets_at) == (day, datetime.fromisoformat(resets_at))
    if hours:
        assert taken.resets_in_s == hours * 3600
    await road.close()


async def test_units_of_one_day_are_not_given_back_to_another(place: World) -> None:
    """A lump over midnight: only what that day was granted can come back to that day."""
    await begun(place, "2026-11-22T07:59:00Z")
    quota = await quota_of(place)
    before = (await quota.take(100)).day
    await set_clock(place.database, "2026-11-22T08:01:00Z")
    after = (await quota.take(50)).day
    assert await quota.give_back(after, 50) == 0
    assert await quota.give_back(before, 60) == 40


async def test_a_clock_that_jumps_back_opens_no_quota(place: World) -> None:
    """The day never goes back to one that is over."""
    await begun(place, "2026-11-22T12:00:00Z")
    quota = await quota_of(place, limit=200)
    await quota.take(2)
    await set_clock(place.database, "2026-11-21T12:00:00Z")
    taken = await quota.take(2)
    assert (taken.day, taken.left) == (date(2026, 11, 22), 196)


@pytest.mark.parametrize(("elsewhere", "left"), [(0, 9_000), (400, 9_000), (1_000, 9_000), (2_500, 7_500), (99_999, 0)])
async def test_what_the_application_booked_for_itself_comes_out_of_its_reserve_first(
    place: World, elsewhere: int, left: int
) -> None:
    """youtube_quota_usage is read for the same day, and never written."""
    row = f"values ('2026-11-21'::date, {elsewhere}, 10000), ('2026-11-20', 9999, 10000)"
    await begun(place, before=f"{TABLE}; insert into public.youtube_quota_usage {row}")
    quota = await quota_of(place, reserve=1_000)
    told = await quota.used()
    assert told is not None
    assert (told.left, told.elsewhere) == (left, elsewhere)
    await quota.take(1)
    assert await place.database.run("select sum(quota_used) from youtube_quota_usage") == [(9_999 + elsewhere,)]


@pytest.mark.parametrize(
    "table",
    [
        "create table public.youtube_quota_usage (date text, quota_used text)",
        "create table public.youtube_quota_usage (day date, used integer)",
        "create table public.youtube_quota_usage (date date, quota_used integer)",
    ],
    ids=["other types", "other columns", "no right to read it"],
)
async def test_a_table_of_that_name_that_cannot_be_read_changes_nothing(database: Database, table: str) -> None:
    """Somebody else's table is no reason to stop."""
    await database.run(f"{table}; revoke all on public.youtube_quota_usage from public")
    await database.migrate([], worker=True)
    road = DsnRoad(database.dsn_as("catchup_worker"))
    assert (await Quota(road, limit=100, reserve=0).take(1)).left == 99
    await road.close()


async def test_before_migrate_there_is_nothing_to_tell(world: World) -> None:
    """A plan works without our functions, and says so."""
    assert await (await quota_of(world)).used() is None
