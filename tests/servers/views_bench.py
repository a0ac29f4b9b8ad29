"""A whole run of refresh-views in one process: a real database, Google's own client, and a YouTube that books units."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.clock import Clock
from jobs.engine.options import Options
from jobs.engine.run import Run
from jobs.engine.verdict import Verdict
from jobs.engine.work import Work
from jobs.metered_views import MeteredViews
from jobs.refresh_views import JOB, VIDEO_VIEWS
from jobs.targets import Target
from jobs.views_account import ViewsAccount
from queries.dsn import DsnRoad
from queries.migrations import Registration
from queries.prices import Price
from queries.quota import Quota
from queries.road import Road
from queries.tokens import TokenCounter
from queries.views_ledger import Pick, ViewsLedger
from queries.youtube_client import YouTube
from tests.servers.bench import Memory
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.postgres import Database

YOUTUBE_KEY = "AIzaSy-s3ntinel_0123456789abcdefghijklm"
SNAPSHOTS = (
    "create table if not exists public.view_snapshots (video_id text not null, snapshot_date date not null, "
    "view_count bigint, like_count bigint, comment_count bigint, days_since_published integer, "
    "daily_views_rate numeric, unique (video_id, snapshot_date)); grant all on public.view_snapshots to service_role"
)
PRIORITIES = (
    "create table public.view_tracking_priority (video_id text primary key, priority_tier integer not null, "
    "last_tracked timestamptz, next_track_date timestamptz, tracking_frequency_days numeric); "
    "grant all on public.view_tracking_priority to service_role"
)
VIDEOS = (
    "insert into videos (id, title, channel_id, published_at) "
    "select 'v' || lpad(n::text, 10, '0'), 'Talk ' || n, 'c' || n %% 7, "
    "now() - make_interval(days => %s) - n * interval '1 minute' from generate_series(1, %s) n"
)
Counts = tuple[int | None, int | None, int | None]


@dataclass
class ViewsBench:
    """`run` is what `catchup refresh-views` does, without the command line; `check` is what must hold after any."""

    database: Database
    fake: FakeYouTube
    state_dir: Path
    target: Target = VIDEO_VIEWS
    memory: Memory = field(default_factory=Memory)
    running: Run | None = None

    async def fill(self, videos: int, *, age_days: int = 400) -> None:
        """Videos v0000000001, v0000000002, ... without any counts, each a minute older: all of them are due."""
        await self.database.run(VIDEOS, [age_days, videos])

    async def migrate(self) -> None:
        await self.database.migrate([Registration(self.target.name, self.target.spec, self.target.views)])

    async def run(
        self,
        *,
        road: Road | None = None,
        quota: int = 10_000,
        reserve: int = 0,
        pick: Pick | None = None,
        clock: Clock | None = None,
        timeout_s: float = 10.0,
        state_dir: Path | None = None,
        **options: Any,
    ) -> Verdict:
        road, clock = road or DsnRoad(self.database.dsn), clock or Clock()
        wanted = replace(Options(db_load=1.0, max_outage_s=5.0, yes=True), **options)
        assert self.target.views is not None
        ledger = ViewsLedger(road, self.target.views, pick or Pick(slice=wanted.slice))
        youtube = YouTube(YOUTUBE_KEY, self.fake.url, timeout_s=timeout_s)
        service = MeteredViews(
            youtube,
            Quota(road, limit=quota, reserve=reserve),
            quota,
            lambda: ledger.alive(self.target.name),
            clock,
        )
        self.running = Run(
            Work(
                JOB,
                self.target,
                ledger,
                service,
                TokenCounter(self.target.model, self.state_dir, lambda text: 0),
                Price(self.target.model, 0.0, 0.0, 0, 0, ""),
                self.target.model,
                state_dir or self.state_dir,
                wanted,
                self.memory,
                "catchup refresh-views",
                clock,
                account=ViewsAccount(service, ledger, self.target, wanted.where, wanted.limit, quota, reserve),
            )
        )
        try:
            return await self.running.go()
        finally:
            await service.close()
            await road.close()

    async def own_counts(self) -> dict[str, Counts]:
        """What the videos themselves say."""
        return await self._counts("select id, view_count, like_count, comment_count from videos order by id")

    async def snapshots(self) -> dict[str, Counts]:
        """The latest of each video."""
        return await self._counts(
            "select distinct on (video_id) video_id, view_count, like_count, comment_count from view_snapshots "
            "order by video_id, snapshot_date desc"
        )

    async def _counts(self, query: str) -> dict[str, Counts]:
        return {str(id_): (views, likes, comments) for id_, views, likes, comments in await self.database.run(query)}

    async def pass_days(self, days: int) -> None:
        """All that happened is so much longer ago, and the service's day has turned."""
        await self.database.run(
            f"update catchup.schedule set next_due = next_due - interval '{days} days', asked_at = asked_at - "
            f"interval '{days} days', absent_on = absent_on - {days}, unavailable_at = unavailable_at - "
            f"interval '{days} days'; update view_snapshots set snapshot_date = snapshot_date - {days}; "
            f"update catchup.quota set day = day - {days}; update catchup.quota_lumps set day = day - {days}"
        )
        self.fake.turn_day()

    async def check(self) -> None:
        """Every request is on the books, and every one had its unit."""
        ((calls,),) = await self.database.run("select coalesce(sum(calls), 0) from catchup.runs")
        ((booked,),) = await self.database.run("select coalesce(sum(booked), 0) from catchup.quota")
        assert calls == self.fake.requests
        assert booked >= self.fake.units


@pytest.fixture
async def views(database: Database, fake_youtube: FakeYouTube, tmp_path: Path) -> ViewsBench:
    """The default schema with its table of snapshots, migrated, with no rows yet."""
    made = ViewsBench(database, fake_youtube, tmp_path / "state")
    await database.load("videos.sql")
    await database.run(SNAPSHOTS)
    await made.migrate()
    return made


@pytest.fixture
async def ranked(views: ViewsBench) -> ViewsBench:
    """The same where the application keeps a table of priorities."""
    await views.database.run(PRIORITIES)
    await views.migrate()
    return views
