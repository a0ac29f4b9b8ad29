"""refresh-views over the table of DOMAIN.md (1), against what the stub can answer to the bare client library.

Both in one invocation, each with a stub of its own, a process with the latency of a far service: 178,376 videos are
3,568 calls. The whole command is measured, from its start to its verdict, with every snapshot written.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.world import CATCHUP, World
from tests.servers.fake_youtube_process import run_fake_youtube

VIDEOS = 178_376
LATENCY_S = 0.1
THREADS = 8
BARE = Path(__file__).parent / "bare_youtube.py"
TABLES = (
    "drop table if exists videos, view_snapshots, view_tracking_priority; drop schema if exists catchup cascade",
    "create table view_snapshots (video_id text not null, snapshot_date date not null, view_count bigint, "
    "like_count bigint, comment_count bigint, days_since_published integer, daily_views_rate numeric, "
    "unique (video_id, snapshot_date))",
)
ROWS = (
    "insert into videos (id, title, channel_id, channel_name, published_at, llm_summary) "
    "select 'v' || lpad(n::text, 10, '0'), 'How crane ' || n || ' of the old harbour was moved', 'c' || n %% 97, "
    "'Harbour talks', timestamptz '2015-01-01 00:00+00' + n * interval '30 minutes', "
    "repeat('The crane of the old harbour was restored. ', 5) from generate_series(1, %s) n"
)


def measure(world: World, videos: int, latency_s: float = LATENCY_S) -> dict[str, Any]:
    asyncio.run(_fill(world, videos))
    with run_fake_youtube(latency=latency_s) as stub:
        command = [sys.executable, str(BARE), stub.url, str(videos)]
        bare = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    words = ["refresh-views", "--all", "--yes", "--json", "--concurrency", str(THREADS), "--db-load", "100%"]
    with run_fake_youtube(latency=latency_s) as stub:
        started = time.time()
        done = world.run([*CATCHUP, *words], {"YOUTUBE_API_KEY": "AIza-bench", "YOUTUBE_API_ENDPOINT": stub.url})
        stats = stub.stats()
    calls = -(-videos // 50)
    return {
        "videos": videos,
        "exit": done.code,
        "latency_s": latency_s,
        "bare_s": round(bare["seconds"], 2),
        "ours_s": round(done.seconds, 2),
        "of_what_the_stub_answers": round(bare["seconds"] / done.seconds, 3),
        "of_it_while_asking": round(bare["seconds"] / (stats["last_at"] - stats["first_at"]), 3),
        "bare_calls_per_s": round(calls / bare["seconds"]),
        "ours_calls_per_s": round(stats["requests"] / done.seconds),
        "before_the_first_call_s": round(stats["first_at"] - started, 2),
        "after_the_last_call_s": round(started + done.seconds - stats["last_at"], 2),
        "calls": stats["requests"],
        "calls_wanted": calls,
        "units": stats["units"],
        "asked_twice": stats["asked_twice"],
        "open_at_most": stats["max_open"],
        "snapshots": asyncio.run(_count(world, "view_snapshots where view_count is not null")),
        "cpu_s": round(done.cpu_s, 1),
        "bare_cpu_s": round(bare["cpu_s"], 1),
        "peak_mb": round(done.peak_mb),
    }


async def _fill(world: World, videos: int) -> None:
    """Never tracked before: every video is due."""
    from jobs.refresh_views import VIDEO_VIEWS  # noqa: PLC0415
    from queries.migrations import Registration  # noqa: PLC0415

    for each in TABLES:
        await world.database.run(each)
    await world.database.load("videos.sql")
    await world.database.migrate([Registration(VIDEO_VIEWS.name, VIDEO_VIEWS.spec, VIDEO_VIEWS.views)])
    await world.database.run(ROWS, [videos])
    await world.database.run("vacuum analyze videos")  # a table that was there before, as elsewhere
    await world.database.run("checkpoint")


async def _count(world: World, what: str) -> int:
    (row,) = await world.database.run(f"select count(*) from {what}")  # noqa: S608
    return int(row[0])
